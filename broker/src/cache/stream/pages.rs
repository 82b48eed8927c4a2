//! Where the entries lie of a stream that is larger than memory should hold: pages of neighbours, each in memory or in the
//! tables.
//!
//! ```text
//! pages   [1-0 512] [9-3 487] [20-0 0] … [900-1 512] [930-0 open]    first id and count, always in memory
//! memory   chunks                          chunks      chunks        both ends, what the tables may not have, what was read lately
//! tables   a row per entry; a counter row per page under its first id
//! ```
//! A page reaches from its first id to that of the next. Entries come only into the last one, which is open until it is full; its
//! row says 0, and whoever loads the stream counts its entries. The others only lose entries. A closed page without any is never
//! read, so that neighbours of that kind are one, and those in front of all others are gone: what was deleted is not walked over.
//!
//! A page stays in memory until the fold has passed the record that changed it last. What is deleted from one that is not there
//! is noted beside it until then.

mod read;

use std::collections::{BTreeMap, VecDeque};

use super::entries::{Entries, Trim, Until};
use super::id::EntryId;
use super::rows::StreamRows;

/// Entries after which a page is full. One is read at once: about 0.3 ms.
const PAGE_MAX: usize = if cfg!(test) { 8 } else { 512 };
/// Bytes of bodies after which it is full too.
const PAGE_BYTES: usize = if cfg!(test) { 2048 } else { 64 << 10 };
/// Bytes of a deletion that is noted.
const GONE: usize = 48;
/// Bytes of an entry that was read by itself, besides its body.
const LOOSE: usize = 64;

/// See the module.
#[derive(Debug, Clone)]
pub(super) struct Pages {
    /// Never empty; the last one is open.
    all: VecDeque<Page>,
    /// They are as their rows say where they begin: a load opens no other.
    stored: bool,
    /// Entries and bytes of bodies that the open page was given.
    used: (usize, usize),
    /// First ids of pages of which memory has something that it could forget, in the order in which they are looked at.
    listed: VecDeque<EntryId>,
    /// Pages looked at since something was forgotten.
    fruitless: usize,
    /// Nothing could be forgotten when the fold was here.
    stuck: Option<u64>,
    /// Deletions that are noted.
    gone: usize,
    /// Rows of entries from the one id to before the other are nobody's, and the sweeper has not been told.
    trimmed: Option<(EntryId, EntryId)>,
    /// Entries that were read by themselves, for the command that runs.
    loose: BTreeMap<EntryId, Box<[u8]>>,
    loose_bytes: usize,
}

#[derive(Debug, Clone)]
struct Page {
    first: EntryId,
    count: usize,
    /// Of the record that changed it last; 0: as the tables have it.
    seq: u64,
    /// All of its entries are in memory.
    held: bool,
    /// Asked for since [`Entries::forget`] came by.
    used: bool,
    listed: bool,
    /// Entries that were deleted while it was not in memory, each with the seq of its record.
    gone: BTreeMap<EntryId, u64>,
}

impl Page {
    fn new(first: EntryId, seq: u64, held: bool) -> Self {
        Self {
            first,
            count: 0,
            seq,
            held,
            used: true,
            listed: false,
            gone: BTreeMap::new(),
        }
    }
}

impl Pages {
    fn new() -> Self {
        Self {
            all: VecDeque::new(),
            stored: false,
            used: (0, 0),
            listed: VecDeque::new(),
            fruitless: 0,
            stuck: None,
            gone: 0,
            trimmed: None,
            loose: BTreeMap::new(),
            loose_bytes: 0,
        }
    }

    fn memory(&self) -> usize {
        size_of::<Self>()
            + self.all.len() * size_of::<Page>()
            + self.listed.len() * size_of::<EntryId>()
            + self.gone * GONE
            + self.loose_bytes
    }

    fn last(&self) -> usize {
        self.all.len() - 1
    }

    /// The page where this id belongs; `None`: before all of them.
    fn find(&self, id: EntryId) -> Option<usize> {
        self.all
            .partition_point(|page| page.first <= id)
            .checked_sub(1)
    }

    /// Where the page behind this one begins.
    fn end(&self, number: usize) -> Option<EntryId> {
        self.all.get(number + 1).map(|page| page.first)
    }

    /// The last page that has entries.
    fn last_used(&self) -> Option<usize> {
        (self.all.iter()).rposition(|page| page.count > 0)
    }

