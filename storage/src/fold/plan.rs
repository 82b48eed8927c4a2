//! What a window of the log comes to: the last change of each row, in order of key.
//!
//! ```text
//! log ─ walk ─▶ a reference per op: 8 bytes of key, place ─ sort ─▶ ops of one row next to each other ─▶ one per row
//! ```
//! The log is read through a mapping, of which a piece that was walked is given back; values that are large are left where they
//! are and read at the end (`far.rs`), so that a window of them is never in memory. Whoever follows a reference into it pays a cache miss, and usually a miss of the
//! page table as well: that, not the work, is what a plan costs. So references are compared by numbers, the log is looked
//! at for those only whose numbers are equal, and then for all of a group at once, so that the misses overlap.

use std::cell::{Cell, RefCell};
use std::ops::Range;

use super::far::{Ahead, FAR_MIN, Far, FarValue, Fars};
use crate::Error;
use crate::SHARDS;
use crate::log::group::{self, Found, Header};
use crate::log::map::Map;
use crate::log::record::{Op, Record, split_op};
use crate::log::segment::Segment;

/// A window ends early at this many ops, so that memory is bounded: 64 MB, and half of that while they are sorted.
const OPS_MAX: usize = 4 << 20;

/// Keys that agree in more bytes than this are compared whole: the sort must not recurse as deep as a key is long.
const DEPTH_MAX: usize = 256;
/// Fewer references than this are compared through the log: their keys are in the cache after the first look.
const FEW: usize = 16;
/// Ops fetched from the log ahead of their use.
const AHEAD: usize = 16;
/// Cache lines of an op that are fetched: its head, its key, and of its value what a small row has.
const OP_LINES: usize = 3;
const CACHE_LINE: usize = 64;
/// The mapping that was walked is released in pieces of this many bytes.
const WALKED: u64 = 4 << 20;
/// So many looks at least, at ascending places within so many bytes, release what lies between the first and the last.
const SEEN: u32 = 32;
const SEEN_BYTES: u64 = 8 << 20;
/// Releases of one plan: what was released may be faulted in again, and that must not add up.
const RELEASES_MAX: u32 = 128;
/// Small ops are copied up to this part of the bytes of large values: a window of small rows alone stays where it is.
const NEAR_SHARE: u64 = 16;

/// The part of one file that belongs to the window.
#[derive(Debug)]
pub(crate) struct Part {
    pub(crate) map: Map,
    segment: Segment,
    from: u64,
    to: u64,
}

/// The files of a window.
#[derive(Debug, Default)]
struct Parts {
    all: Vec<Part>,
    /// Small ops that stood among large values, copied: a page of the mapping for each would be most of the window.
    near: Vec<u8>,
}

/// A window as one thread looks at it.
#[derive(Debug)]
pub(crate) struct Sight<'a> {
    parts: &'a Parts,
    seen: Cell<Seen>,
    ahead: RefCell<Ahead>,
}

/// Looks at ascending places, since the mapping was released or since one of them went back.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    first: u64,
    last: u64,
    count: u32,
    releases: u32,
}

/// A window of the log.
#[derive(Debug)]
pub(crate) struct Plan {
    parts: Parts,
    pub(crate) rows: Latest,
    pub(crate) bodies: Latest,
    /// Last seq of each shard, where the window has one.
    pub(crate) seqs: [u64; SHARDS],
    /// Position after the last group that was taken.
    pub(crate) end: u64,
    /// Bytes of log.
    pub(crate) bytes: u64,
    /// How often a body was deleted.
    pub(crate) deleted_bodies: u64,
    /// How often a row was deleted.
    pub(crate) deleted_rows: u64,
    /// Bytes of large values.
    far_bytes: u64,
}

/// The changes of one keyspace: all ops at first, then the last change of each row in order of key.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    refs: Vec<Ref>,
    sums: Vec<Sum>,
    fars: Fars,
}

/// Where an op, or a row's last change, is.
#[derive(Clone, Copy, Debug)]
struct Ref {
    /// Eight bytes of the key: most comparisons need no more.
    prefix: u64,
    place: Place,
}

/// An op in the window (part, and offset in its file) with its kind; or the number of a sum or of a large value; and whether the
/// row was put earlier in the window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place(u64);

