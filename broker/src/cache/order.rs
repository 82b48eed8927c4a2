//! The order of a sorted set that is larger than memory should hold: pages of places, each in memory or in the tables.
//!
//! ```text
//! groups  [ 900: page page page ] [ 1200: page page … ] …     sums, so that a rank is found in a few hundred additions
//! page    first place, count, changes since the fold, perhaps all of its places
//! tables  a row per place (nothing but its key), a counter row per page under its first place
//! ```
//! A place is a score in eight bytes that sort as the score does, and the member. The pages divide all places among them:
//! one reaches from its first place to that of the next, and nothing lies before the first one of all. How many places each
//! has is always known here; which ones is read when somebody asks, a page at a time. To add or remove a place, nothing need
//! be read. What changed is known until it is folded, each change with its seq; all else may be forgotten at any time.
//!
//! An empty page goes when its deletions are folded: then its stretch holds nothing in the tables either, and may fall to
//! the page before it.

mod keys;

use std::cmp::Ordering;
use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;

use super::Error;
use super::partial::Rest;
use super::row::{self, NAME_MAX, Rows};
use super::text::Text;
use keys::Keys;

/// Places after which a page is divided. One is read at once: about 0.1 ms.
const PAGE_MAX: usize = if cfg!(test) { 8 } else { 512 };
/// Bytes after which it is divided too.
const PAGE_BYTES: usize = if cfg!(test) { 2048 } else { 32 << 10 };
/// Neighbours of so few places together become one page.
const MERGE_MAX: usize = PAGE_MAX / 2;
/// Of a change, besides its place.
const CHANGE: usize = 48;
const GROUP_MAX: usize = if cfg!(test) { 4 } else { 128 };
/// Empty pages looked at by one command.
const TIDY_STEPS: usize = 4;
/// A walk over more places than this leaves no pages in memory that were not there.
const WALK_KEPT: usize = 8 * PAGE_MAX;

/// See the module.
#[derive(Debug, Clone, Default)]
pub(super) struct Order {
    /// None is empty.
    groups: Vec<Group>,
    pages: usize,
    /// Bytes of the pages without what could be forgotten of them.
    fixed: usize,
    /// Bytes of places that are in memory.
    heap: usize,
    /// First places of pages that should be divided, but are not in memory.
    overfull: Vec<Text>,
    /// Seq and first place of pages that may be empty.
    empty: VecDeque<(u64, Text)>,
    /// The group that [`Order::trim`] looks at next.
    hand: usize,
    /// Nothing could be forgotten when the fold was here.
    stuck: Option<u64>,
}

#[derive(Debug, Clone)]
struct Group {
    count: usize,
    pages: Vec<Page>,
}

#[derive(Debug, Clone)]
struct Page {
    /// At most the first of its places, and behind all places of the page before it.
    first: Text,
    count: usize,
    /// Seq of the record that changed it last; 0: as the tables have it.
    seq: u64,
    /// Seq of the record that has written all of its places, if the tables may not have them: until then they stay.
    written: u64,
    /// Asked for since [`Order::trim`] came by.
    used: bool,
    /// In [`Order::overfull`].
    noted: bool,
    /// All of its places, if memory has them.
    keys: Option<Box<Keys>>,
    changes: Option<Box<Changes>>,
}

/// Places that have come or gone since the fold.
#[derive(Debug, Clone, Default)]
struct Changes {
    places: BTreeMap<Text, Change>,
    heap: usize,
    /// The fold was here when they were looked through last.
    folded: u64,
}

#[derive(Debug, Clone, Copy)]
struct Change {
    there: bool,
    /// Of the record that it is in.
    seq: u64,
}

/// Group and page.
type At = (usize, usize);

/// A score as eight bytes in the order of scores, and the member. -0 and 0 are the same.
pub(super) fn place(score: f64, member: &[u8]) -> Place {
    let mut place = Place::with_capacity(8 + member.len());
    place.extend_from_slice(&ordered(score).to_be_bytes());
    place.extend_from_slice(member);
    place
}

pub(super) type Place = smallvec::SmallVec<[u8; 64]>;

/// In the order of scores, which are never NaN.
pub(super) fn ordered(score: f64) -> u64 {
    let bits = (score + 0.0).to_bits();
    if bits >> 63 == 0 {
        bits ^ 1 << 63
    } else {
        !bits
    }
}