    fn is_full(&self) -> bool {
        self.used.0 >= PAGE_MAX || self.used.1 >= PAGE_BYTES
    }

    /// Memory has something of a page now.
    fn list(&mut self, number: usize) {
        self.stuck = None;
        if let Some(page) = self.all.get_mut(number)
            && !std::mem::replace(&mut page.listed, true)
        {
            self.listed.push_back(page.first);
        }
    }

    /// A page is the open one from here on.
    fn open(&mut self, first: EntryId, seq: u64) {
        self.used = (0, 0);
        self.all.push_back(Page::new(first, seq, true));
        self.list(self.last());
    }

    /// An entry comes into the open page.
    fn note(&mut self, bytes: usize, seq: u64) {
        self.used.0 += 1;
        self.used.1 += bytes;
        if let Some(page) = self.all.back_mut() {
            page.count += 1;
            page.seq = seq;
        }
    }

    /// A closed page has become empty: it goes, if it is the first one or beside another empty one.
    fn drop_empty(&mut self, number: usize, rows: &mut StreamRows<'_, '_>) {
        if number == 0 {
            while self.all.len() > 1
                && self.all.front().is_some_and(|page| page.count == 0)
                && let Some(page) = self.all.pop_front()
            {
                self.gone -= page.gone.len();
                rows.remove_page(page.first);
            }
            return;
        }
        let is_empty = |number: usize| {
            number < self.last() && self.all.get(number).is_some_and(|page| page.count == 0)
        };
        let gone = if is_empty(number - 1) {
            number
        } else if is_empty(number + 1) {
            number + 1
        } else {
            return;
        };
        if let Some(page) = self.all.remove(gone) {
            self.gone -= page.gone.len();
            rows.remove_page(page.first);
        }
    }

    /// An entry of a page was deleted.
    fn lost(&mut self, number: usize, count: usize, rows: &mut StreamRows<'_, '_>) {
        let is_open = number == self.last();
        let Some(page) = self.all.get_mut(number) else {
            return;
        };
        page.count -= count;
        page.seq = rows.rows.seq;
        if is_open {
            return;
        }
        rows.shrink_page(page.first, count);
        if page.count == 0 {
            self.drop_empty(number, rows);
        }
    }
}

/// How much of the front goes by a [`Trim`], page by page.
struct Surplus<'t> {
    trim: &'t Trim,
    len: u64,
    removed: u64,
}

impl Surplus<'_> {
    /// Does all of a page go? `end`: where the next one begins.
    fn takes(&self, count: usize, end: Option<EntryId>) -> bool {
        let fits = self.trim.limit == 0 || self.removed + count as u64 <= self.trim.limit;
        fits && match self.trim.until {
            Until::Len(wanted) => self
                .len
                .checked_sub(count as u64)
                .is_some_and(|left| left >= wanted),
            Until::Id(first) => end.is_some_and(|end| end <= first),
        }
    }

    /// May something of it go?
    fn touches(&self, first: EntryId) -> bool {
        match self.trim.until {
            Until::Len(wanted) => self.len > wanted,
            Until::Id(end) => first < end,
        }
    }

    fn take(&mut self, count: usize) {
        self.len -= count as u64;
        self.removed += count as u64;
    }
}

impl Entries {
    /// All of them are in memory.
    #[inline]
    pub(super) fn is_whole(&self) -> bool {
        self.pages.is_none()
    }

    /// Bytes of memory of what is known of pages.
    pub(super) fn pages_memory(&self) -> usize {
        self.pages.as_ref().map_or(0, |pages| pages.memory())
    }

    /// Bytes that can be forgotten when all is folded; `None`: all of them are in memory.
    pub(super) fn held(&self) -> Option<usize> {
        let pages = self.pages.as_ref()?;
        let mut ends = vec![0, pages.last_used().unwrap_or(0), pages.last()];
        ends.dedup();
        let stay = ends.iter().flat_map(|number| self.chunks_in(*number));
        let stay: usize = stay.map(|(_, chunk)| chunk.memory()).sum();
        Some(self.heap.saturating_sub(stay))
    }

    /// Pages of which memory has no entry.
    pub(super) fn absent(&self) -> usize {
        let pages = self.pages.iter().flat_map(|pages| &pages.all);
        pages.filter(|page| !page.held && page.count > 0).count()
    }

    /// An entry that was read by itself.
    pub(super) fn loose(&self, id: EntryId) -> Option<&[u8]> {
        self.pages.as_ref()?.loose.get(&id).map(|body| &**body)
    }