/// A counter that was added to: `op` is one of its ops (for the key).
#[derive(Clone, Copy, Debug)]
struct Sum {
    op: Place,
    /// Added to what the table holds, rather than a value of its own.
    relative: bool,
    sum: i64,
}

/// Which rows of a keyspace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Half {
    Both,
    Lower,
    Upper,
}

/// What the last change of a row is.
#[derive(Debug)]
pub(crate) enum Last<'a> {
    Put(&'a [u8], &'a [u8]),
    /// A large value.
    PutFar(&'a [u8], FarValue<'a>),
    /// `born`: the row was put earlier in this window, so that the table may not have it at all.
    Del {
        key: &'a [u8],
        born: bool,
    },
    /// To be added to the counter in the table.
    Add(&'a [u8], i64),
    /// A counter with this value.
    Count(&'a [u8], i64),
}

impl Half {
    fn of(self, count: usize) -> Range<usize> {
        match self {
            Self::Both => 0..count,
            Self::Lower => 0..count / 2,
            Self::Upper => count / 2..count,
        }
    }
}

impl Place {
    const BORN: u64 = 1 << 63;
    const SUM: u64 = 1 << 62;
    const ADD: u64 = 1 << 61;
    const DEL: u64 = 1 << 60;
    const FAR: u64 = 1 << 59;
    /// Part and offset.
    const WHERE: u64 = Self::FAR - 1;
    const OFFSET_BITS: u32 = 40;
    const PART_MASK: usize = (1 << 19) - 1;
    /// Instead of a file: what was copied.
    const NEAR: usize = Self::PART_MASK;

    fn op(part: usize, offset: usize, op: &Op<'_>) -> Self {
        assert!(
            part <= Self::NEAR && offset < 1 << Self::OFFSET_BITS,
            "a window of {part} files"
        );
        let kind = match op {
            Op::Put { .. } | Op::PutBody { .. } => 0,
            Op::Del { .. } | Op::DelBody { .. } => Self::DEL,
            Op::Add { .. } => Self::ADD,
        };
        Self(kind | (part as u64) << Self::OFFSET_BITS | offset as u64)
    }

    fn sum(index: usize) -> Self {
        Self(Self::SUM | index as u64)
    }

    fn far(index: usize) -> Self {
        Self(Self::FAR | index as u64)
    }

    fn far_index(self) -> Option<usize> {
        self.is(Self::FAR)
            .then_some((self.0 & !(Self::FAR | Self::BORN)) as usize)
    }

    fn is(self, flag: u64) -> bool {
        self.0 & flag != 0
    }

    fn sum_index(self) -> Option<usize> {
        self.is(Self::SUM)
            .then_some((self.0 & !(Self::SUM | Self::BORN)) as usize)
    }

    fn part(self) -> usize {
        (self.0 >> Self::OFFSET_BITS) as usize & Self::PART_MASK
    }

    fn offset(self) -> usize {
        (self.0 & ((1 << Self::OFFSET_BITS) - 1)) as usize
    }
}

impl Plan {
    /// Plans the log of `start..goal`, or (unless `exact`) its beginning, up to `max_bytes` or very many ops.
    pub(crate) fn read(
        segments: Vec<Segment>,
        start: u64,
        goal: u64,
        max_bytes: u64,
        exact: bool,
    ) -> Result<Self, Error> {
        let mut plan = Self {
            parts: Parts::default(),
            rows: Latest::default(),
            bodies: Latest::default(),
            seqs: [0; SHARDS],
            end: start,
            bytes: 0,
            deleted_bodies: 0,
            deleted_rows: 0,
            far_bytes: 0,
        };
        for segment in segments {
            let (from, to) = (start.max(segment.start), goal.min(segment.end));
            if from >= to {
                continue;
            }
            if plan.is_full(max_bytes, exact) {
                break;
            }
            let map = Map::open(&segment.path, segment.offset_of(to))
                .map_err(|e| Error::io("cannot map", &segment.path, e))?;
            let part = Part {
                map,
                segment,
                from,
                to,
            };
            plan.part(&part, max_bytes, exact)?;
            plan.parts.all.push(part);
        }
        let sight = plan.parts.sight();
        for latest in [&mut plan.rows, &mut plan.bodies] {
            latest.settle(&sight);
        }
        Ok(plan)
    }

    /// Number of rows changed.
    pub(crate) fn len(&self) -> usize {
        self.rows.refs.len() + self.bodies.refs.len()
    }

    /// Counters are added to what the tables hold: done twice, that counts twice.
    pub(crate) fn adds(&self) -> bool {
        let mut sums = self.latest().flat_map(|latest| &latest.sums);
        sums.any(|sum| sum.relative)
    }

    /// It is looked up whether the tables hold a row that was put and deleted.
    pub(crate) fn asks(&self) -> bool {
        let mut places = self.latest().flat_map(|latest| &latest.refs);
        places.any(|entry| entry.place.is(Place::DEL) && entry.place.is(Place::BORN))
    }

    /// Gives back the mapping's memory; it may be looked at again.
    pub(crate) fn release(&self) {
        for part in &self.parts.all {
            part.map.release(0, usize::MAX);
        }
    }

    fn latest(&self) -> impl Iterator<Item = &Latest> {
        [&self.rows, &self.bodies].into_iter()
    }

    fn is_full(&self, max_bytes: u64, exact: bool) -> bool {
        !exact && (self.bytes >= max_bytes || self.len() >= OPS_MAX)
    }

    fn part(&mut self, part: &Part, max_bytes: u64, exact: bool) -> Result<(), Error> {
        let mut position = part.from;
        let mut walked = position;
        // Of hot rows only the last change is looked at again, of large ones nothing.
        let offset = |position| part.segment.offset_of(position) as usize;
        while position < part.to && !self.is_full(max_bytes, exact) {
            let end = self.group(part, position)?;
            self.bytes += end - position;
            self.end = end;
            position = end;
            if position - walked >= WALKED {
                part.map.release(offset(walked), offset(position));
                walked = position;
            }
        }
        part.map.release(offset(walked), usize::MAX);
        Ok(())
    }

    /// Collects the ops of the group at `position`. Returns its end.
    fn group(&mut self, part: &Part, position: u64) -> Result<u64, Error> {
        let damaged = |what| Error::damaged(&part.segment.path, position, what);
        let bytes = part.map.bytes();
        let at = part.segment.offset_of(position) as usize;
        let Some(Found::Header(header)) = bytes.get(at..).map(Header::find) else {
            return Err(damaged("no group header"));
        };
        let mut at = at + group::HEADER;
        let end = at + header.length as usize;
        let index = self.parts.all.len();
        while at < end {
            let rest = bytes.get(at..end).unwrap_or(&[]);
            let Some((record, size)) = Record::split(rest, 0) else {
                return Err(damaged("no record"));
            };
            for section in record.sections() {
                if let Some(seq) = self.seqs.get_mut(section.shard.index()) {
                    *seq = (*seq).max(section.seq);
                }
                for op in section.ops() {
                    let (key, head, length, latest) = match op {
                        Op::Put { key, value } => (key, 7, value.len(), &mut self.rows),
                        Op::Add { key, .. } => (key, 7, size_of::<i64>(), &mut self.rows),
                        Op::Del { key } => {
                            self.deleted_rows += 1;
                            (key, 3, 0, &mut self.rows)
                        }
                        Op::PutBody { key, value } => (key, 7, value.len(), &mut self.bodies),
                        Op::DelBody { key } => {
                            self.deleted_bodies += 1;
                            (key, 3, 0, &mut self.bodies)
                        }
                    };
                    // The op's place, from that of its key: ops are borrowed from the mapping.
                    let key_at = key.as_ptr() as usize - bytes.as_ptr() as usize;
                    let far = if length >= FAR_MIN {
                        latest.fars.push(index, key_at + key.len(), key, length)
                    } else {
                        None
                    };
                    let place = if let Some(far) = far {
                        self.far_bytes += length as u64;
                        Place::far(far)
                    } else if self.parts.near.len() as u64 * NEAR_SHARE < self.far_bytes {
                        let near = &mut self.parts.near;
                        let at = near.len();
                        let whole = key_at - head..key_at + key.len() + length;
                        near.extend_from_slice(bytes.get(whole).unwrap_or(&[]));
                        Place::op(Place::NEAR, at, &op)
                    } else {
                        Place::op(index, key_at - head, &op)
                    };
                    latest.refs.push(Ref {
                        prefix: prefix(key),
                        place,
                    });
                }
            }
            at += size;
        }
        Ok(header.end())
    }

    /// For one thread.
    pub(crate) fn sight(&self) -> Sight<'_> {
        self.parts.sight()
    }

    /// The changes of one keyspace, or those of `half`, in order of key.
    pub(crate) fn changes<'s>(
        &'s self,
        latest: &'s Latest,
        half: Half,
        sight: &'s Sight<'s>,
    ) -> impl Iterator<Item = Last<'s>> + 's {
        let range = half.of(latest.refs.len());
        let end = range.end;
        range.filter_map(move |index| {
            if index % AHEAD == 0 {
                let next = latest.refs.get(index..end.min(index + AHEAD));
                fetch(sight.parts, next.unwrap_or(&[]));
            }
            let place = latest.refs.get(index)?.place;
            if let Some(far) = place.far_index() {
                let next = latest.refs.get(index + 1..).unwrap_or(&[]).iter();
                let next = next.map_while(|entry| latest.far(entry.place));
                let far_value = *latest.fars.get(far)?;
                let value = FarValue::new(far_value, next, &self.parts.all, &sight.ahead);
                return Some(Last::PutFar(latest.fars.key(far), value));
            }
            self.last(latest, place, sight)
        })
    }

    /// Those of [`Plan::changes`] that are counters.
    pub(crate) fn counters<'s>(
        &'s self,
        latest: &'s Latest,
        half: Half,
        sight: &'s Sight<'s>,
    ) -> impl Iterator<Item = Last<'s>> + 's {
        let refs = latest.refs.get(half.of(latest.refs.len()));
        let counters = refs.unwrap_or(&[]).iter();
        let counters = counters.filter(|entry| entry.place.is(Place::SUM));
        counters.filter_map(move |entry| self.last(latest, entry.place, sight))
    }

    fn last<'s>(&'s self, latest: &'s Latest, place: Place, sight: &Sight<'s>) -> Option<Last<'s>> {
        if let Some(index) = place.sum_index() {
            let sum = latest.sums.get(index)?;
            let key = key_at(sight, &latest.fars, sum.op);
            return Some(if sum.relative {
                Last::Add(key, sum.sum)
            } else {
                Last::Count(key, sum.sum)
            });
        }
        Some(match op_at(sight, place)? {
            Op::Put { key, value } | Op::PutBody { key, value } => Last::Put(key, value),
            Op::Del { key } | Op::DelBody { key } => Last::Del {
                key,
                born: place.is(Place::BORN),
            },
            Op::Add { key, delta } => Last::Add(key, delta),
        })
    }
}