fn score_of(ordered: u64) -> f64 {
    f64::from_bits(if ordered >> 63 == 0 {
        !ordered
    } else {
        ordered ^ 1 << 63
    })
}

/// Score, in its order, and member. A page's first place may be less than a score: then it is the lowest one.
fn split(place: &[u8]) -> (u64, &[u8]) {
    let (score, member) = place.split_at_checked(8).unwrap_or((place, &[]));
    let mut bytes = [0; 8];
    if let Some(front) = bytes.get_mut(..score.len()) {
        front.copy_from_slice(score);
    }
    (u64::from_be_bytes(bytes), member)
}

/// What pages are divided by: as much of a place as stands whole in a table key, where it sorts as here.
fn cut(place: &[u8]) -> &[u8] {
    place.get(..NAME_MAX).unwrap_or(place)
}

/// More than one page should have.
fn too_large(keys: &Keys) -> bool {
    keys.len() > PAGE_MAX || (keys.bytes() > PAGE_BYTES && keys.len() > 1)
}

/// How many of a page's places stay in it when it is divided. Scores that only grow fill their pages.
fn front(len: usize, is_last: bool) -> usize {
    if is_last && len <= PAGE_MAX + 1 {
        len * 15 / 16
    } else {
        len / 2
    }
}

/// The shortest first place of a page that begins with these.
fn between(before: &Keys, behind: &Keys) -> Text {
    let (last, next) = (before.last(), behind.get(0));
    let (last, next) = (last.unwrap_or_default(), next.unwrap_or_default());
    let shared = last.iter().zip(next).take_while(|(a, b)| a == b).count();
    Text::new(next.get(..=shared).unwrap_or(next))
}

impl Changes {
    fn note(&mut self, place: &[u8], there: bool, seq: u64) {
        let change = Change { there, seq };
        if self.places.insert(Text::new(place), change).is_none() {
            self.heap += CHANGE + place.len();
        }
    }

    /// Takes the changes from a place on.
    fn split_off(&mut self, first: &Text) -> Self {
        let places = self.places.split_off(first);
        let heap = places.keys().map(|place| CHANGE + place.len()).sum();
        self.heap -= heap;
        let folded = self.folded;
        Self {
            places,
            heap,
            folded,
        }
    }

    /// Forgets what the tables have.
    fn forget(&mut self, folded: u64) {
        let heap = &mut self.heap;
        self.places.retain(|place, change| {
            let stays = change.seq > folded;
            if !stays {
                *heap -= CHANGE + place.len();
            }
            stays
        });
        self.folded = folded;
    }
}

impl Page {
    fn new(first: Text, count: usize, seq: u64) -> Self {
        Self {
            first,
            count,
            seq,
            written: 0,
            used: true,
            noted: false,
            keys: None,
            changes: None,
        }
    }

    fn heap(&self) -> usize {
        let keys = self.keys.as_ref().map_or(0, |keys| keys.memory());
        let changes = self.changes.as_ref().map_or(0, |changes| 64 + changes.heap);
        keys + changes
    }

    fn fixed(&self) -> usize {
        size_of::<Self>() + self.first.heap_bytes()
    }

    fn note(&mut self, place: &[u8], there: bool, seq: u64) {
        self.seq = seq;
        let changes = self.changes.get_or_insert_default();
        changes.note(place, there, seq);
    }

    /// Too much for one page.
    fn is_overfull(&self) -> bool {
        match &self.keys {
            Some(keys) => too_large(keys),
            None => self.count > PAGE_MAX,
        }
    }

    /// All of its places, from the tables and what has changed since.
    fn read(&self, end: Option<&[u8]>, tables: &Rest<'_>) -> Result<Keys, Error> {
        let mut keys = Keys::default();
        let (mut damaged, mut long) = (false, false);
        tables.scan(&self.first, &mut |name, stored| {
            if end.is_some_and(|end| name >= end) {
                return false;
            }
            let (score, name) = name.split_at_checked(8).unwrap_or_default();
            match row::split(name, stored) {
                Some((member, [])) if !score.is_empty() => {
                    long |= member.len() > NAME_MAX;
                    keys.push(score, &member);
                }
                _ => damaged = true,
            }
            !damaged
        })?;
        if long {
            // Their ends are hashed in the tables' keys.
            keys.sort();
        }
        if let Some(changes) = &self.changes {
            for (place, change) in &changes.places {
                match (keys.find(place), change.there) {
                    (Err(at), true) => keys.insert(at, place),
                    (Ok(at), false) => keys.remove(at),
                    (Ok(_), true) | (Err(_), false) => {}
                }
            }
        }
        if damaged || keys.len() != self.count {
            return Err(Error::Damaged);
        }
        Ok(keys)
    }
}

