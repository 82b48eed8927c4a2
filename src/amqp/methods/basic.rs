//! basic.qos, consume, cancel, get, ack, nack, reject, recover. Publishing is in `content`.

use std::sync::Arc;

use broker::access::Verbs;
use broker::queue::{self, ConsumeError, Consumer, Definition, QueueKind, Verdict};
use protocol_amqp::{Method, ReplyCode, ShortStr, Table};

use super::queue::{check_owner, expand, find};
use crate::amqp::arguments;
use crate::amqp::channel::{Channel, Pending, Settled};
use crate::amqp::deliver;
use crate::amqp::fault::{Fault, Result};
use crate::amqp::names;
use crate::amqp::session::{Core, Subscription, is_quorum, reference};
use crate::amqp::stream;
use crate::net::Outbox;

pub(super) fn method(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    method: &Method<'_>,
    out: &mut Outbox,
) -> Result {
    match *method {
        Method::BasicQos {
            prefetch_size,
            prefetch_count,
            global,
        } => {
            if prefetch_size != 0 {
                return Err(Fault::not_implemented(format!(
                    "prefetch_size!=0 ({prefetch_size})"
                )));
            }
            if global {
                channel.window.set_limit(prefetch_count.into());
                core.dispatch(|subscription| subscription.channel == id);
            } else {
                channel.prefetch = prefetch_count;
            }
            protocol_amqp::method(out.bytes(), id, &Method::BasicQosOk {});
        }
        Method::BasicConsume {
            queue,
            consumer_tag,
            no_ack,
            exclusive,
            nowait,
            arguments,
            ..
        } => {
            let want = Want {
                no_ack,
                exclusive,
                nowait,
                arguments,
            };
            consume(core, channel, id, queue.0, consumer_tag.0, &want, out)?;
        }
        Method::BasicCancel {
            consumer_tag,
            nowait,
        } => {
            if let Some(consumer) = channel.consumers.remove(consumer_tag.0) {
                let queue = core
                    .subscriptions
                    .get(&consumer)
                    .map(|subscription| &*subscription.queue.name);
                if queue.is_some() && queue == channel.reply_queue.as_deref() {
                    channel.reply_queue = None;
                }
                core.unsubscribe(consumer);
            }
            if !nowait {
                protocol_amqp::method(out.bytes(), id, &Method::BasicCancelOk { consumer_tag });
            }
        }
        Method::BasicGet { queue, no_ack, .. } => get(core, channel, id, queue.0, no_ack, out)?,
        Method::BasicNack {
            delivery_tag,
            multiple,
            requeue,
        } => reject(core, channel, delivery_tag, multiple, requeue)?,
        Method::BasicReject {
            delivery_tag,
            requeue,
        } => reject(core, channel, delivery_tag, false, requeue)?,
        Method::BasicRecover { requeue } | Method::BasicRecoverAsync { requeue } => {
            if !requeue {
                return Err(Fault::not_implemented("requeue=false"));
            }
            let mut back = Vec::new();
            channel
                .unacked
                .take_until(0, |_, pending| back.push(pending));
            check_rejected(core, &mut back)?;
            give_back_credit(channel, &back);
            core.settle(Verdict::Requeue, &mut back);
            if matches!(method, Method::BasicRecover { .. }) {
                protocol_amqp::method(out.bytes(), id, &Method::BasicRecoverOk {});
            }
        }
        _ => {}
    }
    Ok(())
}

struct Want<'a> {
    no_ack: bool,
    exclusive: bool,
    nowait: bool,
    arguments: Table<'a>,
}

