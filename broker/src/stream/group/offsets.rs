//! Committed offsets: rows of the group's slot, in memory from the first touch on.

use std::collections::BTreeMap;
use std::sync::Arc;

use hashbrown::HashMap;
use storage::{Effects, Engine, Error, ShardId};
use uuid::Uuid;

use super::{Group, GroupError, State, get, get_or_make, slot};
use crate::rows::{self, Tag};
use crate::{Locked, Millis, Slot};

const VERSION: u8 = 1;
/// Octets that one transaction may be going to commit for one group, since its end is one record; and of a row besides its texts.
const UNDECIDED_MAX: usize = 8 << 20;
const UNDECIDED_ROW: usize = 64;

/// An offset that a group has committed for a partition: the next record that it wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Committed {
    pub offset: i64,
    /// -1: unknown.
    pub leader_epoch: i32,
    /// The client's own note.
    pub metadata: Arc<str>,
    pub at: Millis,
}

pub(in crate::stream) type Offsets = HashMap<(Uuid, i32), Committed, foldhash::fast::RandomState>;

fn group_prefix(name: &str) -> Vec<u8> {
    tagged_prefix(name, Tag::GroupOffset)
}

/// Of what the transactions of one producer are going to commit.
fn producer_prefix(name: &str, producer: i64) -> Vec<u8> {
    let mut key = tagged_prefix(name, Tag::PendingOffset);
    key.extend_from_slice(&rows::ordered_i64(producer));
    key
}

fn tagged_prefix(name: &str, tag: Tag) -> Vec<u8> {
    let mut key = rows::prefix(slot(name), tag).to_vec();
    // Group names are bounded by the session, far below 64 KiB.
    key.extend_from_slice(&(name.len() as u16).to_be_bytes());
    key.extend_from_slice(name.as_bytes());
    key
}

fn catalog_key(name: &str) -> Vec<u8> {
    let mut key = rows::prefix(Slot::CATALOG, Tag::Group).to_vec();
    key.extend_from_slice(name.as_bytes());
    key
}

pub(super) fn load(name: &str, engine: &Engine) -> Result<Offsets, Error> {
    let mut offsets = Offsets::default();
    let prefix = group_prefix(name);
    rows::each(engine, &prefix, &mut |key, value| {
        let key = key.get(prefix.len()..).and_then(partition_of);
        if let Some((key, committed)) = key.zip(decode(value)) {
            offsets.insert(key, committed);
        }
        true
    })?;
    Ok(offsets)
}

pub(super) fn load_undecided(name: &str, engine: &Engine) -> Result<BTreeMap<i64, Offsets>, Error> {
    let mut all: BTreeMap<i64, Offsets> = BTreeMap::new();
    let prefix = tagged_prefix(name, Tag::PendingOffset);
    rows::each(engine, &prefix, &mut |key, value| {
        let key = key.get(prefix.len()..).and_then(|key| {
            let (producer, key) = key.split_first_chunk()?;
            Some((rows::from_ordered_i64(*producer), partition_of(key)?))
        });
        if let Some(((producer, key), committed)) = key.zip(decode(value)) {
            all.entry(producer).or_default().insert(key, committed);
        }
        true
    })?;
    Ok(all)
}

fn partition_of(key: &[u8]) -> Option<(Uuid, i32)> {
    let (topic, partition) = key.split_at_checked(16)?;
    Some((
        Uuid::from_slice(topic).ok()?,
        i32::from_be_bytes(*partition.first_chunk()?),
    ))
}

fn put(fx: &mut Effects, shard: ShardId, prefix: &[u8], key: &(Uuid, i32), committed: &Committed) {
    fx.put_parts(
        shard,
        &[prefix, key.0.as_bytes(), &key.1.to_be_bytes()],
        &[
            &[VERSION],
            &committed.offset.to_be_bytes(),
            &committed.leader_epoch.to_be_bytes(),
            &committed.at.0.to_be_bytes(),
            committed.metadata.as_bytes(),
        ],
    );
}

fn del(fx: &mut Effects, shard: ShardId, prefix: &[u8], key: &(Uuid, i32)) {
    fx.del_parts(shard, &[prefix, key.0.as_bytes(), &key.1.to_be_bytes()]);
}

fn decode(value: &[u8]) -> Option<Committed> {
    let (&VERSION, rest) = value.split_first()? else {
        return None;
    };
    let (offset, rest) = rest.split_first_chunk()?;
    let (leader_epoch, rest) = rest.split_first_chunk()?;
    let (at, metadata) = rest.split_first_chunk()?;
    Some(Committed {
        offset: i64::from_be_bytes(*offset),
        leader_epoch: i32::from_be_bytes(*leader_epoch),
        metadata: std::str::from_utf8(metadata).ok()?.into(),
        at: Millis(u64::from_be_bytes(*at)),
    })
}

/// Commits offsets for a group that has agreed to it ([`super::Group::check_commit`]). The group's shard and the catalog are
/// locked: the first commit makes the group known to the catalog.
///
/// # Errors
/// When the tables cannot be read.
pub fn commit(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
    now: Millis,
    offsets: &[((Uuid, i32), Committed)],
) -> Result<(), Error> {
    let group = registered(locked, fx, name, now)?;
    let prefix = group_prefix(name);
    for (key, committed) in offsets {
        put(fx, slot(name).shard(), &prefix, key, committed);
        if let Some(all) = &mut group.offsets {
            all.insert(*key, committed.clone());
        }
    }
    Ok(())
}