impl Order {
    /// Pages as their rows have them, in order: first place and count.
    pub(super) fn of_pages(pages: impl Iterator<Item = (Text, usize)>) -> Self {
        let mut order = Self::default();
        for (first, count) in pages {
            if count == 0 {
                order.empty.push_back((0, first.clone()));
            }
            order.push(Page::new(first, count, 0));
        }
        order
    }

    /// Writes the order of these members, which come in it.
    pub(super) fn build<'m>(
        members: impl Iterator<Item = (&'m [u8], f64)>,
        rows: &mut Rows<'_>,
    ) -> Self {
        let mut order = Self::default();
        let mut keys = Keys::default();
        for (member, score) in members {
            let place = place(score, member);
            rows.put_place(&place);
            let full = keys.len() >= PAGE_MAX * 3 / 4 || keys.bytes() >= PAGE_BYTES * 3 / 4;
            if full && keys.last().is_some_and(|last| cut(last) != cut(&place)) {
                order.push_all(std::mem::take(&mut keys), rows);
            }
            keys.push(&place, &[]);
        }
        if keys.len() > 0 {
            order.push_all(keys, rows);
        }
        order
    }

    /// A page behind all others.
    fn push_all(&mut self, keys: Keys, rows: &mut Rows<'_>) {
        let first = keys
            .get(0)
            .map_or(Text::EMPTY, |first| Text::new(cut(first)));
        rows.put_page(&first, keys.len());
        let mut page = Page::new(first, keys.len(), rows.seq);
        (page.keys, page.written) = (Some(Box::new(keys)), rows.seq);
        self.push(page);
    }

    fn push(&mut self, page: Page) {
        self.pages += 1;
        self.fixed += page.fixed();
        self.heap += page.heap();
        match self.groups.last_mut() {
            Some(group) if group.pages.len() < GROUP_MAX / 2 => {
                group.count += page.count;
                group.pages.push(page);
            }
            _ => self.groups.push(Group {
                count: page.count,
                pages: vec![page],
            }),
        }
    }

    pub(super) fn memory(&self) -> usize {
        128 + self.fixed
            + self.heap
            + self.groups.len() * size_of::<Group>()
            + (self.overfull.len() + self.empty.len()) * 48
    }

    /// Places of all pages.
    pub(super) fn len(&self) -> usize {
        self.groups.iter().map(|group| group.count).sum()
    }

    #[cfg(test)]
    pub(super) fn pages(&self) -> usize {
        self.pages
    }

    fn page(&self, (group, page): At) -> Option<&Page> {
        self.groups.get(group)?.pages.get(page)
    }

    /// Where the page behind this one begins.
    fn end(&self, (group, page): At) -> Option<&[u8]> {
        let next = self.page((group, page + 1));
        let next = next.or_else(|| self.page((group + 1, 0)));
        next.map(|page| &*page.first)
    }

    /// The last page whose first place satisfies `below`, which a front part of them does.
    fn last_that(&self, below: impl Fn(&[u8]) -> bool) -> Option<At> {
        let group = self
            .groups
            .partition_point(|group| group.pages.first().is_some_and(|page| below(&page.first)))
            .checked_sub(1)?;
        let pages = &self.groups.get(group)?.pages;
        let page = pages.partition_point(|page| below(&page.first));
        Some((group, page.checked_sub(1)?))
    }

    fn find(&self, place: &[u8]) -> Option<At> {
        let place = cut(place);
        self.last_that(|first| first <= place)
    }

    /// Changes a page; accounts for its memory and the sums.
    fn change<R>(&mut self, (group, page): At, change: impl FnOnce(&mut Page) -> R) -> Option<R> {
        let group = self.groups.get_mut(group)?;
        let page = group.pages.get_mut(page)?;
        let (fixed, heap, count) = (page.fixed(), page.heap(), page.count);
        let result = change(page);
        self.fixed = self.fixed - fixed + page.fixed();
        self.heap = self.heap - heap + page.heap();
        group.count = group.count - count + page.count;
        Some(result)
    }