    /// Divides what is in memory, which is all, into pages. `seq`: of the record that changed it last, if the tables may not have it.
    pub(super) fn divide(&mut self, seq: u64) {
        let mut pages = Pages::new();
        for (base, chunk) in &self.chunks {
            if pages.all.is_empty() || pages.is_full() {
                pages.open(*base, seq);
            }
            pages.used.0 += chunk.len();
            pages.used.1 += chunk.memory();
            if let Some(page) = pages.all.back_mut() {
                page.count += chunk.len();
            }
        }
        if pages.all.is_empty() {
            pages.open(EntryId::MIN, seq);
        }
        self.pages = Some(Box::new(pages));
    }

    /// Pages as their rows have them; the last one's entries are loaded behind it.
    pub(super) fn of_pages(found: impl Iterator<Item = (EntryId, usize)>) -> Option<Self> {
        let mut pages = Pages::new();
        pages.stored = true;
        let mut len = 0;
        for (first, count) in found {
            let mut page = Page::new(first, 0, false);
            page.count = count;
            len += count;
            pages.all.push_back(page);
        }
        let open = pages.all.pop_back()?;
        // Not counted.
        (open.count == 0).then_some(())?;
        pages.open(open.first, 0);
        Some(Self {
            len,
            pages: Some(Box::new(pages)),
            ..Self::default()
        })
    }

    /// First id and count of every page, as their rows are to be; of the open one 0.
    pub(super) fn each_page(&self, see: &mut dyn FnMut(EntryId, usize)) {
        let Some(pages) = &self.pages else {
            return;
        };
        for (number, page) in pages.all.iter().enumerate() {
            let is_open = number == pages.last();
            see(page.first, if is_open { 0 } else { page.count });
        }
    }

    /// Makes room in the open page for an entry that comes.
    pub(super) fn turn_page(&mut self, id: EntryId, bytes: usize, rows: &mut StreamRows<'_, '_>) {
        let Some(pages) = &mut self.pages else {
            return;
        };
        if pages.is_full() {
            let full = pages.last();
            if let Some(page) = pages.all.get(full) {
                rows.page(page.first, page.count);
            }
            rows.page(id, 0);
            pages.open(id, rows.rows.seq);
            if pages.all.get(full).is_some_and(|page| page.count == 0) {
                pages.drop_empty(full, rows);
            }
        }
        pages.note(bytes, rows.rows.seq);
    }

    /// The first id of the open page, where a chunk must begin.
    pub(super) fn open_from(&self) -> EntryId {
        let open = self.pages.as_ref().and_then(|pages| pages.all.back());
        open.map_or(EntryId::MIN, |page| page.first)
    }

    /// An entry as the tables have it; they come in order. Only the last page stays in memory.
    pub(super) fn load(&mut self, id: EntryId, body: &[u8]) {
        if let Some(pages) = &mut self.pages {
            if pages.is_full() && !pages.stored {
                let full = pages.last();
                pages.open(id, 0);
                self.let_go(full);
            }
            if let Some(pages) = &mut self.pages {
                pages.note(body.len(), 0);
            }
        }
        self.append(id, body);
    }

    /// Forgets all pages but the open one, which are as the tables have them.
    pub(super) fn let_all_go(&mut self) {
        let last = self.pages.as_ref().map_or(0, |pages| pages.last());
        (0..last).for_each(|number| self.let_go(number));
    }

    /// Forgets the entries of a page.
    fn let_go(&mut self, number: usize) {
        let Some(pages) = &mut self.pages else {
            return;
        };
        let end = pages.end(number).unwrap_or(EntryId::MAX);
        let Some(page) = pages.all.get_mut(number) else {
            return;
        };
        page.held = false;
        let bases: Vec<EntryId> = self
            .chunks
            .range(page.first..end)
            .map(|(base, _)| *base)
            .collect();
        for base in bases {
            if let Some(chunk) = self.chunks.remove(&base) {
                self.heap -= chunk.memory();
            }
        }
    }

    /// Forgets what was read for a command that has run.
    pub(super) fn drop_loose(&mut self) {
        if let Some(pages) = &mut self.pages
            && !pages.loose.is_empty()
        {
            pages.loose.clear();
            pages.loose_bytes = 0;
        }
    }

