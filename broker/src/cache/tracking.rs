//! Client-side caching: who has read which key, and who wants to hear of all keys with a prefix.
//!
//! A shard has [`Tracked`] only while some client tracks; where a key changes it is noted beside its watchers, and
//! [`crate::Locked::commit`] tells those who read it, once, as Redis does. As in Redis a key's database does not count.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use foldhash::fast::RandomState;
use indexmap::IndexMap;
use parking_lot::RwLock;
use smallvec::SmallVec;

use crate::{DATA_SHARDS, Locked, ShardSet};

/// A client that keeps values. Called under shard locks: must not block or lock shards.
pub trait Track: std::fmt::Debug + Send + Sync {
    fn id(&self) -> u64;

    /// These keys (`None`: all keys) are not what they were. `by`: the client that changed them, 0 for none.
    fn changed(&self, keys: Option<&[Bytes]>, by: u64);
}

type Tracker = Arc<dyn Track>;

/// What the shards share.
#[derive(Debug)]
pub struct Tracking {
    /// Clients that track; nobody is told anything while there are none.
    clients: AtomicUsize,
    /// Most keys in all shards' tables, about; 0: no limit.
    keys_max: AtomicUsize,
    keys: AtomicUsize,
    /// Pairs of key and client.
    items: AtomicUsize,
    /// Gives changes their order.
    clock: AtomicU64,
    registered: RwLock<Registered>,
}

#[derive(Debug, Default)]
struct Registered {
    /// Who hears of a flush: everybody.
    all: Vec<Tracker>,
    prefixes: Vec<(Bytes, Vec<Tracker>)>,
}

/// Figures for `INFO`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrackingStats {
    pub clients: usize,
    pub keys: usize,
    pub items: usize,
    pub prefixes: usize,
}

/// Redis' tracking-table-max-keys.
pub const TRACKED_KEYS_MAX: usize = 1_000_000;

impl Default for Tracking {
    fn default() -> Self {
        Self {
            clients: AtomicUsize::new(0),
            keys_max: AtomicUsize::new(TRACKED_KEYS_MAX),
            keys: AtomicUsize::new(0),
            items: AtomicUsize::new(0),
            clock: AtomicU64::new(0),
            registered: RwLock::default(),
        }
    }
}

impl Tracking {
    #[inline]
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.clients.load(Ordering::Relaxed) != 0
    }

    pub fn set_keys_max(&self, keys: usize) {
        self.keys_max.store(keys, Ordering::Relaxed);
    }

    /// A client begins to track; `prefixes`: of all keys that begin with one of them. The shards must be locked, so that
    /// they note what changes from here on.
    pub fn register(self: &Arc<Self>, all: &mut Locked<'_>, client: &Tracker, prefixes: &[Bytes]) {
        let first = !self.is_on();
        for id in all.set().iter().filter(|id| id.index() < DATA_SHARDS) {
            let tracked = &mut all.shard(id).cache.tracked;
            if first {
                // What was left by those who tracked before is nobody's.
                *tracked = None;
            }
            tracked.get_or_insert_with(|| Box::new(Tracked::new(Arc::clone(self))));
        }
        let mut registered = self.registered.write();
        if !registered.all.iter().any(|other| other.id() == client.id()) {
            registered.all.push(Arc::clone(client));
            self.clients.fetch_add(1, Ordering::Relaxed);
        }
        for prefix in prefixes {
            let known = registered.prefixes.iter_mut().find(|(of, _)| of == prefix);
            match known {
                Some((_, clients)) => clients.push(Arc::clone(client)),
                None => {
                    let entry = (prefix.clone(), vec![Arc::clone(client)]);
                    registered.prefixes.push(entry);
                }
            }
        }
    }

    /// A client tracks no more. What it has read is forgotten when it changes, or when nobody tracks.
    pub fn unregister(&self, id: u64) {
        let mut registered = self.registered.write();
        let before = registered.all.len();
        registered.all.retain(|client| client.id() != id);
        if registered.all.len() < before {
            self.clients.fetch_sub(1, Ordering::Relaxed);
        }
        for (_, clients) in &mut registered.prefixes {
            clients.retain(|client| client.id() != id);
        }
        registered
            .prefixes
            .retain(|(_, clients)| !clients.is_empty());
    }

    #[must_use]
    pub fn stats(&self) -> TrackingStats {
        TrackingStats {
            clients: self.clients.load(Ordering::Relaxed),
            keys: self.keys.load(Ordering::Relaxed),
            items: self.items.load(Ordering::Relaxed),
            prefixes: self.registered.read().prefixes.len(),
        }
    }
}

/// One shard's table.
#[derive(Debug)]
pub(crate) struct Tracked {
    shared: Arc<Tracking>,
    readers: IndexMap<Box<[u8]>, SmallVec<[Tracker; 2]>, RandomState>,
    /// Changed since the last commit, with their order over all shards.
    touched: Vec<(u64, Box<[u8]>)>,
    flushed: bool,
    /// Which key goes when there are too many.
    victim: u64,
}

impl Tracked {
    fn new(shared: Arc<Tracking>) -> Self {
        Self {
            shared,
            readers: IndexMap::default(),
            touched: Vec::new(),
            flushed: false,
            victim: 1,
        }
    }

    /// False: nobody tracks any more, so there is no use for it.
    pub(super) fn note(&mut self, key: &[u8]) -> bool {
        if self.touched.last().is_none_or(|(_, last)| **last != *key) {
            let order = self.shared.clock.fetch_add(1, Ordering::Relaxed);
            self.touched.push((order, key.into()));
        }
        self.shared.is_on()
    }

