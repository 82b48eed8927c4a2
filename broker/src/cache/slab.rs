//! Keys and what they hold, by number. A number stays the key's own until the key is gone.
//!
//! ```text
//! cell, 12 bytes          block (see `blocks`)
//! [place seq used]  ────▶ [owner u32][head u8][slack u8][key length][key][deadline u64 if any][value]
//!                                                                                             │ text:   its bytes
//!                                                                                             │ int:    i64
//! objects: [Hash][List]…  ◀───────────────────────────────────────────────────────────────────┤ object: u32
//!                                                                                             │ absent: nothing
//! ```
//! So a short string costs its key, its value and about 30 bytes, and nothing for what it does not have. `head` says what the
//! value is, whether there is a deadline and whether the key's length takes one byte or four; `slack` is what the block has
//! too much. Integers are little endian.

use super::blocks::{Blocks, NO_CLASS, OWNER, Place, class_of, size_of_class};
use super::value::{Held, Value};

/// What a key is to hold.
#[derive(Debug)]
pub(super) enum Content<'a> {
    /// At most a few thousand bytes; longer strings are objects.
    Text(&'a [u8]),
    Int(i64),
    Object(Value),
    Absent,
}

/// One key, as it is now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Entry<'a> {
    pub(super) key: &'a [u8],
    pub(super) value: Held<'a>,
    /// When it is gone, in ms since the epoch; 0: never.
    pub(super) expire_ms: u64,
    /// Seq of the record that changed it last: until that is folded, memory is the only truth. 0: as the tables have it.
    pub(super) seq: u64,
    /// Last use, see [`clock`], or how often it was used, see [`Uses`].
    used: u32,
}

impl Entry<'_> {
    /// Seconds since its last use, up to half a year.
    fn idle_seconds(&self, now_ms: u64) -> u32 {
        clock(now_ms).wrapping_sub(self.used) & CLOCK_MASK
    }

    /// Only a marker of a deletion.
    pub(super) fn is_absent(&self) -> bool {
        matches!(self.value, Held::Absent)
    }

    /// Its clock, whatever it counts.
    pub(super) fn used(&self) -> u32 {
        self.used
    }
}

/// How uses are counted where they are, in the 24 bits of the clock:
///
/// ```text
/// [counter u8][minute u16]
/// ```
/// The counter grows with the logarithm of the uses, by chance, and falls by one for each period without any; the minute is that
/// of the last use (Redis' LFU).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Uses {
    pub(super) log_factor: u32,
    pub(super) decay_minutes: u32,
}

/// What a new key counts, so that it is not the next to go.
const NEW: u8 = 5;

fn minute(now_ms: u64) -> u16 {
    (now_ms / 60_000) as u16
}

/// Counter and minute of the last use.
fn counted(used: u32) -> (u8, u16) {
    ((used & 0xff) as u8, (used >> 8) as u16)
}

impl Uses {
    /// The counter as it is by now.
    fn decayed(self, used: u32, now_ms: u64) -> u8 {
        let (counter, last) = counted(used);
        let minutes = u32::from(minute(now_ms).wrapping_sub(last));
        let periods = minutes.checked_div(self.decay_minutes).unwrap_or(0);
        counter.saturating_sub(u8::try_from(periods).unwrap_or(u8::MAX))
    }

    /// The clock after a further use; `dice`: any number.
    fn again(self, used: u32, now_ms: u64, dice: u64) -> u32 {
        let counter = self.decayed(used, now_ms);
        let over = u64::from(counter.saturating_sub(NEW));
        let one_in = over * u64::from(self.log_factor) + 1;
        let more = u8::from(dice.is_multiple_of(one_in));
        packed(counter.saturating_add(more), now_ms)
    }
}

fn packed(counter: u8, now_ms: u64) -> u32 {
    u32::from(counter) | u32::from(minute(now_ms)) << 8
}

const CLOCK_MASK: u32 = 0xff_ffff;

