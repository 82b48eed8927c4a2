//! The coordinator of transactions (KIP-98, KIP-890): what each transactional id's producer is writing, and how it ends.
//!
//! ```text
//!            a partition or group is added        commit: a marker in every partition, offsets, new epoch: one record
//!  Empty ───────────────────────────▶ Ongoing ──────────────────────────────────────────────────▶ CompleteCommit
//!                                      ▲   └── abort, time is up, the producer begins anew ──────▶ CompleteAbort
//!                                      └────────────────── a partition or group is added ──────────────┘
//! ```
//! Partitions, groups and the transaction's own row are in one log, so its end is one record: there is nothing to prepare, and
//! after a crash a transaction is open or it has ended everywhere.
//!
//! Rows of the catalog, all behind `Tag::Transaction`; an id holds no zero byte:
//! ```text
//! id                                 → version u8, stage u8, producer, previous producer, timeout u32, started u64, updated u64
//! id 0x00 'p' topic id index i32     → nothing: a partition of the transaction that is open
//! id 0x00 'g' group                  → nothing: a group of it
//! ```
//!
//! Two generations of clients: of the older one an epoch is one life of the producer; of the newer one (`bump`) each
//! transaction has an epoch of its own, and what it writes to is added by writing.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use storage::{Effects, Engine, Error, ShardId};
use uuid::Uuid;

use super::group::{self, Committed};
use super::{PartitionRef, space};
use crate::rows::{self, Tag};
use crate::{Broker, Locked, Millis, ShardSet, Slot};

/// Longest transactional id, in bytes.
const ID_MAX: usize = 1_024;
/// So many ids at most: they are remembered for a week.
const IDS_MAX: usize = 100_000;
/// Kafka's `transaction.max.timeout.ms`.
pub const TIMEOUT_MAX_MS: u32 = 15 * 60 * 1_000;
/// Kafka's `transactional.id.expiration.ms`.
const EXPIRATION_MS: u64 = 7 * 24 * 60 * 60 * 1_000;
/// The last epoch is left to markers that end a producer.
const LAST_EPOCH: i16 = i16::MAX - 1;
/// Partitions of one transaction, and groups: its end is one record.
const PLACES_MAX: usize = 100_000;
const GROUPS_MAX: usize = 64;
/// Transactions that are ended, and ids that are forgotten, in one step.
const LATE_AT_ONCE: usize = 16;
const OLD_AT_ONCE: usize = 1_000;
const VERSION: u8 = 1;
const PLACE: &[u8] = &[0, b'p'];
const GROUP: &[u8] = &[0, b'g'];

pub(super) type Transactions = BTreeMap<Arc<str>, Transaction>;

/// Where a transaction stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Stage {
    Empty = 0,
    Ongoing = 1,
    Committed = 2,
    Aborted = 3,
}

impl Stage {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::Ongoing => "Ongoing",
            Self::Committed => "CompleteCommit",
            Self::Aborted => "CompleteAbort",
        }
    }

    fn ended(committed: bool) -> Self {
        if committed {
            Self::Committed
        } else {
            Self::Aborted
        }
    }
}

/// A producer as it says who it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Instance {
    pub id: i64,
    pub epoch: i16,
}

/// A topic's id and a partition's index.
pub type Place = (Uuid, i32);

/// A transactional id, and its current or last transaction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    pub id: Arc<str>,
    pub producer: Instance,
    /// Who the producer was before the epoch was raised last: its request may come again.
    previous: Option<Instance>,
    pub timeout_ms: u32,
    pub stage: Stage,
    /// When the transaction that is open began.
    pub started: Millis,
    pub updated: Millis,
    pub places: BTreeSet<Place>,
    pub groups: BTreeSet<Arc<str>>,
}

/// Why a request about a transaction is refused. Each is one of Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TransactionError {
    #[error(
        "The producer attempted to use a producer id which is not currently assigned to its transactional id."
    )]
    Mapping,
    #[error(
        "There is a newer producer with the same transactionalId which fences the current one."
    )]
    Fenced,
    #[error("The producer attempted a transactional operation in an invalid state.")]
    State,
    #[error("A transactional id has 1 to {ID_MAX} octets, none of them zero.")]
    Id,
    #[error("There are {IDS_MAX} transactional ids already.")]
    Ids,
    #[error("the disk cannot be read")]
    Storage,
}

impl From<Error> for TransactionError {
    fn from(_: Error) -> Self {
        Self::Storage
    }
}

/// What a producer has, to be told.
type Done = Result<Instance, TransactionError>;

