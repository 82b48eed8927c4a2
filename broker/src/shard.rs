//! The shards of a node: what is locked, ordered and kept in memory together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use parking_lot::Mutex;
use storage::{Engine, Lsn, ShardId};

use crate::{
    Budgets, DATA_SHARDS, Locked, ShardSet, access, audit, cache, functions, queue, stream,
};

/// The memory of one data shard.
#[derive(Debug)]
pub struct Shard {
    pub id: ShardId,
    pub cache: cache::Space,
    pub queues: queue::Space,
    pub streams: stream::Space,
    /// Position of the last record that changed a key here. A reader of keys waits for it at the cache's durability
    /// class; queues and partitions keep their own positions, so that a GET never waits for a queue's fsync.
    pub cache_lsn: Lsn,
    pub engine: Arc<Engine>,
    pub budgets: Arc<Budgets>,
    pub(crate) ids: Ids,
}

/// What belongs to no slot: exchanges, bindings, queue and topic definitions, id allocators.
#[derive(Debug)]
pub struct Catalog {
    pub queues: queue::Catalog,
    pub streams: stream::Catalog,
    /// Where the audit log goes on.
    pub audit: audit::Chain,
    pub engine: Arc<Engine>,
    pub(crate) ids: Ids,
}

/// Hands out ids that are never used twice, not even across restarts: they grow with the shard's sequence numbers.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    last: u64,
}

impl Ids {
    /// Ids that one record may take before they run into the next record's.
    const PER_RECORD_BITS: u32 = 16;

    pub(crate) fn next(&mut self, next_seq: u64) -> u64 {
        self.last = (self.last + 1).max(next_seq << Self::PER_RECORD_BITS);
        self.last
    }
}

/// All shards of a node behind their locks.
pub struct Broker {
    pub engine: Arc<Engine>,
    pub budgets: Arc<Budgets>,
    pub(crate) shards: [Mutex<Shard>; DATA_SHARDS],
    pub(crate) catalog: Mutex<Catalog>,
    /// Read without any lock by whoever routes a message.
    pub routes: Arc<queue::Routes>,
    /// Read without any lock by whoever looks up a topic.
    pub topics: Arc<stream::Topics>,
    /// Read without any lock by every session: who may do what.
    pub access: Arc<access::Access>,
    /// Read without any lock by who calls a function: the libraries that clients have loaded.
    pub functions: functions::Functions,
    /// Clients that keep what they have read.
    pub tracking: Arc<cache::Tracking>,
    /// Changes of keys are told: see [`crate::keyspace`].
    pub(crate) telling: AtomicBool,
    /// When the next delayed message is to be routed.
    pub(crate) next_delay: queue::delay::Moment,
    /// How much keys may take.
    pub limiter: cache::Limiter,
}

impl Broker {
    /// Loads the catalog; keys, messages and batches follow on first touch.
    ///
    /// # Errors
    /// When the catalog's rows cannot be read or decoded.
    pub fn open(engine: Arc<Engine>, budgets: Budgets) -> Result<Self, storage::Error> {
        let budgets = Arc::new(budgets);
        let queues = queue::Catalog::load(&engine)?;
        let streams = stream::Catalog::load(&engine)?;
        let access = Arc::new(access::Access::load(&engine)?);
        let audit = audit::Chain::load(&engine)?;
        let functions = functions::Functions::load(&engine)?;
        let (routes, topics) = (queues.routes(), streams.topics());
        let shards = std::array::from_fn(|index| {
            // `index` is below 8.
            let id = ShardId(index as u8);
            Mutex::new(Shard {
                id,
                cache: cache::Space::default(),
                queues: queue::Space::default(),
                streams: stream::Space::default(),
                cache_lsn: Lsn::default(),
                engine: Arc::clone(&engine),
                budgets: Arc::clone(&budgets),
                ids: Ids::default(),
            })
        });
        let catalog = Mutex::new(Catalog {
            queues,
            streams,
            audit,
            engine: Arc::clone(&engine),
            ids: Ids::default(),
        });
        let broker = Self {
            limiter: cache::Limiter::new(budgets.cache.limit()),
            engine,
            budgets,
            shards,
            catalog,
            routes,
            topics,
            access,
            functions,
            tracking: Arc::default(),
            telling: AtomicBool::new(false),
            next_delay: queue::delay::Moment::default(),
        };
        broker.load()?;
        Ok(broker)
    }

    /// What must be in memory before the first command: queue and partition states (not their messages).
    fn load(&self) -> Result<(), storage::Error> {
        let mut all = self.lock(ShardSet::ALL);
        cache::load(&mut all)?;
        queue::load(&mut all)?;
        stream::load(&mut all)
    }

    /// Locks the shards of `set` in ascending order, the catalog last. Blocks while others hold them.
    pub fn lock(&self, set: ShardSet) -> Locked<'_> {
        Locked::new(self, set)
    }

    /// The same, unless `give_up` says so while others hold one of them.
    #[inline]
    pub fn lock_unless(&self, set: ShardSet, give_up: &dyn Fn() -> bool) -> Option<Locked<'_>> {
        Locked::unless(self, set, give_up)
    }

    /// The same for one shard.
    pub fn lock_one(&self, shard: ShardId) -> Locked<'_> {
        Locked::new(self, ShardSet::of(shard))
    }
}

impl fmt::Debug for Broker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Broker")
            .field("engine", &self.engine)
            .finish_non_exhaustive()
    }
}