/// Seconds, as 24 bits hold them: the clock that eviction looks at.
#[inline]
fn clock(now_ms: u64) -> u32 {
    (now_ms / 1000) as u32 & CLOCK_MASK
}

#[derive(Debug, Clone, Copy)]
struct Cell {
    /// Of a free cell: the next free one.
    at: u32,
    /// After [`Slab::epoch`]; 0: clean.
    seq: u32,
    /// [`NO_CLASS`]: the cell is free.
    class: u8,
    used: [u8; 3],
}

const _: () = assert!(size_of::<Cell>() == 12);

impl Cell {
    #[inline]
    fn used(self) -> u32 {
        let [a, b, c] = self.used;
        u32::from_le_bytes([a, b, c, 0])
    }

    #[inline]
    fn place(self) -> Place {
        Place {
            class: self.class,
            at: self.at,
        }
    }
}

const CHUNK_BITS: u32 = 9;
const CHUNK: usize = 1 << CHUNK_BITS;
const NONE: u32 = u32::MAX;

/// What a key costs outside its block, about: the cell, and its place in the index.
const CELL_BYTES: i64 = size_of::<Cell>() as i64 + 11;

const HEAD: usize = OWNER;
const SLACK: usize = OWNER + 1;
const KEY_LENGTH: usize = OWNER + 2;

const KIND: u8 = 3;
const TEXT: u8 = 0;
const INT: u8 = 1;
const OBJECT: u8 = 2;
const ABSENT: u8 = 3;
const EXPIRES: u8 = 4;
const WIDE: u8 = 8;

/// See the module.
#[derive(Debug)]
pub(super) struct Slab {
    cells: Vec<Vec<Cell>>,
    /// The first free cell.
    free: u32,
    blocks: Blocks,
    objects: Objects,
    /// A block in the making.
    scratch: Vec<u8>,
    /// Seqs are kept as what they are after this one.
    epoch: u64,
    /// Memory gained or given back since somebody asked, in bytes.
    pub(super) charge: i64,
    /// Clocks count uses; `None`: they tell when the last one was.
    uses: Option<Uses>,
    dice: u64,
}

/// A block, taken apart.
#[derive(Clone, Copy)]
struct Parts<'a> {
    head: u8,
    key: &'a [u8],
    expire_ms: u64,
    value: &'a [u8],
    /// Where the value begins.
    front: usize,
}

#[inline]
fn parts(block: &[u8]) -> Option<Parts<'_>> {
    let (&head, &slack) = (block.get(HEAD)?, block.get(SLACK)?);
    let end = block.len().checked_sub(usize::from(slack))?;
    let (length, start) = if head & WIDE == 0 {
        (usize::from(*block.get(KEY_LENGTH)?), KEY_LENGTH + 1)
    } else {
        let (length, _) = block.get(KEY_LENGTH..)?.split_first_chunk::<4>()?;
        (u32::from_le_bytes(*length) as usize, KEY_LENGTH + 4)
    };
    let key_end = start + length;
    let key = block.get(start..key_end)?;
    let (expire_ms, front) = if head & EXPIRES == 0 {
        (0, key_end)
    } else {
        let (at, _) = block.get(key_end..)?.split_first_chunk::<8>()?;
        (u64::from_le_bytes(*at), key_end + 8)
    };
    Some(Parts {
        head,
        key,
        expire_ms,
        value: block.get(front..end)?,
        front,
    })
}

impl Default for Slab {
    fn default() -> Self {
        Self {
            cells: Vec::new(),
            free: NONE,
            blocks: Blocks::default(),
            objects: Objects::default(),
            scratch: Vec::new(),
            epoch: 0,
            charge: 0,
            uses: None,
            dice: 0x2545_f491_4f6c_dd1d,
        }
    }
}

