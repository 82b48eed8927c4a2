//! Bytes ↔ RESP2/RESP3, and nothing of ours.
//!
//! [`Decoder`] turns what a client sends (multibulk or inline commands) into argument slices of the read buffer;
//! [`Encoder`] appends replies of either protocol version to a byte vector. Neither does I/O, and a command whose
//! bytes are all there costs no allocation.

mod decode;
mod encode;
pub mod extended;
mod inline;
pub mod number;
mod peek;
pub mod rdb;

pub use decode::{Args, Decoder, Limits, ProtocolError};
pub use encode::{Encoder, Version};
pub use inline::split_words;
pub use peek::first_key;