impl Latest {
    pub(crate) fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    fn far(&self, place: Place) -> Option<Far> {
        self.fars.get(place.far_index()?).copied()
    }

    /// From all ops in the order of the log to one reference per row in order of key.
    fn settle(&mut self, sight: &Sight<'_>) {
        let fars = &self.fars;
        let key = |place: Place| key_at(sight, fars, place);
        // Stable: the ops of a row stay in the order of the log.
        self.refs.sort_by_key(|entry| entry.prefix);
        let refs = &mut self.refs;
        let mut kept = 0;
        let mut from = 0;
        while let Some(first) = refs.get(from) {
            let prefix = first.prefix;
            let rest = refs.get_mut(from..).unwrap_or(&mut []);
            let same = rest
                .iter()
                .position(|entry| entry.prefix != prefix)
                .unwrap_or(rest.len());
            let group = rest.get_mut(..same).unwrap_or(&mut []);
            order_equal(group, 8, &key);
            let end = from + same;
            while let Some(&first) = refs.get(from..end).and_then(<[Ref]>::first) {
                let mut run = 1;
                // Looked at once: going to and fro would look like jumping about.
                let mut first_key = None;
                // Neighbours of different numbers have different keys: then nothing is read.
                while let Some(next) = refs.get(from..end).and_then(|group| group.get(run))
                    && next.prefix == first.prefix
                    && key(next.place) == *first_key.get_or_insert_with(|| key(first.place))
                {
                    run += 1;
                }
                let ops = refs.get(from..from + run).unwrap_or(&[]);
                let place = outcome(sight, ops, &mut self.sums);
                if let Some(slot) = refs.get_mut(kept) {
                    slot.place = place;
                    kept += 1;
                }
                from += run;
            }
        }
        refs.truncate(kept);
    }
}