pub(super) fn load(engine: &Engine) -> Result<Transactions, Error> {
    let mut all = Transactions::new();
    let prefix = rows::prefix(Slot::CATALOG, Tag::Transaction);
    rows::each_in_catalog(engine, Tag::Transaction, &mut |key, value| {
        let (name, part) = parts(key.get(prefix.len()..).unwrap_or_default());
        let Ok(name) = std::str::from_utf8(name) else {
            return true;
        };
        if part.is_empty() {
            let transaction = Transaction::decode(name.into(), value);
            all.extend(transaction.map(|transaction| (Arc::clone(&transaction.id), transaction)));
        } else if let Some(transaction) = all.get_mut(name) {
            transaction.load(part);
        }
        true
    })?;
    Ok(all)
}

/// A row's id, and what follows it.
fn parts(key: &[u8]) -> (&[u8], &[u8]) {
    key.split_at(memchr::memchr(0, key).unwrap_or(key.len()))
}

/// Whose row that is.
pub(crate) fn id_of(key: &[u8]) -> &[u8] {
    parts(key).0
}

/// The transaction of this id. The catalog is locked.
pub fn get<'a>(locked: &'a mut Locked<'_>, id: &str) -> Option<&'a Transaction> {
    locked.catalog().streams.transactions.get(id)
}

/// All of them, by their ids. The catalog is locked.
pub fn all<'a>(locked: &'a mut Locked<'_>) -> impl Iterator<Item = &'a Transaction> {
    locked.catalog().streams.transactions.values()
}

/// Locks the catalog and all that this id's transaction writes to, for [`init`] and [`end`].
pub fn lock<'a>(broker: &'a Broker, id: &str) -> Locked<'a> {
    let mut set = ShardSet::CATALOG;
    loop {
        let mut locked = broker.lock(set);
        let needed = get(&mut locked, id).map_or(set, |transaction| transaction.shards(broker));
        // It may have grown meanwhile.
        if set.union(needed) == set {
            return locked;
        }
        set = set.union(needed);
    }
}

/// A producer begins (InitProducerId): what an earlier one of this id has begun is aborted, and that one can write no more.
/// `known`: who it says it was before (KIP-360). Locks: [`lock`].
///
/// # Errors
/// It is not who it says, or the tables cannot be read; nothing has changed then.
pub fn init(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    now: Millis,
    id: &str,
    timeout_ms: u32,
    known: Option<Instance>,
) -> Done {
    let Some(mut transaction) = get(locked, id).cloned() else {
        if id.is_empty() || id.len() > ID_MAX || id.contains('\0') {
            return Err(TransactionError::Id);
        }
        if locked.catalog().streams.transactions.len() >= IDS_MAX {
            return Err(TransactionError::Ids);
        }
        let transaction = Transaction {
            id: id.into(),
            producer: new_producer(locked),
            previous: None,
            timeout_ms,
            stage: Stage::Empty,
            started: Millis(0),
            updated: now,
            places: BTreeSet::new(),
            groups: BTreeSet::new(),
        };
        return Ok(keep(locked, fx, transaction));
    };
    if let Some(known) = known
        && known != transaction.producer
    {
        let again = transaction.previous == Some(known) && transaction.stage != Stage::Ongoing;
        return if again {
            Ok(transaction.producer)
        } else {
            Err(TransactionError::Fenced)
        };
    }
    if transaction.stage == Stage::Ongoing {
        write_end(
            locked,
            fx,
            now,
            &transaction,
            transaction.next_epoch(),
            false,
        )?;
        transaction.close(false, fx);
    }
    transaction.raise(locked);
    transaction.timeout_ms = timeout_ms;
    transaction.stage = Stage::Empty;
    transaction.updated = now;
    Ok(keep(locked, fx, transaction))
}

/// A producer is going to write to these partitions (AddPartitionsToTxn, or a Produce of the newer clients). The catalog is locked.
///
/// # Errors
/// It is not this id's producer, or they are too many.
pub fn add_places(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    now: Millis,
    id: &str,
    producer: Instance,
    places: &[Place],
) -> Result<(), TransactionError> {
    let transaction = current(locked, id, producer)?;
    let new: BTreeSet<&Place> = places
        .iter()
        .filter(|place| !transaction.places.contains(place))
        .collect();
    if transaction.places.len() + new.len() > PLACES_MAX {
        return Err(TransactionError::State);
    }
    transaction.begin(now, fx);
    for place in new {
        transaction.put_part(PLACE, &part_of(place), fx);
        transaction.places.insert(*place);
    }
    Ok(())
}

