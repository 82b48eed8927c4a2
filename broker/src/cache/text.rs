//! Short byte strings without an allocation of their own: keys, fields, members, values.

use std::borrow::Borrow;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// Longest string kept in place: what is left of 24 bytes after a tag and a length.
const INLINE: usize = 22;

/// An immutable byte string of 24 bytes; up to 22 of its own bytes need no allocation.
#[derive(Clone)]
pub enum Text {
    Inline(u8, [u8; INLINE]),
    Heap(Box<[u8]>),
}

impl Text {
    pub const EMPTY: Self = Self::Inline(0, [0; INLINE]);

    #[inline]
    #[must_use]
    pub fn new(bytes: &[u8]) -> Self {
        if bytes.len() <= INLINE {
            let mut data = [0; INLINE];
            if let Some(front) = data.get_mut(..bytes.len()) {
                front.copy_from_slice(bytes);
            }
            // At most 22.
            Self::Inline(bytes.len() as u8, data)
        } else {
            Self::Heap(bytes.into())
        }
    }

    /// Becomes `bytes`; a heap string of the same length is overwritten in place.
    #[inline]
    pub fn assign(&mut self, bytes: &[u8]) {
        match self {
            Self::Heap(old) if old.len() == bytes.len() => old.copy_from_slice(bytes),
            _ => *self = Self::new(bytes),
        }
    }

    /// Bytes allocated outside the value itself.
    #[inline]
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline(..) => 0,
            Self::Heap(bytes) => bytes.len(),
        }
    }
}

impl Deref for Text {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        match self {
            Self::Inline(length, data) => data.get(..usize::from(*length)).unwrap_or_default(),
            Self::Heap(bytes) => bytes,
        }
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Self {
        if bytes.len() <= INLINE {
            Self::new(&bytes)
        } else {
            Self::Heap(bytes.into_boxed_slice())
        }
    }
}

impl Borrow<[u8]> for Text {
    #[inline]
    fn borrow(&self) -> &[u8] {
        self
    }
}

impl AsRef<[u8]> for Text {
    #[inline]
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Hash for Text {
    #[inline]
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_three_words_and_holds_any_length() {
        assert_eq!(size_of::<Text>(), 24);
        for length in [0, 1, 22, 23, 1000] {
            let bytes = vec![7u8; length];
            assert_eq!(&*Text::new(&bytes), bytes.as_slice());
            assert_eq!(Text::from(bytes.clone()), Text::new(&bytes));
        }
    }
}
