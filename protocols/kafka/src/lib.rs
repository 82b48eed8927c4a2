//! Kafka's wire protocol: bytes to requests and back. Knows nothing of topics, logs or groups as FlowMesh keeps them.
//!
//! Produce and Fetch, where all the bytes are, have hand-written decoders that only note *where* things lie in the frame
//! ([`produce`], [`fetch`]) and encoders that write the fields between the stored batches. All other requests go through the
//! `kafka-protocol` crate, but only after [`shape`] has walked them: that crate allocates array counts straight from the wire.
//! Record batches are opaque here: they are the stored form of a stream, so the broker knows their header.

pub mod fetch;
pub mod frame;
pub mod header;
pub mod produce;
pub mod shape;
pub mod topics;
pub mod wire;

pub use header::{Api, RequestHeader};

/// Bytes of a peer that are not what the protocol says. The connection cannot go on: the next frame's meaning is unknown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// A field runs past the end of its frame.
    #[error("a field runs past the end of the request")]
    Truncated,
    /// The size in front of a frame is negative or above the limit.
    #[error("request of {size} bytes, the limit is {limit}")]
    FrameSize { size: i32, limit: usize },
    /// A length or count that the field may not have.
    #[error("a length or count is negative or too large")]
    Length,
    /// More elements than any client sends; see [`shape::Limits`].
    #[error("the request holds too many elements")]
    TooMany,
    /// A string that is not UTF-8.
    #[error("a string is not UTF-8")]
    Utf8,
    /// A version of a request that this codec does not know.
    #[error("unknown version {version} of request {key}")]
    Version { key: i16, version: i16 },
}
