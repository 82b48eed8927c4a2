//! Sorted sets: members in order of score, packed while they are few and short; then a table from member to score, and chunks
//! of scores with the members' numbers.
//!
//! ```text
//! packed: [score member] [score member] …           a score: its length in bytes, then an integer, or a double in 8 bytes
//! chunks: [ 1:a 1:b 2:c ] [ 3:a' … ] …              each at most CHUNK long and never empty
//! ```
//! Finding a score is two binary searches, a rank the sum of the chunks before it: a few thousand additions for a million
//! members. One that is larger than memory should hold is a partial collection ([`super::partial`]) and its order
//! ([`super::order`]); commands look at members by rank or by bounds through [`super::Ranked`], which reads what is missing.

use std::cmp::Ordering;
use std::ops::Range;

use either::Either;

use super::elements::Collection;
use super::hash::{SMALL_ENTRIES, SMALL_LEN};
use super::order::{self, Order};
use super::packed::{Packed, Spot};
use super::partial::Partial;
use super::row::Rows;
use super::set::Member;
use super::table::Table;
use super::value::Value;

const CHUNK: usize = 256;
/// So few members are held whole, unless they are long ones that a change has brought.
const MAY_BE_LARGE: usize = if cfg!(test) { 4 } else { 1024 };

/// Members with scores, ordered by score, then by bytes. Every change is also a row.
#[derive(Debug, Clone)]
pub struct Zset {
    pub(super) id: u64,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    /// Marked: Redis would not pack it any more.
    Small(Packed),
    Big(Box<Big>),
    /// Most members are only in the tables.
    Partly(Box<Partly>),
}

/// Scores by member, and the members in order, as far as memory has them.
#[derive(Debug, Clone)]
pub(super) struct Partly {
    pub(super) members: Partial,
    pub(super) order: Order,
}

#[derive(Debug, Clone, Default)]
struct Big {
    chunks: Vec<Chunk>,
    /// Members with their scores, in 8 bytes; numbers stay.
    scores: Table,
    /// Redis would not pack it any more.
    outgrown: bool,
}

/// Scores in order, and whose they are.
#[derive(Debug, Clone, Default)]
struct Chunk {
    scores: Vec<f64>,
    /// In [`Big::scores`].
    members: Vec<u32>,
}

/// A bound of scores.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScoreBound {
    Inclusive(f64),
    Exclusive(f64),
}

/// A bound of members in byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LexBound<'a> {
    Min,
    Max,
    Inclusive(&'a [u8]),
    Exclusive(&'a [u8]),
}

impl ScoreBound {
    /// Does a score come before this bound? `or_equal`: as the upper end of a range, one at the bound does, too, if that is
    /// inclusive.
    fn below(self, score: f64, or_equal: bool) -> bool {
        match self {
            Self::Inclusive(bound) if or_equal => score <= bound,
            Self::Exclusive(bound) if !or_equal => score <= bound,
            Self::Inclusive(bound) | Self::Exclusive(bound) => score < bound,
        }
    }

    /// The same for a score as [`order::ordered`] gives it.
    pub(super) fn below_ordered(self, score: u64, or_equal: bool) -> bool {
        match self {
            Self::Inclusive(bound) if or_equal => score <= order::ordered(bound),
            Self::Exclusive(bound) if !or_equal => score <= order::ordered(bound),
            Self::Inclusive(bound) | Self::Exclusive(bound) => score < order::ordered(bound),
        }
    }
}

impl LexBound<'_> {
    /// As [`ScoreBound::below`]. `member` finds it.
    pub(super) fn below<'m>(self, member: &dyn Fn() -> &'m [u8], or_equal: bool) -> bool {
        match self {
            LexBound::Min => false,
            LexBound::Max => true,
            LexBound::Inclusive(bound) if or_equal => member() <= bound,
            LexBound::Exclusive(bound) if !or_equal => member() <= bound,
            LexBound::Inclusive(bound) | LexBound::Exclusive(bound) => member() < bound,
        }
    }
}

impl Partly {
    fn score(&self, member: &[u8]) -> Option<f64> {
        let value = self.members.value(member)?;
        Some(f64::from_le_bytes(*value.first_chunk()?))
    }

    pub(super) fn memory(&self) -> usize {
        self.members.memory() + self.order.memory()
    }

