//! Entries by number: they never move, growing never copies them, and a random one is found at once.

use super::text::Text;
use super::value::Value;

/// One key.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) key: Text,
    pub(super) value: Value,
    /// When it is gone, in ms since the epoch; 0: never.
    pub(super) expire_ms: u64,
    /// Seq of the record that changed it last: until that is folded, memory is the only truth. 0: as the tables have it.
    pub(super) seq: u64,
    /// Last use, in seconds.
    pub(super) used: u32,
}

const CHUNK_BITS: u32 = 9;
const CHUNK: usize = 1 << CHUNK_BITS;

#[derive(Debug, Default)]
pub(super) struct Slab {
    chunks: Vec<Vec<Option<Entry>>>,
    free: Vec<u32>,
}

impl Slab {
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<&Entry> {
        self.chunks
            .get((index >> CHUNK_BITS) as usize)?
            .get(index as usize % CHUNK)?
            .as_ref()
    }

    #[inline]
    pub(super) fn get_mut(&mut self, index: u32) -> Option<&mut Entry> {
        self.chunks
            .get_mut((index >> CHUNK_BITS) as usize)?
            .get_mut(index as usize % CHUNK)?
            .as_mut()
    }

    pub(super) fn insert(&mut self, entry: Entry) -> u32 {
        if let Some(index) = self.free.pop() {
            if let Some(cell) = self
                .chunks
                .get_mut((index >> CHUNK_BITS) as usize)
                .and_then(|chunk| chunk.get_mut(index as usize % CHUNK))
            {
                *cell = Some(entry);
            }
            return index;
        }
        let last = self.chunks.len();
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => {
                chunk.push(Some(entry));
                ((last - 1) * CHUNK + chunk.len() - 1) as u32
            }
            _ => {
                // The first chunk grows with its content, so that an empty database costs little.
                let mut chunk = Vec::with_capacity(if last == 0 { 4 } else { CHUNK });
                chunk.push(Some(entry));
                self.chunks.push(chunk);
                (last * CHUNK) as u32
            }
        }
    }

    pub(super) fn remove(&mut self, index: u32) -> Option<Entry> {
        let entry = self
            .chunks
            .get_mut((index >> CHUNK_BITS) as usize)?
            .get_mut(index as usize % CHUNK)?
            .take()?;
        self.free.push(index);
        Some(entry)
    }

    /// All numbers are below this.
    pub(super) fn end(&self) -> u32 {
        match self.chunks.last() {
            Some(last) => ((self.chunks.len() - 1) * CHUNK + last.len()) as u32,
            None => 0,
        }
    }
}
