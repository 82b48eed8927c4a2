//! Hashes: fields in order of insertion, as Redis shows small ones; packed while they are few and short.

mod deadlines;

use either::Either;

use super::elements::{Collection, Placed};
use super::packed::{Packed, Spot, Spots};
use super::partial::Partial;
use super::row::Rows;
use super::set::Member;
use super::table::Table;
use super::value::Value;
use deadlines::FieldDeadlines;

/// Redis packs sets and sorted sets of up to so many elements, each up to [`SMALL_LEN`] bytes; we pack hashes up to there, too.
pub(super) const SMALL_ENTRIES: usize = 128;
pub(super) const SMALL_LEN: usize = 64;
/// Redis packs hashes of up to so many fields, which keeps them in order of insertion.
const SMALL_FIELDS: usize = 512;

/// Fields and values. Every change is also a row.
#[derive(Debug, Clone)]
pub struct Hash {
    pub(super) id: u64,
    kept: Kept,
}

/// Most hashes have no deadlines, and pay nothing for them.
const _: () = assert!(size_of::<Hash>() == 32);

#[derive(Debug, Clone)]
enum Kept {
    Plain(Form),
    /// Some field had a deadline.
    Lasting(Box<(Form, FieldDeadlines)>),
}

#[derive(Debug, Clone)]
enum Form {
    /// Fields, each with its value behind it; marked: Redis would not pack it any more.
    Small(Packed),
    Big(Box<Big>),
    /// Most fields are only in the tables.
    Partial(Box<Partial>),
}

#[derive(Debug, Clone, Default)]
struct Big {
    /// Dense.
    pairs: Table,
    /// Redis would not pack it any more.
    outgrown: bool,
}

/// Fields and values of a packed hash.
#[derive(Debug, Clone)]
struct Pairs<'a>(Spots<'a>);

impl<'a> Iterator for Pairs<'a> {
    type Item = (Spot<'a>, Spot<'a>);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        Some((self.0.next()?, self.0.next()?))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = self.0.len() / 2;
        (left, Some(left))
    }
}

impl ExactSizeIterator for Pairs<'_> {}