    /// Bytes that can be forgotten when all is folded.
    pub(super) fn held(&self) -> usize {
        self.members.memory() + self.order.held()
    }

    /// Forgets what the tables have until about `target` bytes are left: see [`Partial::trim`].
    pub(super) fn trim(&mut self, folded: u64, target: usize, steps: usize) -> usize {
        let half = target / 2;
        let rest = target.saturating_sub(self.order.held()).max(half);
        let given = self.members.trim(folded, rest, steps);
        let rest = target.saturating_sub(self.members.memory()).max(half);
        given + self.order.trim(folded, rest, steps)
    }
}

impl Collection for Zset {
    fn of(value: &Value) -> Option<&Self> {
        match value {
            Value::Zset(zset) => Some(zset),
            _ => None,
        }
    }

    fn each_held(&self, visit: &mut dyn FnMut(Member<'_>, &[u8])) {
        for (member, score) in self.iter() {
            visit(Member::Text(member), &score.to_le_bytes());
        }
    }
}

impl Zset {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            form: Form::Small(Packed::default()),
        }
    }

    pub(super) fn partly(id: u64, partly: Partly) -> Self {
        Self {
            id,
            form: Form::Partly(Box::new(partly)),
        }
    }

    /// What is known of one that is mostly in the tables.
    #[inline]
    pub(super) fn as_partly(&self) -> Option<&Partly> {
        match &self.form {
            Form::Partly(partly) => Some(partly),
            _ => None,
        }
    }

    #[inline]
    pub(super) fn as_partly_mut(&mut self) -> Option<&mut Partly> {
        match &mut self.form {
            Form::Partly(partly) => Some(partly),
            _ => None,
        }
    }

    /// All of it is in memory.
    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.as_partly().is_none()
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Small(packed) => packed.len(),
            Form::Big(big) => big.scores.len(),
            Form::Partly(partly) => partly.members.len(),
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        match &self.form {
            Form::Small(packed) => !packed.is_marked(),
            Form::Big(big) => !big.outgrown,
            Form::Partly(_) => false,
        }
    }

    /// The score of a member; one that is partial must know it.
    #[inline]
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.form {
            Form::Small(packed) => find(packed, member).map(|(_, score)| score),
            Form::Big(big) => big.score(member),
            Form::Partly(partly) => partly.score(member),
        }
    }

    /// How many members of a whole one stand before this one.
    #[must_use]
    pub(super) fn rank(&self, member: &[u8]) -> Option<usize> {
        match &self.form {
            Form::Small(packed) => scored(packed).position(|(found, _)| found == member),
            Form::Big(big) => {
                let (chunk, at) = big.place(big.score(member)?, member).ok()?;
                Some(big.before(chunk) + at)
            }
            Form::Partly(_) => None,
        }
    }

    /// Members and scores of a whole one in order.
    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        self.range(0..self.len())
    }

    /// Members and scores of a range of ranks of a whole one, in order.
    pub(super) fn range(
        &self,
        ranks: Range<usize>,
    ) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        let end = ranks.end.min(self.len());
        let start = ranks.start.min(end);
        match &self.form {
            Form::Small(packed) => Either::Left(scored(packed).skip(start).take(end - start)),
            Form::Big(big) => Either::Right(Either::Left(big.range(start, end))),
            Form::Partly(_) => Either::Right(Either::Right(std::iter::empty())),
        }
    }

    /// How many members of a whole one lie before a bound, from the front. See [`ScoreBound::below`].
    pub(super) fn before_score(&self, bound: ScoreBound, or_equal: bool) -> usize {
        self.partition(|score, _| bound.below(score, or_equal))
    }

    /// The same by members; meaningful when all scores are equal.
    pub(super) fn before_member(&self, bound: LexBound<'_>, or_equal: bool) -> usize {
        self.partition(|_, member| bound.below(member, or_equal))
    }

    /// Gives a member a score; true when it is new.
    pub fn insert(&mut self, member: &[u8], score: f64, rows: &mut Rows<'_>) -> bool {
        rows.put(member, &score.to_le_bytes());
        if let Form::Partly(partly) = &mut self.form {
            let old = partly.score(member).map(|old| order::place(old, member));
            let new = order::place(score, member);
            (partly.order).moved(old.as_deref(), Some(&new), rows);
            return (partly.members).insert(member, &score.to_le_bytes(), rows.seq);
        }
        self.set(member, score)
    }

    pub(super) fn set(&mut self, member: &[u8], score: f64) -> bool {
        let long = member.len() > SMALL_LEN;
        match &mut self.form {
            Form::Small(packed) => {
                let found = find(packed, member).map(|(spot, old)| (spot.range, old));
                let new = found.is_none();
                if let Some((range, old)) = found {
                    if old.to_bits() == score.to_bits() {
                        return false;
                    }
                    packed.splice(range, 1, &[]);
                }
                let place = packed
                    .spots()
                    .find(|spot| {
                        let (other, old) = split_score(spot.bytes);
                        order(old, other, score, member) == Ordering::Greater
                    })
                    .map_or(packed.size(), |spot| spot.range.start);
                let mut front = [0; 9];
                let front = pack_score(score, &mut front);
                packed.splice(place..place, 0, &[&[front, member].concat()]);
                if packed.has_outgrown(long, packed.len(), SMALL_ENTRIES) {
                    self.unpack();
                }
                new
            }
            Form::Big(big) => {
                let new = big.set(member, score);
                big.outgrown |= long || big.scores.len() > SMALL_ENTRIES;
                new
            }
            Form::Partly(_) => {
                debug_assert!(false, "what is partial has rows");
                false
            }
        }
    }

    #[cold]
    fn unpack(&mut self) {
        let mut big = Box::new(Big {
            outgrown: !self.is_small(),
            ..Big::default()
        });
        for (member, score) in self.iter() {
            big.set(member, score);
        }
        self.form = Form::Big(big);
    }

    /// Removes a member; its score if it was there.
    pub fn remove(&mut self, member: &[u8], rows: &mut Rows<'_>) -> Option<f64> {
        let score = match &mut self.form {
            Form::Small(packed) => {
                let (range, score) = find(packed, member).map(|(spot, old)| (spot.range, old))?;
                packed.splice(range, 1, &[]);
                score
            }
            Form::Big(big) => big.remove(member)?,
            Form::Partly(partly) => {
                let score = partly.score(member)?;
                partly.members.remove(member, rows.seq);
                let old = order::place(score, member);
                partly.order.moved(Some(&old), None, rows);
                score
            }
        };
        rows.del(member);
        Some(score)
    }

    /// Writes the order's rows; of the members no more is known then than `members` does.
    pub(super) fn become_partly(&mut self, members: Partial, rows: &mut Rows<'_>) {
        let order = Order::build(self.iter(), rows);
        self.form = Form::Partly(Box::new(Partly { members, order }));
    }

    /// Not certainly small enough to be held whole.
    #[inline]
    pub(super) fn may_be_large(&self) -> bool {
        match &self.form {
            Form::Small(_) => false,
            Form::Big(big) => big.scores.len() > MAY_BE_LARGE,
            Form::Partly(_) => true,
        }
    }

    /// Bytes outside of what holds the sorted set.
    pub(super) fn memory(&self) -> usize {
        size_of_val(self)
            + match &self.form {
                Form::Small(packed) => packed.size(),
                Form::Big(big) => {
                    let listed = match &big.chunks[..] {
                        [only] => only.scores.capacity(),
                        many => many.len() * CHUNK,
                    };
                    size_of::<Big>() + listed * 12 + big.scores.memory()
                }
                Form::Partly(partly) => partly.memory(),
            }
    }

    /// How many members from the front satisfy `below`, which holds for a front part only. It is given the score, and what
    /// finds the member.
    fn partition<'a>(&'a self, below: impl Fn(f64, &dyn Fn() -> &'a [u8]) -> bool) -> usize {
        match &self.form {
            Form::Small(packed) => scored(packed)
                .take_while(|&(member, score)| below(score, &|| member))
                .count(),
            Form::Big(big) => big.partition(below),
            Form::Partly(_) => 0,
        }
    }
}