/// What the ops of one row, in the order of the log, come to.
fn outcome(sight: &Sight<'_>, ops: &[Ref], sums: &mut Vec<Sum>) -> Place {
    let Some((last, before)) = ops.split_last() else {
        return Place(0);
    };
    let last = last.place;
    if !last.is(Place::ADD) {
        let put = before.iter().any(|entry| !entry.place.is(Place::DEL));
        return Place(last.0 | if put { Place::BORN } else { 0 });
    }
    let (mut relative, mut sum) = (true, 0i64);
    for entry in ops.iter().rev() {
        // A large value is no counter: it counts as 0.
        let near = Some(entry.place).filter(|place| !place.is(Place::FAR));
        match near.and_then(|place| op_at(sight, place)) {
            Some(Op::Add { delta, .. }) => sum = sum.wrapping_add(delta),
            base => {
                if let Some(Op::Put { value, .. }) = base {
                    sum = sum.wrapping_add(counter(value));
                }
                relative = false;
                break;
            }
        }
    }
    sums.push(Sum {
        op: last,
        relative,
        sum,
    });
    Place::sum(sums.len() - 1)
}

/// Sorts references whose keys agree in their first `agreed` bytes, or in so far as they have them: shorter ones may
/// differ in how many zeros they end with. Stable.
///
/// Rows of one queue, topic or database share their first dozen bytes or more; the numbers are taken anew from behind
/// what they share, so that they can be compared instead of the keys.
fn order_equal<'k>(same: &mut [Ref], agreed: usize, key: &impl Fn(Place) -> &'k [u8]) {
    let Some((first, rest)) = same.split_first().filter(|(_, rest)| !rest.is_empty()) else {
        return;
    };
    let first = key(first.place);
    let (mut common, mut longest) = (first.len(), first.len());
    for entry in rest {
        let other = key(entry.place);
        longest = longest.max(other.len());
        common = shared(first.get(..common).unwrap_or(first), other);
    }
    if common == longest {
        return;
    }
    if common < agreed || common > DEPTH_MAX || same.len() < FEW {
        same.sort_by(|a, b| key(a.place).cmp(key(b.place)));
        return;
    }
    for entry in same.iter_mut() {
        entry.prefix = prefix(key(entry.place).get(common..).unwrap_or(&[]));
    }
    same.sort_by_key(|entry| entry.prefix);
    for same in same.chunk_by_mut(|a, b| a.prefix == b.prefix) {
        order_equal(same, common + 8, key);
    }
}

