//! What a window of the log comes to: the last change of each row, in order of key.
//!
//! The log is read through a mapping; per row there are 16 bytes here and 8 in the table that finds it again.

use hashbrown::HashTable;

use crate::Error;
use crate::SHARDS;
use crate::log::group::{self, Found, Header};
use crate::log::map::Map;
use crate::log::record::{Op, Record, split_op};
use crate::log::segment::Segment;

/// A window ends early at this many rows, so that memory is bounded: about 100 MB.
const ROWS_MAX: usize = 4 << 20;

/// Keys that agree in more bytes than this are compared whole: the sort must not recurse as deep as a key is long.
const DEPTH_MAX: usize = 256;

/// The part of one file that belongs to the window.
#[derive(Debug)]
pub(crate) struct Part {
    map: Map,
    segment: Segment,
    from: u64,
    to: u64,
}

/// The log of `from..to`, mapped.
pub(crate) fn map_window(segments: Vec<Segment>, from: u64, to: u64) -> Result<Vec<Part>, Error> {
    let mut parts = Vec::new();
    for segment in segments {
        let (start, end) = (from.max(segment.start), to.min(segment.end));
        if start >= end {
            continue;
        }
        let map = Map::open(&segment.path, segment.offset_of(end))
            .map_err(|e| Error::io("cannot map", &segment.path, e))?;
        parts.push(Part {
            map,
            segment,
            from: start,
            to: end,
        });
    }
    Ok(parts)
}

#[derive(Debug)]
pub(crate) struct Plan<'p> {
    parts: &'p [Part],
    pub(crate) rows: Latest,
    pub(crate) bodies: Latest,
    sums: Vec<Sum>,
    /// Last seq of each shard, where the window has one.
    pub(crate) seqs: [u64; SHARDS],
    /// Position after the last group that was taken.
    pub(crate) end: u64,
    /// Bytes of log.
    pub(crate) bytes: u64,
    /// How often a body was deleted.
    pub(crate) deleted_bodies: u64,
}

/// The last change of each row of one keyspace.
#[derive(Debug, Default)]
pub(crate) struct Latest {
    /// Hash of the key and index into `refs`.
    found: HashTable<(u32, u32)>,
    refs: Vec<Ref>,
}

/// Where a row's last change is.
#[derive(Clone, Copy, Debug)]
struct Ref {
    /// First bytes of the key: most comparisons need no more.
    prefix: u64,
    /// See [`Place`].
    place: u64,
}

/// An op in the window: part and offset in its file, or a sum; and whether the row was put earlier in the window.
#[derive(Clone, Copy, Debug)]
struct Place(u64);

/// A counter that was added to: `op` is one of its ops (for the key).
#[derive(Clone, Copy, Debug)]
struct Sum {
    op: Place,
    /// Added to what the table holds, rather than a value of its own.
    relative: bool,
    sum: i64,
}

/// What the last change of a row is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Last<'a> {
    Put(&'a [u8], &'a [u8]),
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

impl Place {
    const BORN: u64 = 1 << 63;
    const SUM: u64 = 1 << 62;
    const OFFSET_BITS: u32 = 40;

    fn op(part: usize, offset: usize) -> Self {
        assert!(
            part < 1 << 20 && offset < 1 << Self::OFFSET_BITS,
            "a window of {part} files"
        );
        Self((part as u64) << Self::OFFSET_BITS | offset as u64)
    }

    fn sum(index: usize) -> Self {
        Self(Self::SUM | index as u64)
    }

    fn born(self) -> bool {
        self.0 & Self::BORN != 0
    }

    fn with_born(self, born: bool) -> Self {
        if born {
            Self(self.0 | Self::BORN)
        } else {
            self
        }
    }

    fn sum_index(self) -> Option<usize> {
        (self.0 & Self::SUM != 0).then_some((self.0 & !(Self::SUM | Self::BORN)) as usize)
    }

    fn part(self) -> usize {
        ((self.0 & !(Self::SUM | Self::BORN)) >> Self::OFFSET_BITS) as usize
    }

    fn offset(self) -> usize {
        (self.0 & ((1 << Self::OFFSET_BITS) - 1)) as usize
    }
}