fn consume(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    queue: &[u8],
    tag: &[u8],
    want: &Want<'_>,
    out: &mut Outbox,
) -> Result {
    if channel.consumers.contains_key(tag) {
        let tag = String::from_utf8_lossy(tag);
        return Err(Fault::connection(
            ReplyCode::NotAllowed,
            format!("attempt to reuse consumer tag '{tag}'"),
        ));
    }
    let most = core.node.config.amqp_consumer_max_per_channel;
    if most > 0 && channel.consumers.len() >= most {
        return Err(Fault::connection(
            ReplyCode::NotAllowed,
            format!("reached maximum ({most}) of consumers per channel"),
        ));
    }
    let definition = if queue == names::REPLY_TO.as_bytes() {
        reply_queue(core, channel, want.no_ack)?
    } else {
        let name = expand(channel, names::text(queue)?)?;
        core.may_queue(&name, Verbs::READ)?;
        let definition = find(core, &name)?;
        core.may_stream(&definition, Verbs::READ)?;
        definition
    };
    check_owner(core, &definition)?;
    if definition.partition.is_some() {
        check_stream(channel, &definition, want)?;
    }
    if definition.kind != QueueKind::Classic && channel.window.limit() != 0 {
        return Err(Fault::not_implemented(format!(
            "queue '{}' in vhost '/' does not support global qos",
            definition.name
        )));
    }
    let tag: Box<[u8]> = if tag.is_empty() {
        names::random("amq.ctag-").into_bytes().into()
    } else {
        tag.into()
    };
    let number = core.next_consumer;
    core.next_consumer += 1;
    let mut consumer = Consumer::new(
        core.info.id,
        number,
        Arc::clone(&core.inbox),
        Arc::clone(&channel.window),
    );
    consumer.no_ack = want.no_ack;
    consumer.exclusive = want.exclusive;
    consumer.prefetch = channel.prefetch.into();
    consumer.priority = match want.arguments.get("x-priority") {
        None => 0,
        Some(value) => match value.as_int() {
            Some(priority) => priority,
            None => {
                return Err(Fault::precondition(format!(
                    "invalid arg 'x-priority' for queue '{}' in vhost '/': \"expected integer, got {}\"",
                    definition.name,
                    value.type_name()
                )));
            }
        },
    };
    let reader = match definition.partition {
        Some(at) => Some(stream::reader(
            core,
            &definition,
            at,
            channel.prefetch,
            want.arguments,
        )?),
        None => None,
    };
    match queue::subscribe(core.broker(), reference(&definition), consumer) {
        Ok(()) => {}
        Err(ConsumeError::NoQueue) => return Err(Fault::no_queue(&definition.name)),
        Err(ConsumeError::ExclusiveUse) => {
            return Err(Fault::refused(format!(
                "queue '{}' in vhost '/' in exclusive use",
                definition.name
            )));
        }
    }
    if !want.nowait {
        protocol_amqp::method(
            out.bytes(),
            id,
            &Method::BasicConsumeOk {
                consumer_tag: ShortStr(&tag),
            },
        );
    }
    let queue = reference(&definition);
    channel.consumers.insert(tag.clone(), number);
    let subscription = Subscription {
        channel: id,
        tag,
        queue: definition,
        no_ack: want.no_ack,
    };
    core.expect_within(&subscription.queue);
    let created = (want.exclusive, channel.prefetch, want.arguments.as_bytes());
    core.tell_consumer(&subscription, Some(created));
    core.subscriptions.insert(number, subscription);
    match reader {
        // It is served at the end of the turn.
        Some(reader) => core.readers.insert(number, reader),
        None => queue::dispatch(&core.node.broker, queue, core.now, &mut core.fx),
    }
    Ok(())
}

/// What RabbitMQ wants of a stream's consumers.
fn check_stream(channel: &Channel, definition: &Definition, want: &Want<'_>) -> Result {
    let name = &definition.name;
    arguments::check_stream_consumer(name, want.arguments)?;
    if channel.prefetch == 0 {
        return Err(Fault::precondition(format!(
            "consumer prefetch count is not set for 'queue '{name}' in vhost '/''"
        )));
    }
    if want.no_ack {
        return Err(of_no_stream("automatic acknowledgement", name));
    }
    Ok(())
}

/// What streams do not do.
pub(super) fn of_no_stream(what: &str, name: &str) -> Fault {
    Fault::not_implemented(format!(
        "{what} not supported by stream queues queue '{name}' in vhost '/'"
    ))
}

/// Direct reply-to: a queue of this connection, by whose name others reply through the default exchange.
fn reply_queue(core: &mut Core, channel: &mut Channel, no_ack: bool) -> Result<Arc<Definition>> {
    if !no_ack {
        return Err(Fault::precondition("reply consumer cannot acknowledge"));
    }
    if channel.reply_queue.is_some() {
        return Err(Fault::precondition("reply consumer already set"));
    }
    let name = names::random(&format!("{}.", names::REPLY_TO));
    let definition = super::queue::declare_hidden(core, &name);
    channel.reply_queue = Some(name);
    Ok(definition)
}

