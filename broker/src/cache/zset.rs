//! Sorted sets: members in order of score, in chunks, and a table from member to score once there are many.
//!
//! ```text
//! chunks: [ (1,a) (1,b) (2,c) ] [ (3,a') … ] …      each at most CHUNK long and never empty
//! ```
//! Finding a score is two binary searches, a rank the sum of the chunks before it: a few thousand additions for a million
//! members. Few members have no table; looking through them is as fast.

use std::cmp::Ordering;
use std::ops::Range;

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::hash::{SMALL_ENTRIES, SMALL_LEN};
use super::row::Rows;
use super::text::Text;

const CHUNK: usize = 256;
/// From so many members on there is a table of scores.
const TABLE_FROM: usize = 33;

/// Members with scores, ordered by score, then by bytes. Every change is also a row.
#[derive(Debug, Clone)]
pub struct Zset {
    pub(super) id: u64,
    chunks: Vec<Vec<(f64, Text)>>,
    len: usize,
    scores: Option<HashMap<Text, f64, RandomState>>,
    heap: usize,
    big: bool,
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

impl Zset {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            chunks: Vec::new(),
            len: 0,
            scores: None,
            heap: 0,
            big: false,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        !self.big
    }

    #[inline]
    #[must_use]
    pub fn score(&self, member: &[u8]) -> Option<f64> {
        match &self.scores {
            Some(scores) => scores.get(member).copied(),
            None => self
                .iter()
                .find(|&(found, _)| found == member)
                .map(|(_, score)| score),
        }
    }

    /// How many members stand before this one.
    #[must_use]
    pub fn rank(&self, member: &[u8]) -> Option<usize> {
        let score = self.score(member)?;
        Some(
            self.place(score, member)
                .ok()
                .map_or(0, |(chunk, at)| self.before(chunk) + at),
        )
    }

