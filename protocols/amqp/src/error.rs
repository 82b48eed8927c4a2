//! What can be wrong with bytes, and RabbitMQ's reply codes.

use thiserror::Error;

/// The stream is broken for good: the session says so in the protocol's words and closes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// A value ended before its declared length, or a frame before its last field.
    #[error("truncated value")]
    Truncated,
    /// The octet after the payload is not 0xCE (AMQP 0-9-1 §4.2.3).
    #[error("bad frame end octet {octet} after a frame of type {kind} with {size} octets")]
    FrameEnd { kind: u8, size: u32, octet: u8 },
    /// The payload is longer than was negotiated.
    #[error("frame of type {kind} with {size} octets exceeds the limit of {limit}")]
    FrameTooLarge { kind: u8, size: u32, limit: u32 },
    /// A frame type that 0-9-1 does not know.
    #[error("unknown frame type {0}")]
    UnknownFrame(u8),
    /// A class and method number that 0-9-1 with RabbitMQ's extensions does not know.
    #[error("unknown method {class}.{method}")]
    UnknownMethod { class: u16, method: u16 },
    /// A field value of an unknown type.
    #[error("unknown field type {0}")]
    UnknownFieldType(u8),
    /// Tables inside tables beyond the limit.
    #[error("field table nested too deeply")]
    TooDeep,
    /// Property flags that 0-9-1 does not know.
    #[error("invalid property flags {0:#06x}")]
    PropertyFlags(u16),
}

macro_rules! reply_codes {
    ($($name:ident = $code:literal $text:literal,)*) => {
        /// Reply codes of AMQP 0-9-1 §1.5.2.5 with the word that begins each reply text.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum ReplyCode { $($name,)* }

        impl ReplyCode {
            /// The number sent on the wire.
            #[must_use]
            pub const fn code(self) -> u16 { match self { $(Self::$name => $code,)* } }
            /// The constant's name as RabbitMQ writes it at the beginning of the text.
            #[must_use]
            pub const fn name(self) -> &'static str { match self { $(Self::$name => $text,)* } }
        }
    };
}

reply_codes! {
    ReplySuccess = 200 "OK",
    ContentTooLarge = 311 "CONTENT_TOO_LARGE",
    NoRoute = 312 "NO_ROUTE",
    NoConsumers = 313 "NO_CONSUMERS",
    ConnectionForced = 320 "CONNECTION_FORCED",
    InvalidPath = 402 "INVALID_PATH",
    AccessRefused = 403 "ACCESS_REFUSED",
    NotFound = 404 "NOT_FOUND",
    ResourceLocked = 405 "RESOURCE_LOCKED",
    PreconditionFailed = 406 "PRECONDITION_FAILED",
    FrameError = 501 "FRAME_ERROR",
    SyntaxError = 502 "SYNTAX_ERROR",
    CommandInvalid = 503 "COMMAND_INVALID",
    ChannelError = 504 "CHANNEL_ERROR",
    UnexpectedFrame = 505 "UNEXPECTED_FRAME",
    ResourceError = 506 "RESOURCE_ERROR",
    NotAllowed = 530 "NOT_ALLOWED",
    NotImplemented = 540 "NOT_IMPLEMENTED",
    InternalError = 541 "INTERNAL_ERROR",
}
