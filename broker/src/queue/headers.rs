//! Matching of message headers by a headers exchange.

use bytes::Bytes;

/// A property that exchanges can hash.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Property {
    CorrelationId,
    MessageId,
    Timestamp,
}

/// What a message carries beside its body, as far as the faces can show it: a value's type and octets, as one comparable
/// string.
pub trait Headers {
    /// The value of a header in its canonical form; `None` when there is no such header.
    fn value(&self, name: &[u8]) -> Option<Bytes>;

    fn property(&self, _which: Property) -> Option<Bytes> {
        None
    }

    /// The publisher does not want the message to be kept for those who come later.
    fn is_not_kept(&self) -> bool {
        false
    }
}

/// A message without headers.
#[derive(Debug, Clone, Copy)]
pub struct NoHeaders;

impl Headers for NoHeaders {
    fn value(&self, _name: &[u8]) -> Option<Bytes> {
        None
    }
}

/// What a binding to a headers exchange asks for (`x-match`).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct HeaderMatch {
    /// One match is enough; else all must.
    pub any: bool,
    /// Name and wanted value in canonical form; `None`: the header only has to be there.
    pub wanted: Vec<(Bytes, Option<Bytes>)>,
}

impl HeaderMatch {
    pub(super) fn accepts(&self, headers: &dyn Headers) -> bool {
        let mut fits = self.wanted.iter().map(|(name, wanted)| {
            headers
                .value(name)
                .is_some_and(|found| wanted.as_ref().is_none_or(|wanted| *wanted == found))
        });
        if self.any {
            fits.any(|fit| fit)
        } else {
            fits.all(|fit| fit)
        }
    }
}
