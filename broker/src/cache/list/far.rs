//! A list that is larger than memory should hold: memory has its two ends, and what lies between them is only in the tables.
//!
//! ```text
//! positions   -3  -2  -1   0   1   2   3  …  996 997 998 999      an item's row stands under its position
//!             [ front          ) [ middle         ) [ back  )     front and back: lists in memory, the middle: rows
//!                                  2*                             * changed since the last fold
//! ```
//! Positions follow one another without a gap, so that a place needs no counting, and what is deleted lies outside. An end that grows
//! gives its inner pieces to the middle when memory runs short and the fold has passed them; one that runs out is read from the
//! middle. An item of the middle that was replaced is known until it is folded.
//!
//! So that nothing that was popped is walked over at load, a row says in which stretches of [`STRETCH`] positions the list begins
//! and ends. It is written when an end comes into another one, and whoever has such a row is of this kind until it is deleted.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::{End, List};
use crate::Keyspace;
use crate::cache::Error;
use crate::cache::partial::Rest;
use crate::cache::row::Rows;
use crate::cache::text::Text;
use crate::rows::{from_ordered_i64, ordered_i64, prefix_end};

/// Name of the row that says where the list begins and ends: before those of all items.
pub(super) const ENDS: &[u8] = b"";
/// Positions of which that row tells the number.
const STRETCH: i64 = if cfg!(test) { 8 } else { 512 };
/// Items that are read at once, if more than those that are needed.
const READ: usize = if cfg!(test) { 8 } else { 256 };
/// Bytes of such a read.
const READ_BYTES: usize = if cfg!(test) { 512 } else { 64 << 10 };
/// Of an item that is known by itself, besides its bytes.
const KNOWN: usize = 64;
/// Items between marks.
const MARKED: i64 = 64;

/// How many items from each end a command will look at or change: of a list whose middle is in the tables they are read before it runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Reach {
    pub left: usize,
    pub right: usize,
}

impl Reach {
    pub const NONE: Self = Self { left: 0, right: 0 };

    /// So many at one end.
    #[must_use]
    pub fn at(end: End, count: usize) -> Self {
        match end {
            End::Left => Self {
                left: count,
                right: 0,
            },
            End::Right => Self {
                left: 0,
                right: count,
            },
        }
    }

    /// As far as a range of places of a list so long, from the end that is nearer.
    #[must_use]
    pub fn of(places: &Range<usize>, len: usize) -> Self {
        let (left, right) = (places.end, len.saturating_sub(places.start));
        if left <= right {
            Self::at(End::Left, left)
        } else {
            Self::at(End::Right, right)
        }
    }
}

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Far {
    pub(super) front: List,
    pub(super) back: List,
    /// Positions of what is only in the tables.
    pub(super) middle: Range<i64>,
    /// Replaced items by position, each with the seq of its record.
    changed: BTreeMap<i64, (Text, u64)>,
    changed_bytes: usize,
    /// Of the front and of the back.
    marks: [Marks; 2],
    /// Seq of the record that has moved items within the ends: until it is folded all of them stay.
    stays: u64,
    /// The stretches in which it begins and ends, as the row says.
    stretches: (i64, i64),
    /// Nothing could be forgotten when the fold was here.
    stuck: Option<u64>,
}

/// Which items of an end the tables may not have.
#[derive(Debug, Clone, Default)]
struct Marks {
    /// From the middle outwards: an item's position, and a seq that no change of it or of those before it exceeds.
    all: VecDeque<(i64, u64)>,
}

impl Marks {
    /// An item was pushed at a position, further out than all others there.
    fn push(&mut self, position: i64, outwards: i64, seq: u64) {
        // What was popped from there is no more.
        while self
            .all
            .back()
            .is_some_and(|(last, _)| (last - position) * outwards >= 0)
        {
            self.all.pop_back();
        }
        let before = self
            .all
            .len()
            .checked_sub(2)
            .and_then(|at| self.all.get(at));
        let near = before.is_some_and(|(before, _)| (position - before) * outwards <= MARKED);
        match self.all.back_mut() {
            Some(last) if last.1 == seq || near => *last = (position, seq),
            _ => self.all.push_back((position, seq)),
        }
    }