fn get(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    queue: &[u8],
    no_ack: bool,
    out: &mut Outbox,
) -> Result {
    let name = expand(channel, names::text(queue)?)?;
    core.may_queue(&name, Verbs::READ)?;
    let definition = find(core, &name)?;
    check_owner(core, &definition)?;
    if definition.partition.is_some() {
        return Err(of_no_stream("basic.get", &name));
    }
    let queue = reference(&definition);
    let Some((entry, left)) = queue::take(&core.node.broker, queue, no_ack, core.now, &mut core.fx)
    else {
        if core.broker().engine.failed() {
            return Err(Fault::connection(
                ReplyCode::InternalError,
                "the storage failed",
            ));
        }
        protocol_amqp::method(
            out.bytes(),
            id,
            &Method::BasicGetEmpty {
                cluster_id: "".into(),
            },
        );
        return Ok(());
    };
    out.need(core.need(entry.lsn(), is_quorum(&definition)));
    core.expect_within(&definition);
    let tag = channel.next_tag();
    let message = entry.message();
    protocol_amqp::get_ok(
        out.bytes(),
        id,
        tag,
        entry.is_redelivered(),
        message.exchange(),
        message.routing_key(),
        u32::try_from(left).unwrap_or(u32::MAX),
    );
    deliver::entry(&entry, &definition, id, core.frame_max, out);
    if core.is_traced(entry.message().exchange()) {
        core.trace_deliver(&entry, &definition, id);
    }
    channel.unacked.push(
        tag,
        (!no_ack).then_some(Pending {
            queue,
            consumer: None,
            timeout: deliver::timeout(&definition),
            entry: Some(entry),
        }),
    );
    Ok(())
}

fn unknown(tag: u64) -> Fault {
    Fault::precondition(format!("unknown delivery tag {tag}"))
}

/// Takes the named messages off the channel's list.
fn take(
    channel: &mut Channel,
    tag: u64,
    multiple: bool,
    mut each: impl FnMut(u64, Pending),
) -> Result {
    if multiple {
        return if channel.unacked.take_until(tag, each) {
            Ok(())
        } else {
            Err(unknown(tag))
        };
    }
    each(tag, channel.unacked.take(tag).ok_or_else(|| unknown(tag))?);
    Ok(())
}

/// The channel's own window has room again.
fn give_back_credit(channel: &Channel, pending: &[Pending]) {
    let count = pending
        .iter()
        .filter(|pending| pending.is_in_window())
        .count();
    channel
        .window
        .give_back(u32::try_from(count).unwrap_or(u32::MAX));
}

/// `basic.ack`: gathered, and told to the queues at the end of the turn.
pub(in crate::amqp) fn ack(
    core: &mut Core,
    channel: &mut Channel,
    tag: u64,
    multiple: bool,
) -> Result {
    if channel.tx.is_some() {
        return in_transaction(core, channel, tag, multiple, Verdict::Done);
    }
    let before = core.done.len();
    take(channel, tag, multiple, |_, pending| core.done.push(pending))?;
    give_back_credit(channel, core.done.get(before..).unwrap_or_default());
    Ok(())
}

fn reject(
    core: &mut Core,
    channel: &mut Channel,
    tag: u64,
    multiple: bool,
    requeue: bool,
) -> Result {
    let verdict = if requeue {
        Verdict::Requeue
    } else {
        Verdict::Reject
    };
    if channel.tx.is_some() {
        return in_transaction(core, channel, tag, multiple, verdict);
    }
    let mut taken = Vec::new();
    take(channel, tag, multiple, |_, pending| taken.push(pending))?;
    check_rejected(core, &mut taken)?;
    give_back_credit(channel, &taken);
    core.settle(verdict, &mut taken);
    Ok(())
}

/// RabbitMQ 3 takes nothing but acknowledgements of a stream's messages. After an error the others are back in their queues.
fn check_rejected(core: &mut Core, taken: &mut Vec<Pending>) -> Result {
    let Some(pending) = taken.iter().find(|pending| pending.entry.is_none()) else {
        return Ok(());
    };
    let subscription = pending
        .consumer
        .and_then(|consumer| core.subscriptions.get(&consumer));
    // Without its consumer nobody knows the name.
    let name = subscription.map_or("", |subscription| &subscription.queue.name);
    let fault = of_no_stream("basic.nack and basic.reject", name);
    core.settle(Verdict::Requeue, taken);
    Err(fault)
}

fn in_transaction(
    core: &mut Core,
    channel: &mut Channel,
    tag: u64,
    multiple: bool,
    verdict: Verdict,
) -> Result {
    let mut taken = Vec::new();
    take(channel, tag, multiple, |tag, pending| {
        taken.push(Settled {
            pending,
            verdict,
            tag,
        })
    })?;
    let of_stream = |settled: &Settled| settled.pending.entry.is_none();
    if verdict != Verdict::Done && taken.iter().any(of_stream) {
        let mut taken = taken.into_iter().map(|settled| settled.pending).collect();
        return check_rejected(core, &mut taken);
    }
    if let Some(tx) = &mut channel.tx {
        tx.settled.append(&mut taken);
    }
    Ok(())
}