/// A producer is going to commit offsets of this group (AddOffsetsToTxn). The catalog is locked.
///
/// # Errors
/// It is not this id's producer, or they are too many.
pub fn add_group(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    now: Millis,
    id: &str,
    producer: Instance,
    group: &str,
) -> Result<(), TransactionError> {
    let transaction = current(locked, id, producer)?;
    let new = !transaction.groups.contains(group);
    if new && transaction.groups.len() >= GROUPS_MAX {
        return Err(TransactionError::State);
    }
    transaction.begin(now, fx);
    if new {
        transaction.put_part(GROUP, group.as_bytes(), fx);
        transaction.groups.insert(group.into());
    }
    Ok(())
}

/// Whether a producer may write to these partitions, which it must have added before. The catalog is locked.
///
/// # Errors
/// It may not.
pub fn check_places(
    locked: &mut Locked<'_>,
    id: &str,
    producer: Instance,
    places: &[Place],
) -> Result<(), TransactionError> {
    let transaction = current(locked, id, producer)?;
    let added = transaction.stage == Stage::Ongoing
        && places
            .iter()
            .all(|place| transaction.places.contains(place));
    added.then_some(()).ok_or(TransactionError::State)
}

/// Commits offsets with a producer's transaction (TxnOffsetCommit). The catalog and the group's shard are locked; the group has
/// agreed. `implicit`: the group is added by this, as with the newer clients.
///
/// # Errors
/// It is not this id's producer, or has not added the group.
#[expect(clippy::too_many_arguments, reason = "the fields of one request")]
pub fn commit_offsets(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    now: Millis,
    id: &str,
    producer: Instance,
    group: &str,
    implicit: bool,
    offsets: &[(Place, Committed)],
) -> Result<(), TransactionError> {
    if implicit {
        add_group(locked, fx, now, id, producer, group)?;
    } else {
        let transaction = current(locked, id, producer)?;
        if transaction.stage != Stage::Ongoing || !transaction.groups.contains(group) {
            return Err(TransactionError::State);
        }
    }
    let fits = group::commit_later(locked, fx, group, now, producer.id, offsets)?;
    fits.then_some(()).ok_or(TransactionError::State)
}

/// A producer ends its transaction (EndTxn). `bump`: the next one has a new epoch. Locks: [`lock`]. Gives who the producer is then.
///
/// # Errors
/// It is not this id's producer, or there is nothing to end; nothing has changed then.
pub fn end(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    now: Millis,
    id: &str,
    producer: Instance,
    committed: bool,
    bump: bool,
) -> Done {
    let mut transaction = get(locked, id).cloned().ok_or(TransactionError::Mapping)?;
    let ended = transaction.stage == Stage::ended(committed);
    if bump && ended && transaction.previous == Some(producer) {
        // The answer was lost.
        return Ok(transaction.producer);
    }
    transaction.check(producer)?;
    match transaction.stage {
        Stage::Ongoing => {
            let epoch = if bump {
                transaction.next_epoch()
            } else {
                producer.epoch
            };
            write_end(locked, fx, now, &transaction, epoch, committed)?;
        }
        _ if ended && !bump => return Ok(producer),
        // Nothing was written: the epoch goes on all the same.
        _ if !committed && bump => {}
        _ => return Err(TransactionError::State),
    }
    transaction.close(committed, fx);
    if bump {
        transaction.raise(locked);
    }
    transaction.updated = now;
    Ok(keep(locked, fx, transaction))
}

/// Aborts what has taken longer than its producer allowed, and forgets ids that nobody has used for a week. One step: true if
/// there may be more.
///
/// # Errors
/// When the tables cannot be read: of the last of those that could not be ended.
pub fn expire(broker: &Broker, now: Millis) -> Result<bool, Error> {
    let (late, old) = {
        let mut locked = broker.lock_one(ShardId::CATALOG);
        let mut some = |is: fn(&Transaction, Millis) -> bool, count| -> Vec<Arc<str>> {
            let found = all(&mut locked).filter(|transaction| is(transaction, now));
            let ids = found.map(|transaction| Arc::clone(&transaction.id));
            ids.take(count).collect()
        };
        (
            some(Transaction::is_late, LATE_AT_ONCE),
            some(Transaction::is_old, OLD_AT_ONCE),
        )
    };
    let mut fx = Effects::new();
    let mut done = Ok(late.len() == LATE_AT_ONCE || old.len() == OLD_AT_ONCE);
    for id in &late {
        let mut locked = lock(broker, id);
        // What cannot be read does not keep the others waiting.
        if let Err(error) = end_late(&mut locked, &mut fx, now, id) {
            done = Err(error);
        }
        locked.commit(now, &mut fx);
    }
    if !old.is_empty() {
        let mut locked = broker.lock_one(ShardId::CATALOG);
        let all = &mut locked.catalog().streams.transactions;
        for id in &old {
            if all.get(id).is_some_and(|found| found.is_old(now)) {
                all.remove(id);
                fx.del(ShardId::CATALOG, &key(id));
            }
        }
        locked.commit(now, &mut fx);
    }
    done
}