/// The same when the transaction of `producer` is committed. See [`settle`]. False: that would be too much for one transaction.
///
/// # Errors
/// When the tables cannot be read.
pub(in crate::stream) fn commit_later(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
    now: Millis,
    producer: i64,
    offsets: &[((Uuid, i32), Committed)],
) -> Result<bool, Error> {
    let engine = Arc::clone(&locked.broker().engine);
    let group = get_or_make(locked, name, now);
    group.load_offsets(&engine)?;
    let size = |committed: &Committed| committed.metadata.len() + name.len() + UNDECIDED_ROW;
    let before = group.undecided.get(&producer).into_iter().flatten();
    let before: usize = before.map(|(_, committed)| size(committed)).sum();
    let more: usize = offsets.iter().map(|(_, committed)| size(committed)).sum();
    if before + more > UNDECIDED_MAX {
        return Ok(false);
    }
    let group = registered(locked, fx, name, now)?;
    let prefix = producer_prefix(name, producer);
    let undecided = group.undecided.entry(producer).or_default();
    for (key, committed) in offsets {
        put(fx, slot(name).shard(), &prefix, key, committed);
        undecided.insert(*key, committed.clone());
    }
    Ok(true)
}

/// The transaction of `producer` has ended: what it was going to commit is committed, or forgotten. The group's offsets are in
/// memory ([`super::Group::load_offsets`]).
pub(in crate::stream) fn settle(
    group: &mut Group,
    fx: &mut Effects,
    producer: i64,
    committed: bool,
) {
    let Some(offsets) = group.undecided.remove(&producer) else {
        return;
    };
    let shard = slot(&group.name).shard();
    let (undecided, prefix) = (
        producer_prefix(&group.name, producer),
        group_prefix(&group.name),
    );
    for (key, offset) in offsets {
        del(fx, shard, &undecided, &key);
        if committed {
            put(fx, shard, &prefix, &key, &offset);
            if let Some(all) = &mut group.offsets {
                all.insert(key, offset);
            }
        }
    }
}

/// The group with its offsets in memory, known to the catalog from now on.
fn registered<'a>(
    locked: &'a mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
    now: Millis,
) -> Result<&'a mut Group, Error> {
    let engine = Arc::clone(&locked.broker().engine);
    let group = get_or_make(locked, name, now);
    group.load_offsets(&engine)?;
    if !std::mem::replace(&mut group.registered, true) {
        fx.put(ShardId::CATALOG, &catalog_key(name), &[VERSION]);
    }
    Ok(group)
}

/// Whether the catalog must be locked too for a commit: only the first time.
pub fn is_registered(locked: &mut Locked<'_>, name: &str, now: Millis) -> bool {
    get(locked, name, now).is_some_and(|group| group.registered)
}

/// Deletes some of a group's committed offsets. Its shard is locked.
///
/// # Errors
/// There is no such group, or the tables cannot be read (then `Ok(Err)` does not occur).
pub fn delete_offsets(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
    now: Millis,
    partitions: &[(Uuid, i32)],
) -> Result<Result<(), GroupError>, Error> {
    let engine = Arc::clone(&locked.broker().engine);
    let Some(group) = get(locked, name, now).filter(|group| group.exists()) else {
        return Ok(Err(GroupError::NotFound));
    };
    group.load_offsets(&engine)?;
    let prefix = group_prefix(name);
    for (topic, partition) in partitions {
        if group
            .offsets
            .as_mut()
            .and_then(|all| all.remove(&(*topic, *partition)))
            .is_some()
        {
            del(fx, slot(name).shard(), &prefix, &(*topic, *partition));
        }
    }
    Ok(Ok(()))
}

/// Deletes a group without members, with its offsets. Its shard and the catalog are locked.
///
/// # Errors
/// There is no such group, or it has members; outside, when the tables cannot be read.
pub fn delete_group(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
    now: Millis,
) -> Result<Result<(), GroupError>, Error> {
    let engine = Arc::clone(&locked.broker().engine);
    let Some(group) = get(locked, name, now).filter(|group| group.exists()) else {
        return Ok(Err(GroupError::NotFound));
    };
    if group.state != State::Empty {
        return Ok(Err(GroupError::NotEmpty));
    }
    group.load_offsets(&engine)?;
    let prefix = group_prefix(name);
    let shard = slot(name).shard();
    // The group stays in memory without offsets: that they are gone is not in the tables yet.
    let offsets = group.offsets.replace(Offsets::default());
    for key in offsets.into_iter().flatten().map(|(key, _)| key) {
        del(fx, shard, &prefix, &key);
    }
    for (producer, offsets) in std::mem::take(&mut group.undecided) {
        let prefix = producer_prefix(name, producer);
        offsets.keys().for_each(|key| del(fx, shard, &prefix, key));
    }
    group.state = State::Dead;
    group.generation = 0;
    if std::mem::take(&mut group.registered) {
        fx.del(ShardId::CATALOG, &catalog_key(name));
    }
    Ok(Ok(()))
}