/// Members and scores of a packed sorted set.
fn scored(
    packed: &Packed,
) -> impl DoubleEndedIterator<Item = (&[u8], f64)> + ExactSizeIterator + Clone {
    packed.iter().map(split_score)
}

/// A packed member and its score.
fn find<'a>(packed: &'a Packed, member: &[u8]) -> Option<(Spot<'a>, f64)> {
    packed
        .spots()
        .map(|spot| {
            let (found, score) = split_score(spot.bytes);
            (spot, found, score)
        })
        .find(|&(_, found, _)| found == member)
        .map(|(spot, _, score)| (spot, score))
}

/// Says that a double follows; else so many bytes of an integer.
const DOUBLE: u8 = 8;

/// Integers of up to six bytes without their zeros in front, everything else as it is.
fn pack_score(score: f64, into: &mut [u8; 9]) -> &[u8] {
    let whole = score as i64;
    let bytes = if whole.unsigned_abs() < 1 << 47 && (whole as f64).to_bits() == score.to_bits() {
        // Zigzag: small numbers of both signs are short.
        let zigzag = (whole << 1 ^ whole >> 63).cast_unsigned();
        into[1..].copy_from_slice(&zigzag.to_le_bytes());
        (64 - zigzag.leading_zeros()).div_ceil(8) as u8
    } else {
        into[1..].copy_from_slice(&score.to_le_bytes());
        DOUBLE
    };
    into[0] = bytes;
    &into[..1 + usize::from(bytes)]
}

