//! AMQP 0-9-1 as RabbitMQ speaks it: bytes to frames and methods, and back. No sockets, no clock, no meaning.
//!
//! ```text
//! read   BytesMut ─ Frames::take ─▶ whole frames ─┬─ Method::decode (borrows the frame)
//!                                                 ├─ ContentHeader::decode, Properties::parse (lazy, raw bytes kept)
//!                                                 └─ body (a slice of the read buffer)
//! write  encode::{method, content, heartbeat} append to the caller's buffer
//! ```
//! Nothing is allocated from a length that the peer declared; nesting of field tables has a limit.

mod content;
mod encode;
mod error;
mod frame;
mod method;
mod properties;
mod table;
mod wire;

pub use content::{Assembly, ContentHeader};
pub use encode::{
    BASIC_CLASS, content_body, content_body_head, content_header, deliver, get_ok, heartbeat,
    method,
};
pub use error::{DecodeError, ReplyCode};
pub use frame::{
    FRAME_END, FRAME_MIN_SIZE, FRAME_OVERHEAD, Frame, FrameKind, Frames, PROTOCOL_HEADER,
    ProtocolHeader, protocol_header,
};
pub use method::Method;
pub use properties::Properties;
pub use table::{Array, ArrayBuilder, Table, TableBuilder, Value};
pub use wire::{LongStr, ShortStr};

#[cfg(test)]
mod tests;
