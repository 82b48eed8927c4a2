//! Errors in Redis' words.

use broker::cache;

/// Why a command failed; the client gets [`Fail::text`].
#[derive(Debug)]
pub(crate) enum Fail {
    WrongType,
    NotInteger,
    NotFloat,
    Syntax,
    NoKey,
    /// A text that begins with its code.
    Text(&'static str),
    Owned(String),
    /// The tables cannot be read.
    Storage,
}

pub(crate) type Done = Result<(), Fail>;

impl Fail {
    pub(crate) fn text(&self) -> &str {
        match self {
            Self::WrongType => "WRONGTYPE Operation against a key holding the wrong kind of value",
            Self::NotInteger => "ERR value is not an integer or out of range",
            Self::NotFloat => "ERR value is not a valid float",
            Self::Syntax => "ERR syntax error",
            Self::NoKey => "ERR no such key",
            Self::Text(text) => text,
            Self::Owned(text) => text,
            Self::Storage => "ERR internal error: cannot read the key's data",
        }
    }
}

impl From<cache::Error> for Fail {
    fn from(error: cache::Error) -> Self {
        match error {
            cache::Error::WrongType => Self::WrongType,
            cache::Error::TooLarge => {
                Self::Text("ERR the value is too large to be copied, moved or taken apart at once")
            }
            cache::Error::Damaged | cache::Error::Storage(_) => {
                tracing::error!(%error, "cannot read a key");
                Self::Storage
            }
        }
    }
}

/// There is no room for what a command wants to add.
pub(crate) const OOM: &str = "OOM command not allowed when used memory > 'maxmemory'.";

/// `ERR wrong number of arguments for '…' command`.
pub(crate) fn wrong_arity(name: &str) -> Fail {
    Fail::Owned(format!(
        "ERR wrong number of arguments for '{name}' command"
    ))
}

/// A peer's bytes inside an error text.
pub(crate) fn lossy(bytes: &[u8], max: usize) -> String {
    String::from_utf8_lossy(bytes.get(..max.min(bytes.len())).unwrap_or_default()).into_owned()
}