/// How many bytes `a` and `b` have in common at their start.
#[inline]
fn shared(a: &[u8], b: &[u8]) -> usize {
    let words = a.as_chunks::<8>().0.iter().zip(b.as_chunks::<8>().0);
    let at = 8 * words.take_while(|(a, b)| a == b).count();
    let tails = a.iter().skip(at).zip(b.iter().skip(at));
    at + tails.take_while(|(a, b)| a == b).count()
}

/// Has the processor load these ops, all at once, before the first of them is waited for.
fn fetch(parts: &Parts, refs: &[Ref]) {
    let mut sum = 0u8;
    for entry in refs {
        if entry.place.is(Place::FAR) {
            continue;
        }
        let bytes = parts.bytes(entry.place);
        for line in 0..OP_LINES {
            sum = sum.wrapping_add(bytes.get(line * CACHE_LINE).copied().unwrap_or(0));
        }
    }
    std::hint::black_box(sum);
}

/// The key's first eight bytes as a number that orders like them.
#[inline]
fn prefix(key: &[u8]) -> u64 {
    if let Some(first) = key.first_chunk::<8>() {
        return u64::from_be_bytes(*first);
    }
    let mut padded = [0; 8];
    for (to, from) in padded.iter_mut().zip(key) {
        *to = *from;
    }
    u64::from_be_bytes(padded)
}