fn end_late(locked: &mut Locked<'_>, fx: &mut Effects, now: Millis, id: &str) -> Result<(), Error> {
    let found = get(locked, id).filter(|found| found.is_late(now));
    let Some(mut transaction) = found.cloned() else {
        return Ok(());
    };
    let epoch = transaction.next_epoch();
    write_end(locked, fx, now, &transaction, epoch, false)?;
    transaction.close(false, fx);
    // Who is late can write no more, and learns of it.
    transaction.raise(locked);
    transaction.previous = None;
    transaction.updated = now;
    keep(locked, fx, transaction);
    Ok(())
}

/// The transaction of this id, if it is this producer's.
fn current<'a>(
    locked: &'a mut Locked<'_>,
    id: &str,
    producer: Instance,
) -> Result<&'a mut Transaction, TransactionError> {
    let all = &mut locked.catalog().streams.transactions;
    let transaction = all.get_mut(id).ok_or(TransactionError::Mapping)?;
    transaction.check(producer)?;
    Ok(transaction)
}

/// Writes the markers, and the offsets that are decided with them.
fn write_end(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    now: Millis,
    transaction: &Transaction,
    epoch: i16,
    committed: bool,
) -> Result<(), Error> {
    let broker = locked.broker();
    let partitions = transaction.partitions(broker);
    let engine = &broker.engine;
    // All that may fail comes before the first change.
    for at in &partitions {
        space::partition(locked.shard(at.shard()), *at)?;
    }
    let groups = |locked: &mut Locked<'_>,
                  act: &mut dyn FnMut(&mut group::Group) -> Result<(), Error>| {
        transaction.groups.iter().try_for_each(|name| {
            let groups = &mut locked.shard(group::slot(name).shard()).streams.groups;
            groups.get_mut(name).map_or(Ok(()), &mut *act)
        })
    };
    groups(locked, &mut |group| group.load_offsets(engine))?;
    let producer = transaction.producer.id;
    for at in partitions {
        let seq = locked.next_seq(at.shard());
        let shard = locked.shard(at.shard());
        if let Some((partition, arena)) = space::partition_and_arena(shard, at)? {
            let size = partition.mark(producer, epoch, committed, now, seq, arena, fx);
            shard.streams.grown(at.id, size, &shard.budgets.stream);
        }
    }
    groups(locked, &mut |group| {
        group::settle(group, fx, producer, committed);
        Ok(())
    })
}

fn keep(locked: &mut Locked<'_>, fx: &mut Effects, transaction: Transaction) -> Instance {
    let producer = transaction.producer;
    transaction.put(fx);
    let all = &mut locked.catalog().streams.transactions;
    all.insert(Arc::clone(&transaction.id), transaction);
    producer
}

/// A producer that never was.
fn new_producer(locked: &mut Locked<'_>) -> Instance {
    let id = locked.new_id(ShardId::CATALOG);
    Instance {
        id: i64::try_from(id).unwrap_or(i64::MAX),
        epoch: 0,
    }
}

fn key(id: &str) -> Vec<u8> {
    let mut key = rows::prefix(Slot::CATALOG, Tag::Transaction).to_vec();
    key.extend_from_slice(id.as_bytes());
    key
}

impl Transaction {
    fn check(&self, producer: Instance) -> Result<(), TransactionError> {
        if producer.id != self.producer.id {
            Err(TransactionError::Mapping)
        } else if producer.epoch != self.producer.epoch {
            Err(TransactionError::Fenced)
        } else {
            Ok(())
        }
    }

    fn is_late(&self, now: Millis) -> bool {
        self.stage == Stage::Ongoing
            && now.0 > self.started.0.saturating_add(u64::from(self.timeout_ms))
    }

    fn is_old(&self, now: Millis) -> bool {
        self.stage != Stage::Ongoing && now.0 > self.updated.0.saturating_add(EXPIRATION_MS)
    }

    /// Where its partitions are now. Topics that were deleted have none.
    fn partitions(&self, broker: &Broker) -> Vec<PartitionRef> {
        let place = |(topic, index): &Place| broker.topics.by_id(*topic)?.partition(*index);
        self.places.iter().filter_map(place).collect()
    }

