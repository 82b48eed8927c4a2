//! Lists: items in order; an item's row stands under its index, which grows to the right and falls to the left.
//!
//! ```text
//! one piece while the list is short, then a ring of pieces: [a b c …] [d e f …] …      each at most PIECE long, or a single item
//! ```
//! Both ends are changed by moving at most a piece; a place in the middle is found by adding up the counts of pieces. Of a list
//! that is larger than memory should hold, memory has the ends: [`far`].

mod far;
mod listed;

use std::collections::VecDeque;

pub use far::Reach;
pub use listed::Listed;

use super::Error;
use super::packed::{Packed, Spots, string_size};
use super::partial::Rest;
use super::row::{self, Rows};
use super::text::Text;
use crate::rows::{from_ordered_i64, ordered_i64};
use far::Far;

/// Redis' `list-max-listpack-size -2`: a list of up to 8 KiB is one listpack.
const SMALL_BYTES: usize = 8192;

/// Bytes of a piece: moving half of it costs about as much as an allocation.
const PIECE: usize = 2048;

/// Which end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Left,
    Right,
}

/// Items in order. Every change is also a row.
#[derive(Debug, Clone)]
pub struct List {
    pub(super) id: u64,
    /// Index of the first item's row.
    head: i64,
    form: Form,
}

#[derive(Debug, Clone)]
enum Form {
    One(Packed),
    Many(Box<Many>),
    Far(Box<Far>),
}

#[derive(Debug, Clone, Default)]
struct Many {
    /// None of them is empty.
    pieces: VecDeque<Packed>,
    len: usize,
    /// Bytes of all pieces.
    heap: usize,
}

impl Many {
    /// Changes a piece, which goes when nothing is left in it, and is taken apart when it has become too long.
    fn change<R>(&mut self, number: usize, change: impl FnOnce(&mut Packed) -> R) -> Option<R> {
        let piece = self.pieces.get_mut(number)?;
        let (len, size) = (piece.len(), piece.size());
        let result = change(piece);
        self.len = self.len + piece.len() - len;
        self.heap = self.heap + piece.size() - size;
        if piece.len() == 0 {
            self.heap -= piece.size();
            self.pieces.remove(number);
        } else if piece.size() > 2 * PIECE && piece.len() > 1 {
            self.heap -= piece.size();
            let whole = std::mem::take(piece);
            self.pieces.remove(number);
            for (place, piece) in pieces_of(whole.iter()).into_iter().enumerate() {
                self.heap += piece.size();
                self.pieces.insert(number + place, piece);
            }
        }
        Some(result)
    }
}

/// Spreads items over pieces.
fn pieces_of<'a>(items: impl Iterator<Item = &'a [u8]>) -> Vec<Packed> {
    let mut pieces = Vec::new();
    let mut piece: Vec<&[u8]> = Vec::new();
    let mut size = 0;
    for item in items {
        if size + string_size(item.len()) > PIECE && !piece.is_empty() {
            pieces.push(Packed::of(piece.iter().copied()));
            piece.clear();
            size = 0;
        }
        size += string_size(item.len());
        piece.push(item);
    }
    if !piece.is_empty() {
        pieces.push(Packed::of(piece.into_iter()));
    }
    pieces
}

/// Items from both ends.
struct Items<'a> {
    pieces: std::iter::Chain<std::slice::Iter<'a, Packed>, std::slice::Iter<'a, Packed>>,
    front: Option<Spots<'a>>,
    back: Option<Spots<'a>>,
    left: usize,
}

