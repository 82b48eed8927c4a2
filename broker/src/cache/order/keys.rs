//! Byte strings in order, one behind the other in one allocation.

use std::ops::Range;

#[derive(Debug, Clone, Default)]
pub(super) struct Keys {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: Vec<usize>,
}

impl Keys {
    pub(super) fn len(&self) -> usize {
        self.ends.len()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn memory(&self) -> usize {
        size_of::<Self>() + self.bytes.capacity() + self.ends.capacity() * size_of::<usize>()
    }

    fn start(&self, at: usize) -> usize {
        let before = at.checked_sub(1);
        before
            .and_then(|at| self.ends.get(at))
            .map_or(0, |end| *end)
    }

    pub(super) fn get(&self, at: usize) -> Option<&[u8]> {
        self.bytes.get(self.start(at)..*self.ends.get(at)?)
    }

    pub(super) fn last(&self) -> Option<&[u8]> {
        self.get(self.len().checked_sub(1)?)
    }

    /// How many from the front satisfy `below`, which holds for a front part only.
    pub(super) fn partition(&self, below: impl Fn(&[u8]) -> bool) -> usize {
        let Range {
            start: mut low,
            end: mut high,
        } = 0..self.len();
        while low < high {
            let middle = low.midpoint(high);
            if self.get(middle).is_some_and(&below) {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    /// Where a key is (`Ok`), or belongs (`Err`).
    pub(super) fn find(&self, key: &[u8]) -> Result<usize, usize> {
        let at = self.partition(|other| other < key);
        if self.get(at) == Some(key) {
            Ok(at)
        } else {
            Err(at)
        }
    }

    /// Behind all others.
    pub(super) fn push(&mut self, front: &[u8], back: &[u8]) {
        self.bytes.extend_from_slice(front);
        self.bytes.extend_from_slice(back);
        self.ends.push(self.bytes.len());
    }

    pub(super) fn insert(&mut self, at: usize, key: &[u8]) {
        let start = self.start(at);
        self.bytes.splice(start..start, key.iter().copied());
        self.ends.insert(at, start);
        for end in self.ends.iter_mut().skip(at) {
            *end += key.len();
        }
    }

    pub(super) fn remove(&mut self, at: usize) {
        let start = self.start(at);
        let length = self.ends.remove(at) - start;
        self.bytes.drain(start..start + length);
        for end in self.ends.iter_mut().skip(at) {
            *end -= length;
        }
    }

    /// What is behind the first `keep`.
    pub(super) fn split_off(&mut self, keep: usize) -> Self {
        let start = self.start(keep);
        let ends = self.ends.split_off(keep);
        Self {
            bytes: self.bytes.split_off(start),
            ends: ends.into_iter().map(|end| end - start).collect(),
        }
    }

    /// What is behind all of these.
    pub(super) fn append(&mut self, more: &Self) {
        let start = self.bytes.len();
        self.bytes.extend_from_slice(&more.bytes);
        self.ends.extend(more.ends.iter().map(|end| end + start));
    }

    pub(super) fn sort(&mut self) {
        let mut keys: Vec<Vec<u8>> = (0..self.len())
            .filter_map(|at| self.get(at).map(<[u8]>::to_vec))
            .collect();
        keys.sort_unstable();
        *self = Self::default();
        keys.iter().for_each(|key| self.push(key, &[]));
    }

    /// Near `wanted`, between two keys that may be parted.
    pub(super) fn divide_at(
        &self,
        wanted: usize,
        apart: impl Fn(&[u8], &[u8]) -> bool,
    ) -> Option<usize> {
        let parted = |&at: &usize| {
            let before = at.checked_sub(1).and_then(|at| self.get(at));
            before.zip(self.get(at)).is_some_and(|(a, b)| apart(a, b))
        };
        let up = (wanted..self.len()).find(parted);
        up.or_else(|| (1..wanted).rev().find(parted))
    }
}