    /// Members and scores in order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        self.chunks
            .iter()
            .flatten()
            .map(|(score, member)| (&**member, *score))
    }

    /// Members and scores of a range of ranks, in order.
    pub fn range(&self, ranks: Range<usize>) -> impl DoubleEndedIterator<Item = (&[u8], f64)> {
        let end = ranks.end.min(self.len);
        let start = ranks.start.min(end);
        let mut before = 0;
        self.chunks.iter().flat_map(move |chunk| {
            let first = before;
            before += chunk.len();
            let from = start.saturating_sub(first).min(chunk.len());
            let to = end.saturating_sub(first).min(chunk.len());
            chunk
                .get(from..to)
                .unwrap_or_default()
                .iter()
                .map(|(score, member)| (&**member, *score))
        })
    }

    /// The member at a rank.
    #[must_use]
    pub fn at(&self, mut rank: usize) -> Option<(&[u8], f64)> {
        for chunk in &self.chunks {
            if let Some((score, member)) = chunk.get(rank) {
                return Some((member, *score));
            }
            rank -= chunk.len();
        }
        None
    }

    /// Ranks of the members whose scores lie between the bounds.
    #[must_use]
    pub fn ranks_by_score(&self, min: ScoreBound, max: ScoreBound) -> Range<usize> {
        let start = self.partition(|score, _| match min {
            ScoreBound::Inclusive(min) => score < min,
            ScoreBound::Exclusive(min) => score <= min,
        });
        let end = self.partition(|score, _| match max {
            ScoreBound::Inclusive(max) => score <= max,
            ScoreBound::Exclusive(max) => score < max,
        });
        start..end.max(start)
    }

    /// Ranks of the members between two bounds in byte order; meaningful when all scores are equal.
    #[must_use]
    pub fn ranks_by_lex(&self, min: LexBound<'_>, max: LexBound<'_>) -> Range<usize> {
        let below = |member: &[u8], bound: LexBound<'_>, or_equal: bool| match bound {
            LexBound::Min => false,
            LexBound::Max => true,
            LexBound::Inclusive(bound) => {
                if or_equal {
                    member <= bound
                } else {
                    member < bound
                }
            }
            LexBound::Exclusive(bound) => {
                if or_equal {
                    member < bound
                } else {
                    member <= bound
                }
            }
        };
        let start = self.partition(|_, member| below(member, min, false));
        let end = self.partition(|_, member| below(member, max, true));
        start..end.max(start)
    }

    /// Gives a member a score; true when it is new.
    pub fn insert(&mut self, member: &[u8], score: f64, rows: &mut Rows<'_>) -> bool {
        rows.put(member, &score.to_le_bytes());
        self.set(member, score)
    }

    pub(super) fn set(&mut self, member: &[u8], score: f64) -> bool {
        let old = self.score(member);
        if let Some(old) = old {
            if old.to_bits() == score.to_bits() {
                return false;
            }
            let text = self.take(old, member).unwrap_or_else(|| Text::new(member));
            if let Some(slot) = self
                .scores
                .as_mut()
                .and_then(|scores| scores.get_mut(member))
            {
                *slot = score;
            }
            self.place_in(score, text);
            return false;
        }
        let text = Text::new(member);
        self.heap += text.heap_bytes();
        self.big |= member.len() > SMALL_LEN;
        if let Some(scores) = &mut self.scores {
            self.heap += text.heap_bytes();
            scores.insert(text.clone(), score);
        }
        self.place_in(score, text);
        self.big |= self.len > SMALL_ENTRIES;
        if self.len >= TABLE_FROM && self.scores.is_none() {
            self.scores = Some(
                self.chunks
                    .iter()
                    .flatten()
                    .map(|(score, member)| (member.clone(), *score))
                    .collect(),
            );
            self.heap *= 2;
        }
        true
    }

    /// Removes a member; its score if it was there.
    pub fn remove(&mut self, member: &[u8], rows: &mut Rows<'_>) -> Option<f64> {
        let score = self.score(member)?;
        if let Some(text) = self.take(score, member) {
            self.heap -= text.heap_bytes();
        }
        if let Some((text, _)) = self
            .scores
            .as_mut()
            .and_then(|scores| scores.remove_entry(member))
        {
            self.heap -= text.heap_bytes();
        }
        rows.del(member);
        Some(score)
    }

    pub(super) fn memory(&self) -> usize {
        let chunks: usize = self.chunks.len() * CHUNK * 3 / 4;
        let listed = if self.chunks.len() > 1 {
            chunks
        } else {
            self.chunks.first().map_or(0, Vec::capacity)
        };
        128 + self.heap + listed * 32 + self.scores.as_ref().map_or(0, HashMap::capacity) * 38
    }

    fn before(&self, chunk: usize) -> usize {
        self.chunks.iter().take(chunk).map(Vec::len).sum()
    }

    /// How many members from the front satisfy `below`, which holds for a front part only.
    fn partition(&self, below: impl Fn(f64, &[u8]) -> bool) -> usize {
        let chunk = self.chunks.partition_point(|chunk| {
            chunk
                .last()
                .is_some_and(|(score, member)| below(*score, member))
        });
        let within = self.chunks.get(chunk).map_or(0, |chunk| {
            chunk.partition_point(|(score, member)| below(*score, member))
        });
        self.before(chunk) + within
    }

    /// Where a member is (`Ok`), or belongs (`Err`).
    fn place(&self, score: f64, member: &[u8]) -> Result<(usize, usize), (usize, usize)> {
        let chunk = self.chunks.partition_point(|chunk| {
            chunk
                .last()
                .is_some_and(|(last, text)| order(*last, text, score, member) == Ordering::Less)
        });
        match self.chunks.get(chunk) {
            Some(found) => {
                match found.binary_search_by(|(other, text)| order(*other, text, score, member)) {
                    Ok(at) => Ok((chunk, at)),
                    Err(at) => Err((chunk, at)),
                }
            }
            // Behind all: at the end of the last chunk.
            None => match self.chunks.last() {
                Some(last) => Err((chunk - 1, last.len())),
                None => Err((0, 0)),
            },
        }
    }

    fn place_in(&mut self, score: f64, text: Text) {
        self.len += 1;
        let (index, at) = match self.place(score, &text) {
            Ok(place) | Err(place) => place,
        };
        let Some(chunk) = self.chunks.get_mut(index) else {
            self.chunks.push(vec![(score, text)]);
            return;
        };
        chunk.insert(at, (score, text));
        if chunk.len() > CHUNK {
            // Scores that only grow fill their chunks: what is split off the end is small.
            let keep = if at + 1 == chunk.len() {
                CHUNK * 15 / 16
            } else {
                CHUNK / 2
            };
            let mut tail = Vec::with_capacity(CHUNK);
            tail.extend(chunk.drain(keep..));
            self.chunks.insert(index + 1, tail);
        }
    }

    fn take(&mut self, score: f64, member: &[u8]) -> Option<Text> {
        let (index, at) = self.place(score, member).ok()?;
        let chunk = self.chunks.get_mut(index)?;
        let (_, text) = chunk.remove(at);
        if chunk.is_empty() {
            self.chunks.remove(index);
        }
        self.len -= 1;
        Some(text)
    }
}

impl PartialEq for Zset {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id && self.len == other.len && self.iter().eq(other.iter())
    }
}

fn order(score: f64, member: &[u8], other_score: f64, other: &[u8]) -> Ordering {
    // Scores are never NaN; -0 and 0 are equal.
    score
        .partial_cmp(&other_score)
        .unwrap_or(Ordering::Equal)
        .then_with(|| member.cmp(other))
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
            assert_eq!(zset.at(rank), Some((*member, *score)));
        }
        assert_eq!(zset.range(100..105).collect::<Vec<_>>(), all[100..105]);
        let range = zset.ranks_by_score(ScoreBound::Exclusive(10.0), ScoreBound::Inclusive(12.0));
        assert!(
            zset.range(range.clone())
                .all(|(_, s)| s > 10.0 && s <= 12.0)
        );
        assert_eq!(range.len(), 4);
    }
}