    /// A member has come (`new` alone), gone (`old` alone), or has another score.
    pub(super) fn moved(&mut self, old: Option<&[u8]>, new: Option<&[u8]>, rows: &mut Rows<'_>) {
        if old == new {
            return;
        }
        if let (Some(old), Some(new)) = (old, new)
            && let Some(at) = self.find(old)
            && self.find(new) == Some(at)
        {
            // Their counter stays as it is.
            self.take(at, old, rows);
            self.put(at, new, rows);
            self.divide(at, rows);
            return;
        }
        if let Some(old) = old {
            self.remove(old, rows);
        }
        if let Some(new) = new {
            self.add(new, rows);
        }
    }

    fn take(&mut self, at: At, place: &[u8], rows: &mut Rows<'_>) {
        rows.del_place(place);
        self.change(at, |page| {
            page.count = page.count.saturating_sub(1);
            page.note(place, false, rows.seq);
            if let Some(keys) = &mut page.keys {
                match keys.find(place) {
                    Ok(at) => keys.remove(at),
                    Err(_) => debug_assert!(false, "every member has its place"),
                }
            }
        });
    }

    fn put(&mut self, at: At, place: &[u8], rows: &mut Rows<'_>) {
        rows.put_place(place);
        self.change(at, |page| {
            page.count += 1;
            page.note(place, true, rows.seq);
            if let Some(keys) = &mut page.keys {
                match keys.find(place) {
                    Err(at) => keys.insert(at, place),
                    Ok(_) => debug_assert!(false, "a member has one place"),
                }
            }
        });
    }

    fn remove(&mut self, place: &[u8], rows: &mut Rows<'_>) {
        let Some(at) = self.find(place) else {
            debug_assert!(false, "nothing lies before the first page");
            return;
        };
        self.take(at, place, rows);
        let Some(page) = self.page(at) else {
            return;
        };
        rows.add_page(&page.first, -1);
        let (count, first) = (page.count, page.first.clone());
        if count <= PAGE_MAX / 8 && self.join(at, rows) {
            return;
        }
        if count == 0 {
            self.empty.push_back((rows.seq, first));
        }
    }

    fn add(&mut self, place: &[u8], rows: &mut Rows<'_>) {
        let at = match self.find(place) {
            Some(at) => at,
            None if self.groups.is_empty() => {
                let first = Text::new(cut(place));
                rows.put_page(&first, 0);
                self.push(Page::new(first, 0, rows.seq));
                (0, 0)
            }
            None => {
                let first = Text::new(cut(place));
                self.change((0, 0), |page| {
                    rows.del_page(&page.first);
                    rows.put_page(&first, page.count);
                    page.first = first;
                });
                (0, 0)
            }
        };
        if let Some(page) = self.page(at) {
            rows.add_page(&page.first, 1);
        }
        self.put(at, place, rows);
        self.divide(at, rows);
    }

    /// Divides a page that has become too large until it is not, if it is in memory; else that is left for
    /// [`Order::tidy`].
    fn divide(&mut self, at: At, rows: &mut Rows<'_>) {
        let Some(page) = self.page(at).filter(|page| page.is_overfull()) else {
            return;
        };
        let first = page.first.clone();
        if let Some(Some(keys)) = self.change(at, |page| page.keys.take()) {
            self.spread(at, *keys, true, rows);
        } else if self.change(at, |page| std::mem::replace(&mut page.noted, true)) == Some(false) {
            self.overfull.push(first);
        }
    }

    /// Makes as many pages of one as it takes. Its places come from memory, where they stay if `hold`, or from the tables.
    fn spread(&mut self, at: At, keys: Keys, hold: bool, rows: &mut Rows<'_>) {
        let Some(page) = self.page(at) else {
            return;
        };
        let mut large = vec![(page.first.clone(), keys)];
        while let Some((first, mut keys)) = large.pop() {
            let Some(at) = self.find(&first) else {
                return;
            };
            let is_last = self.end(at).is_none();
            let Some(keep) = too_large(&keys)
                .then(|| keys.divide_at(front(keys.len(), is_last), |a, b| cut(a) != cut(b)))
                .flatten()
            else {
                if hold {
                    self.change(at, |page| page.keys = Some(Box::new(keys)));
                }
                continue;
            };
            let tail = keys.split_off(keep);
            let second = between(&keys, &tail);
            let new = self.change(at, |page| {
                page.count = keys.len();
                page.seq = rows.seq;
                rows.put_page(&page.first, page.count);
                rows.put_page(&second, tail.len());
                let mut new = Page::new(second.clone(), tail.len(), rows.seq);
                let changes = page.changes.as_mut();
                new.changes = changes.map(|changes| Box::new(changes.split_off(&second)));
                new.written = page.written;
                new
            });
            if let Some(new) = new {
                self.insert_behind(at, new);
            }
            large.push((second, tail));
            large.push((first, keys));
        }
    }