impl Hash {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            kept: Kept::Plain(Form::Small(Packed::default())),
        }
    }

    pub(super) fn partly(id: u64, partial: Partial) -> Self {
        Self {
            id,
            kept: Kept::Plain(Form::Partial(Box::new(partial))),
        }
    }

    #[inline]
    fn form(&self) -> &Form {
        match &self.kept {
            Kept::Plain(form) => form,
            Kept::Lasting(both) => &both.0,
        }
    }

    #[inline]
    fn form_mut(&mut self) -> &mut Form {
        match &mut self.kept {
            Kept::Plain(form) => form,
            Kept::Lasting(both) => &mut both.0,
        }
    }

    /// `None`: no field ever had one.
    #[inline]
    pub(super) fn deadlines(&self) -> Option<&FieldDeadlines> {
        match &self.kept {
            Kept::Plain(_) => None,
            Kept::Lasting(both) => Some(&both.1),
        }
    }

    #[inline]
    pub(super) fn deadlines_mut(&mut self) -> Option<&mut FieldDeadlines> {
        match &mut self.kept {
            Kept::Plain(_) => None,
            Kept::Lasting(both) => Some(&mut both.1),
        }
    }

    /// From now on most of it is only in the tables; deadlines stay.
    pub(super) fn become_partial(&mut self, partial: Partial) {
        *self.form_mut() = Form::Partial(Box::new(partial));
    }

    /// What is known of one that is mostly in the tables.
    #[inline]
    pub(super) fn partial(&self) -> Option<&Partial> {
        match self.form() {
            Form::Partial(partial) => Some(partial),
            Form::Small(_) | Form::Big(_) => None,
        }
    }

    pub(super) fn partial_mut(&mut self) -> Option<&mut Partial> {
        match self.form_mut() {
            Form::Partial(partial) => Some(partial),
            Form::Small(_) | Form::Big(_) => None,
        }
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match self.form() {
            Form::Small(packed) => packed.len() / 2,
            Form::Big(big) => big.pairs.len(),
            Form::Partial(partial) => partial.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        match self.form() {
            Form::Small(packed) => !packed.is_marked(),
            Form::Big(big) => !big.outgrown,
            Form::Partial(_) => false,
        }
    }

    #[inline]
    #[must_use]
    pub fn get(&self, field: &[u8]) -> Option<&[u8]> {
        match self.form() {
            Form::Small(packed) => Pairs(packed.spots())
                .find(|(name, _)| name.bytes == field)
                .map(|(_, value)| value.bytes),
            Form::Big(big) => big.pairs.get(field),
            Form::Partial(partial) => partial.value(field),
        }
    }

    /// Fields and values of a whole hash; small ones in order of insertion.
    pub(super) fn iter(&self) -> impl ExactSizeIterator<Item = (&[u8], &[u8])> {
        let packed = match self.form() {
            Form::Small(packed) => packed.spots(),
            Form::Big(big) => {
                return Either::Right(big.pairs.iter());
            }
            Form::Partial(_) => {
                debug_assert!(false, "a partial hash is read by Elements");
                Spots::default()
            }
        };
        Either::Left(Pairs(packed).map(|(field, value)| (field.bytes, value.bytes)))
    }

    /// Sets a field, which has no deadline then; true when it is new.
    #[inline]
    pub fn insert(&mut self, field: &[u8], value: &[u8], rows: &mut Rows<'_>) -> bool {
        let new = self.update(field, value, rows);
        if self.deadlines().is_some() {
            self.set_deadline(field, None, rows);
        }
        new
    }

    /// When a field is gone, in ms since the epoch; `None`: never.
    #[must_use]
    pub fn deadline(&self, field: &[u8]) -> Option<u64> {
        self.deadlines()?.get(field)
    }

    /// Gives a field that is there a deadline, or takes it.
    pub fn set_deadline(&mut self, field: &[u8], at_ms: Option<u64>, rows: &mut Rows<'_>) {
        match at_ms {
            Some(at_ms) => {
                if self.with_deadlines(|all| all.set(field, at_ms)) {
                    rows.put_deadline(field, at_ms);
                }
            }
            None => {
                let deadlines = self.deadlines_mut();
                if deadlines.is_some_and(|deadlines| deadlines.take(field)) {
                    rows.del_deadline(field, true);
                }
            }
        }
    }

    /// Changes the deadlines; from now on there may be some. Redis packs no hash that has them.
    pub(super) fn with_deadlines<R>(&mut self, change: impl FnOnce(&mut FieldDeadlines) -> R) -> R {
        let nothing = Kept::Plain(Form::Small(Packed::default()));
        let mut both = match std::mem::replace(&mut self.kept, nothing) {
            Kept::Lasting(both) => both,
            Kept::Plain(mut form) => {
                match &mut form {
                    Form::Small(packed) => packed.mark(),
                    Form::Big(big) => big.outgrown = true,
                    Form::Partial(_) => {}
                }
                Box::new((form, FieldDeadlines::default()))
            }
        };
        let result = change(&mut both.1);
        self.kept = Kept::Lasting(both);
        result
    }

    /// The first deadline of a field; 0 for none.
    #[inline]
    pub(super) fn first_deadline(&self) -> u64 {
        self.deadlines().map_or(0, FieldDeadlines::first_ms)
    }

    /// Deadlines by field.
    pub fn field_deadlines(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.deadlines().into_iter().flat_map(FieldDeadlines::iter)
    }

    /// Sets a field, which keeps its deadline; true when it is new.
    pub fn update(&mut self, field: &[u8], value: &[u8], rows: &mut Rows<'_>) -> bool {
        rows.put(field, value);
        match self.form_mut() {
            Form::Partial(partial) => partial.insert(field, value, rows.seq),
            Form::Small(_) | Form::Big(_) => self.set(field, value),
        }
    }

    pub(super) fn set(&mut self, field: &[u8], value: &[u8]) -> bool {
        let long = field.len() > SMALL_LEN || value.len() > SMALL_LEN;
        match self.form_mut() {
            Form::Small(packed) => {
                let found = Pairs(packed.spots()).find(|(name, _)| name.bytes == field);
                let new = found.is_none();
                match found {
                    Some((_, old)) => packed.splice(old.range, 1, &[value]),
                    None => packed.push(&[field, value]),
                }
                if packed.has_outgrown(long, packed.len() / 2, SMALL_FIELDS) {
                    self.unpack();
                }
                new
            }
            Form::Big(big) => {
                let (_, new) = big.pairs.set(field, value);
                big.outgrown |= long || big.pairs.len() > SMALL_FIELDS;
                new
            }
            Form::Partial(_) => {
                debug_assert!(false, "a partial hash is changed with its rows");
                false
            }
        }
    }

    #[cold]
    fn unpack(&mut self) {
        let mut big = Box::new(Big {
            outgrown: !self.is_small(),
            ..Big::default()
        });
        for (field, value) in self.iter() {
            big.pairs.set(field, value);
        }
        *self.form_mut() = Form::Big(big);
    }

    /// Removes a field; true when it was there.
    pub fn remove(&mut self, field: &[u8], rows: &mut Rows<'_>) -> bool {
        let removed = match self.form_mut() {
            Form::Small(packed) => {
                let found = Pairs(packed.spots()).find(|(name, _)| name.bytes == field);
                let range = found.map(|(field, value)| field.range.start..value.range.end);
                let removed = range.is_some();
                if let Some(range) = range {
                    packed.splice(range, 2, &[]);
                }
                removed
            }
            Form::Big(big) if big.outgrown => big.pairs.swap_remove(field),
            Form::Big(big) => big.pairs.shift_remove(field),
            Form::Partial(partial) => partial.remove(field, rows.seq),
        };
        if removed {
            rows.del(field);
            let deadlines = self.deadlines_mut();
            if deadlines.is_some_and(|deadlines| deadlines.take(field)) {
                rows.del_deadline(field, false);
            }
        }
        removed
    }

    /// Bytes outside of what holds the hash.
    pub(super) fn memory(&self) -> usize {
        let deadlines = self.deadlines().map_or(0, FieldDeadlines::memory);
        size_of_val(self)
            + deadlines
            + match self.form() {
                Form::Small(packed) => packed.size(),
                Form::Big(big) => size_of::<Big>() + big.pairs.memory(),
                Form::Partial(partial) => partial.memory(),
            }
    }
}

