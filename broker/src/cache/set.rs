//! Sets: integers sorted in one vector while they are few, else members in order of insertion.

use foldhash::fast::RandomState;
use indexmap::IndexSet;

use super::elements::Collection;
use super::hash::{SMALL_ENTRIES, SMALL_LEN};
use super::partial::Partial;
use super::row::Rows;
use super::text::Text;
use super::value::Value;

/// Redis' `set-max-intset-entries`.
const INTS_MAX: usize = 512;

/// Distinct members. Every change is also a row.
#[derive(Debug, Clone)]
pub struct Set {
    pub(super) id: u64,
    members: Members,
    heap: usize,
    big: bool,
    /// Instead of the members: most of them are only in the tables.
    pub(super) partial: Option<Box<Partial>>,
}

#[derive(Debug, Clone)]
enum Members {
    /// Sorted.
    Ints(Vec<i64>),
    Texts(IndexSet<Text, RandomState>),
}

/// One member, borrowed or made from an integer.
#[derive(Debug, Clone, Copy)]
pub enum Member<'a> {
    Int(i64),
    Text(&'a [u8]),
}

impl Member<'_> {
    /// Gives the member's bytes to `use_it`.
    pub fn with<R>(self, use_it: impl FnOnce(&[u8]) -> R) -> R {
        match self {
            Self::Int(value) => use_it(itoa::Buffer::new().format(value).as_bytes()),
            Self::Text(bytes) => use_it(bytes),
        }
    }

    #[must_use]
    pub fn to_vec(self) -> Vec<u8> {
        self.with(<[u8]>::to_vec)
    }
}

impl Set {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            members: Members::Ints(Vec::new()),
            heap: 0,
            big: false,
            partial: None,
        }
    }

    pub(super) fn partly(id: u64, partial: Partial) -> Self {
        Self {
            big: true,
            members: Members::Texts(IndexSet::default()),
            partial: Some(Box::new(partial)),
            ..Self::new(id)
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        match (&self.partial, &self.members) {
            (Some(partial), _) => partial.len(),
            (None, Members::Ints(ints)) => ints.len(),
            (None, Members::Texts(texts)) => texts.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Few enough that SSCAN answers all at once.
    #[must_use]
    pub fn is_small(&self) -> bool {
        matches!(self.members, Members::Ints(_)) || !self.big
    }

    pub(super) fn encoding(&self) -> &'static str {
        match self.members {
            Members::Ints(_) => "intset",
            Members::Texts(_) if self.big => "hashtable",
            Members::Texts(_) => "listpack",
        }
    }

    #[inline]
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        if let Some(partial) = &self.partial {
            return partial.contains(member);
        }
        match &self.members {
            Members::Ints(ints) => {
                integer(member).is_some_and(|value| ints.binary_search(&value).is_ok())
            }
            Members::Texts(texts) => texts.contains(member),
        }
    }

    /// The member of a whole set at a place in `0..len`.
    fn at(&self, index: usize) -> Option<Member<'_>> {
        match &self.members {
            Members::Ints(ints) => ints.get(index).copied().map(Member::Int),
            Members::Texts(texts) => texts.get_index(index).map(|text| Member::Text(text)),
        }
    }

    /// The members of a whole set.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Member<'_>> {
        debug_assert!(self.partial.is_none(), "a partial set is read by Elements");
        (0..self.len()).map(|index| self.at(index).unwrap_or(Member::Text(b"")))
    }

    /// Adds a member; true when it is new.
    pub fn insert(&mut self, member: &[u8], rows: &mut Rows<'_>) -> bool {
        let new = match &mut self.partial {
            None => self.add(member),
            // One that is there is not written again.
            Some(partial) => !partial.contains(member) && partial.insert(member, b"", rows.seq),
        };
        if new {
            rows.put(member, b"");
        }
        new
    }

    pub(super) fn add(&mut self, member: &[u8]) -> bool {
        let mut was_ints = None;
        let texts = match &mut self.members {
            Members::Ints(ints) => {
                if let Some(value) = integer(member)
                    && ints.len() < INTS_MAX
                {
                    return match ints.binary_search(&value) {
                        Ok(_) => false,
                        Err(place) => {
                            ints.insert(place, value);
                            true
                        }
                    };
                }
                was_ints = integer(member).filter(|value| ints.binary_search(value).is_ok());
                let texts: IndexSet<Text, RandomState> = ints
                    .iter()
                    .map(|&value| Text::new(itoa::Buffer::new().format(value).as_bytes()))
                    .collect();
                self.big |= texts.len() > SMALL_ENTRIES;
                self.members = Members::Texts(texts);
                match &mut self.members {
                    Members::Texts(texts) => texts,
                    Members::Ints(_) => return false,
                }
            }
            Members::Texts(texts) => texts,
        };
        if was_ints.is_some() || texts.contains(member) {
            return false;
        }
        let text = Text::new(member);
        self.heap += text.heap_bytes();
        texts.insert(text);
        self.big |= member.len() > SMALL_LEN || texts.len() > SMALL_ENTRIES;
        true
    }

    /// Removes a member; true when it was there.
    pub fn remove(&mut self, member: &[u8], rows: &mut Rows<'_>) -> bool {
        let removed = match (&mut self.partial, &mut self.members) {
            (Some(partial), _) => partial.remove(member, rows.seq),
            (None, Members::Ints(ints)) => {
                match integer(member).map(|value| ints.binary_search(&value)) {
                    Some(Ok(place)) => {
                        ints.remove(place);
                        true
                    }
                    _ => false,
                }
            }
            (None, Members::Texts(texts)) => {
                let text = if self.big {
                    texts.swap_take(member)
                } else {
                    texts.shift_take(member)
                };
                if let Some(text) = &text {
                    self.heap -= text.heap_bytes();
                }
                text.is_some()
            }
        };
        if removed {
            rows.del(member);
        }
        removed
    }

    pub(super) fn memory(&self) -> usize {
        let partial = self.partial.as_ref().map_or(0, |partial| partial.memory());
        partial
            + match &self.members {
                Members::Ints(ints) => 64 + ints.capacity() * 8,
                Members::Texts(texts) => 96 + self.heap + texts.capacity() * 44,
            }
    }
}

