//! What exchanges, bindings, queues and messages say for [`crate::law`].

use std::collections::HashSet;

use super::definition::Definition;
use super::exchange::Destination;
use super::expiry::Key;
use super::lane::{Lane, priority_of};
use super::space::Space;
use super::state::Queue;
use super::{Routes, catalog};
use crate::law::{Facts, hash};
use crate::rows::Tag;
use crate::{Effects, Engine, Millis, Shard, ShardId};

/// What is declared to outlive a restart.
pub(crate) fn catalog(routes: &Routes, facts: &mut Facts) {
    routes.read(|table| {
        for exchange in table.exchanges.values() {
            let definition = &exchange.definition;
            if definition.durable {
                facts.own_name(Tag::Exchange, &definition.name);
                facts.say(
                    format!("exchange {:?}", definition.name),
                    format!("{definition:?}"),
                );
            }
            for binding in exchange.bindings() {
                if catalog::is_stored(table, definition, &binding.destination) {
                    let to = match &binding.destination {
                        Destination::Queue(queue) => format!("queue {:?}", queue.name),
                        Destination::Exchange(name) => format!("exchange {name:?}"),
                    };
                    let what = format!(
                        "binding of {:?} to {to} by {:?} with {:?}",
                        binding.source, binding.key, binding.arguments
                    );
                    facts.say(what, format!("{:?}", binding.matching));
                }
            }
        }
        for queue in table.queues.values().filter(|queue| queue.is_stored()) {
            facts.own_name(Tag::Queue, &queue.name);
            facts.say(format!("queue {:?}", queue.name), format!("{queue:?}"));
        }
    });
}

/// The messages of a shard's queues. They are taken out of memory.
pub(crate) fn shard(shard: &mut Shard, facts: &mut Facts) {
    let (id, engine) = (shard.id, shard.engine.clone());
    let Space {
        queues,
        sweeps,
        delays,
        expiry,
        ..
    } = &mut shard.queues;
    let read = delays.each(id, &engine, &mut |(due, number), message| {
        let parts = [
            message.exchange(),
            message.routing_key(),
            message.properties(),
            message.body(),
        ];
        facts.say(
            format!("delayed message {number}"),
            format!("due {due}, hash {:016x}", hash(parts)),
        );
    });
    if let Err(error) = read {
        facts.wrong(format!("delayed messages cannot be read: {error}"));
    }
    let mut late = HashSet::new();
    loop {
        match expiry.take(id, &engine, Millis(u64::MAX - 1), 1000) {
            Ok(keys) if keys.is_empty() => break,
            Ok(keys) => late.extend(keys),
            Err(error) => {
                facts.wrong(format!("what expires cannot be read: {error}"));
                break;
            }
        }
    }
    for queue in queues.values_mut() {
        if queue.definition.is_stored() {
            messages(queue, &late, id, &engine, facts);
        }
        facts.own(id, Tag::Message, queue.definition.id);
    }
    for sweep in sweeps {
        facts.own(id, Tag::Message, sweep.queue);
    }
}

fn messages(
    queue: &mut Queue,
    late: &HashSet<Key>,
    shard: ShardId,
    engine: &Engine,
    facts: &mut Facts,
) {
    let name = format!("queue {:?}", queue.definition.name);
    facts.hold(format!("{name} message "), queue.unacked);
    let nothing_is_held = queue.unacked == 0;
    let definition = std::sync::Arc::clone(&queue.definition);
    // What a client holds is a message that a load brings back.
    if let Some(seen) = &queue.seen {
        facts.say(format!("{name} identities"), seen.fact());
    }
    for lane in queue.lanes_mut() {
        one_lane(
            lane,
            &definition,
            late,
            nothing_is_held,
            shard,
            engine,
            facts,
        );
    }
}

fn one_lane(
    lane: &mut Lane,
    definition: &Definition,
    late: &HashSet<Key>,
    nothing_is_held: bool,
    shard: ShardId,
    engine: &Engine,
    facts: &mut Facts,
) {
    let name = format!("queue {:?}", definition.name);
    let octets = lane.stored_bytes();
    // A lane that holds nothing may not be known to a load, except for the one that every queue has.
    if lane.priority == 0 || lane.stored > 0 {
        facts.say(
            format!("{name} state, priority {}", lane.priority),
            format!("{} messages stored", lane.stored),
        );
    }
    // Rows of transient messages that an earlier run left are deleted on the way, but nothing of this is committed.
    let mut unused = Effects::new();
    let (mut ready, mut bytes, mut timed) = (0, 0, false);
    loop {
        if let Err(error) = lane.read_ahead(definition, shard, engine, &mut unused) {
            facts.wrong(format!("{name} cannot be read: {error}"));
            break;
        }
        let Some(entry) = lane.ready.pop() else {
            break;
        };
        let message = &entry.message;
        if !message.is_persistent() {
            continue;
        }
        let what = format!("{name} message {}", entry.seq);
        if !entry.logged {
            facts.wrong(format!("{what} is persistent and has no row"));
        }
        if entry.seq >= lane.next_seq || priority_of(entry.seq) != lane.priority {
            facts.wrong(format!(
                "{what} lies behind the next number {}",
                lane.next_seq
            ));
        }
        let key = (message.deadline_ms(), definition.id, entry.seq);
        if message.is_late() && !late.contains(&key) {
            facts.wrong(format!("{what} is not among those that expire"));
        }
        if entry.redelivered {
            facts.keep(format!("{what} was delivered before"));
        }
        ready += 1;
        bytes += message.body().len() as u64;
        timed |= message.deadline_ms() != 0;
        let body = message.body();
        let rest = format!(
            "{:?} {:?} {:?} {:?} expires {} attempts {}",
            body.get(..32).unwrap_or(body).escape_ascii().to_string(),
            message.exchange().escape_ascii().to_string(),
            message.routing_key().escape_ascii().to_string(),
            message.properties().escape_ascii().to_string(),
            message.deadline_ms(),
            entry.attempts,
        );
        facts.say(
            what,
            format!("{} octets, hash {:016x}: {rest}", body.len(), hash([body])),
        );
    }
    if nothing_is_held && (ready != lane.stored || bytes != octets) {
        facts.wrong(format!(
            "{name}: {} messages and {octets} octets are counted, {ready} and {bytes} are there",
            lane.stored
        ));
    }
    // Dead letters that wait do not expire any more.
    let waits = lane.priority != 0 && definition.limits.keeps_dead();
    if timed && !lane.timed && !waits {
        facts.wrong(format!("{name} does not know that its messages expire"));
    }
}