    /// May a piece leave that reaches outwards to this position?
    fn is_folded(&mut self, position: i64, outwards: i64, folded: u64) -> bool {
        while self
            .all
            .front()
            .is_some_and(|(last, seq)| *seq <= folded && (last - position) * outwards < 0)
        {
            self.all.pop_front();
        }
        self.all.front().is_none_or(|(_, seq)| *seq <= folded)
    }
}

fn stretches(from: i64, to: i64) -> (i64, i64) {
    (
        from.div_euclid(STRETCH),
        to.saturating_sub(1).div_euclid(STRETCH),
    )
}

/// What the row of [`ENDS`] says.
fn ends_value((first, last): (i64, i64)) -> [u8; 16] {
    let mut value = [0; 16];
    let (front, back) = value.split_at_mut(8);
    front.copy_from_slice(&first.to_le_bytes());
    back.copy_from_slice(&last.to_le_bytes());
    value
}

fn position_of(row: &[u8]) -> Option<i64> {
    Some(from_ordered_i64(row.try_into().ok()?))
}

impl Far {
    /// Of a list that is in memory. `seq`: of the record that changed it last, if the tables may not have all of it.
    pub(super) fn of(front: List, seq: u64) -> Self {
        let (first, behind) = front.ends();
        let mut back = List::new(front.id);
        back.head = behind;
        let mut marks = [Marks::default(), Marks::default()];
        if seq > 0 {
            marks[0].all.push_back((first, seq));
        }
        Self {
            front,
            back,
            middle: behind..behind,
            changed: BTreeMap::new(),
            changed_bytes: 0,
            marks,
            stays: 0,
            stretches: stretches(first, behind),
            stuck: None,
        }
    }

    pub(super) fn len(&self) -> usize {
        self.front.len() + self.between() + self.back.len()
    }

    /// Items of the middle.
    pub(super) fn between(&self) -> usize {
        usize::try_from(self.middle.end - self.middle.start).unwrap_or(0)
    }

    /// Positions of the first item and behind the last one.
    pub(super) fn ends(&self) -> (i64, i64) {
        (self.front.ends().0, self.back.ends().1)
    }

    /// Bytes of the ends.
    fn held(&self) -> usize {
        self.front.memory() + self.back.memory()
    }

    /// Bytes that can be forgotten when all is folded.
    pub(super) fn spare(&self) -> usize {
        let inner = |list: &List, end| list.inner_piece(end).map_or(0, |_| list.memory());
        inner(&self.front, End::Left) + inner(&self.back, End::Right)
    }

    pub(super) fn memory(&self) -> usize {
        let marks = self
            .marks
            .iter()
            .map(|marks| marks.all.len())
            .sum::<usize>();
        size_of::<Self>() + self.held() + self.changed_bytes + marks * size_of::<(i64, u64)>()
    }

    /// Writes where it begins and ends, if that has changed.
    pub(super) fn write_ends(&mut self, always: bool, rows: &mut Rows<'_>) {
        let (first, behind) = self.ends();
        let now = stretches(first, behind);
        if always || (now != self.stretches && first < behind) {
            self.stretches = now;
            rows.put(ENDS, &ends_value(now));
        }
    }

    pub(super) fn push(&mut self, end: End, item: &[u8], rows: &mut Rows<'_>) {
        match end {
            End::Left => {
                self.front.push(end, item, rows);
                self.marks[0].push(self.front.ends().0, -1, rows.seq);
            }
            End::Right => {
                self.back.push(end, item, rows);
                self.marks[1].push(self.back.ends().1 - 1, 1, rows.seq);
            }
        }
        self.write_ends(false, rows);
    }

    /// The item at an end, which memory has.
    pub(super) fn pop(&mut self, end: End, rows: &mut Rows<'_>) -> Option<Text> {
        let (first, behind) = self.ends();
        let (near, other, position) = match end {
            End::Left => (&mut self.front, &mut self.back, first),
            End::Right => (&mut self.back, &mut self.front, behind - 1),
        };
        let item = if near.is_empty() && self.middle.is_empty() {
            let item = other.pop(end, rows)?;
            // The empty one lies beside what is left.
            let (from, to) = other.ends();
            let edge = if end == End::Left { from } else { to };
            self.middle = edge..edge;
            self.side(end).head = edge;
            item
        } else {
            debug_assert!(!near.is_empty(), "what is popped is read before");
            near.pop(end, rows)?
        };
        self.unknow(position..position + 1);
        self.write_ends(false, rows);
        Some(item)
    }