    /// Removes pages from the front that go as a whole and are not in memory; how many entries. Their rows are the sweeper's.
    pub(super) fn trim_pages(
        &mut self,
        trim: &Trim,
        removed: u64,
        rows: &mut StreamRows<'_, '_>,
    ) -> u64 {
        let mut surplus = Surplus {
            trim,
            len: self.len as u64,
            removed,
        };
        let mut gone: Option<(EntryId, EntryId)> = None;
        while let Some(pages) = &mut self.pages
            && let (Some(page), Some(end)) = (pages.all.front(), pages.end(0))
            && !page.held
            && surplus.takes(page.count, Some(end))
        {
            surplus.take(page.count);
            self.len -= page.count;
            let first = page.first;
            pages.gone -= page.gone.len();
            rows.remove_page(first);
            pages.all.pop_front();
            pages.drop_empty(0, rows);
            gone = Some((gone.map_or(first, |(from, _)| from), end));
        }
        if let (Some(pages), Some((from, below))) = (&mut self.pages, gone) {
            let from = pages.trimmed.map_or(from, |(first, _)| first);
            pages.trimmed = Some((from, below));
            rows.tell_trimmed(below);
        }
        surplus.removed - removed
    }

    /// From which id to before which rows of entries are nobody's since the last call.
    pub(super) fn take_trimmed(&mut self) -> Option<(EntryId, EntryId)> {
        self.pages.as_mut()?.trimmed.take()
    }

    /// The first entries are in memory.
    pub(super) fn has_front(&self) -> bool {
        let front = self.pages.as_ref().and_then(|pages| pages.all.front());
        front.is_none_or(|page| page.held)
    }

    /// Entries have gone from the page of this id.
    pub(super) fn lost(&mut self, id: EntryId, count: usize, rows: &mut StreamRows<'_, '_>) {
        if let Some(pages) = &mut self.pages
            && count > 0
            && let Some(number) = pages.find(id)
        {
            pages.lost(number, count, rows);
        }
    }

    /// Removes an entry that was read by itself; false: there is none.
    pub(super) fn remove_loose(&mut self, id: EntryId, rows: &mut StreamRows<'_, '_>) -> bool {
        let Some(pages) = &mut self.pages else {
            return false;
        };
        let Some(body) = pages.loose.remove(&id) else {
            return false;
        };
        pages.loose_bytes -= LOOSE + body.len();
        let Some(number) = pages.find(id) else {
            return false;
        };
        let Some(page) = pages.all.get_mut(number).filter(|page| !page.held) else {
            // It would have been found there.
            return false;
        };
        page.gone.insert(id, rows.rows.seq);
        pages.gone += 1;
        pages.list(number);
        self.len -= 1;
        pages.lost(number, 1, rows);
        true
    }

    /// Forgets what the tables have, until what is in memory takes `target` bytes or `steps` pages were looked at, those first that
    /// were not used since it came by last. Bytes given back.
    pub(super) fn forget(&mut self, folded: u64, target: usize, steps: usize) -> usize {
        let before = self.heap + self.pages_memory();
        for _ in 0..steps {
            let Some(pages) = &mut self.pages else {
                return 0;
            };
            if self.heap + pages.gone * GONE <= target || pages.stuck == Some(folded) {
                break;
            }
            if pages.fruitless > 2 * pages.listed.len() {
                (pages.fruitless, pages.stuck) = (0, Some(folded));
                break;
            }
            let Some(first) = pages.listed.pop_front() else {
                break;
            };
            let is_end =
                |number| number == 0 || number == pages.last() || Some(number) == pages.last_used();
            let found = pages.find(first).map(|number| (number, is_end(number)));
            let Some((number, is_end)) = found else {
                continue;
            };
            let Some(page) = pages.all.get_mut(number) else {
                continue;
            };
            if page.first != first {
                continue;
            }
            let noted = page.gone.len();
            page.gone.retain(|_, seq| *seq > folded);
            let forgotten = noted - page.gone.len();
            pages.gone -= forgotten;
            let used = std::mem::take(&mut page.used);
            let goes = page.held && !is_end && !used && page.seq <= folded;
            page.listed = (page.held && !goes) || !page.gone.is_empty();
            if page.listed {
                pages.listed.push_back(first);
            }
            if goes || forgotten > 0 {
                pages.fruitless = 0;
            } else {
                pages.fruitless += 1;
            }
            if goes {
                self.let_go(number);
            }
        }
        before - (self.heap + self.pages_memory())
    }
}