impl Parts {
    fn sight(&self) -> Sight<'_> {
        Sight {
            parts: self,
            seen: Cell::default(),
            ahead: RefCell::default(),
        }
    }

    /// What begins at this place.
    #[inline]
    fn bytes(&self, place: Place) -> &[u8] {
        let bytes = if place.part() == Place::NEAR {
            &self.near
        } else {
            self.all
                .get(place.part())
                .map_or(&[][..], |part| part.map.bytes())
        };
        bytes.get(place.offset()..).unwrap_or(&[])
    }
}

impl Sight<'_> {
    /// Somebody looks at this place. Who goes through the window in order, as when the ops of a hot row are compared, leaves
    /// nothing behind in memory; who jumps about would fault the same pages in again and again, so for him they stay.
    #[inline]
    fn look(&self, place: Place) {
        if place.part() == Place::NEAR {
            return;
        }
        let at = place.0 & Place::WHERE;
        let mut seen = self.seen.get();
        seen.count += 1;
        if at < seen.last {
            (seen.first, seen.count) = (at, 0);
        } else if at - seen.first >= SEEN_BYTES {
            if seen.count >= SEEN && seen.releases < RELEASES_MAX {
                self.release(Place(seen.first), Place(at));
                seen.releases += 1;
            }
            (seen.first, seen.count) = (at, 0);
        }
        seen.last = at;
        self.seen.set(seen);
    }

    #[cold]
    fn release(&self, from: Place, to: Place) {
        let parts = self.parts.all.iter().enumerate();
        for (index, part) in parts.take(to.part() + 1).skip(from.part()) {
            let begins = if index == from.part() {
                from.offset()
            } else {
                0
            };
            let ends = if index == to.part() {
                to.offset()
            } else {
                usize::MAX
            };
            part.map.release(begins, ends);
        }
    }
}

#[inline]
fn op_at<'a>(sight: &Sight<'a>, place: Place) -> Option<Op<'a>> {
    sight.look(place);
    split_op(sight.parts.bytes(place)).map(|(op, _)| op)
}

#[inline]
fn key_at<'a>(sight: &Sight<'a>, fars: &'a Fars, place: Place) -> &'a [u8] {
    if let Some(far) = place.far_index() {
        return fars.key(far);
    }
    match op_at(sight, place) {
        Some(
            Op::Put { key, .. }
            | Op::Del { key }
            | Op::Add { key, .. }
            | Op::PutBody { key, .. }
            | Op::DelBody { key },
        ) => key,
        None => &[],
    }
}

/// The value of a counter row; a row of another form counts as 0.
pub(crate) fn counter(value: &[u8]) -> i64 {
    value.try_into().map_or(0, i64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_come_out_in_order_whatever_they_share() {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        for n in 0..4000u32 {
            let mixed = n.wrapping_mul(0x9E37_79B1);
            // None, some, many and very many bytes in common; ends in zeros; one a prefix of the other.
            let shared = [0, 3, 8, 11, 16, 400][mixed as usize % 6];
            let mut key = vec![7; shared];
            key.extend_from_slice(&(mixed >> 12).to_be_bytes()[..1 + mixed as usize % 4]);
            key.resize(key.len() + (mixed >> 8) as usize % 20, 0);
            keys.push(key);
        }
        keys.sort();
        keys.dedup();
        let count = keys.len();
        // Each key twice, in an order of no kind; equal keys must stay as they were.
        let mut refs: Vec<Ref> = (0..2 * count)
            .map(|n| Ref {
                prefix: prefix(&keys[n % count]),
                place: Place(n as u64),
            })
            .collect();
        refs.sort_by_key(|entry| {
            (entry.place.0 % count as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
        });
        let key = |place: Place| keys[place.0 as usize % count].as_slice();
        refs.sort_by_key(|entry| entry.prefix);
        for same in refs.chunk_by_mut(|a, b| a.prefix == b.prefix) {
            order_equal(same, 8, &key);
        }
        let places: Vec<usize> = refs.iter().map(|entry| entry.place.0 as usize).collect();
        let wanted: Vec<usize> = (0..count).flat_map(|n| [n, n + count]).collect();
        assert_eq!(places, wanted);
    }
}