impl Slab {
    #[inline]
    pub(super) fn get(&self, index: u32) -> Option<Entry<'_>> {
        let cell = self.cell(index)?;
        let parts = parts(self.blocks.get(cell.place())?)?;
        let value = match parts.head & KIND {
            TEXT => Held::Text(parts.value),
            INT => Held::Int(i64::from_le_bytes(parts.value.try_into().ok()?)),
            OBJECT => Held::Object(self.objects.get(object_number(parts.value)?)?),
            _ => Held::Absent,
        };
        Some(Entry {
            key: parts.key,
            value,
            expire_ms: parts.expire_ms,
            seq: match cell.seq {
                0 => 0,
                after => self.epoch + u64::from(after),
            },
            used: cell.used(),
        })
    }

    /// Where the block of an entry is.
    #[inline]
    pub(super) fn place(&self, index: u32) -> Option<Place> {
        self.cell(index).map(Cell::place)
    }

    #[inline]
    pub(super) fn first_byte(&self, place: Place) -> Option<u8> {
        self.blocks.get(place)?.first().copied()
    }

    /// Is this the key with that number?
    #[inline]
    pub(super) fn is(&self, index: u32, key: &[u8]) -> bool {
        self.block(index)
            .and_then(parts)
            .is_some_and(|parts| parts.key == key)
    }

    /// The object that a key holds, to be changed; whoever changes it accounts for its memory.
    #[inline]
    pub(super) fn object_mut(&mut self, index: u32) -> Option<&mut Value> {
        let parts = parts(self.block(index)?)?;
        if parts.head & KIND != OBJECT {
            return None;
        }
        let number = object_number(parts.value)?;
        self.objects.get_mut(number)
    }

    /// Adds a key that is not there yet.
    pub(super) fn insert(
        &mut self,
        key: &[u8],
        content: Content<'_>,
        expire_ms: u64,
        seq: u64,
        now_ms: u64,
    ) -> u32 {
        let index = self.free_cell();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(&index.to_le_bytes());
        scratch.extend_from_slice(&[0, 0]);
        let wide = match u8::try_from(key.len()) {
            Ok(length) => {
                scratch.push(length);
                0
            }
            Err(_) => {
                // A key is at most 512 MiB.
                scratch.extend_from_slice(&(key.len() as u32).to_le_bytes());
                WIDE
            }
        };
        scratch.extend_from_slice(key);
        let expires = if expire_ms == 0 {
            0
        } else {
            scratch.extend_from_slice(&expire_ms.to_le_bytes());
            EXPIRES
        };
        let kind = self.append(content, &mut scratch);
        scratch[HEAD] = kind | wide | expires;
        let place = self.blocks.take(scratch.len());
        self.charge += CELL_BYTES;
        self.fill(place, &scratch);
        self.scratch = scratch;
        if let Some(cell) = self.cell_mut(index) {
            *cell = Cell {
                at: place.at,
                seq: 0,
                class: place.class,
                used: [0; 3],
            };
        }
        self.mark(index, seq);
        self.begin(index, now_ms);
        index
    }

    /// Makes a key hold something else; the object that it held.
    #[inline]
    pub(super) fn set(&mut self, index: u32, content: Content<'_>) -> Option<Value> {
        let place = self.cell(index)?.place();
        let block = self.blocks.get_mut(place)?;
        let Parts {
            head, front, value, ..
        } = parts(block)?;
        // The usual case: something of about the same length, in place.
        let int;
        let bytes = match &content {
            Content::Text(bytes) => Some((TEXT, *bytes)),
            Content::Int(value) => {
                int = value.to_le_bytes();
                Some((INT, &int[..]))
            }
            Content::Object(_) | Content::Absent => None,
        };
        if head & KIND != OBJECT
            && let Some((kind, bytes)) = bytes
            && let Some(slack) = block.len().checked_sub(front + bytes.len())
            && class_of(front + bytes.len()) == place.class
            && let Ok(slack) = u8::try_from(slack)
        {
            block[HEAD] = head & !KIND | kind;
            block[SLACK] = slack;
            block[front..front + bytes.len()].copy_from_slice(bytes);
            return None;
        }
        let old = (head & KIND == OBJECT)
            .then(|| object_number(value))
            .flatten();
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(block.get(..front)?);
        let old = old.and_then(|number| self.take_object(number));
        let kind = self.append(content, &mut scratch);
        scratch[HEAD] = head & !KIND | kind;
        self.rewrite(index, place, scratch);
        old
    }

    /// Gives a key a deadline in ms since the epoch, or takes it (0).
    pub(super) fn set_expire(&mut self, index: u32, expire_ms: u64) {
        let Some(cell) = self.cell(index) else {
            return;
        };
        let Some(block) = self.blocks.get_mut(cell.place()) else {
            return;
        };
        let Some(Parts {
            head, front, value, ..
        }) = parts(block)
        else {
            return;
        };
        let had = head & EXPIRES != 0;
        if had && expire_ms != 0 {
            block[front - 8..front].copy_from_slice(&expire_ms.to_le_bytes());
            return;
        }
        if had == (expire_ms != 0) {
            return;
        }
        let mut scratch = std::mem::take(&mut self.scratch);
        scratch.clear();
        scratch.extend_from_slice(&block[..if had { front - 8 } else { front }]);
        if expire_ms != 0 {
            scratch.extend_from_slice(&expire_ms.to_le_bytes());
        }
        scratch.extend_from_slice(&block[front..front + value.len()]);
        scratch[HEAD] = head ^ EXPIRES;
        self.rewrite(index, cell.place(), scratch);
    }

    /// Takes what a key holds out of it, which holds nothing then.
    pub(super) fn take(&mut self, index: u32) -> Option<Value> {
        let value = match self.get(index)?.value {
            Held::Text(bytes) => Some(Value::string(bytes)),
            Held::Int(value) => Some(Value::Int(value)),
            Held::Object(_) | Held::Absent => None,
        };
        self.set(index, Content::Absent).or(value)
    }

    /// Notes which record changed a key.
    #[inline]
    pub(super) fn mark(&mut self, index: u32, seq: u64) {
        let epoch = self.epoch;
        if let Some(cell) = self.cell_mut(index) {
            // It fits: an epoch begins before a record has a seq behind the end of the last one.
            debug_assert!(
                seq.saturating_sub(epoch) <= u64::from(u32::MAX),
                "seq {seq} in epoch {epoch}"
            );
            cell.seq = seq.saturating_sub(epoch) as u32;
        }
    }

    /// Notes that a key is used.
    #[inline]
    pub(super) fn touch(&mut self, index: u32, now_ms: u64) {
        if self.uses.is_some() {
            return self.count_use(index, now_ms);
        }
        self.set_clock(index, clock(now_ms));
    }

    /// Notes that a key is there from now on.
    #[inline]
    pub(super) fn begin(&mut self, index: u32, now_ms: u64) {
        if self.uses.is_some() {
            return self.set_clock(index, packed(NEW, now_ms));
        }
        self.set_clock(index, clock(now_ms));
    }

    #[cold]
    fn count_use(&mut self, index: u32, now_ms: u64) {
        let Some((uses, cell)) = self.uses.zip(self.cell(index)) else {
            return;
        };
        // xorshift64: only how often it is a multiple of a small number matters.
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        let used = uses.again(cell.used(), now_ms, self.dice >> 11);
        self.set_clock(index, used);
    }

    /// Sets a clock as [`Entry::used`] gave it.
    #[inline]
    pub(super) fn set_clock(&mut self, index: u32, used: u32) {
        if let Some(cell) = self.cell_mut(index) {
            let [a, b, c, _] = used.to_le_bytes();
            cell.used = [a, b, c];
        }
    }

    /// What clocks count from now on. What they counted before is taken for that until it is used again, as in Redis.
    pub(super) fn count_uses(&mut self, uses: Option<Uses>) {
        self.uses = uses;
    }

    pub(super) fn uses(&self) -> Option<Uses> {
        self.uses
    }

    /// How often an entry of this slab is used; 0 where that is not counted.
    pub(super) fn uses_of(&self, entry: &Entry<'_>, now_ms: u64) -> u8 {
        (self.uses).map_or(0, |uses| uses.decayed(entry.used, now_ms))
    }

    /// Seconds since the last use of an entry of this slab; whole minutes where uses are counted.
    pub(super) fn idle_of(&self, entry: &Entry<'_>, now_ms: u64) -> u32 {
        match self.uses {
            None => entry.idle_seconds(now_ms),
            Some(_) => 60 * u32::from(minute(now_ms).wrapping_sub(counted(entry.used).1)),
        }
    }

    /// Makes an entry be one that was used so often.
    pub(super) fn set_uses(&mut self, index: u32, counter: u8, now_ms: u64) {
        if self.uses.is_some() {
            self.set_clock(index, packed(counter, now_ms));
        }
    }

    /// The last seq that can be kept before a new epoch begins.
    pub(super) fn epoch_end(&self) -> u64 {
        self.epoch.saturating_add(u64::from(u32::MAX))
    }

    /// Counts seqs from somewhere else. What is not `folded` stays dirty, if need be for longer than it was.
    #[cold]
    pub(super) fn begin_epoch(&mut self, folded: u64, seq: u64) {
        let old = self.epoch;
        self.epoch = folded.max(seq.saturating_sub(1 << 31));
        for cell in self.cells.iter_mut().flatten() {
            if cell.seq != 0 {
                let seq = old + u64::from(cell.seq);
                cell.seq = if seq <= folded {
                    0
                } else {
                    u32::try_from(seq.saturating_sub(self.epoch))
                        .unwrap_or(u32::MAX)
                        .max(1)
                };
            }
        }
    }

    /// Forgets a key; the object that it held.
    pub(super) fn remove(&mut self, index: u32) -> Option<Value> {
        let cell = self.cell(index)?;
        let parts = self.blocks.get(cell.place()).and_then(parts)?;
        let object = (parts.head & KIND == OBJECT)
            .then(|| object_number(parts.value))
            .flatten();
        let object = object.and_then(|number| self.take_object(number));
        self.give(cell.place());
        self.charge -= CELL_BYTES;
        let free = std::mem::replace(&mut self.free, index);
        if let Some(cell) = self.cell_mut(index) {
            *cell = Cell {
                at: free,
                seq: 0,
                class: NO_CLASS,
                used: [0; 3],
            };
        }
        object
    }

    /// About the memory of a key with all that it holds, in bytes.
    pub(super) fn weight(&self, index: u32) -> i64 {
        let Some(block) = self.block(index) else {
            return 0;
        };
        let object = match self.get(index).map(|entry| entry.value) {
            Some(Held::Object(object)) => object.memory(),
            _ => 0,
        };
        CELL_BYTES + (block.len() + object) as i64
    }

    /// All numbers are below this.
    pub(super) fn end(&self) -> u32 {
        match self.cells.last() {
            Some(last) => ((self.cells.len() - 1) * CHUNK + last.len()) as u32,
            None => 0,
        }
    }

    #[inline]
    fn cell(&self, index: u32) -> Option<Cell> {
        let cell = *self
            .cells
            .get((index >> CHUNK_BITS) as usize)?
            .get(index as usize % CHUNK)?;
        (cell.class != NO_CLASS).then_some(cell)
    }

    #[inline]
    fn cell_mut(&mut self, index: u32) -> Option<&mut Cell> {
        self.cells
            .get_mut((index >> CHUNK_BITS) as usize)?
            .get_mut(index as usize % CHUNK)
    }

    #[inline]
    fn block(&self, index: u32) -> Option<&[u8]> {
        self.blocks.get(self.cell(index)?.place())
    }

    fn free_cell(&mut self) -> u32 {
        if self.free != NONE {
            let index = self.free;
            if let Some(cell) = self.cell_mut(index) {
                self.free = cell.at;
            }
            return index;
        }
        let cell = Cell {
            at: 0,
            seq: 0,
            class: NO_CLASS,
            used: [0; 3],
        };
        let last = self.cells.len();
        match self.cells.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => {
                chunk.push(cell);
                ((last - 1) * CHUNK + chunk.len() - 1) as u32
            }
            _ => {
                // The first chunk grows with its content, so that an empty database costs little.
                let mut chunk = Vec::with_capacity(if last == 0 { 4 } else { CHUNK });
                chunk.push(cell);
                self.cells.push(chunk);
                (last * CHUNK) as u32
            }
        }
    }

    /// Writes a value behind what is in `scratch`; its kind.
    fn append(&mut self, content: Content<'_>, scratch: &mut Vec<u8>) -> u8 {
        match content {
            Content::Text(bytes) => {
                scratch.extend_from_slice(bytes);
                TEXT
            }
            Content::Int(value) => {
                scratch.extend_from_slice(&value.to_le_bytes());
                INT
            }
            Content::Object(value) => {
                self.charge += value.memory() as i64;
                scratch.extend_from_slice(&self.objects.insert(value).to_le_bytes());
                OBJECT
            }
            Content::Absent => ABSENT,
        }
    }

    fn take_object(&mut self, number: u32) -> Option<Value> {
        let object = self.objects.remove(number)?;
        self.charge -= object.memory() as i64;
        Some(object)
    }

    /// Puts a whole block where the old one was, or where it fits.
    fn rewrite(&mut self, index: u32, old: Place, scratch: Vec<u8>) {
        let same = class_of(scratch.len()) == old.class
            && self
                .blocks
                .get(old)
                .is_some_and(|block| block.len() == size_of_class(old.class, scratch.len()));
        let place = if same {
            self.charge -= size_of_class(old.class, scratch.len()) as i64;
            old
        } else {
            self.give(old);
            let place = self.blocks.take(scratch.len());
            if let Some(cell) = self.cell_mut(index) {
                cell.class = place.class;
                cell.at = place.at;
            }
            place
        };
        self.fill(place, &scratch);
        self.scratch = scratch;
    }

    fn fill(&mut self, place: Place, bytes: &[u8]) {
        let Some(block) = self.blocks.get_mut(place) else {
            return;
        };
        self.charge += block.len() as i64;
        let slack = block.len() - bytes.len();
        block[..bytes.len()].copy_from_slice(bytes);
        // Steps between sizes are at most 64 bytes.
        block[SLACK] = slack as u8;
    }

    fn give(&mut self, place: Place) {
        if let Some(block) = self.blocks.get(place) {
            self.charge -= block.len() as i64;
        }
        if let Some(owner) = self.blocks.give(place)
            && let Some(cell) = self.cell_mut(owner)
        {
            cell.at = place.at;
        }
    }
}

