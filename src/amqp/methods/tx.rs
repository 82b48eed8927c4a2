//! tx.select, commit, rollback: what a channel publishes and acknowledges becomes one record.

use broker::queue::{self, Delivered};
use broker::{ShardSet, stream_queue};
use protocol_amqp::Method;

use crate::amqp::channel::{Channel, Transaction};
use crate::amqp::content;
use crate::amqp::fault::{Fault, Result};
use crate::amqp::session::{Core, has_quorum};
use crate::net::Outbox;

pub(super) fn method(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    method: &Method<'_>,
    out: &mut Outbox,
) -> Result {
    let ok = match method {
        Method::TxSelect {} => {
            if channel.confirms.is_some() {
                return Err(Fault::precondition("cannot switch from confirm to tx mode"));
            }
            channel.tx.get_or_insert_with(Transaction::default);
            Method::TxSelectOk {}
        }
        Method::TxCommit {} => {
            commit(core, channel, id, out)?;
            Method::TxCommitOk {}
        }
        Method::TxRollback {} => {
            let tx = channel.tx.as_mut().ok_or_else(not_transactional)?;
            // Acknowledgements are undone: the messages are unacknowledged again, not requeued.
            let tx = std::mem::take(tx);
            core.held -= tx.held;
            for settled in tx.settled {
                channel.unacked.put_back(settled.tag, settled.pending);
            }
            Method::TxRollbackOk {}
        }
        _ => return Ok(()),
    };
    protocol_amqp::method(out.bytes(), id, &ok);
    Ok(())
}

fn not_transactional() -> Fault {
    Fault::precondition("channel is not transactional")
}

fn commit(core: &mut Core, channel: &mut Channel, id: u16, out: &mut Outbox) -> Result {
    let tx = channel.tx.as_mut().ok_or_else(not_transactional)?;
    // It may have been allowed when it was said, and not be any more: then nothing of it is done.
    for publish in &tx.publishes {
        core.may_publish(publish.message.exchange())?;
    }
    let connection = core.info.id;
    let broker = &core.node.broker;
    let mut locked = loop {
        let epoch = broker.routes.epoch();
        let mut octets = 0_usize;
        for publish in &mut tx.publishes {
            if publish.route.epoch != epoch {
                publish.route = content::route_message(core, &publish.message)?;
            }
            core.may_reach(&publish.route)?;
            let (route, message) = (&publish.route, &publish.message);
            if let Some(queue) = stream_queue::refusing(broker, route, message) {
                return Err(Fault::precondition(format!(
                    "a message of the transaction is larger than topic '{}' takes",
                    queue.name
                )));
            }
            octets = octets.saturating_add(queue::octets(&publish.route, &publish.message));
        }
        // There may be more queues than when it was said.
        if octets > content::TX_MAX {
            return Err(content::tx_too_large());
        }
        let shards =
            tx.publishes
                .iter()
                .fold(ShardSet::EMPTY, |set, publish| match publish.delay_ms {
                    None => set.union(publish.route.shards),
                    Some(_) => set.with(queue::delay::shard_of(&publish.message)),
                });
        let shards = tx
            .settled
            .iter()
            .fold(shards, |set, settled| set.with(settled.pending.queue.shard));
        let locked = broker.lock(shards);
        let epoch = broker.routes.epoch();
        if tx
            .publishes
            .iter()
            .all(|publish| publish.route.epoch == epoch)
        {
            break locked;
        }
    };
    // From here on nothing fails: until now whatever it holds stays with the channel.
    let tx = std::mem::take(tx);
    core.held -= tx.held;
    let credit = tx
        .settled
        .iter()
        .filter(|settled| settled.pending.is_in_window())
        .count();
    channel
        .window
        .give_back(u32::try_from(credit).unwrap_or(u32::MAX));
    let mut returned = Vec::new();
    let mut total = Delivered::default();
    for publish in tx.publishes {
        if let Some(delay_ms) = publish.delay_ms {
            let due = broker::Millis(core.now.0.saturating_add(delay_ms));
            queue::delay::put(&mut locked, publish.message, due, &mut core.fx);
            total.logged = true;
            total.quorum |= has_quorum(&publish.route);
            continue;
        }
        let copy = publish.mandatory.then(|| publish.message.clone());
        let delivered = queue::deliver(
            &mut locked,
            &publish.route,
            publish.message,
            core.now,
            &mut core.fx,
        );
        if delivered.queues == 0 {
            returned.extend(copy);
        }
        total.logged |= delivered.logged;
        total.quorum |= delivered.quorum;
    }
    for settled in tx.settled {
        let (queue, consumer) = (settled.pending.queue, settled.pending.consumer);
        let Some(entry) = settled.pending.settled_by(connection) else {
            core.readers.give_credit(consumer);
            continue;
        };
        total.logged = true;
        let entry = std::iter::once(entry);
        queue::settle_locked(
            &mut locked,
            queue,
            settled.verdict,
            entry,
            core.now,
            &mut core.fx,
        );
    }
    let lsn = locked.commit(core.now, &mut core.fx);
    drop(locked);
    for message in returned {
        content::return_message(core, id, &message, out);
    }
    if total.logged {
        out.need(core.need(lsn, total.quorum));
    }
    Ok(())
}