impl<'p> Plan<'p> {
    /// Reads groups until the window ends, or (unless `exact`) until it has `max_bytes` or very many rows.
    pub(crate) fn read(
        parts: &'p [Part],
        start: u64,
        max_bytes: u64,
        exact: bool,
    ) -> Result<Self, Error> {
        let mut plan = Self {
            parts,
            rows: Latest::default(),
            bodies: Latest::default(),
            sums: Vec::new(),
            seqs: [0; SHARDS],
            end: start,
            bytes: 0,
            deleted_bodies: 0,
        };
        for (index, part) in parts.iter().enumerate() {
            let mut position = part.from;
            while position < part.to {
                let rows = plan.rows.refs.len() + plan.bodies.refs.len();
                if !exact && (plan.bytes >= max_bytes || rows >= ROWS_MAX) {
                    return Ok(plan);
                }
                let end = plan.group(index, position)?;
                plan.bytes += end - position;
                plan.end = end;
                position = end;
            }
        }
        Ok(plan)
    }

    /// Number of rows changed.
    pub(crate) fn len(&self) -> usize {
        self.rows.refs.len() + self.bodies.refs.len()
    }

    fn group(&mut self, index: usize, position: u64) -> Result<u64, Error> {
        let parts: &'p [Part] = self.parts;
        let Some(part) = parts.get(index) else {
            return Ok(position);
        };
        let damaged = |what| Error::damaged(&part.segment.path, position, what);
        let bytes = part.map.bytes();
        let at = part.segment.offset_of(position) as usize;
        let Some(Found::Header(header)) = bytes.get(at..).map(Header::find) else {
            return Err(damaged("no group header"));
        };
        let mut at = at + group::HEADER;
        let end = at + header.length as usize;
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
                    // The op's place, from that of its key: ops are borrowed from the mapping.
                    self.op(index, bytes, op);
                }
            }
            at += size;
        }
        Ok(header.end())
    }

    fn op(&mut self, part: usize, bytes: &'p [u8], op: Op<'p>) {
        let (key, head) = match op {
            Op::Put { key, .. } | Op::Add { key, .. } | Op::PutBody { key, .. } => (key, 7),
            Op::Del { key } | Op::DelBody { key } => (key, 3),
        };
        let offset = key.as_ptr() as usize - bytes.as_ptr() as usize - head;
        let place = Place::op(part, offset);
        let (parts, sums) = (self.parts, &self.sums);
        self.deleted_bodies += u64::from(matches!(op, Op::DelBody { .. }));
        let body = matches!(op, Op::PutBody { .. } | Op::DelBody { .. });
        let latest = if body {
            &mut self.bodies
        } else {
            &mut self.rows
        };
        let (entry, new) = latest.entry(key, place, |place| key_at(parts, sums, place));
        if new {
            if let Op::Add { delta, .. } = op {
                entry.place = Place::sum(self.sums.len()).0;
                self.sums.push(Sum {
                    op: place,
                    relative: true,
                    sum: delta,
                });
            }
            return;
        }
        let old = Place(entry.place);
        let old_put = match old.sum_index() {
            Some(_) => true,
            None => !matches!(op_at(parts, old), Some(Op::Del { .. } | Op::DelBody { .. })),
        };
        let born = old.born() || old_put;
        let Op::Add { delta, .. } = op else {
            entry.place = place.with_born(born).0;
            return;
        };
        let (relative, sum) = match old.sum_index().and_then(|index| self.sums.get(index)) {
            Some(sum) => (sum.relative, sum.sum.wrapping_add(delta)),
            None => match op_at(parts, old) {
                Some(Op::Put { value, .. }) => (false, counter(value).wrapping_add(delta)),
                _ => (false, delta),
            },
        };
        if let Some(slot) = old.sum_index().and_then(|index| self.sums.get_mut(index)) {
            *slot = Sum {
                op: place,
                relative,
                sum,
            };
        } else {
            entry.place = Place::sum(self.sums.len()).with_born(born).0;
            self.sums.push(Sum {
                op: place,
                relative,
                sum,
            });
        }
    }

    /// Sorts both keyspaces by key.
    pub(crate) fn sort(&mut self) {
        let (parts, sums) = (self.parts, &self.sums);
        for latest in [&mut self.rows, &mut self.bodies] {
            latest.found = HashTable::new();
            sort_from(&mut latest.refs, 0, &|place| {
                key_at(parts, sums, Place(place))
            });
        }
    }

    /// Does any row need the table's value, or a value that is not in the log?
    pub(crate) fn has_counters(&self) -> bool {
        !self.sums.is_empty()
    }

    /// The changes of one keyspace, in the order they have.
    pub(crate) fn changes<'s>(&'s self, latest: &'s Latest) -> impl Iterator<Item = Last<'p>> + 's {
        latest.refs.iter().filter_map(|entry| {
            let place = Place(entry.place);
            if let Some(index) = place.sum_index() {
                let sum = self.sums.get(index)?;
                let key = key_at(self.parts, &self.sums, place);
                return Some(if sum.relative {
                    Last::Add(key, sum.sum)
                } else {
                    Last::Count(key, sum.sum)
                });
            }
            Some(match op_at(self.parts, place)? {
                Op::Put { key, value } | Op::PutBody { key, value } => Last::Put(key, value),
                Op::Del { key } | Op::DelBody { key } => Last::Del {
                    key,
                    born: place.born(),
                },
                Op::Add { key, delta } => Last::Add(key, delta),
            })
        })
    }
}