impl Collection for Hash {
    fn of(value: &Value) -> Option<&Self> {
        match value {
            Value::Hash(hash) => Some(hash),
            _ => None,
        }
    }

    fn each_held(&self, visit: &mut dyn FnMut(Member<'_>, &[u8])) {
        for (field, value) in self.iter() {
            visit(Member::Text(field), value);
        }
    }
}

impl Placed for Hash {
    fn held_at(&self, place: usize) -> Option<(Member<'_>, &[u8])> {
        let (field, value) = match self.form() {
            Form::Big(big) => big.pairs.at(u32::try_from(place).ok()?)?,
            Form::Small(_) | Form::Partial(_) => self.iter().nth(place)?,
        };
        Some((Member::Text(field), value))
    }
}

impl PartialEq for Hash {
    fn eq(&self, other: &Self) -> bool {
        let whole = self.partial().is_none() && other.partial().is_none();
        whole
            && self.id == other.id
            && self.len() == other.len()
            && self
                .iter()
                .all(|(field, value)| other.get(field) == Some(value))
            && self.field_deadlines().eq(other.field_deadlines())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use indexmap::IndexMap;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_a_map_in_both_forms(ops in prop::collection::vec((0u16..200, 0usize..100, 0u8..5), 1..400)) {
            let mut hash = Hash::new(1);
            let mut model: IndexMap<Vec<u8>, Vec<u8>> = IndexMap::new();
            let mut small = true;
            let mut fx = storage::Effects::new();
            for (field, length, what) in ops {
                let field = format!("field-{field}").into_bytes();
                if what == 0 {
                    let mut rows = Rows::new(&mut fx, (storage::ShardId(0), 1), crate::Slot::of(b""), crate::rows::Tag::HashField, 1);
                    prop_assert_eq!(hash.remove(&field, &mut rows), model.shift_remove(&field).is_some());
                } else {
                    // Long values are rare: most runs stay small.
                    let value = vec![what; if length > 97 { length } else { length % 10 }];
                    small &= value.len() <= SMALL_LEN;
                    prop_assert_eq!(hash.set(&field, &value), model.insert(field, value).is_none());
                    small &= model.len() <= SMALL_FIELDS;
                }
                prop_assert_eq!((hash.len(), hash.is_small()), (model.len(), small));
            }
            for (field, value) in &model {
                prop_assert_eq!(hash.get(field), Some(&value[..]));
            }
            prop_assert_eq!(hash.get(b"field-none"), None);
            if small {
                prop_assert!(hash.iter().eq(model.iter().map(|(field, value)| (&field[..], &value[..]))));
            }
            for place in 0..model.len() {
                let (field, value) = hash.held_at(place).expect("a pair");
                let known = field.with(|field| model.get(field));
                prop_assert_eq!(known.map(|value| &value[..]), Some(value));
            }
        }
    }
}