#[inline]
fn object_number(value: &[u8]) -> Option<u32> {
    Some(u32::from_le_bytes(value.try_into().ok()?))
}

/// Collections and long strings by number: they never move.
#[derive(Debug, Default)]
struct Objects {
    chunks: Vec<Vec<Option<Value>>>,
    free: Vec<u32>,
}

impl Objects {
    #[inline]
    fn get(&self, number: u32) -> Option<&Value> {
        self.chunks
            .get((number >> CHUNK_BITS) as usize)?
            .get(number as usize % CHUNK)?
            .as_ref()
    }

    #[inline]
    fn cell(&mut self, number: u32) -> Option<&mut Option<Value>> {
        self.chunks
            .get_mut((number >> CHUNK_BITS) as usize)?
            .get_mut(number as usize % CHUNK)
    }

    #[inline]
    fn get_mut(&mut self, number: u32) -> Option<&mut Value> {
        self.cell(number)?.as_mut()
    }

    fn insert(&mut self, object: Value) -> u32 {
        if let Some(number) = self.free.pop() {
            if let Some(cell) = self.cell(number) {
                *cell = Some(object);
            }
            return number;
        }
        let last = self.chunks.len();
        match self.chunks.last_mut() {
            Some(chunk) if chunk.len() < CHUNK => {
                chunk.push(Some(object));
                ((last - 1) * CHUNK + chunk.len() - 1) as u32
            }
            _ => {
                let mut chunk = Vec::with_capacity(if last == 0 { 4 } else { CHUNK });
                chunk.push(Some(object));
                self.chunks.push(chunk);
                (last * CHUNK) as u32
            }
        }
    }