    fn side(&mut self, end: End) -> &mut List {
        match end {
            End::Left => &mut self.front,
            End::Right => &mut self.back,
        }
    }

    /// Forgets what is known of items by position.
    fn unknow(&mut self, positions: Range<i64>) {
        while let Some((position, item)) = self.changed.range(positions.clone()).next() {
            let position = *position;
            self.changed_bytes -= KNOWN + item.0.heap_bytes();
            self.changed.remove(&position);
        }
    }

    pub(super) fn set(&mut self, place: usize, item: &[u8], rows: &mut Rows<'_>) -> bool {
        let (front, behind) = (self.front.len(), self.front.len() + self.between());
        let position = self.ends().0.saturating_add_unsigned(place as u64);
        if place >= self.len() {
            return false;
        }
        if place < front {
            self.front.set(place, item, rows);
        } else if place >= behind {
            self.back.set(place - behind, item, rows);
        } else {
            rows.put(&ordered_i64(position), item);
        }
        self.unknow(position..position + 1);
        let item = Text::new(item);
        self.changed_bytes += KNOWN + item.heap_bytes();
        self.changed.insert(position, (item, rows.seq));
        true
    }

    /// Inserts before the item at a place; memory has all from there to the nearer end.
    pub(super) fn insert(&mut self, place: usize, item: &[u8], rows: &mut Rows<'_>) {
        let (front, behind) = (self.front.len(), self.front.len() + self.between());
        if place <= front && (place * 2 <= self.len() || place < behind) {
            self.front.insert_towards(End::Left, place, item, rows);
            self.moved(End::Left, rows.seq);
        } else {
            debug_assert!(place >= behind, "what moves is read before");
            let within = place.saturating_sub(behind);
            self.back.insert_towards(End::Right, within, item, rows);
            self.moved(End::Right, rows.seq);
        }
        self.write_ends(false, rows);
    }

    /// Items of an end stand under other positions.
    fn moved(&mut self, end: End, seq: u64) {
        self.stays = seq;
        let (first, behind) = self.ends();
        match end {
            End::Left => self.unknow(first..self.middle.start),
            End::Right => self.unknow(self.middle.end..behind),
        }
    }

    /// Keeps the items of both ends that `keep` wants; the number removed.
    pub(super) fn retain(
        &mut self,
        keep: &mut dyn FnMut(usize, &[u8]) -> bool,
        rows: &mut Rows<'_>,
    ) -> usize {
        let behind = self.front.len() + self.between();
        let front = self.front.retain_towards(Some(End::Left), keep, rows);
        let mut keep = |place, item: &[u8]| keep(place + behind, item);
        let back = self.back.retain_towards(Some(End::Right), &mut keep, rows);
        if front > 0 {
            self.moved(End::Left, rows.seq);
        }
        if back > 0 {
            self.moved(End::Right, rows.seq);
        }
        self.write_ends(false, rows);
        front + back
    }

    /// Removes items from both ends, whether memory has them or not.
    pub(super) fn trim(&mut self, left: usize, right: usize, rows: &mut Rows<'_>) {
        let (first, behind) = self.ends();
        for (end, count) in [(End::Left, left), (End::Right, right)] {
            let mut count = count.min(self.len());
            while count > 0 && !self.side(end).is_empty() {
                self.side(end).pop(end, rows);
                count -= 1;
            }
            let cut = count.min(self.between()) as i64;
            for _ in 0..cut {
                // From outside inwards, as who follows the changes expects.
                let position = match end {
                    End::Left => self.middle.start,
                    End::Right => self.middle.end - 1,
                };
                rows.del(&ordered_i64(position));
                match end {
                    End::Left => self.middle.start += 1,
                    End::Right => self.middle.end -= 1,
                }
            }
            self.rest_beside();
            for _ in cut..count as i64 {
                self.pop(end, rows);
            }
        }
        let (from, to) = self.ends();
        self.unknow(first..from);
        self.unknow(to..behind);
        self.write_ends(false, rows);
    }