/// Sorts references whose keys agree in their first `depth` bytes, and whose prefixes are the eight bytes from there on.
/// Numbers next to each other are compared, eight bytes of key at a time: rows of one queue or topic share their first
/// dozen, and following each reference into the log for each comparison costs a cache miss.
fn sort_from<'k>(refs: &mut [Ref], depth: usize, key: &impl Fn(u64) -> &'k [u8]) {
    refs.sort_unstable_by_key(|entry| entry.prefix);
    for same in refs.chunk_by_mut(|a, b| a.prefix == b.prefix) {
        let next = depth + 8;
        if same.len() == 1 {
            continue;
        }
        if same.len() < 16
            || next > DEPTH_MAX
            || !same.iter().any(|entry| key(entry.place).len() > next)
        {
            same.sort_unstable_by(|a, b| key(a.place).cmp(key(b.place)));
            continue;
        }
        for entry in same.iter_mut() {
            entry.prefix = prefix(key(entry.place).get(next..).unwrap_or(&[]));
        }
        sort_from(same, next, key);
    }
}

impl Latest {
    pub(crate) fn is_empty(&self) -> bool {
        self.refs.is_empty()
    }

    /// The entry of `key`; made with `place` if it is new.
    #[inline]
    fn entry<'k>(
        &mut self,
        key: &[u8],
        place: Place,
        key_at: impl Fn(Place) -> &'k [u8],
    ) -> (&mut Ref, bool) {
        let hash = foldhash::quality::FixedState::default();
        let hash = (std::hash::BuildHasher::hash_one(&hash, key) >> 32) as u32;
        let wide = |hash: u32| u64::from(hash) << 32 | u64::from(hash);
        let refs = &mut self.refs;
        let prefix = prefix(key);
        let found = self.found.entry(
            wide(hash),
            |&(other, index)| {
                other == hash
                    && refs
                        .get(index as usize)
                        .is_some_and(|r| r.prefix == prefix && key_at(Place(r.place)) == key)
            },
            |&(hash, _)| wide(hash),
        );
        match found {
            hashbrown::hash_table::Entry::Occupied(found) => {
                let (_, index) = *found.get();
                (&mut refs[index as usize], false)
            }
            hashbrown::hash_table::Entry::Vacant(vacant) => {
                let index = u32::try_from(refs.len()).expect("a window has fewer than 4 Gi rows");
                vacant.insert((hash, index));
                refs.push(Ref {
                    prefix,
                    place: place.0,
                });
                (&mut refs[index as usize], true)
            }
        }
    }
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

#[inline]
fn op_at(parts: &[Part], place: Place) -> Option<Op<'_>> {
    let bytes = parts.get(place.part())?.map.bytes().get(place.offset()..)?;
    split_op(bytes).map(|(op, _)| op)
}

#[inline]
fn key_at<'p>(parts: &'p [Part], sums: &[Sum], place: Place) -> &'p [u8] {
    let place = match place.sum_index() {
        Some(index) => sums.get(index).map_or(place, |sum| sum.op),
        None => place,
    };
    match op_at(parts, place) {
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
        let mut refs: Vec<Ref> = (0..keys.len())
            .map(|n| Ref {
                prefix: prefix(&keys[n]),
                place: n as u64,
            })
            .collect();
        // Any other order.
        refs.sort_by_key(|entry| entry.place.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        sort_from(&mut refs, 0, &|place| keys[place as usize].as_slice());
        let places: Vec<u64> = refs.iter().map(|entry| entry.place).collect();
        assert_eq!(places, (0..keys.len() as u64).collect::<Vec<_>>());
    }
}