    fn insert_behind(&mut self, (number, page): At, new: Page) {
        let Some(group) = self.groups.get_mut(number) else {
            return;
        };
        self.pages += 1;
        self.fixed += new.fixed();
        self.heap += new.heap();
        group.count += new.count;
        group.pages.insert(page + 1, new);
        if group.pages.len() > GROUP_MAX {
            let pages = group.pages.split_off(GROUP_MAX / 2);
            let count = pages.iter().map(|page| page.count).sum();
            group.count -= count;
            self.groups.insert(number + 1, Group { count, pages });
        }
    }

    /// Makes one page of this one and a neighbour, if both are small.
    fn join(&mut self, (number, page): At, rows: &mut Rows<'_>) -> bool {
        let Some(group) = self.groups.get_mut(number) else {
            return false;
        };
        let fit = |a: usize| match (group.pages.get(a), group.pages.get(a + 1)) {
            (Some(a), Some(b)) => {
                let bytes = |page: &Page| page.keys.as_ref().map(|keys| keys.bytes());
                let (known, bytes) = match (bytes(a), bytes(b)) {
                    (Some(a), Some(b)) => (true, a + b),
                    (a, b) => (false, a.or(b).unwrap_or(0)),
                };
                let stay = a.written > 0 || b.written > 0;
                a.count + b.count <= MERGE_MAX && bytes <= PAGE_BYTES && (known || !stay)
            }
            _ => false,
        };
        let Some(left) = [Some(page), page.checked_sub(1)]
            .into_iter()
            .flatten()
            .find(|&left| fit(left))
        else {
            return false;
        };
        let gone = group.pages.remove(left + 1);
        self.pages -= 1;
        group.count -= gone.count;
        self.fixed -= gone.fixed();
        self.heap -= gone.heap();
        rows.del_page(&gone.first);
        self.change((number, left), |page| {
            page.keys = match (page.keys.take(), gone.keys) {
                (Some(mut keys), Some(more)) => {
                    keys.append(&more);
                    Some(keys)
                }
                _ => None,
            };
            if let Some(more) = gone.changes {
                let changes = page.changes.get_or_insert_default();
                changes.heap += more.heap;
                changes.folded = 0;
                changes.places.extend(more.places);
            }
            page.written = page.written.max(gone.written);
            page.count += gone.count;
            page.seq = rows.seq;
            rows.put_page(&page.first, page.count);
        });
        let joined = self.page((number, left));
        if let Some(page) = joined.filter(|page| page.count == 0) {
            self.empty.push_back((rows.seq, page.first.clone()));
        }
        true
    }

    /// Does what was left over: divides pages that were not in memory, and lets go of empty ones. `wrote`: rows too.
    pub(super) fn tidy(
        &mut self,
        folded: u64,
        tables: &Rest<'_>,
        rows: &mut Rows<'_>,
        wrote: &mut bool,
    ) -> Result<(), Error> {
        while let Some(first) = self.overfull.last().cloned() {
            if let Some(at) = self.find(&first) {
                self.change(at, |page| page.noted = false);
                self.divide_unheld(at, tables, rows, wrote)?;
            }
            self.overfull.pop();
        }
        for _ in 0..TIDY_STEPS {
            let Some((_, first)) = self.empty.front().filter(|(seq, _)| *seq <= folded) else {
                break;
            };
            let first = first.clone();
            self.empty.pop_front();
            *wrote |= self.let_go(&first, folded, rows);
        }
        Ok(())
    }

    fn divide_unheld(
        &mut self,
        at: At,
        tables: &Rest<'_>,
        rows: &mut Rows<'_>,
        wrote: &mut bool,
    ) -> Result<(), Error> {
        let Some(page) = self.page(at).filter(|page| page.is_overfull()) else {
            return Ok(());
        };
        *wrote = true;
        if page.keys.is_some() {
            self.divide(at, rows);
            return Ok(());
        }
        let keys = page.read(self.end(at), tables)?;
        self.spread(at, keys, false, rows);
        Ok(())
    }