    fn shards(&self, broker: &Broker) -> ShardSet {
        let partitions = self.partitions(broker).into_iter().map(|at| at.shard());
        let groups = self.groups.iter().map(|name| group::slot(name).shard());
        partitions
            .chain(groups)
            .collect::<ShardSet>()
            .with(ShardId::CATALOG)
    }

    fn next_epoch(&self) -> i16 {
        self.producer.epoch.saturating_add(1)
    }

    /// It is open from now on, if it was not.
    fn begin(&mut self, now: Millis, fx: &mut Effects) {
        if self.stage != Stage::Ongoing {
            self.stage = Stage::Ongoing;
            (self.started, self.updated, self.previous) = (now, now, None);
            self.put(fx);
        }
    }

    fn close(&mut self, committed: bool, fx: &mut Effects) {
        self.stage = Stage::ended(committed);
        let key = key(&self.id);
        for place in std::mem::take(&mut self.places) {
            fx.del_parts(ShardId::CATALOG, &[&key, PLACE, &part_of(&place)]);
        }
        for group in std::mem::take(&mut self.groups) {
            fx.del_parts(ShardId::CATALOG, &[&key, GROUP, group.as_bytes()]);
        }
    }

    fn put_part(&self, kind: &[u8], part: &[u8], fx: &mut Effects) {
        fx.put_parts(ShardId::CATALOG, &[&key(&self.id), kind, part], &[]);
    }

    /// Takes in a row that is not its own first one.
    fn load(&mut self, part: &[u8]) {
        if let Some(place) = part.strip_prefix(PLACE) {
            self.places.extend(place_of(place));
        } else if let Some(group) = part.strip_prefix(GROUP) {
            self.groups
                .extend(std::str::from_utf8(group).map(Arc::from));
        }
    }

    /// The next epoch, or a new producer when there is none left.
    fn raise(&mut self, locked: &mut Locked<'_>) {
        self.previous = Some(self.producer);
        if self.producer.epoch >= LAST_EPOCH {
            self.producer = new_producer(locked);
        } else {
            self.producer.epoch += 1;
        }
    }

    fn put(&self, fx: &mut Effects) {
        let previous = self.previous.unwrap_or(Instance { id: -1, epoch: -1 });
        let mut value = vec![VERSION, self.stage as u8];
        for producer in [self.producer, previous] {
            value.extend_from_slice(&producer.id.to_be_bytes());
            value.extend_from_slice(&producer.epoch.to_be_bytes());
        }
        value.extend_from_slice(&self.timeout_ms.to_be_bytes());
        value.extend_from_slice(&self.started.0.to_be_bytes());
        value.extend_from_slice(&self.updated.0.to_be_bytes());
        fx.put(ShardId::CATALOG, &key(&self.id), &value);
    }

    fn decode(id: Arc<str>, value: &[u8]) -> Option<Self> {
        let (&[VERSION, stage], rest) = value.split_first_chunk()? else {
            return None;
        };
        let stage = [
            Stage::Empty,
            Stage::Ongoing,
            Stage::Committed,
            Stage::Aborted,
        ]
        .into_iter()
        .find(|known| *known as u8 == stage)?;
        let (producer, rest) = instance(rest)?;
        let (previous, rest) = instance(rest)?;
        let (timeout, rest) = rest.split_first_chunk()?;
        let (started, rest) = rest.split_first_chunk()?;
        let updated = rest.first_chunk()?;
        Some(Self {
            id,
            producer,
            previous: Some(previous).filter(|previous| previous.id >= 0),
            timeout_ms: u32::from_be_bytes(*timeout),
            stage,
            started: Millis(u64::from_be_bytes(*started)),
            updated: Millis(u64::from_be_bytes(*updated)),
            places: BTreeSet::new(),
            groups: BTreeSet::new(),
        })
    }
}

fn instance(bytes: &[u8]) -> Option<(Instance, &[u8])> {
    let (id, rest) = bytes.split_first_chunk()?;
    let (epoch, rest) = rest.split_first_chunk()?;
    let instance = Instance {
        id: i64::from_be_bytes(*id),
        epoch: i16::from_be_bytes(*epoch),
    };
    Some((instance, rest))
}

fn part_of((topic, index): &Place) -> [u8; 20] {
    let mut part = [0; 20];
    let (head, tail) = part.split_at_mut(16);
    head.copy_from_slice(topic.as_bytes());
    tail.copy_from_slice(&index.to_be_bytes());
    part
}

fn place_of(part: &[u8]) -> Option<Place> {
    let (topic, index) = part.split_at_checked(16)?;
    Some((
        Uuid::from_slice(topic).ok()?,
        i32::from_be_bytes(*index.first_chunk()?),
    ))
}