impl<'a> Items<'a> {
    /// Leaves out the first `count` items.
    fn skip_items(&mut self, mut count: usize) {
        self.left = self.left.saturating_sub(count);
        for piece in self.pieces.by_ref() {
            if count < piece.len() {
                let mut spots = piece.spots();
                if count > 0 {
                    spots.nth(count - 1);
                }
                self.front = Some(spots);
                return;
            }
            count -= piece.len();
        }
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = &'a [u8];

    #[inline]
    fn next(&mut self) -> Option<&'a [u8]> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(spot) = self.front.as_mut().and_then(Iterator::next) {
                return Some(spot.bytes);
            }
            match self.pieces.next() {
                Some(piece) => self.front = Some(piece.spots()),
                None => return self.back.as_mut()?.next().map(|spot| spot.bytes),
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl DoubleEndedIterator for Items<'_> {
    fn next_back(&mut self) -> Option<Self::Item> {
        self.left = self.left.checked_sub(1)?;
        loop {
            if let Some(spot) = self.back.as_mut().and_then(DoubleEndedIterator::next_back) {
                return Some(spot.bytes);
            }
            match self.pieces.next_back() {
                Some(piece) => self.back = Some(piece.spots()),
                None => return self.front.as_mut()?.next_back().map(|spot| spot.bytes),
            }
        }
    }
}

impl ExactSizeIterator for Items<'_> {}

impl List {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            head: 0,
            form: Form::One(Packed::default()),
        }
    }

    /// Positions, by which rows stand, of the first item and behind the last one.
    pub(super) fn ends(&self) -> (i64, i64) {
        if let Form::Far(far) = &self.form {
            return far.ends();
        }
        (
            self.head,
            self.head.wrapping_add_unsigned(self.len() as u64),
        )
    }

    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        match &self.form {
            Form::One(piece) => piece.len(),
            Form::Many(many) => many.len,
            Form::Far(far) => far.len(),
        }
    }

    /// All of it is in memory.
    #[inline]
    #[must_use]
    pub fn is_whole(&self) -> bool {
        !matches!(self.form, Form::Far(_))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        match &self.form {
            Form::One(piece) => piece.size() < SMALL_BYTES,
            Form::Many(many) => many.heap < SMALL_BYTES,
            Form::Far(_) => false,
        }
    }

    /// An item of a whole one.
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let (piece, within) = self.locate(index)?;
        Some(self.piece(piece)?.spots().nth(within)?.bytes)
    }

    /// The items of a whole one.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.items()
    }

    /// Items of a range of places; the range must lie within the list, which is whole.
    pub fn range(&self, range: std::ops::Range<usize>) -> impl ExactSizeIterator<Item = &[u8]> {
        let mut items = self.items();
        items.skip_items(range.start);
        items.left = items.left.min(range.len());
        items
    }

    fn items(&self) -> Items<'_> {
        let (first, second) = match &self.form {
            Form::One(piece) => (std::slice::from_ref(piece), &[][..]),
            Form::Many(many) => many.pieces.as_slices(),
            Form::Far(_) => (&[][..], &[][..]),
        };
        Items {
            pieces: first.iter().chain(second),
            front: None,
            back: None,
            left: self.len(),
        }
    }

    pub fn push(&mut self, end: End, item: &[u8], rows: &mut Rows<'_>) {
        if let Form::Far(far) = &mut self.form {
            return far.push(end, item, rows);
        }
        match end {
            End::Left => {
                self.head -= 1;
                rows.put(&ordered_i64(self.head), item);
            }
            End::Right => rows.put(&self.row(self.len()), item),
        }
        self.add(end, item);
    }

    fn add(&mut self, end: End, item: &[u8]) {
        let size = string_size(item.len());
        match &mut self.form {
            Form::One(piece) if piece.len() == 0 || piece.size() + size <= PIECE => {
                piece.splice(edge(piece, end), 0, &[item]);
            }
            Form::One(piece) => {
                let mut many = Many {
                    len: piece.len() + 1,
                    heap: piece.size(),
                    pieces: VecDeque::with_capacity(4),
                };
                many.pieces.push_back(std::mem::take(piece));
                let mut new = Packed::default();
                new.push(&[item]);
                many.heap += new.size();
                match end {
                    End::Left => many.pieces.push_front(new),
                    End::Right => many.pieces.push_back(new),
                }
                self.form = Form::Many(Box::new(many));
            }
            Form::Many(many) => {
                let number = match end {
                    End::Left => 0,
                    End::Right => many.pieces.len().saturating_sub(1),
                };
                let room = many
                    .pieces
                    .get(number)
                    .is_some_and(|piece| piece.size() + size <= PIECE);
                if room {
                    many.change(number, |piece| piece.splice(edge(piece, end), 0, &[item]));
                    return;
                }
                let mut new = Packed::default();
                new.push(&[item]);
                many.len += 1;
                many.heap += new.size();
                match end {
                    End::Left => many.pieces.push_front(new),
                    End::Right => many.pieces.push_back(new),
                }
            }
            Form::Far(_) => debug_assert!(false, "its ends are lists of their own"),
        }
    }

    /// The item at an end, which memory has.
    pub fn pop(&mut self, end: End, rows: &mut Rows<'_>) -> Option<Text> {
        let last = match &mut self.form {
            Form::One(_) => 0,
            Form::Many(many) => many.pieces.len().checked_sub(1)?,
            Form::Far(far) => return far.pop(end, rows),
        };
        let text = match end {
            End::Left => {
                let text = self.change(0, |piece| take(piece, end))??;
                rows.del(&ordered_i64(self.head));
                self.head += 1;
                text
            }
            End::Right => {
                let text = self.change(last, |piece| take(piece, end))??;
                rows.del(&self.row(self.len()));
                text
            }
        };
        Some(text)
    }

    /// Replaces the item at a place; false when there is none.
    pub fn set(&mut self, index: usize, item: &[u8], rows: &mut Rows<'_>) -> bool {
        if let Form::Far(far) = &mut self.form {
            return far.set(index, item, rows);
        }
        let row = self.row(index);
        let Some((piece, within)) = self.locate(index) else {
            return false;
        };
        self.change(piece, |piece| {
            if let Some(spot) = piece.spots().nth(within) {
                piece.splice(spot.range, 1, &[item]);
            }
        });
        rows.put(&row, item);
        true
    }

    /// Inserts before the item that is at `index`; the shorter side moves.
    pub fn insert(&mut self, index: usize, item: &[u8], rows: &mut Rows<'_>) {
        if let Form::Far(far) = &mut self.form {
            return far.insert(index, item, rows);
        }
        let towards = if index.min(self.len()) < self.len().div_ceil(2) {
            End::Left
        } else {
            End::Right
        };
        self.insert_towards(towards, index, item, rows);
    }

    /// The same; what lies between there and this end moves.
    fn insert_towards(&mut self, end: End, index: usize, item: &[u8], rows: &mut Rows<'_>) {
        match self.locate(index) {
            None => self.add(End::Right, item),
            Some((piece, within)) => {
                self.change(piece, |piece| {
                    if let Some(spot) = piece.spots().nth(within) {
                        piece.splice(spot.range.start..spot.range.start, 0, &[item]);
                    }
                });
            }
        }
        let len = self.len();
        let index = index.min(len - 1);
        match end {
            End::Left => {
                self.head -= 1;
                self.rewrite(0..index + 1, rows);
            }
            End::Right => self.rewrite(index..len, rows),
        }
    }

    /// Keeps the items that `keep` wants, in order; the number removed.
    pub fn retain(
        &mut self,
        mut keep: impl FnMut(usize, &[u8]) -> bool,
        rows: &mut Rows<'_>,
    ) -> usize {
        if let Form::Far(far) = &mut self.form {
            return far.retain(&mut keep, rows);
        }
        self.retain_towards(None, &mut keep, rows)
    }

    /// The same; what lies between the hole and this end moves, or else the less.
    fn retain_towards(
        &mut self,
        end: Option<End>,
        keep: &mut dyn FnMut(usize, &[u8]) -> bool,
        rows: &mut Rows<'_>,
    ) -> usize {
        let before = self.len();
        let mut first = before;
        let mut last = 0;
        let kept: Vec<&[u8]> = self
            .items()
            .enumerate()
            .filter(|&(place, item)| {
                let kept = keep(place, item);
                if !kept {
                    first = first.min(place);
                    last = place;
                }
                kept
            })
            .map(|(_, item)| item)
            .collect();
        let removed = before - kept.len();
        if removed == 0 {
            return 0;
        }
        let mut pieces = VecDeque::from(pieces_of(kept.iter().copied()));
        self.form = if pieces.len() > 1 {
            Form::Many(Box::new(Many {
                len: kept.len(),
                heap: pieces.iter().map(Packed::size).sum(),
                pieces,
            }))
        } else {
            Form::One(pieces.pop_front().unwrap_or_default())
        };
        let tail = before - 1 - last;
        if end.map_or(first < tail, |end| end == End::Left) {
            // What is left of the hole moves right: its rows are written anew from the new head on.
            let old = self.head;
            self.head += removed as i64;
            for gone in old..self.head {
                rows.del(&ordered_i64(gone));
            }
            let end = self.len() - tail;
            self.rewrite(0..end, rows);
        } else {
            self.rewrite(first..self.len(), rows);
            for gone in self.len()..before {
                rows.del(&self.row(gone));
            }
        }
        removed
    }

    /// Keeps the items at `start..end`.
    pub fn trim(&mut self, start: usize, end: usize, rows: &mut Rows<'_>) {
        let len = self.len();
        if let Form::Far(far) = &mut self.form {
            return far.trim(start, len.saturating_sub(end), rows);
        }
        for _ in end..self.len() {
            self.pop(End::Right, rows);
        }
        for _ in 0..start.min(self.len()) {
            self.pop(End::Left, rows);
        }
    }

    /// Reads a list of which there are rows; one of more than `large` bytes is not whole. True: no row says yet where it begins and
    /// ends.
    pub(super) fn read(id: u64, tables: &Rest<'_>, large: usize) -> Result<(Self, bool), Error> {
        let mut list = Self::new(id);
        let (mut ends, mut damaged) = (None, false);
        tables.scan(&[], &mut |name, stored| {
            if name == far::ENDS {
                ends = Some(stored.to_vec());
                return false;
            }
            let item = row::split(name, stored)
                .and_then(|(name, item)| Some((from_ordered_i64((*name).try_into().ok()?), item)));
            match (item, &mut list.form) {
                (Some((_, item)), Form::Far(far)) => far.load(item, large),
                (Some((index, item)), _) => {
                    list.load(index, item);
                    if list.memory() > large {
                        list.divide(0);
                    }
                }
                (None, _) => damaged = true,
            }
            !damaged
        })?;
        if damaged {
            return Err(Error::Damaged);
        }
        let Some(ends) = ends else {
            let divided = !list.is_whole();
            return Ok((list, divided));
        };
        list.form = Form::Far(Box::new(Far::read_ends(id, &ends, tables)?));
        Ok((list, false))
    }

    /// A whole one is whole no more, though nothing leaves memory yet. `seq`: of the record that changed it, if the tables may not
    /// have all of it.
    pub(super) fn divide(&mut self, seq: u64) {
        let whole = std::mem::replace(self, Self::new(self.id));
        self.form = Form::Far(Box::new(Far::of(whole, seq)));
    }

    /// Writes the row that says where one that is not whole begins and ends.
    pub(super) fn write_ends(&mut self, rows: &mut Rows<'_>) {
        if let Form::Far(far) = &mut self.form {
            far.write_ends(true, rows);
        }
    }

    /// Bytes of items that can be forgotten when all is folded; `None`: it is whole.
    pub(super) fn held(&self) -> Option<usize> {
        match &self.form {
            Form::Far(far) => Some(far.spare()),
            _ => None,
        }
    }

    /// Forgets items that the tables have; `None`: it is whole.
    pub(super) fn forget(&mut self, folded: u64, target: usize, steps: usize) -> Option<usize> {
        match &mut self.form {
            Form::Far(far) => Some(far.forget(folded, target, steps)),
            _ => None,
        }
    }

    /// Items of the piece that lies nearest to the middle, if this is one end of a longer list and has others.
    fn inner_piece(&self, end: End) -> Option<usize> {
        let Form::Many(many) = &self.form else {
            return None;
        };
        let piece = match end {
            End::Left => many.pieces.back(),
            End::Right => many.pieces.front(),
        };
        (many.pieces.len() > 1)
            .then(|| piece.map(Packed::len))
            .flatten()
    }

    fn drop_inner_piece(&mut self, end: End) {
        let Form::Many(many) = &mut self.form else {
            return;
        };
        let piece = match end {
            End::Left => many.pieces.pop_back(),
            End::Right => many.pieces.pop_front(),
        };
        if let Some(piece) = piece {
            many.len -= piece.len();
            many.heap -= piece.size();
            if many.pieces.len() * 4 < many.pieces.capacity() {
                many.pieces.shrink_to(many.pieces.len() * 2);
            }
            if end == End::Right {
                self.head += piece.len() as i64;
            }
        }
    }

    /// Visits items of a range of places backwards, until `visit` is false; true: all of them.
    fn each_back(
        &self,
        places: std::ops::Range<usize>,
        visit: &mut dyn FnMut(&[u8]) -> bool,
    ) -> bool {
        let behind = self.len() - places.end;
        let items = self.items().rev().skip(behind).take(places.len());
        items.into_iter().all(visit)
    }

    /// An item as the tables have it; they come in order of their index.
    pub(super) fn load(&mut self, index: i64, item: &[u8]) {
        if self.is_empty() {
            self.head = index;
        }
        self.add(End::Right, item);
    }

    /// Bytes outside of what holds the list.
    pub(super) fn memory(&self) -> usize {
        size_of_val(self)
            + match &self.form {
                Form::One(piece) => piece.size(),
                Form::Many(many) => {
                    size_of::<Many>() + many.pieces.capacity() * size_of::<Packed>() + many.heap
                }
                Form::Far(far) => far.memory(),
            }
    }

    /// Every item with its row's name.
    pub(super) fn rows(&self) -> impl Iterator<Item = ([u8; 8], &[u8])> {
        self.items()
            .enumerate()
            .map(|(place, item)| (self.row(place), item))
    }

    /// The piece of a place, and the place within it.
    fn locate(&self, index: usize) -> Option<(usize, usize)> {
        match &self.form {
            Form::One(piece) => (index < piece.len()).then_some((0, index)),
            Form::Many(many) if index * 2 < many.len => {
                let mut left = index;
                for (number, piece) in many.pieces.iter().enumerate() {
                    if left < piece.len() {
                        return Some((number, left));
                    }
                    left -= piece.len();
                }
                None
            }
            Form::Many(many) => {
                let mut behind = many.len.checked_sub(index)?;
                for (number, piece) in many.pieces.iter().enumerate().rev() {
                    if behind <= piece.len() {
                        return (behind > 0).then(|| (number, piece.len() - behind));
                    }
                    behind -= piece.len();
                }
                None
            }
            Form::Far(_) => None,
        }
    }

    fn piece(&self, number: usize) -> Option<&Packed> {
        match &self.form {
            Form::One(piece) => Some(piece),
            Form::Many(many) => many.pieces.get(number),
            Form::Far(_) => None,
        }
    }

    fn change<R>(&mut self, number: usize, change: impl FnOnce(&mut Packed) -> R) -> Option<R> {
        match &mut self.form {
            Form::One(piece) => Some(change(piece)),
            Form::Many(many) => many.change(number, change),
            Form::Far(_) => None,
        }
    }

    fn row(&self, place: usize) -> [u8; 8] {
        ordered_i64(self.head.wrapping_add(place as i64))
    }

    fn rewrite(&self, places: std::ops::Range<usize>, rows: &mut Rows<'_>) {
        let start = places.start;
        for (after, item) in self.range(places).enumerate() {
            rows.put(&self.row(start + after), item);
        }
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.items().eq(other.items())
            && (self.is_empty() || self.head == other.head)
    }
}

