//! `WATCH`: a connection that watches a key learns that it was touched.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::RandomState;
use hashbrown::HashMap;

use super::text::Text;

/// A connection's flag: something it watches was touched. Set under the shard's lock.
#[derive(Debug, Default)]
pub struct Watch {
    touched: AtomicBool,
}

impl Watch {
    #[must_use]
    pub fn is_touched(&self) -> bool {
        self.touched.load(Ordering::Acquire)
    }

    pub fn touch(&self) {
        self.touched.store(true, Ordering::Release);
    }

    pub fn reset(&self) {
        self.touched.store(false, Ordering::Release);
    }
}

/// Who watches what, in one shard. The database is its number, not its id: a flush touches, too.
#[derive(Debug, Default)]
pub(super) struct Watches {
    keys: HashMap<(usize, Text), Vec<Arc<Watch>>, RandomState>,
}

impl Watches {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn add(&mut self, db: usize, key: &[u8], watch: &Arc<Watch>) {
        let watching = self.keys.entry((db, Text::new(key))).or_default();
        if !watching.iter().any(|other| Arc::ptr_eq(other, watch)) {
            watching.push(Arc::clone(watch));
        }
    }

    pub(super) fn remove(&mut self, db: usize, key: &[u8], watch: &Arc<Watch>) {
        let name = (db, Text::new(key));
        if let Some(watching) = self.keys.get_mut(&name) {
            watching.retain(|other| !Arc::ptr_eq(other, watch));
            if watching.is_empty() {
                self.keys.remove(&name);
            }
        }
    }

    #[cold]
    pub(super) fn touch(&self, db: usize, key: &[u8]) {
        if let Some(watching) = self.keys.get(&(db, Text::new(key))) {
            watching.iter().for_each(|watch| watch.touch());
        }
    }

    /// Watched keys of a database.
    pub(super) fn of(&self, db: usize) -> impl Iterator<Item = (&[u8], &[Arc<Watch>])> {
        self.keys
            .iter()
            .filter(move |((number, _), _)| *number == db)
            .map(|((_, key), watching)| (&**key, watching.as_slice()))
    }
}