/// Member and score of a packed string.
fn split_score(packed: &[u8]) -> (&[u8], f64) {
    let Some((&length, rest)) = packed.split_first() else {
        return (packed, 0.0);
    };
    let Some((bytes, member)) = rest.split_at_checked(usize::from(length)) else {
        return (packed, 0.0);
    };
    let mut wide = [0; 8];
    if let Some(front) = wide.get_mut(..bytes.len()) {
        front.copy_from_slice(bytes);
    }
    let score = if length == DOUBLE {
        f64::from_le_bytes(wide)
    } else {
        let zigzag = u64::from_le_bytes(wide);
        ((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed()) as f64
    };
    (member, score)
}

impl Chunk {
    fn with(score: f64, member: u32) -> Self {
        Self {
            scores: vec![score],
            members: vec![member],
        }
    }

    fn len(&self) -> usize {
        self.scores.len()
    }

    fn at(&self, place: usize) -> Option<(f64, u32)> {
        Some((*self.scores.get(place)?, *self.members.get(place)?))
    }

    fn insert(&mut self, place: usize, score: f64, member: u32) {
        self.scores.insert(place, score);
        self.members.insert(place, member);
    }

    fn remove(&mut self, place: usize) {
        self.scores.remove(place);
        self.members.remove(place);
    }

    /// What is behind the first `keep`.
    fn split_off(&mut self, keep: usize) -> Self {
        fn tail<T: Copy>(of: &mut Vec<T>, keep: usize) -> Vec<T> {
            let mut tail = Vec::with_capacity(CHUNK);
            tail.extend(of.drain(keep..));
            tail
        }
        Self {
            scores: tail(&mut self.scores, keep),
            members: tail(&mut self.members, keep),
        }
    }
}

impl Big {
    fn score(&self, member: &[u8]) -> Option<f64> {
        self.score_of(self.scores.find(member)?)
    }

    fn score_of(&self, number: u32) -> Option<f64> {
        let (_, value) = self.scores.at(number)?;
        Some(f64::from_le_bytes(*value.first_chunk()?))
    }

    fn member(&self, number: u32) -> &[u8] {
        self.scores.at(number).map_or(&[], |(member, _)| member)
    }

    fn range(&self, start: usize, end: usize) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        // Chunks before the range are stepped over, not through.
        let mut skipped = 0;
        let mut first = 0;
        for chunk in &self.chunks {
            if skipped + chunk.len() > start {
                break;
            }
            skipped += chunk.len();
            first += 1;
        }
        let mut last = first;
        let mut reached = skipped;
        while reached < end
            && let Some(chunk) = self.chunks.get(last)
        {
            reached += chunk.len();
            last += 1;
        }
        let chunks = self.chunks.get(first..last).unwrap_or_default();
        let behind = last.checked_sub(1);
        let (from, over) = (start - skipped, reached.saturating_sub(end));
        chunks.iter().enumerate().flat_map(move |(number, chunk)| {
            let number = Some(first + number);
            let from = if number == Some(first) { from } else { 0 };
            let to = if number == behind {
                chunk.len() - over
            } else {
                chunk.len()
            };
            let scores = chunk.scores.get(from..to).unwrap_or_default();
            let members = chunk.members.get(from..to).unwrap_or_default();
            let both = members.iter().zip(scores);
            both.map(|(member, score)| (self.member(*member), *score))
        })
    }

    fn set(&mut self, member: &[u8], score: f64) -> bool {
        let bytes = score.to_le_bytes();
        let (number, new) = self.scores.find_or_add(member, &bytes);
        if new {
            self.place_in(score, member, number);
        } else if let Some(old) = self.score_of(number)
            && old.to_bits() != score.to_bits()
        {
            self.take(old, member);
            self.scores.overwrite(number, member, &bytes);
            self.place_in(score, member, number);
        }
        new
    }

    fn remove(&mut self, member: &[u8]) -> Option<f64> {
        let score = self.score(member)?;
        self.take(score, member);
        self.scores.remove(member);
        Some(score)
    }

    fn before(&self, chunk: usize) -> usize {
        self.chunks.iter().take(chunk).map(Chunk::len).sum()
    }

    /// See [`Zset::partition`].
    fn partition<'a>(&'a self, below: impl Fn(f64, &dyn Fn() -> &'a [u8]) -> bool) -> usize {
        let holds = |(score, member): (f64, u32)| below(score, &|| self.member(member));
        let chunk = self
            .chunks
            .partition_point(|chunk| chunk.at(chunk.len() - 1).is_some_and(holds));
        let within = self.chunks.get(chunk).map_or(0, |chunk| {
            first_that(chunk.len(), |at| !chunk.at(at).is_some_and(holds))
        });
        self.before(chunk) + within
    }

    /// Where a member is (`Ok`), or belongs (`Err`).
    fn place(&self, score: f64, member: &[u8]) -> Result<(usize, usize), (usize, usize)> {
        // The member is looked up only where scores are equal.
        let order = |chunk: &Chunk, at: usize| {
            let other = chunk.scores.get(at).copied().unwrap_or(f64::INFINITY);
            by_score(other, score).then_with(|| {
                let number = chunk.members.get(at).copied();
                number
                    .map_or(&[][..], |number| self.member(number))
                    .cmp(member)
            })
        };
        let index = self
            .chunks
            .partition_point(|chunk| order(chunk, chunk.len() - 1) == Ordering::Less);
        match self.chunks.get(index) {
            Some(chunk) => {
                let at = first_that(chunk.len(), |at| order(chunk, at) != Ordering::Less);
                if at < chunk.len() && order(chunk, at) == Ordering::Equal {
                    Ok((index, at))
                } else {
                    Err((index, at))
                }
            }
            // Behind all: at the end of the last chunk.
            None => match self.chunks.last() {
                Some(last) => Err((index - 1, last.len())),
                None => Err((0, 0)),
            },
        }
    }

    fn place_in(&mut self, score: f64, member: &[u8], number: u32) {
        let (mut index, mut at) = match self.place(score, member) {
            Ok(place) | Err(place) => place,
        };
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(Chunk::with(score, number));
            return;
        };
        if chunk.len() >= CHUNK {
            // Scores that only grow fill their chunks: what is split off the end is small.
            let keep = if at == chunk.len() {
                CHUNK * 15 / 16
            } else {
                CHUNK / 2
            };
            let tail = chunk.split_off(keep);
            self.chunks.insert(index + 1, tail);
            if at > keep {
                (index, at) = (index + 1, at - keep);
            }
        }
        if let Some(chunk) = self.chunks.get_mut(index) {
            chunk.insert(at, score, number);
        }
    }

    fn take(&mut self, score: f64, member: &[u8]) {
        let Ok((index, at)) = self.place(score, member) else {
            debug_assert!(false, "every score has its place");
            return;
        };
        if let Some(chunk) = self.chunks.get_mut(index) {
            chunk.remove(at);
            if chunk.len() == 0 {
                self.chunks.remove(index);
            }
        }
    }
}

