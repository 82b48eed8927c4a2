//! Idempotent producers: what a partition remembers of each, so that a batch sent twice is stored once.

use std::collections::VecDeque;

/// Batches of one producer that are remembered: a client has at most five requests in flight.
const REMEMBERED: usize = 5;
const VERSION: u8 = 1;
/// With the first offset of an open transaction behind the time.
const VERSION_OPEN: u8 = 2;

/// The sequence numbers of a stored batch and where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stored {
    pub first_sequence: i32,
    pub last_sequence: i32,
    pub base_offset: u64,
}

/// One producer's state in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Producer {
    pub epoch: i16,
    /// Time of the last append, in milliseconds.
    pub last_ms: u64,
    /// First offset of its transaction, while that is neither committed nor aborted.
    pub open: Option<u64>,
    /// Oldest first.
    pub batches: VecDeque<Stored>,
}

/// What a batch of an idempotent producer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    New,
    /// Stored before, at this offset.
    Duplicate(u64),
    /// Its predecessor is missing.
    OutOfOrder,
    /// A newer instance of the producer has written already.
    OldEpoch,
}

impl Producer {
    /// What the batch with these sequence numbers is. `None`: nothing is known of its producer.
    pub fn judge(state: Option<&Self>, epoch: i16, first: i32, last: i32) -> Verdict {
        // Retention may have forgotten a producer, so an unknown one may begin anywhere.
        let Some(state) = state else {
            return Verdict::New;
        };
        if epoch < state.epoch {
            return Verdict::OldEpoch;
        }
        if epoch > state.epoch {
            return if first == 0 {
                Verdict::New
            } else {
                Verdict::OutOfOrder
            };
        }
        let same = |batch: &&Stored| batch.first_sequence == first && batch.last_sequence == last;
        if let Some(batch) = state.batches.iter().find(same) {
            return Verdict::Duplicate(batch.base_offset);
        }
        let next = state
            .batches
            .back()
            .map(|batch| batch.last_sequence.checked_add(1).unwrap_or(0));
        if next.is_none_or(|next| next == first) {
            Verdict::New
        } else {
            Verdict::OutOfOrder
        }
    }

    /// Its transaction has ended with a marker of this epoch. A newer one than its batches had begins their numbers anew.
    pub fn end(&mut self, epoch: i16, now_ms: u64) {
        self.open = None;
        self.last_ms = now_ms;
        if epoch > self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
    }

    /// Remembers a stored batch.
    pub fn store(&mut self, epoch: i16, now_ms: u64, batch: Stored) {
        if epoch != self.epoch {
            self.epoch = epoch;
            self.batches.clear();
        }
        self.last_ms = now_ms;
        if self.batches.len() >= REMEMBERED {
            self.batches.pop_front();
        }
        self.batches.push_back(batch);
    }

    /// A producer that has stored nothing yet.
    pub fn new(epoch: i16) -> Self {
        Self {
            epoch,
            last_ms: 0,
            open: None,
            batches: VecDeque::with_capacity(REMEMBERED),
        }
    }

    /// Its row's value.
    pub fn encode(&self, out: &mut Vec<u8>) {
        out.clear();
        out.push(if self.open.is_some() {
            VERSION_OPEN
        } else {
            VERSION
        });
        out.extend_from_slice(&self.epoch.to_be_bytes());
        out.extend_from_slice(&self.last_ms.to_be_bytes());
        if let Some(open) = self.open {
            out.extend_from_slice(&open.to_be_bytes());
        }
        for batch in &self.batches {
            out.extend_from_slice(&batch.first_sequence.to_be_bytes());
            out.extend_from_slice(&batch.last_sequence.to_be_bytes());
            out.extend_from_slice(&batch.base_offset.to_be_bytes());
        }
    }

    /// The inverse of [`Producer::encode`].
    pub fn decode(value: &[u8]) -> Option<Self> {
        let (&version @ (VERSION | VERSION_OPEN), rest) = value.split_first()? else {
            return None;
        };
        let (epoch, rest) = rest.split_first_chunk()?;
        let (last_ms, mut rest) = rest.split_first_chunk()?;
        let mut producer = Self::new(i16::from_be_bytes(*epoch));
        producer.last_ms = u64::from_be_bytes(*last_ms);
        if version == VERSION_OPEN {
            let (open, behind) = rest.split_first_chunk()?;
            producer.open = Some(u64::from_be_bytes(*open));
            rest = behind;
        }
        for batch in rest.chunks_exact(16) {
            let (first, batch) = batch.split_first_chunk()?;
            let (last, base) = batch.split_first_chunk()?;
            producer.batches.push_back(Stored {
                first_sequence: i32::from_be_bytes(*first),
                last_sequence: i32::from_be_bytes(*last),
                base_offset: u64::from_be_bytes(*base.first_chunk()?),
            });
        }
        Some(producer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(first: i32, last: i32, base_offset: u64) -> Stored {
        Stored {
            first_sequence: first,
            last_sequence: last,
            base_offset,
        }
    }

    #[test]
    fn the_last_five_batches_are_known_again() {
        let mut producer = Producer::new(0);
        for n in 0..7 {
            let verdict = Producer::judge(Some(&producer), 0, n * 10, n * 10 + 9);
            assert_eq!(verdict, Verdict::New);
            producer.store(0, 5, stored(n * 10, n * 10 + 9, n as u64 * 10));
        }
        let judge = |epoch, first, last| Producer::judge(Some(&producer), epoch, first, last);
        assert_eq!(judge(0, 20, 29), Verdict::Duplicate(20));
        assert_eq!(judge(0, 60, 69), Verdict::Duplicate(60));
        assert_eq!(judge(0, 10, 19), Verdict::OutOfOrder);
        assert_eq!(judge(0, 80, 89), Verdict::OutOfOrder);
        assert_eq!(judge(1, 0, 9), Verdict::New);
        assert_eq!(judge(1, 70, 79), Verdict::OutOfOrder);
        producer.store(1, 6, stored(0, 9, 70));
        assert_eq!(
            Producer::judge(Some(&producer), 0, 70, 79),
            Verdict::OldEpoch
        );
        assert_eq!(Producer::judge(None, 0, 70, 79), Verdict::New);
        let mut row = Vec::new();
        for open in [None, Some(7)] {
            producer.open = open;
            producer.encode(&mut row);
            assert_eq!(Producer::decode(&row).as_ref(), Some(&producer));
        }
        producer.end(2, 9);
        assert_eq!((producer.open, producer.batches.len()), (None, 0));
    }

    #[test]
    fn sequences_wrap_around() {
        let mut producer = Producer::new(0);
        producer.store(0, 0, stored(i32::MAX - 1, i32::MAX, 7));
        assert_eq!(Producer::judge(Some(&producer), 0, 0, 3), Verdict::New);
    }
}
