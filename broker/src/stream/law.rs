//! What topics, partitions and groups say for [`crate::law`].

use super::group::{Group, State};
use super::partition::Limit;
use super::retention::Grave;
use super::topic::{PartitionRef, Topics};
use super::{batch, read_elsewhere, space};
use crate::cache::Error;
use crate::law::{Facts, hash};
use crate::rows::Tag;
use crate::{Catalog, Shard};

/// Octets of batches looked at together.
const STEP: usize = 1 << 20;

/// Topics, and what is left of deleted ones.
pub(crate) fn catalog(catalog: &Catalog, facts: &mut Facts) {
    let streams = &catalog.streams;
    let topics = streams.topics();
    if streams.has_cluster_id() {
        facts.say("cluster".to_owned(), topics.cluster_id().to_string());
    }
    for topic in topics.all() {
        facts.say(format!("topic {:?}", topic.name), format!("{topic:?}"));
        for at in &topic.partitions {
            facts.own(at.shard(), Tag::Batch, at.id);
        }
    }
    for transaction in streams.transactions.values() {
        facts.own_name(Tag::Transaction, &transaction.id);
        facts.say(
            format!("transaction {:?}", transaction.id),
            format!("{transaction:?}"),
        );
    }
    for Grave { at, .. } in &streams.graves {
        facts.say(
            format!("grave of partition {}", at.id),
            format!("{:?}", at.slot),
        );
        facts.own(at.shard(), Tag::Batch, at.id);
    }
}

/// The partitions and groups of a shard.
pub(crate) fn shard(shard: &mut Shard, topics: &Topics, facts: &mut Facts) -> Result<(), Error> {
    for topic in topics.all() {
        for (index, at) in topic.partitions.iter().enumerate() {
            if at.shard() == shard.id {
                let what = format!("partition {}/{index}", topic.name);
                partition(shard, *at, what, facts)?;
            }
        }
    }
    let engine = shard.engine.clone();
    for group in shard.streams.groups.values_mut() {
        group.load_offsets(&engine)?;
        offsets(group, facts);
    }
    Ok(())
}

fn partition(
    shard: &mut Shard,
    at: PartitionRef,
    what: String,
    facts: &mut Facts,
) -> Result<(), Error> {
    let engine = shard.engine.clone();
    let Some(partition) = space::partition(shard, at)? else {
        facts.wrong(format!("{what} of a topic that exists is gone"));
        return Ok(());
    };
    let bounds = partition.bounds(&engine);
    if bounds.high_watermark != bounds.end {
        facts.wrong(format!(
            "{what}: everything is on disk, readers see {bounds:?}"
        ));
    }
    let (mut offset, mut batches, mut digest) = (bounds.start, Vec::new(), 0);
    while offset < bounds.end {
        batches.clear();
        let limit = Limit::new(STEP, true);
        if let Err(place) = partition.read(offset, bounds.end, limit, &mut batches) {
            read_elsewhere(&engine, &place, limit, &mut batches)?;
        }
        let before = offset;
        for bytes in &batches {
            let Ok((header, _)) = batch::Header::read(bytes) else {
                facts.wrong(format!("{what}: no batch at {offset}"));
                return Ok(());
            };
            let base = u64::try_from(header.base_offset).unwrap_or(0);
            if base > offset {
                facts.wrong(format!("{what}: records {offset} to {base} are missing"));
            }
            offset = base + header.count();
            digest = hash([&u64::to_be_bytes(digest)[..], bytes]);
        }
        if offset <= before {
            facts.wrong(format!("{what}: nothing at {offset} of {bounds:?}"));
            return Ok(());
        }
    }
    let value = format!(
        "hash {digest:016x} of the batches, {:?}",
        partition.durable_state()
    );
    facts.say(what, value);
    Ok(())
}

fn offsets(group: &Group, facts: &mut Facts) {
    let what = format!("group {:?}", group.name());
    if !group.is_registered() {
        if group.all_committed().next().is_some() {
            facts.wrong(format!("{what} has committed and is not in the catalog"));
        }
        return;
    }
    if group.state == State::Dead {
        facts.wrong(format!("{what} is deleted and still in the catalog"));
    }
    for (producer, (topic, partition), committed) in group.all_undecided() {
        facts.say(
            format!("{what} offset of {topic}/{partition} in a transaction of {producer}"),
            format!("{committed:?}"),
        );
    }
    facts.own_name(Tag::Group, group.name());
    facts.say(what.clone(), "known");
    for ((topic, partition), committed) in group.all_committed() {
        facts.say(
            format!("{what} offset of {topic}/{partition}"),
            format!("{committed:?}"),
        );
    }
}
