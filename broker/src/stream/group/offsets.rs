//! Committed offsets: rows of the group's slot, in memory from the first touch on.

use std::sync::Arc;

use hashbrown::HashMap;
use storage::{Effects, Engine, Error, ShardId};
use uuid::Uuid;

use super::{GroupError, State, get, get_or_make, slot};
use crate::rows::{self, Tag};
use crate::{Locked, Millis, Slot};

const VERSION: u8 = 1;

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

type Offsets = HashMap<(Uuid, i32), Committed, foldhash::fast::RandomState>;

fn group_prefix(name: &str) -> Vec<u8> {
    let mut key = rows::prefix(slot(name), Tag::GroupOffset).to_vec();
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
        let key = key.get(prefix.len()..).and_then(|key| {
            let (topic, partition) = key.split_at_checked(16)?;
            Some((
                Uuid::from_slice(topic).ok()?,
                i32::from_be_bytes(*partition.first_chunk()?),
            ))
        });
        if let Some((key, committed)) = key.zip(decode(value)) {
            offsets.insert(key, committed);
        }
        true
    })?;
    Ok(offsets)
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
    let engine = Arc::clone(&locked.broker().engine);
    let shard = slot(name).shard();
    let group = get_or_make(locked, name, now);
    group.load_offsets(&engine)?;
    if !std::mem::replace(&mut group.registered, true) {
        fx.put(ShardId::CATALOG, &catalog_key(name), &[VERSION]);
    }
    let prefix = group_prefix(name);
    for ((topic, partition), committed) in offsets {
        fx.put_parts(
            shard,
            &[&prefix, topic.as_bytes(), &partition.to_be_bytes()],
            &[
                &[VERSION],
                &committed.offset.to_be_bytes(),
                &committed.leader_epoch.to_be_bytes(),
                &committed.at.0.to_be_bytes(),
                committed.metadata.as_bytes(),
            ],
        );
        if let Some(all) = &mut group.offsets {
            all.insert((*topic, *partition), committed.clone());
        }
    }
    Ok(())
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
            fx.del_parts(
                slot(name).shard(),
                &[&prefix, topic.as_bytes(), &partition.to_be_bytes()],
            );
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
    // The group stays in memory without offsets: that they are gone is not in the tables yet.
    for (topic, partition) in group
        .offsets
        .replace(Offsets::default())
        .into_iter()
        .flatten()
        .map(|(key, _)| key)
    {
        fx.del_parts(
            slot(name).shard(),
            &[&prefix, topic.as_bytes(), &partition.to_be_bytes()],
        );
    }
    group.state = State::Dead;
    group.generation = 0;
    if std::mem::take(&mut group.registered) {
        fx.del(ShardId::CATALOG, &catalog_key(name));
    }
    Ok(Ok(()))
}