    /// An end without items lies beside the middle.
    fn rest_beside(&mut self) {
        if self.front.is_empty() {
            self.front.head = self.middle.start;
        }
        if self.back.is_empty() {
            self.back.head = self.middle.end;
        }
    }

    /// Makes memory have what is within reach, which together may take `limit` bytes.
    pub(super) fn hold(
        &mut self,
        reach: Reach,
        limit: usize,
        tables: &Rest<'_>,
    ) -> Result<(), Error> {
        let (left, right) = (reach.left, reach.right);
        let mut bytes = 0;
        while self.front.len() < left && !self.middle.is_empty() {
            let missing = (left - self.front.len()).min(self.between());
            let from = self.middle.start;
            let found = self.read(missing, false, tables)?;
            bytes += found.iter().map(|item| item.len()).sum::<usize>();
            if self.front.is_empty() {
                self.front.head = from;
            }
            self.middle.start += found.len() as i64;
            for item in &found {
                self.front.add(End::Right, item);
            }
            if bytes > limit {
                return Err(Error::TooLarge);
            }
        }
        while self.back.len() < right && !self.middle.is_empty() {
            let missing = (right - self.back.len()).min(self.between());
            let found = self.read(missing, true, tables)?;
            bytes += found.iter().map(|item| item.len()).sum::<usize>();
            for item in &found {
                self.middle.end -= 1;
                self.back.head = self.middle.end;
                self.back.add(End::Left, item);
            }
            if bytes > limit {
                return Err(Error::TooLarge);
            }
        }
        self.stuck = None;
        Ok(())
    }

    /// Some items of the middle, those at its end backwards if `back`: those that are missing, or as many as make a read.
    fn read(&self, missing: usize, back: bool, tables: &Rest<'_>) -> Result<Vec<Text>, Error> {
        let wanted = missing.max(READ);
        let (mut found, mut bytes) = (Vec::new(), 0);
        self.each_stored(self.middle.clone(), back, tables, &mut |item| {
            bytes += item.len();
            found.push(Text::new(item));
            found.len() < wanted && bytes < READ_BYTES
        })?;
        Ok(found)
    }

    /// Visits items of the middle in order or backwards, until `visit` is false; true: to the end.
    fn each_stored(
        &self,
        positions: Range<i64>,
        back: bool,
        tables: &Rest<'_>,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<bool, Error> {
        let (mut next, mut left) = if back {
            (positions.end - 1, positions.end - positions.start)
        } else {
            (positions.start, positions.end - positions.start)
        };
        if left <= 0 {
            return Ok(true);
        }
        let (mut damaged, mut go_on) = (false, true);
        let mut see = |key: &[u8], stored: &[u8]| {
            let name = key.get(tables.prefix.len()..).unwrap_or_default();
            if position_of(name) != Some(next) {
                damaged = true;
                return false;
            }
            let known = self.changed.get(&next);
            go_on = visit(known.map_or(stored, |(item, _)| item));
            next += if back { -1 } else { 1 };
            left -= 1;
            left > 0 && go_on
        };
        let row = |position| [&tables.prefix[..], &ordered_i64(position)].concat();
        let (from, to) = (row(positions.start), row(positions.end));
        let engine = tables.engine;
        if back {
            engine.scan_rev(Keyspace::Rows, &from, Some(&to), usize::MAX, &mut see)?;
        } else {
            engine.scan(Keyspace::Rows, &from, Some(&to), usize::MAX, &mut see)?;
        }
        if damaged || (left > 0 && go_on) {
            return Err(Error::Damaged);
        }
        Ok(go_on)
    }

    /// Visits the items of a range of places in order or backwards, until `visit` is false.
    pub(super) fn each(
        &self,
        places: Range<usize>,
        back: bool,
        tables: &Rest<'_>,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> Result<(), Error> {
        let (front, between) = (self.front.len(), self.between());
        let behind = front + between;
        let within = |from: usize, len: usize| {
            let start = places.start.clamp(from, from + len) - from;
            start..(places.end.clamp(from, from + len) - from).max(start)
        };
        let middle = within(front, between);
        let middle = self.middle.start + middle.start as i64..self.middle.start + middle.end as i64;
        let (first, last) = (within(0, front), within(behind, self.back.len()));
        if back {
            let go_on = self.back.each_back(last, visit)
                && self.each_stored(middle, true, tables, visit)?;
            if go_on {
                self.front.each_back(first, visit);
            }
        } else {
            let go_on = self.front.range(first).all(&mut *visit)
                && self.each_stored(middle, false, tables, visit)?;
            if go_on {
                self.back.range(last).all(&mut *visit);
            }
        }
        Ok(())
    }

