//! Which messages are done with, so that a start finds the oldest that is not without walking over deleted rows.

use std::collections::VecDeque;

/// A window of bits that begins at the oldest message which is not done with. It reaches as far as the newest one that is:
/// an eighth of an octet per message between them.
#[derive(Debug)]
pub(super) struct Done {
    /// Seq of the first bit; a multiple of 64.
    base: u64,
    words: VecDeque<u64>,
}

impl Done {
    /// Everything below `head` is done with.
    pub(super) fn new(head: u64) -> Self {
        let base = head & !63;
        let words = if head == base {
            VecDeque::new()
        } else {
            VecDeque::from([(1 << (head - base)) - 1])
        };
        Self { base, words }
    }

    /// The oldest message that may not be done with.
    pub(super) fn head(&self) -> u64 {
        self.base
            + self
                .words
                .front()
                .map_or(0, |word| u64::from(word.trailing_ones()))
    }

    #[inline]
    pub(super) fn add(&mut self, seq: u64) {
        let Some(offset) = seq.checked_sub(self.base) else {
            return;
        };
        let word = (offset / 64) as usize;
        if word >= self.words.len() {
            self.words.resize(word + 1, 0);
        }
        if let Some(bits) = self.words.get_mut(word) {
            *bits |= 1 << (offset % 64);
        }
        self.advance();
    }

    pub(super) fn has(&self, seq: u64) -> bool {
        let Some(offset) = seq.checked_sub(self.base) else {
            return true;
        };
        let word = self.words.get((offset / 64) as usize);
        word.is_some_and(|word| word >> (offset % 64) & 1 == 1)
    }

    /// The first one from `seq` on that is not done with.
    pub(super) fn next(&self, seq: u64) -> u64 {
        let seq = seq.max(self.base);
        let offset = seq - self.base;
        let mut at = (offset / 64) as usize;
        let Some(first) = self.words.get(at) else {
            return seq;
        };
        let ones = (first >> (offset % 64)).trailing_ones();
        if u64::from(ones) < 64 - offset % 64 {
            return seq + u64::from(ones);
        }
        at += 1;
        while self.words.get(at) == Some(&u64::MAX) {
            at += 1;
        }
        let ones = self.words.get(at).map_or(0, |word| word.trailing_ones());
        self.base + at as u64 * 64 + u64::from(ones)
    }

    /// All of `[from, to)`.
    pub(super) fn add_range(&mut self, from: u64, to: u64) {
        let mut seq = from.max(self.base);
        while seq < to {
            if seq.is_multiple_of(64) && to - seq >= 64 {
                let word = ((seq - self.base) / 64) as usize;
                if word >= self.words.len() {
                    self.words.resize(word + 1, 0);
                }
                if let Some(bits) = self.words.get_mut(word) {
                    *bits = u64::MAX;
                }
                seq += 64;
            } else {
                self.add(seq);
                // `add` may have moved the base past the word.
                seq = (seq + 1).max(self.base);
            }
        }
        self.advance();
    }

    fn advance(&mut self) {
        while self.words.front() == Some(&u64::MAX) {
            self.words.pop_front();
            self.base += 64;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn the_head_is_the_oldest_not_done(start in 1u64..200, steps in prop::collection::vec((0u64..400, 0u64..300), 0..80)) {
            let mut done = Done::new(start);
            let mut model = BTreeSet::new();
            prop_assert_eq!(done.head(), start);
            for (from, len) in steps {
                if len < 200 {
                    done.add(start + from);
                    model.insert(start + from);
                } else {
                    done.add_range(start + from, start + from + len);
                    model.extend(start + from..start + from + len);
                }
                let head = (start..).find(|seq| !model.contains(seq)).unwrap_or(0);
                prop_assert_eq!(done.head(), head);
                let probe = start + from;
                prop_assert_eq!(done.has(probe), model.contains(&probe));
                let next = (probe..).find(|seq| !model.contains(seq));
                prop_assert_eq!(Some(done.next(probe)), next);
            }
        }
    }
}