    /// Removes a page if it is empty and the tables know it.
    fn let_go(&mut self, first: &Text, folded: u64, rows: &mut Rows<'_>) -> bool {
        let Some((number, index)) = self.find(first) else {
            return false;
        };
        let Some(page) = self.page((number, index)) else {
            return false;
        };
        if page.first != *first || page.count > 0 || self.pages == 1 {
            return false;
        }
        if page.seq > folded {
            self.empty.push_back((page.seq, first.clone()));
            return false;
        }
        let (heap, fixed) = (page.heap(), page.fixed());
        self.heap -= heap;
        self.fixed -= fixed;
        self.pages -= 1;
        rows.del_page(first);
        if let Some(group) = self.groups.get_mut(number) {
            group.pages.remove(index);
            if group.pages.is_empty() {
                self.groups.remove(number);
            }
        }
        true
    }

    pub(super) fn needs_tidying(&self, folded: u64) -> bool {
        let empty = self.empty.front().is_some_and(|(seq, _)| *seq <= folded);
        empty || !self.overfull.is_empty()
    }

    /// Reads a page, if memory has not all of it.
    fn hold(&mut self, at: At, tables: &Rest<'_>) -> Result<(), Error> {
        let Some(page) = self.page(at) else {
            return Ok(());
        };
        if page.keys.is_some() {
            self.change(at, |page| page.used = true);
            return Ok(());
        }
        let keys = page.read(self.end(at), tables)?;
        self.stuck = None;
        self.change(at, |page| {
            page.used = true;
            page.keys = Some(Box::new(keys));
        });
        Ok(())
    }

    /// Places before a page.
    fn before(&self, (group, page): At) -> usize {
        let groups = self.groups.iter().take(group).map(|group| group.count);
        let pages = self.groups.get(group).map_or(&[][..], |group| &group.pages);
        groups.sum::<usize>()
            + pages
                .iter()
                .take(page)
                .map(|page| page.count)
                .sum::<usize>()
    }

    /// How many places come before this one, which is there.
    pub(super) fn rank(&mut self, place: &[u8], tables: &Rest<'_>) -> Result<usize, Error> {
        let at = self.find(place).ok_or(Error::Damaged)?;
        self.hold(at, tables)?;
        let keys = self.page(at).and_then(|page| page.keys.as_ref());
        let within = keys.map_or(Ok(0), |keys| keys.find(place));
        let within = within.map_err(|_| Error::Damaged)?;
        Ok(self.before(at) + within)
    }

    /// How many places from the front satisfy `below`, which holds for a front part only; it is given score, in its order,
    /// and member.
    pub(super) fn partition(
        &mut self,
        below: impl Fn(u64, &[u8]) -> bool,
        tables: &Rest<'_>,
    ) -> Result<usize, Error> {
        let below = |place: &[u8]| {
            let (score, member) = split(place);
            below(score, member)
        };
        let Some(at) = self.last_that(below) else {
            return Ok(0);
        };
        self.hold(at, tables)?;
        let keys = self.page(at).and_then(|page| page.keys.as_ref());
        let within = keys.map_or(0, |keys| keys.partition(below));
        Ok(self.before(at) + within)
    }

    /// The same by member, of members that all have one score. A page may still begin with a score that its places had once.
    pub(super) fn partition_members(
        &mut self,
        below: impl Fn(&[u8]) -> bool,
        tables: &Rest<'_>,
    ) -> Result<usize, Error> {
        let mut common = None;
        self.each(0..1, false, tables, &mut |_, score| {
            common = Some(ordered(score));
            true
        })?;
        let Some(common) = common else {
            return Ok(0);
        };
        let below = |score: u64, member: &[u8]| match score.cmp(&common) {
            Ordering::Less => true,
            Ordering::Equal => below(member),
            Ordering::Greater => false,
        };
        self.partition(below, tables)
    }

