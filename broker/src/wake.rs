//! How a command wakes other connections from under a shard's lock: it puts the work in their mailbox and rings.

use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

/// Rings a connection. Called under shard locks: must not block, lock shards, or run the connection's code.
pub trait Wake: Send + Sync {
    fn wake(&self);
}

/// Work for a connection, in order. Rings only on the step from empty to not empty.
pub struct Mailbox<T> {
    items: Mutex<Vec<T>>,
    wake: Arc<dyn Wake>,
}

impl<T> Mailbox<T> {
    pub fn new(wake: Arc<dyn Wake>) -> Self {
        Self {
            items: Mutex::new(Vec::new()),
            wake,
        }
    }

    pub fn push(&self, item: T) {
        let mut items = self.items.lock();
        items.push(item);
        if items.len() == 1 {
            self.wake.wake();
        }
    }

    /// As [`Mailbox::push`] for several at once.
    pub fn extend(&self, more: impl IntoIterator<Item = T>) {
        let mut items = self.items.lock();
        let was_empty = items.is_empty();
        items.extend(more);
        if was_empty && !items.is_empty() {
            self.wake.wake();
        }
    }

    /// Moves everything into `into`, which is cleared first; the two buffers change places, so none is allocated.
    pub fn drain(&self, into: &mut Vec<T>) {
        into.clear();
        std::mem::swap(&mut *self.items.lock(), into);
    }

    /// Rings without an item.
    pub fn ring(&self) {
        self.wake.wake();
    }
}

impl<T> fmt::Debug for Mailbox<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mailbox")
            .field("len", &self.items.lock().len())
            .finish_non_exhaustive()
    }
}
