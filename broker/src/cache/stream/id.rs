//! What an entry of a stream is called: when it was added and which of that millisecond it is.

use std::fmt;

/// See the module. Ids of a stream only grow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct EntryId {
    /// Milliseconds since the epoch, or whatever the client chose.
    pub ms: u64,
    pub seq: u64,
}

impl EntryId {
    /// No entry has this id.
    pub const MIN: Self = Self { ms: 0, seq: 0 };
    pub const MAX: Self = Self {
        ms: u64::MAX,
        seq: u64::MAX,
    };

    /// The id behind it.
    #[must_use]
    pub fn after(self) -> Option<Self> {
        match self.seq.checked_add(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self {
                ms: self.ms.checked_add(1)?,
                seq: 0,
            }),
        }
    }

    /// The id in front of it.
    #[must_use]
    pub fn before(self) -> Option<Self> {
        match self.seq.checked_sub(1) {
            Some(seq) => Some(Self { seq, ..self }),
            None => Some(Self {
                ms: self.ms.checked_sub(1)?,
                seq: u64::MAX,
            }),
        }
    }

    /// As it stands in the keys of rows, in order.
    pub(in crate::cache) fn to_bytes(self) -> [u8; 16] {
        (u128::from(self.ms) << 64 | u128::from(self.seq)).to_be_bytes()
    }

    /// The inverse of [`Self::to_bytes`]; `None`: another length.
    pub(in crate::cache) fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (ms, seq) = bytes.split_first_chunk::<8>()?;
        Some(Self {
            ms: u64::from_be_bytes(*ms),
            seq: u64::from_be_bytes(seq.try_into().ok()?),
        })
    }
}

impl fmt::Display for EntryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.ms, self.seq)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_and_bytes() {
        let id = |ms, seq| EntryId { ms, seq };
        assert_eq!(id(1, 2).after(), Some(id(1, 3)));
        assert_eq!(id(1, u64::MAX).after(), Some(id(2, 0)));
        assert_eq!(EntryId::MAX.after(), None);
        assert_eq!(id(1, 0).before(), Some(id(0, u64::MAX)));
        assert_eq!(EntryId::MIN.before(), None);
        assert_eq!(EntryId::from_bytes(&id(5, 7).to_bytes()), Some(id(5, 7)));
        assert!(id(1, 255).to_bytes() < id(1, 256).to_bytes());
        assert_eq!(id(5, 7).to_string(), "5-7");
    }
}