    fn remove(&mut self, number: u32) -> Option<Value> {
        let object = self.cell(number)?.take()?;
        self.free.push(number);
        Some(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    #[derive(Debug, Clone, PartialEq)]
    enum Model {
        Text(Vec<u8>),
        Int(i64),
        Object(Vec<u8>),
        Absent,
    }

    impl Model {
        fn content(&self) -> Content<'_> {
            match self {
                Self::Text(bytes) => Content::Text(bytes),
                Self::Int(value) => Content::Int(*value),
                Self::Object(bytes) => Content::Object(Value::string(bytes)),
                Self::Absent => Content::Absent,
            }
        }

        fn is(&self, held: Held<'_>) -> bool {
            match (self, held) {
                (Self::Text(bytes), Held::Text(found)) => bytes == found,
                (Self::Int(value), Held::Int(found)) => *value == found,
                (Self::Object(bytes), Held::Object(found)) => *found == Value::string(bytes),
                (Self::Absent, Held::Absent) => true,
                _ => false,
            }
        }
    }

    fn content() -> impl Strategy<Value = Model> {
        let bytes = || {
            prop_oneof![
                6 => prop::collection::vec(any::<u8>(), 0..40),
                1 => (200usize..5000, any::<u8>()).prop_map(|(length, byte)| vec![byte; length]),
            ]
        };
        prop_oneof![
            4 => bytes().prop_map(Model::Text),
            2 => any::<i64>().prop_map(Model::Int),
            1 => bytes().prop_map(|mut bytes| { bytes.push(b'x'); Model::Object(bytes) }),
            1 => Just(Model::Absent),
        ]
    }

    #[derive(Debug, Clone)]
    enum Op {
        Insert(usize, Model, u64),
        Set(u16, Model),
        Expire(u16, u64),
        Take(u16),
        Remove(u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        let at = || prop_oneof![1 => Just(0u64), 2 => 1u64..9];
        let length = prop_oneof![8 => 0usize..30, 1 => 250usize..260, 1 => 5000usize..5010];
        prop_oneof![
            4 => (length, content(), at()).prop_map(|(n, c, at)| Op::Insert(n, c, at)),
            4 => (any::<u16>(), content()).prop_map(|(i, c)| Op::Set(i, c)),
            2 => (any::<u16>(), at()).prop_map(|(i, at)| Op::Expire(i, at)),
            1 => any::<u16>().prop_map(Op::Take),
            2 => any::<u16>().prop_map(Op::Remove),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn every_key_keeps_what_it_holds(ops in prop::collection::vec(op(), 1..300)) {
            let mut slab = Slab::default();
            let mut model: BTreeMap<u32, (Vec<u8>, Model, u64, u64)> = BTreeMap::new();
            for (step, op) in ops.iter().enumerate() {
                let seq = step as u64 + 1;
                let chosen = |at: &u16| model.keys().nth(usize::from(*at) % model.len().max(1)).copied();
                match op {
                    Op::Insert(length, content, expire_ms) => {
                        let key = vec![step as u8; *length];
                        let index = slab.insert(&key, content.content(), *expire_ms, seq, 5000);
                        prop_assert!(model.insert(index, (key, content.clone(), *expire_ms, seq)).is_none());
                    }
                    Op::Set(at, content) => {
                        let Some(index) = chosen(at) else { continue };
                        let known = model.get_mut(&index).expect("known");
                        let old = slab.set(index, content.content());
                        prop_assert_eq!(old.is_some(), matches!(known.1, Model::Object(_)));
                        known.1 = content.clone();
                    }
                    Op::Expire(at, expire_ms) => {
                        let Some(index) = chosen(at) else { continue };
                        slab.set_expire(index, *expire_ms);
                        model.get_mut(&index).expect("known").2 = *expire_ms;
                    }
                    Op::Take(at) => {
                        let Some(index) = chosen(at) else { continue };
                        let known = model.get_mut(&index).expect("known");
                        let taken = slab.take(index);
                        prop_assert_eq!(taken, match &known.1 {
                            Model::Text(bytes) | Model::Object(bytes) => Some(Value::string(bytes)),
                            Model::Int(value) => Some(Value::Int(*value)),
                            Model::Absent => None,
                        });
                        known.1 = Model::Absent;
                    }
                    Op::Remove(at) => {
                        let Some(index) = chosen(at) else { continue };
                        slab.remove(index);
                        model.remove(&index);
                        prop_assert!(slab.get(index).is_none());
                    }
                }
                for (index, (key, content, expire_ms, seq)) in &model {
                    let entry = slab.get(*index).expect("an entry");
                    prop_assert!(content.is(entry.value) && slab.is(*index, key));
                    prop_assert_eq!((entry.key, entry.expire_ms, entry.seq), (&key[..], *expire_ms, *seq));
                }
                let weight: i64 = model.keys().map(|&index| slab.weight(index)).sum();
                prop_assert_eq!(slab.charge, weight);
            }
        }
    }

    #[test]
    fn a_new_epoch_keeps_what_is_dirty_dirty() {
        let mut slab = Slab::default();
        let first = 1u64 << 32;
        assert!(slab.epoch_end() < first);
        slab.begin_epoch(7, first);
        let keys: Vec<u32> = (0..3)
            .map(|i| slab.insert(b"k", Content::Int(0), 0, first + i, 0))
            .collect();
        assert!(slab.epoch_end() > first + 1000);
        let later = first + (1 << 33);
        assert!(slab.epoch_end() < later);
        slab.begin_epoch(first + 1, later);
        let seqs: Vec<u64> = keys
            .iter()
            .filter_map(|&index| Some(slab.get(index)?.seq))
            .collect();
        assert_eq!(seqs[..2], [0, 0]);
        assert!(seqs[2] > first + 1);
        slab.mark(keys[0], later);
        assert_eq!(slab.get(keys[0]).map(|entry| entry.seq), Some(later));
    }

    #[test]
    fn uses_are_counted_by_their_logarithm_and_forgotten() {
        let mut slab = Slab::default();
        slab.count_uses(Some(Uses {
            log_factor: 10,
            decay_minutes: 1,
        }));
        let index = slab.insert(b"k", Content::Absent, 0, 0, 0);
        let counter = |slab: &Slab, now| {
            let entry = slab.get(index).expect("an entry");
            slab.uses_of(&entry, now)
        };
        assert_eq!(counter(&slab, 0), NEW);
        slab.touch(index, 0);
        assert_eq!(counter(&slab, 0), NEW + 1);
        for _ in 0..1000 {
            slab.touch(index, 0);
        }
        // Redis' table: factor 10, a thousand hits: about 18.
        let many = counter(&slab, 0);
        assert!((12..26).contains(&many), "{many}");
        assert_eq!(counter(&slab, 3 * 60_000), many - 3);
        assert_eq!(counter(&slab, 300 * 60_000), 0);
        let entry = slab.get(index).expect("an entry");
        assert_eq!(slab.idle_of(&entry, 3 * 60_000), 180);
        slab.set_uses(index, 255, 0);
        slab.touch(index, 0);
        assert_eq!(counter(&slab, 0), 255);
    }

    #[test]
    fn idle_time_wraps_with_the_clock() {
        let mut slab = Slab::default();
        let at = (u64::from(CLOCK_MASK) - 1) * 1000;
        let index = slab.insert(b"k", Content::Absent, 0, 0, at);
        let idle = |now| slab.get(index).map(|entry| entry.idle_seconds(now));
        assert_eq!((idle(at), idle(at + 9_000)), (Some(0), Some(9)));
    }
}
