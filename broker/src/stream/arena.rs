//! Memory for resident batches, used again and again.
//!
//! A batch that comes from the network is a slice of the connection's read buffer, so keeping it keeps the whole buffer, and every
//! request needs fresh pages that the kernel must clear first: half of the CPU time of producing. Batches are therefore
//! copied into chunks of the shard's own. They leave memory in the order in which they came, so the oldest chunk is free
//! first and is filled anew.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Bytes of one chunk.
const CHUNK: usize = 1 << 20;
/// Larger batches stay where they are: the copy would cost more than the pages, and chunks would end half empty.
const LARGE: usize = CHUNK / 4;

/// The chunks of one shard.
#[derive(Debug, Default)]
pub(super) struct Arena {
    /// What is left of the chunk that is being filled.
    current: BytesMut,
    /// Full chunks, oldest first, each as an empty handle on its memory.
    full: VecDeque<BytesMut>,
    /// `current` is a chunk, and not the empty handle that an arena begins with.
    started: bool,
}

impl Arena {
    /// The same bytes, in memory that may be kept.
    pub(super) fn keep(&mut self, batch: BytesMut) -> Bytes {
        if batch.len() > LARGE {
            return batch.freeze();
        }
        if self.current.capacity() < batch.len() {
            let next = self.next_chunk();
            let full = std::mem::replace(&mut self.current, next);
            // The very first one has no memory, and would be in the way of all behind it for ever.
            if self.started {
                self.full.push_back(full);
            }
            self.started = true;
        }
        self.current.extend_from_slice(&batch);
        self.current.split().freeze()
    }

    fn next_chunk(&mut self) -> BytesMut {
        // True only when no batch in the chunk is held by anybody, readers included.
        match self
            .full
            .front_mut()
            .map(|oldest| oldest.try_reclaim(CHUNK))
        {
            Some(true) => self.full.pop_front().unwrap_or_default(),
            _ => BytesMut::with_capacity(CHUNK),
        }
    }

    /// Gives chunks that hold nothing back to the allocator.
    pub(super) fn trim(&mut self) {
        self.full.retain_mut(|chunk| !chunk.try_reclaim(CHUNK));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_filled_again_once_their_batches_are_gone() {
        let mut arena = Arena::default();
        let batch = || BytesMut::from(&[7; 100_000][..]);
        let mut held: VecDeque<Bytes> = (0..25).map(|_| arena.keep(batch())).collect();
        assert_eq!(arena.full.len(), 2, "ten batches each");
        for _ in 0..200 {
            held.pop_front();
            held.push_back(arena.keep(batch()));
            assert!(held.iter().all(|bytes| bytes.iter().all(|byte| *byte == 7)));
        }
        assert!(arena.full.len() <= 5, "{}", arena.full.len());
        held.clear();
        arena.trim();
        assert_eq!(arena.full.len(), 0);
        let large = arena.keep(BytesMut::zeroed(LARGE + 1));
        assert_eq!((large.len(), arena.full.len()), (LARGE + 1, 0));
    }
}
