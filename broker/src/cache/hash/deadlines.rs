//! Deadlines of a hash's fields. Each is a row of its own; all of them are in memory, even if the hash is not.

use std::collections::{BTreeMap, BTreeSet};

use crate::cache::text::Text;

/// Bytes of a deadline: its place in two trees that are three quarters full.
const EACH: usize = 2 * (size_of::<Text>() + 8) * 4 / 3;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(in crate::cache) struct FieldDeadlines {
    by_field: BTreeMap<Text, u64>,
    by_time: BTreeSet<(u64, Text)>,
    heap: usize,
    /// The root row says that there may be some.
    pub(in crate::cache) rooted: bool,
    /// Under which deadline the database has the hash; 0: it has not.
    pub(in crate::cache) listed_ms: u64,
}

impl FieldDeadlines {
    pub(in crate::cache) fn get(&self, field: &[u8]) -> Option<u64> {
        self.by_field.get(field).copied()
    }

    /// The first one; 0 for none.
    pub(in crate::cache) fn first_ms(&self) -> u64 {
        self.by_time.first().map_or(0, |(at, _)| *at)
    }

    /// Gives a field a deadline; false: it has this one.
    pub(in crate::cache) fn set(&mut self, field: &[u8], at_ms: u64) -> bool {
        let field = Text::new(field);
        match self.by_field.insert(field.clone(), at_ms) {
            Some(old) if old == at_ms => return false,
            Some(old) => {
                self.by_time.remove(&(old, field.clone()));
            }
            None => self.heap += 2 * field.heap_bytes(),
        }
        self.by_time.insert((at_ms, field));
        true
    }

    /// Takes a field's deadline; false: it had none.
    pub(in crate::cache) fn take(&mut self, field: &[u8]) -> bool {
        let Some((field, at)) = self.by_field.remove_entry(field) else {
            return false;
        };
        self.heap -= 2 * field.heap_bytes();
        self.by_time.remove(&(at, field));
        true
    }

    /// Fields whose time has come.
    pub(in crate::cache) fn due(&self, now_ms: u64) -> Vec<Text> {
        self.by_time
            .iter()
            .take_while(|(at, _)| *at <= now_ms)
            .map(|(_, field)| field.clone())
            .collect()
    }

    pub(in crate::cache) fn iter(&self) -> impl Iterator<Item = (&[u8], u64)> {
        self.by_field.iter().map(|(field, at)| (&**field, *at))
    }

    pub(in crate::cache) fn memory(&self) -> usize {
        size_of_val(self) + self.heap + self.by_field.len() * EACH
    }
}

impl PartialEq for FieldDeadlines {
    fn eq(&self, other: &Self) -> bool {
        self.by_field == other.by_field
    }
}
