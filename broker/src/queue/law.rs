//! What exchanges, bindings, queues and messages say for [`crate::law`].

use super::exchange::Destination;
use super::space::Space;
use super::state::Queue;
use super::{Routes, catalog};
use crate::law::{Facts, hash};
use crate::rows::Tag;
use crate::{Effects, Engine, Shard, ShardId};

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
    let Space { queues, sweeps, .. } = &mut shard.queues;
    for queue in queues.values_mut() {
        if queue.definition.is_stored() {
            messages(queue, id, &engine, facts);
        }
        facts.own(id, Tag::Message, queue.definition.id);
    }
    for sweep in sweeps {
        facts.own(id, Tag::Message, sweep.queue);
    }
}

fn messages(queue: &mut Queue, shard: ShardId, engine: &Engine, facts: &mut Facts) {
    let name = format!("queue {:?}", queue.definition.name);
    let octets = queue.stored_bytes();
    facts.say(
        format!("{name} state"),
        format!("{} messages stored", queue.stored),
    );
    facts.hold(format!("{name} message "), queue.unacked);
    // Rows of transient messages that an earlier run left are deleted on the way, but nothing of this is committed.
    let mut unused = Effects::new();
    let (mut ready, mut bytes, mut timed) = (0, 0, false);
    loop {
        if let Err(error) = queue.read_ahead(shard, engine, &mut unused) {
            facts.wrong(format!("{name} cannot be read: {error}"));
            break;
        }
        let Some(entry) = queue.ready.pop() else {
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
        if entry.seq >= queue.next_seq {
            facts.wrong(format!(
                "{what} lies behind the next number {}",
                queue.next_seq
            ));
        }
        if entry.redelivered {
            facts.keep(format!("{what} was delivered before"));
        }
        ready += 1;
        bytes += message.body().len() as u64;
        timed |= message.deadline_ms() != 0;
        let body = message.body();
        let rest = format!(
            "{:?} {:?} {:?} {:?} expires {}",
            body.get(..32).unwrap_or(body).escape_ascii().to_string(),
            message.exchange().escape_ascii().to_string(),
            message.routing_key().escape_ascii().to_string(),
            message.properties().escape_ascii().to_string(),
            message.deadline_ms(),
        );
        facts.say(
            what,
            format!("{} octets, hash {:016x}: {rest}", body.len(), hash([body])),
        );
    }
    if queue.unacked == 0 && (ready != queue.stored || bytes != octets) {
        facts.wrong(format!(
            "{name}: {} messages and {octets} octets are counted, {ready} and {bytes} are there",
            queue.stored
        ));
    }
    if timed && !queue.timed {
        facts.wrong(format!("{name} does not know that its messages expire"));
    }
}