/// The first place in `0..end` where `holds` does, which it does from there on; `end` if nowhere.
fn first_that(end: usize, holds: impl Fn(usize) -> bool) -> usize {
    let (mut low, mut high) = (0, end);
    while low < high {
        let middle = low.midpoint(high);
        if holds(middle) {
            high = middle;
        } else {
            low = middle + 1;
        }
    }
    low
}

/// Scores are never NaN; -0 and 0 are equal.
fn by_score(score: f64, other: f64) -> Ordering {
    score.partial_cmp(&other).unwrap_or(Ordering::Equal)
}

impl PartialEq for Zset {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.len() == other.len() && self.iter().eq(other.iter())
    }
}

fn order(score: f64, member: &[u8], other_score: f64, other: &[u8]) -> Ordering {
    by_score(score, other_score).then_with(|| member.cmp(other))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_rank_and_table_agree() {
        let mut zset = Zset::new(1);
        for i in 0..2000u32 {
            assert!(zset.set(
                format!("m{i}").as_bytes(),
                f64::from(i.wrapping_mul(7919) % 1000)
            ));
        }
        assert!(!zset.set(b"m5", -3.0));
        assert_eq!(zset.rank(b"m5"), Some(0));
        assert_eq!(zset.len(), 2000);
        let all: Vec<_> = zset.iter().collect();
        assert!(all.windows(2).all(|w| (w[0].1, w[0].0) < (w[1].1, w[1].0)));
        for (rank, (member, score)) in all.iter().enumerate() {
            assert_eq!(zset.rank(member), Some(rank));
            assert_eq!(zset.range(rank..rank + 1).next(), Some((*member, *score)));
        }
        assert_eq!(zset.range(100..105).collect::<Vec<_>>(), all[100..105]);
        let range = zset.before_score(ScoreBound::Exclusive(10.0), false)
            ..zset.before_score(ScoreBound::Inclusive(12.0), true);
        assert!(
            zset.range(range.clone())
                .all(|(_, s)| s > 10.0 && s <= 12.0)
        );
        assert_eq!(range.len(), 4);
    }

    #[test]
    fn scores_come_back_from_their_packed_form() {
        let wide = (1u64 << 47) as f64;
        for score in [
            0.0,
            -0.0,
            1.0,
            -1.0,
            127.0,
            128.0,
            1.5,
            -2.5e300,
            wide,
            wide - 1.0,
            -wide,
            1.0 - wide,
            f64::INFINITY,
            f64::NEG_INFINITY,
            f64::MIN_POSITIVE,
            9.3e18,
            -9.3e18,
        ] {
            let mut bytes = [0; 9];
            let packed = [pack_score(score, &mut bytes), b"member"].concat();
            let (member, found) = split_score(&packed);
            assert_eq!((member, found.to_bits()), (&b"member"[..], score.to_bits()));
        }
    }

    #[test]
    fn both_forms_agree() {
        let mut small = Zset::new(1);
        let mut big = Zset::new(1);
        big.unpack();
        let mut fx = storage::Effects::new();
        let mut rows = Rows::new(
            &mut fx,
            (storage::ShardId(0), 1),
            crate::Slot::of(b""),
            crate::rows::Tag::ZsetMember,
            1,
        );
        let mut state = 1u64;
        for _ in 0..3000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let member = format!("m{}", (state >> 40) % 60);
            let score = ((state >> 20) % 40) as f64 / 4.0;
            if state >> 62 == 0 {
                let gone = small.remove(member.as_bytes(), &mut rows);
                assert_eq!(gone, big.remove(member.as_bytes(), &mut rows));
            } else {
                let new = small.set(member.as_bytes(), score);
                assert_eq!(new, big.set(member.as_bytes(), score));
            }
            assert!(matches!(small.form, Form::Small(_)) && matches!(big.form, Form::Big(_)));
            assert_eq!(small, big);
            assert!(small.iter().rev().eq(big.iter().rev()));
            let range = (state >> 30) as usize % 50..(state >> 35) as usize % 70;
            assert!(small.range(range.clone()).eq(big.range(range.clone())));
            assert!(
                small
                    .range(range.clone())
                    .rev()
                    .eq(big.range(range.clone()).rev())
            );
            assert_eq!(small.rank(member.as_bytes()), big.rank(member.as_bytes()));
            for (bound, or_equal) in [
                (ScoreBound::Exclusive(2.0), false),
                (ScoreBound::Inclusive(score), true),
            ] {
                let (a, b) = (
                    small.before_score(bound, or_equal),
                    big.before_score(bound, or_equal),
                );
                assert_eq!(a, b);
            }
        }
    }
}