impl Collection for Set {
    fn of(value: &Value) -> Option<&Self> {
        match value {
            Value::Set(set) => Some(set),
            _ => None,
        }
    }

    fn each_held(&self, visit: &mut dyn FnMut(Member<'_>, &[u8])) {
        for member in self.iter() {
            visit(member, b"");
        }
    }

    fn held_at(&self, place: usize) -> Option<(Member<'_>, &[u8])> {
        self.at(place).map(|member| (member, &b""[..]))
    }
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.partial.is_none()
            && other.partial.is_none()
            && self.id == other.id
            && self.len() == other.len()
            && self.iter().all(|m| m.with(|m| other.contains(m)))
    }
}

/// A canonical decimal integer.
pub(super) fn integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'-', rest @ ..] => (true, rest),
        _ => (false, text),
    };
    match digits {
        [b'0'] if !negative => return Some(0),
        [b'1'..=b'9', ..] if digits.len() <= 19 => {}
        _ => return None,
    }
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        let digit = i64::from(byte - b'0');
        value = value.checked_mul(10)?;
        value = if negative {
            value.checked_sub(digit)?
        } else {
            value.checked_add(digit)?
        };
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_canonical() {
        assert_eq!(integer(b"-9223372036854775808"), Some(i64::MIN));
        for bad in ["", "-", "-0", "01", "+1", "9223372036854775808", "1x"] {
            assert_eq!(integer(bad.as_bytes()), None);
        }
    }

    #[test]
    fn a_text_turns_integers_into_texts() {
        let mut set = Set::new(1);
        assert!(set.add(b"3") && set.add(b"1") && !set.add(b"3"));
        assert_eq!(set.encoding(), "intset");
        assert!(set.add(b"x"));
        assert!(!set.add(b"1") && set.contains(b"3"));
        assert_eq!(set.encoding(), "listpack");
    }
}