    pub(super) fn note_flush(&mut self) {
        self.flushed = true;
    }

    /// The client has read the key.
    pub(crate) fn read_by(&mut self, key: &[u8], client: &Tracker) {
        match self.readers.get_mut(key) {
            Some(readers) => {
                if readers.iter().any(|other| other.id() == client.id()) {
                    return;
                }
                readers.push(Arc::clone(client));
            }
            None => {
                self.readers
                    .insert(key.into(), SmallVec::from_iter([Arc::clone(client)]));
                self.shared.keys.fetch_add(1, Ordering::Relaxed);
            }
        }
        self.shared.items.fetch_add(1, Ordering::Relaxed);
        let max = self.shared.keys_max.load(Ordering::Relaxed);
        // Any key of this shard but the one that was just read: so there may be one more for each shard.
        while max != 0 && self.shared.keys.load(Ordering::Relaxed) > max && self.readers.len() > 1 {
            let others = self.readers.len() - 1;
            self.victim = self
                .victim
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let index = usize::try_from(self.victim >> 33).unwrap_or(0) % others;
            let Some((key, readers)) = self.readers.swap_remove_index(index) else {
                return;
            };
            self.count_off(readers.len());
            let key = [Bytes::from(key)];
            readers
                .iter()
                .for_each(|reader| reader.changed(Some(&key), 0));
        }
    }

    fn count_off(&self, readers: usize) {
        self.shared.keys.fetch_sub(1, Ordering::Relaxed);
        self.shared.items.fetch_sub(readers, Ordering::Relaxed);
    }

    fn forget_all(&mut self) {
        for readers in std::mem::take(&mut self.readers).into_values() {
            self.count_off(readers.len());
        }
    }
}

impl Drop for Tracked {
    fn drop(&mut self) {
        self.forget_all();
    }
}

/// Tells what changed in the locked shards since their last commits.
#[cold]
pub(crate) fn tell(locked: &mut Locked<'_>, by: u64) {
    let set: ShardSet = locked.set();
    let tracking = Arc::clone(&locked.broker().tracking);
    let registered = tracking.registered.read();
    let (mut touched, mut flushed) = (Vec::new(), false);
    for id in set.iter().filter(|id| id.index() < DATA_SHARDS) {
        let Some(tracked) = &mut locked.shard(id).cache.tracked else {
            continue;
        };
        if std::mem::take(&mut tracked.flushed) {
            flushed = true;
            tracked.forget_all();
        }
        let new = tracked.touched.drain(..);
        touched.extend(new.map(|(order, key)| (order, id, key)));
    }
    touched.sort_unstable_by_key(|(order, ..)| *order);
    let mut changed = Vec::new();
    for (_, id, key) in touched {
        let tracked = &mut locked.shard(id).cache.tracked;
        let read = tracked.as_mut().and_then(|tracked| {
            let read = tracked.readers.swap_remove_entry(&*key)?;
            tracked.count_off(read.1.len());
            Some(read)
        });
        let key = match read {
            Some((key, readers)) => {
                let key = Bytes::from(key);
                for reader in &readers {
                    reader.changed(Some(std::slice::from_ref(&key)), by);
                }
                key
            }
            None => Bytes::from(key),
        };
        if !registered.prefixes.is_empty() {
            changed.push(key);
        }
    }
    if flushed {
        let all = registered.all.iter();
        all.for_each(|client| client.changed(None, by));
    }
    if changed.is_empty() {
        return;
    }
    changed.sort_unstable();
    changed.dedup();
    for (prefix, clients) in &registered.prefixes {
        // Sorted, so those with the prefix stand together.
        let from = changed.partition_point(|key| **key < **prefix);
        let rest = changed.get(from..).unwrap_or_default();
        let count = rest.iter().take_while(|key| key.starts_with(prefix));
        let count = count.count();
        let keys = rest.get(..count).unwrap_or_default();
        if !keys.is_empty() {
            clients
                .iter()
                .for_each(|client| client.changed(Some(keys), by));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use parking_lot::Mutex;

    #[derive(Debug, Default)]
    struct Heard(Mutex<Vec<Bytes>>);

    impl Track for Heard {
        fn id(&self) -> u64 {
            7
        }

        fn changed(&self, keys: Option<&[Bytes]>, _: u64) {
            self.0
                .lock()
                .extend(keys.unwrap_or_default().iter().cloned());
        }
    }

    #[test]
    fn the_table_is_bounded_and_who_loses_a_key_hears_of_it() {
        let shared = Arc::new(Tracking::default());
        shared.set_keys_max(100);
        let mut tracked = Tracked::new(Arc::clone(&shared));
        let heard = Arc::new(Heard::default());
        let client: Tracker = Arc::clone(&heard) as Tracker;
        for n in 0..1000u32 {
            for _ in 0..2 {
                tracked.read_by(&n.to_be_bytes(), &client);
            }
            let newest = tracked.readers.contains_key(&n.to_be_bytes()[..]);
            assert!(newest, "{n} has just been read");
        }
        let stats = shared.stats();
        assert_eq!((stats.keys, stats.items), (100, 100));
        let mut told = heard.0.lock().clone();
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 900, "each once");
        drop(tracked);
        assert_eq!((shared.stats().keys, shared.stats().items), (0, 0));
    }
}