/// Where a piece is extended.
fn edge(piece: &Packed, end: End) -> std::ops::Range<usize> {
    match end {
        End::Left => 0..0,
        End::Right => piece.size()..piece.size(),
    }
}

fn take(piece: &mut Packed, end: End) -> Option<Text> {
    let mut spots = piece.spots();
    let spot = match end {
        End::Left => spots.next()?,
        End::Right => spots.next_back()?,
    };
    let text = Text::new(spot.bytes);
    piece.splice(spot.range, 1, &[]);
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Op {
        Push(bool, usize),
        Pop(bool),
        Set(u16, usize),
        Insert(u16, usize),
        Retain(u8),
        Trim(u16, u16),
    }

    fn op() -> impl Strategy<Value = Op> {
        let length = || prop_oneof![8 => 0usize..40, 2 => 200usize..600, 1 => 2000usize..5000];
        prop_oneof![
            8 => (any::<bool>(), length()).prop_map(|(left, n)| Op::Push(left, n)),
            3 => any::<bool>().prop_map(Op::Pop),
            2 => (any::<u16>(), length()).prop_map(|(at, n)| Op::Set(at, n)),
            2 => (any::<u16>(), length()).prop_map(|(at, n)| Op::Insert(at, n)),
            1 => (2u8..9).prop_map(Op::Retain),
            1 => (0u16..4, 0u16..4).prop_map(|(a, b)| Op::Trim(a, b)),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
        #[test]
        fn agrees_with_a_vector(ops in prop::collection::vec(op(), 1..200)) {
            let mut list = List::new(1);
            let mut model: Vec<Vec<u8>> = Vec::new();
            let mut fx = storage::Effects::new();
            let mut rows = Rows::new(&mut fx, (storage::ShardId(0), 1), crate::Slot::of(b""), crate::rows::Tag::ListItem, 1);
            for (step, op) in ops.into_iter().enumerate() {
                let item = |length: usize| vec![step as u8; length];
                match op {
                    Op::Push(left, length) => {
                        list.push(if left { End::Left } else { End::Right }, &item(length), &mut rows);
                        model.insert(if left { 0 } else { model.len() }, item(length));
                    }
                    Op::Pop(left) => {
                        let end = if left { End::Left } else { End::Right };
                        let popped = list.pop(end, &mut rows).map(|item| item.to_vec());
                        let place = if left { 0 } else { model.len().saturating_sub(1) };
                        prop_assert_eq!(popped, (!model.is_empty()).then(|| model.remove(place)));
                    }
                    Op::Set(at, length) => {
                        let at = usize::from(at) % (model.len() + 1);
                        prop_assert_eq!(list.set(at, &item(length), &mut rows), at < model.len());
                        if let Some(place) = model.get_mut(at) {
                            *place = item(length);
                        }
                    }
                    Op::Insert(at, length) => {
                        let at = usize::from(at) % (model.len() + 1);
                        list.insert(at, &item(length), &mut rows);
                        model.insert(at, item(length));
                    }
                    Op::Retain(n) => {
                        let n = usize::from(n);
                        let before = model.len();
                        let mut place = 0;
                        model.retain(|_| { place += 1; place % n != 0 });
                        let removed = list.retain(|place, _| (place + 1) % n != 0, &mut rows);
                        prop_assert_eq!(removed, before - model.len());
                    }
                    Op::Trim(start, end) => {
                        let start = usize::from(start).min(model.len());
                        let end = model.len().saturating_sub(usize::from(end)).max(start);
                        list.trim(start, end, &mut rows);
                        model = model[start..end].to_vec();
                    }
                }
                prop_assert_eq!(list.len(), model.len());
                prop_assert!(list.iter().eq(model.iter().map(|item| &**item)));
                prop_assert!(list.iter().rev().eq(model.iter().rev().map(|item| &**item)));
                let middle = model.len() / 2;
                prop_assert_eq!(list.get(middle), model.get(middle).map(|item| &**item));
                let range = middle / 2..middle;
                prop_assert!(list.range(range.clone()).eq(model[range].iter().map(|item| &**item)));
                if let Form::Many(many) = &list.form {
                    prop_assert_eq!(many.heap, many.pieces.iter().map(Packed::size).sum::<usize>());
                    prop_assert!(many.pieces.iter().all(|piece| piece.len() > 0));
                }
            }
        }
    }
}