    /// Visits members and scores of these ranks, which come in order, some of them more than once. Of many, no page stays in
    /// memory.
    pub(super) fn each_of(
        &mut self,
        ranks: &[usize],
        tables: &Rest<'_>,
        visit: &mut dyn FnMut(&[u8], f64),
    ) -> Result<(), Error> {
        let keep = ranks.len() <= WALK_KEPT / PAGE_MAX;
        let mut ranks = ranks.iter().copied().peekable();
        while let Some(&rank) = ranks.peek() {
            let (at, start) = self.at(rank).ok_or(Error::Damaged)?;
            if keep {
                self.hold(at, tables)?;
            }
            let mut read = Keys::default();
            let keys = self.keys(at, tables, &mut read)?;
            while let Some(rank) = ranks.next_if(|rank| rank - start < keys.len()) {
                let (score, member) = split(keys.get(rank - start).unwrap_or_default());
                visit(member, score_of(score));
            }
        }
        Ok(())
    }

    /// The places of a page; `read` has them if memory has not.
    fn keys<'k>(
        &'k self,
        at: At,
        tables: &Rest<'_>,
        read: &'k mut Keys,
    ) -> Result<&'k Keys, Error> {
        let page = self.page(at).ok_or(Error::Damaged)?;
        if let Some(keys) = &page.keys {
            return Ok(keys);
        }
        *read = page.read(self.end(at), tables)?;
        Ok(read)
    }

    /// Visits members and scores of these ranks, in their order or backwards, until `visit` is false.
    pub(super) fn each(
        &mut self,
        ranks: Range<usize>,
        backwards: bool,
        tables: &Rest<'_>,
        visit: &mut dyn FnMut(&[u8], f64) -> bool,
    ) -> Result<(), Error> {
        let keep = ranks.len() <= WALK_KEPT;
        let (mut low, mut high) = (ranks.start, ranks.end.min(self.len()));
        while low < high {
            let rank = if backwards { high - 1 } else { low };
            let Some((at, start)) = self.at(rank) else {
                return Err(Error::Damaged);
            };
            if keep {
                self.hold(at, tables)?;
            }
            let mut read = Keys::default();
            let keys = self.keys(at, tables, &mut read)?;
            let from = low.saturating_sub(start);
            let to = (high - start).min(keys.len());
            let mut show = |at: usize| {
                let (score, member) = split(keys.get(at).unwrap_or_default());
                visit(member, score_of(score))
            };
            let go_on = if backwards {
                high = start + from;
                (from..to).rev().all(&mut show)
            } else {
                low = start + to;
                (from..to).all(&mut show)
            };
            if !go_on {
                break;
            }
        }
        Ok(())
    }

    /// The page where a rank lies, and the rank of its first place.
    fn at(&self, rank: usize) -> Option<(At, usize)> {
        let mut start = 0;
        for (number, group) in self.groups.iter().enumerate() {
            if rank >= start + group.count {
                start += group.count;
                continue;
            }
            for (page, counted) in group.pages.iter().enumerate() {
                if rank < start + counted.count {
                    return Some(((number, page), start));
                }
                start += counted.count;
            }
        }
        None
    }

    /// Bytes that can be forgotten when all is folded: of places, but not that there are such pages.
    pub(super) fn held(&self) -> usize {
        self.heap
    }

    /// Forgets places that the tables have, until those in memory take `target` bytes or about `steps` pages were looked at, those
    /// first that were not used since it came by last. Bytes given back.
    pub(super) fn trim(&mut self, folded: u64, target: usize, steps: usize) -> usize {
        let before = self.heap;
        if self.heap <= target || self.stuck == Some(folded) {
            return 0;
        }
        let (mut seen, mut passed) = (0, 0);
        // Twice round: the first time only those go that were not used.
        while self.heap > target && seen < steps && passed < 2 * self.groups.len() {
            let number = self.hand % self.groups.len().max(1);
            let Some(group) = self.groups.get_mut(number) else {
                break;
            };
            for page in &mut group.pages {
                let (before, changes) = (page.heap(), page.changes.as_mut());
                seen += 1;
                if let Some(changes) = changes.filter(|changes| changes.folded < folded) {
                    seen += changes.places.len() / 8;
                    changes.forget(folded);
                }
                if page
                    .changes
                    .as_ref()
                    .is_some_and(|changes| changes.places.is_empty())
                {
                    page.changes = None;
                }
                if page.written <= folded {
                    page.written = 0;
                    if !std::mem::take(&mut page.used) {
                        page.keys = None;
                    }
                }
                self.heap = self.heap - before + page.heap();
            }
            self.hand = number + 1;
            passed += 1;
        }
        if passed >= 2 * self.groups.len() {
            self.stuck = Some(folded);
        }
        before - self.heap
    }
}
