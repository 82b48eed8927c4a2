//! Sets: integers sorted in one vector while they are few, else members in order of insertion, packed while they are few and
//! short.

use either::Either;

use super::elements::{Collection, Placed};
use super::hash::{SMALL_ENTRIES, SMALL_LEN};
use super::packed::Packed;
use super::partial::Partial;
use super::row::Rows;
use super::table::Table;
use super::value::Value;

/// Redis' `set-max-intset-entries`.
const INTS_MAX: usize = 512;

/// Distinct members. Every change is also a row.
#[derive(Debug, Clone)]
pub struct Set {
    pub(super) id: u64,
    members: Members,
}

#[derive(Debug, Clone)]
enum Members {
    /// Sorted.
    Ints(Vec<i64>),
    /// Marked: Redis would not pack it any more.
    Small(Packed),
    Big(Box<Big>),
    /// Most members are only in the tables.
    Partial(Box<Partial>),
}

#[derive(Debug, Clone, Default)]
struct Big {
    /// Dense, without values.
    texts: Table,
    /// Redis would not pack it any more.
    outgrown: bool,
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
        }
    }

    pub(super) fn partly(id: u64, partial: Partial) -> Self {
        Self {
            id,
            members: Members::Partial(Box::new(partial)),
        }
    }

    /// What is known of one that is mostly in the tables.
    #[inline]
    pub(super) fn partial(&self) -> Option<&Partial> {
        match &self.members {
            Members::Partial(partial) => Some(partial),
            _ => None,
        }
    }

    pub(super) fn partial_mut(&mut self) -> Option<&mut Partial> {
        match &mut self.members {
            Members::Partial(partial) => Some(partial),
            _ => None,
        }
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.members {
            Members::Ints(ints) => ints.len(),
            Members::Small(packed) => packed.len(),
            Members::Big(big) => big.texts.len(),
            Members::Partial(partial) => partial.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Few enough that SSCAN answers all at once.
    #[must_use]
    pub fn is_small(&self) -> bool {
        match &self.members {
            Members::Ints(_) => true,
            Members::Small(packed) => !packed.is_marked(),
            Members::Big(big) => !big.outgrown,
            Members::Partial(_) => false,
        }
    }

    pub(super) fn encoding(&self) -> &'static str {
        match self.members {
            Members::Ints(_) => "intset",
            _ if self.is_small() => "listpack",
            Members::Small(_) | Members::Big(_) | Members::Partial(_) => "hashtable",
        }
    }

    #[inline]
    #[must_use]
    pub fn contains(&self, member: &[u8]) -> bool {
        match &self.members {
            Members::Ints(ints) => {
                integer(member).is_some_and(|value| ints.binary_search(&value).is_ok())
            }
            Members::Small(packed) => packed.iter().any(|text| text == member),
            Members::Big(big) => big.texts.find(member).is_some(),
            Members::Partial(partial) => partial.contains(member),
        }
    }

    /// The member of a whole set at a place in `0..len`.
    fn at(&self, index: usize) -> Option<Member<'_>> {
        match &self.members {
            Members::Ints(ints) => ints.get(index).copied().map(Member::Int),
            Members::Small(packed) => packed.iter().nth(index).map(Member::Text),
            Members::Big(big) => {
                let (text, _) = big.texts.at(u32::try_from(index).ok()?)?;
                Some(Member::Text(text))
            }
            Members::Partial(_) => None,
        }
    }

    /// The members of a whole set.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = Member<'_>> {
        let ints = match &self.members {
            Members::Ints(ints) => &ints[..],
            Members::Small(packed) => {
                return Either::Right(Either::Left(packed.iter().map(Member::Text)));
            }
            Members::Big(big) => {
                let texts = big.texts.iter().map(|(text, _)| Member::Text(text));
                return Either::Right(Either::Right(texts));
            }
            Members::Partial(_) => {
                debug_assert!(false, "a partial set is read by Elements");
                &[]
            }
        };
        Either::Left(ints.iter().map(|&value| Member::Int(value)))
    }

    /// Adds a member; true when it is new.
    pub fn insert(&mut self, member: &[u8], rows: &mut Rows<'_>) -> bool {
        let new = match &mut self.members {
            // One that is there is not written again.
            Members::Partial(partial) => {
                !partial.contains(member) && partial.insert(member, b"", rows.seq)
            }
            _ => self.add(member),
        };
        if new {
            rows.put(member, b"");
        }
        new
    }

    pub(super) fn add(&mut self, member: &[u8]) -> bool {
        if let Members::Ints(ints) = &mut self.members {
            let value = integer(member);
            let place = value.map(|value| ints.binary_search(&value));
            match (value, place) {
                (_, Some(Ok(_))) => return false,
                (Some(value), Some(Err(place))) if ints.len() < INTS_MAX => {
                    ints.insert(place, value);
                    return true;
                }
                _ => self.write_out(),
            }
        }
        let long = member.len() > SMALL_LEN;
        match &mut self.members {
            Members::Ints(_) | Members::Partial(_) => {
                debug_assert!(
                    false,
                    "integers are written out above, a partial set is changed with its rows"
                );
                return false;
            }
            Members::Small(packed) => {
                if packed.iter().any(|text| text == member) {
                    return false;
                }
                packed.push(&[member]);
                if packed.has_outgrown(long, packed.len(), SMALL_ENTRIES) {
                    self.unpack();
                }
            }
            Members::Big(big) => {
                let (_, new) = big.texts.find_or_add(member, b"");
                big.outgrown |= long || big.texts.len() > SMALL_ENTRIES;
                return new;
            }
        }
        true
    }

    /// Turns integers into texts.
    #[cold]
    fn write_out(&mut self) {
        let Members::Ints(ints) = &self.members else {
            return;
        };
        self.members = if ints.len() > SMALL_ENTRIES {
            let mut big = Box::new(Big {
                outgrown: true,
                ..Big::default()
            });
            for &value in ints {
                big.texts
                    .set(itoa::Buffer::new().format(value).as_bytes(), b"");
            }
            Members::Big(big)
        } else {
            let mut packed = Packed::default();
            for &value in ints {
                packed.push(&[itoa::Buffer::new().format(value).as_bytes()]);
            }
            Members::Small(packed)
        };
    }

    #[cold]
    fn unpack(&mut self) {
        let mut big = Box::new(Big {
            outgrown: !self.is_small(),
            ..Big::default()
        });
        for member in self.iter() {
            member.with(|member| big.texts.set(member, b""));
        }
        self.members = Members::Big(big);
    }

    /// Removes a member; true when it was there.
    pub fn remove(&mut self, member: &[u8], rows: &mut Rows<'_>) -> bool {
        let removed = match &mut self.members {
            Members::Ints(ints) => match integer(member).map(|value| ints.binary_search(&value)) {
                Some(Ok(place)) => {
                    ints.remove(place);
                    true
                }
                _ => false,
            },
            Members::Small(packed) => {
                let found = packed.spots().find(|spot| spot.bytes == member);
                let range = found.map(|spot| spot.range);
                let removed = range.is_some();
                if let Some(range) = range {
                    packed.splice(range, 1, &[]);
                }
                removed
            }
            Members::Big(big) if big.outgrown => big.texts.swap_remove(member),
            Members::Big(big) => big.texts.shift_remove(member),
            Members::Partial(partial) => partial.remove(member, rows.seq),
        };
        if removed {
            rows.del(member);
        }
        removed
    }

    /// Bytes outside of what holds the set.
    pub(super) fn memory(&self) -> usize {
        size_of_val(self)
            + match &self.members {
                Members::Ints(ints) => ints.capacity() * 8,
                Members::Small(packed) => packed.size(),
                Members::Big(big) => size_of::<Big>() + big.texts.memory(),
                Members::Partial(partial) => partial.memory(),
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
}

impl Placed for Set {
    fn held_at(&self, place: usize) -> Option<(Member<'_>, &[u8])> {
        self.at(place).map(|member| (member, &b""[..]))
    }
}

impl PartialEq for Set {
    fn eq(&self, other: &Self) -> bool {
        self.partial().is_none()
            && other.partial().is_none()
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

    #[test]
    fn many_or_long_members_outgrow_the_packed_form() {
        let mut set = Set::new(1);
        for number in 0..SMALL_ENTRIES {
            assert!(set.add(format!("m{number}").as_bytes()));
        }
        assert!(set.is_small() && !set.add(b"m7"));
        assert!(set.add(b"one more") && !set.is_small());
        let mut fx = storage::Effects::new();
        let mut rows = Rows::new(
            &mut fx,
            (storage::ShardId(0), 1),
            crate::Slot::of(b""),
            crate::rows::Tag::SetMember,
            1,
        );
        for number in 0..SMALL_ENTRIES {
            assert!(set.remove(format!("m{number}").as_bytes(), &mut rows));
        }
        let left: Vec<_> = set.iter().map(Member::to_vec).collect();
        assert_eq!(
            (left, set.encoding()),
            (vec![b"one more".to_vec()], "hashtable")
        );

        let mut set = Set::new(1);
        assert!(set.add(&[b'x'; SMALL_LEN]) && set.is_small());
        assert!(set.add(&[b'x'; SMALL_LEN + 1]) && !set.is_small());
        assert!(set.remove(&[b'x'; SMALL_LEN], &mut rows) && set.len() == 1);
        assert!(set.contains(set.at(0).expect("a member").to_vec().as_slice()));
    }
}