    /// Forgets pieces that the tables have, until those in memory take `target` bytes or about `steps` were looked at. Bytes given back.
    pub(super) fn forget(&mut self, folded: u64, target: usize, steps: usize) -> usize {
        let before = self.memory();
        if self.stuck == Some(folded) {
            return 0;
        }
        let bytes = &mut self.changed_bytes;
        self.changed.retain(|_, (item, seq)| {
            let stays = *seq > folded;
            if !stays {
                *bytes -= KNOWN + item.heap_bytes();
            }
            stays
        });
        for _ in 0..steps {
            if self.held() <= target {
                break;
            }
            let larger = if self.front.memory() >= self.back.memory() {
                [End::Left, End::Right]
            } else {
                [End::Right, End::Left]
            };
            let gone = self.stays <= folded && larger.iter().any(|end| self.let_go(*end, folded));
            if !gone {
                self.stuck = Some(folded);
                break;
            }
        }
        before.saturating_sub(self.memory())
    }

    /// Gives the innermost piece of an end to the middle.
    fn let_go(&mut self, end: End, folded: u64) -> bool {
        let Some(count) = self.side(end).inner_piece(end) else {
            return false;
        };
        let count = count as i64;
        let Self {
            middle,
            marks: [front, back],
            ..
        } = self;
        let folded = match end {
            End::Left => front.is_folded(middle.start - count, -1, folded),
            End::Right => back.is_folded(middle.end + count - 1, 1, folded),
        };
        if !folded {
            return false;
        }
        match end {
            End::Left => middle.start -= count,
            End::Right => middle.end += count,
        }
        self.side(end).drop_inner_piece(end);
        true
    }

    /// An item as the tables have it; they come in order.
    pub(super) fn load(&mut self, item: &[u8], most: usize) {
        self.back.add(End::Right, item);
        if self.held() > most {
            self.forget(u64::MAX, most / 2, usize::MAX);
        }
    }

    /// As its rows say; `stored`: what the one of [`ENDS`] does.
    pub(super) fn read_ends(id: u64, stored: &[u8], tables: &Rest<'_>) -> Result<Self, Error> {
        let (first, last) = stored.split_at_checked(8).ok_or(Error::Damaged)?;
        let number = |bytes: &[u8]| {
            let bytes = bytes.try_into().map_err(|_| Error::Damaged)?;
            Ok::<_, Error>(i64::from_le_bytes(bytes))
        };
        let (first, last) = (number(first)?, number(last)?);
        let edge = |stretch: i64| {
            let position = stretch.saturating_mul(STRETCH);
            [&tables.prefix[..], &ordered_i64(position)].concat()
        };
        let mut ends = (None, None);
        let skip = tables.prefix.len();
        let object = prefix_end(&tables.prefix);
        let of = |key: &[u8]| key.get(skip..).and_then(position_of);
        let (engine, rows) = (tables.engine, Keyspace::Rows);
        engine.scan(rows, &edge(first), object.as_deref(), 1, &mut |key, _| {
            ends.0 = of(key);
            false
        })?;
        let (from, to) = (edge(last), edge(last.saturating_add(1)));
        engine.scan_rev(rows, &from, Some(&to), 1, &mut |key, _| {
            ends.1 = of(key);
            false
        })?;
        let (Some(head), Some(top)) = ends else {
            return Err(Error::Damaged);
        };
        if stretches(head, top + 1) != (first, last) || head > top {
            return Err(Error::Damaged);
        }
        let mut front = List::new(id);
        front.head = head;
        let mut far = Self::of(front, 0);
        far.middle = head..top + 1;
        far.back.head = top + 1;
        far.stretches = (first, last);
        Ok(far)
    }
}
