//! Lists: a ring of items; an item's row stands under its index, which grows to the right and falls to the left.

use std::collections::VecDeque;

use super::row::Rows;
use super::text::Text;
use crate::rows::ordered_i64;

/// Redis' `list-max-listpack-size -2`: a list of up to 8 KiB is one listpack.
const SMALL_BYTES: usize = 8192;

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
    items: VecDeque<Text>,
    /// Allocated by items.
    heap: usize,
    /// Length of all items.
    bytes: usize,
}

impl List {
    pub(super) fn new(id: u64) -> Self {
        Self {
            id,
            head: 0,
            items: VecDeque::new(),
            heap: 0,
            bytes: 0,
        }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.items.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    #[must_use]
    pub fn is_small(&self) -> bool {
        self.bytes + self.items.len() * 2 < SMALL_BYTES
    }

    #[must_use]
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        self.items.get(index).map(|item| &**item)
    }

    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &[u8]> + ExactSizeIterator {
        self.items.iter().map(|item| &**item)
    }

    /// Items of a range of places; the range must lie within the list.
    pub fn range(&self, range: std::ops::Range<usize>) -> impl ExactSizeIterator<Item = &[u8]> {
        let end = range.end.min(self.items.len());
        self.items
            .range(range.start.min(end)..end)
            .map(|item| &**item)
    }

    pub fn push(&mut self, end: End, item: &[u8], rows: &mut Rows<'_>) {
        let text = Text::new(item);
        self.heap += text.heap_bytes();
        self.bytes += item.len();
        match end {
            End::Left => {
                self.head -= 1;
                self.items.push_front(text);
                rows.put(&ordered_i64(self.head), item);
            }
            End::Right => {
                rows.put(&self.row(self.items.len()), item);
                self.items.push_back(text);
            }
        }
    }

    pub fn pop(&mut self, end: End, rows: &mut Rows<'_>) -> Option<Text> {
        let text = match end {
            End::Left => {
                let text = self.items.pop_front()?;
                rows.del(&ordered_i64(self.head));
                self.head += 1;
                text
            }
            End::Right => {
                let text = self.items.pop_back()?;
                rows.del(&self.row(self.items.len()));
                text
            }
        };
        self.heap -= text.heap_bytes();
        self.bytes -= text.len();
        Some(text)
    }

    /// Replaces the item at a place; false when there is none.
    pub fn set(&mut self, index: usize, item: &[u8], rows: &mut Rows<'_>) -> bool {
        let row = self.row(index);
        let Some(text) = self.items.get_mut(index) else {
            return false;
        };
        self.heap -= text.heap_bytes();
        self.bytes -= text.len();
        text.assign(item);
        self.heap += text.heap_bytes();
        self.bytes += item.len();
        rows.put(&row, item);
        true
    }

    /// Inserts before the item that is at `index`; the shorter side moves.
    pub fn insert(&mut self, index: usize, item: &[u8], rows: &mut Rows<'_>) {
        let index = index.min(self.items.len());
        let text = Text::new(item);
        self.heap += text.heap_bytes();
        self.bytes += item.len();
        self.items.insert(index, text);
        if index < self.items.len() / 2 {
            self.head -= 1;
            self.rewrite(0..index + 1, rows);
        } else {
            self.rewrite(index..self.items.len(), rows);
        }
    }

    /// Keeps the items that `keep` wants, in order; the number removed.
    pub fn retain(
        &mut self,
        mut keep: impl FnMut(usize, &[u8]) -> bool,
        rows: &mut Rows<'_>,
    ) -> usize {
        let before = self.items.len();
        let mut first = before;
        let mut last = 0;
        let mut place = 0;
        let (mut heap, mut bytes) = (self.heap, self.bytes);
        self.items.retain(|item| {
            let kept = keep(place, item);
            if !kept {
                first = first.min(place);
                last = place;
                heap -= item.heap_bytes();
                bytes -= item.len();
            }
            place += 1;
            kept
        });
        (self.heap, self.bytes) = (heap, bytes);
        let removed = before - self.items.len();
        if removed == 0 {
            return 0;
        }
        let tail = before - 1 - last;
        if first < tail {
            // What is left of the hole moves right: its rows are written anew from the new head on.
            let old = self.head;
            self.head += removed as i64;
            for gone in old..self.head {
                rows.del(&ordered_i64(gone));
            }
            let end = self.items.len() - tail;
            self.rewrite(0..end, rows);
        } else {
            self.rewrite(first..self.items.len(), rows);
            for gone in self.items.len()..before {
                rows.del(&self.row(gone));
            }
        }
        removed
    }

    /// Keeps the items at `start..end`.
    pub fn trim(&mut self, start: usize, end: usize, rows: &mut Rows<'_>) {
        for _ in end..self.items.len() {
            self.pop(End::Right, rows);
        }
        for _ in 0..start.min(self.items.len()) {
            self.pop(End::Left, rows);
        }
    }

    /// An item as the tables have it; they come in order of their index.
    pub(super) fn load(&mut self, index: i64, item: &[u8]) {
        if self.items.is_empty() {
            self.head = index;
        }
        let text = Text::new(item);
        self.heap += text.heap_bytes();
        self.bytes += item.len();
        self.items.push_back(text);
    }

    pub(super) fn memory(&self) -> usize {
        96 + self.heap + self.items.capacity() * size_of::<Text>()
    }

    /// Every item with its row's name.
    pub(super) fn rows(&self) -> impl Iterator<Item = ([u8; 8], &[u8])> {
        self.items
            .iter()
            .enumerate()
            .map(|(place, item)| (self.row(place), &**item))
    }

    fn row(&self, place: usize) -> [u8; 8] {
        ordered_i64(self.head.wrapping_add(place as i64))
    }

    fn rewrite(&self, places: std::ops::Range<usize>, rows: &mut Rows<'_>) {
        for place in places {
            if let Some(item) = self.items.get(place) {
                rows.put(&self.row(place), item);
            }
        }
    }
}

impl PartialEq for List {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
            && self.items == other.items
            && (self.items.is_empty() || self.head == other.head)
    }
}
