//! The streams of one shard: its partitions and groups.

use std::collections::VecDeque;
use std::sync::Arc;

use hashbrown::{HashMap, HashSet};
use storage::{Engine, Error, Lsn, ShardId};

use super::arena::Arena;
use super::group::Group;
use super::partition::Partition;
use super::topic::PartitionRef;
use crate::{Broker, Budget, Shard};

/// The partitions and groups of one shard.
#[derive(Debug, Default)]
pub struct Space {
    partitions: HashMap<u64, Partition, foldhash::fast::RandomState>,
    /// Partitions whose topics were deleted while sessions may still hold references to them.
    buried: HashSet<u64, foldhash::fast::RandomState>,
    /// Partition of each resident batch, in the order of their appends: who leaves memory first.
    order: VecDeque<u64>,
    /// Partitions that were appended to since the last commit.
    uncommitted: Vec<u64>,
    arena: Arena,
    pub(super) groups: HashMap<Arc<str>, Group, foldhash::fast::RandomState>,
}

/// The state of a partition, read from the tables at the first touch. `None`: its topic is gone.
pub(super) fn partition(
    shard: &mut Shard,
    at: PartitionRef,
) -> Result<Option<&mut Partition>, Error> {
    shard.streams.partition(&shard.engine, at)
}

/// As [`partition`], with the memory that its batches go to.
pub(super) fn partition_and_arena(
    shard: &mut Shard,
    at: PartitionRef,
) -> Result<Option<(&mut Partition, &mut Arena)>, Error> {
    // Made sure of first: the arena cannot be lent out while the whole space is.
    if shard.streams.partition(&shard.engine, at)?.is_none() {
        return Ok(None);
    }
    let Space {
        partitions, arena, ..
    } = &mut shard.streams;
    Ok(partitions
        .get_mut(&at.id)
        .map(|partition| (partition, arena)))
}

impl Space {
    /// Gives memory back that held batches and holds none now. The tables have what this shard logged up to `folded`.
    pub(super) fn trim(&mut self, folded: u64) {
        self.arena.trim();
        for partition in self.partitions.values_mut() {
            partition.trim(folded);
        }
    }

    fn partition(
        &mut self,
        engine: &Engine,
        at: PartitionRef,
    ) -> Result<Option<&mut Partition>, Error> {
        if self.buried.contains(&at.id) {
            return Ok(None);
        }
        // What was appended since the start made its partition resident, so what is not here is whole in the tables.
        match self.partitions.entry(at.id) {
            hashbrown::hash_map::Entry::Occupied(entry) => Ok(Some(entry.into_mut())),
            hashbrown::hash_map::Entry::Vacant(entry) => {
                Ok(Some(entry.insert(Partition::load(at, engine)?)))
            }
        }
    }

    /// The state of a partition that was touched before.
    pub(super) fn known(&mut self, id: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(&id)
    }

    /// A batch of `bytes` was appended to partition `id`.
    pub(super) fn grown(&mut self, id: u64, bytes: usize, budget: &Budget) {
        self.order.push_back(id);
        self.uncommitted.push(id);
        budget.charge(bytes as i64);
    }

    /// What was appended since the last call is in the record between `start` and `end`. Also the moment when old batches
    /// leave memory.
    #[inline]
    pub(crate) fn committed(&mut self, broker: &Broker, shard: ShardId, start: Lsn, end: Lsn) {
        if self.uncommitted.is_empty() {
            return;
        }
        let class = broker.topics.durability();
        for id in self.uncommitted.drain(..) {
            if let Some(partition) = self.partitions.get_mut(&id) {
                partition.committed(start, end, class);
                if partition.is_crowded() {
                    partition.bounds(&broker.engine);
                }
            }
        }
        self.shrink(&broker.budgets.stream, &broker.engine, shard);
    }

    /// Lets the oldest batches of the shard leave memory while the budget is exceeded, if the log or the tables have them.
    pub(super) fn shrink(&mut self, budget: &Budget, engine: &Engine, shard: ShardId) {
        if budget.excess() == 0 {
            return;
        }
        let (written, folded) = (engine.written(), engine.folded_seq(shard));
        while budget.excess() > 0 {
            let Some(id) = self.order.front() else { return };
            if let Some(partition) = self.partitions.get_mut(id) {
                match partition.evict(written, folded) {
                    Some(bytes) => budget.charge(-(bytes as i64)),
                    None => return,
                }
            }
            self.order.pop_front();
        }
    }

    /// The partition's topic is gone. Its readers are rung: they will find nothing.
    pub(super) fn bury(&mut self, id: u64, budget: &Budget) {
        self.buried.insert(id);
        if let Some(mut partition) = self.partitions.remove(&id) {
            budget.charge(-(partition.resident() as i64));
            partition.ring_waiters();
            // Its entries in `order` are skipped when their turn comes; other partitions' batches keep theirs.
            self.order.retain(|other| *other != id);
        }
    }
}
