//! tx.select, commit, rollback: what a channel publishes and acknowledges becomes one record.

use broker::ShardSet;
use broker::queue::{self, Delivered};
use protocol_amqp::Method;

use crate::amqp::channel::{Channel, Transaction};
use crate::amqp::content;
use crate::amqp::fault::{Fault, Result};
use crate::amqp::session::Core;
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
    let tx = std::mem::take(tx);
    let connection = core.info.id;
    let broker = &core.node.broker;
    let mut publishes = tx.publishes;
    let credit = tx
        .settled
        .iter()
        .filter(|settled| settled.pending.consumer.is_some())
        .count();
    channel
        .window
        .give_back(u32::try_from(credit).unwrap_or(u32::MAX));
    let mut returned = Vec::new();
    let (lsn, total) = loop {
        let epoch = broker.routes.epoch();
        for publish in publishes
            .iter_mut()
            .filter(|publish| publish.route.epoch != epoch)
        {
            let message = &publish.message;
            publish.route = content::route_message(core, message)?;
        }
        let shards = publishes.iter().fold(ShardSet::EMPTY, |set, publish| {
            set.union(publish.route.shards)
        });
        let shards = tx
            .settled
            .iter()
            .fold(shards, |set, settled| set.with(settled.pending.queue.shard));
        let mut locked = broker.lock(shards);
        if publishes
            .iter()
            .any(|publish| publish.route.epoch != broker.routes.epoch())
        {
            continue;
        }
        let mut total = Delivered::default();
        for publish in publishes {
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
            total.logged = true;
            let queue = settled.pending.queue;
            let entry = std::iter::once(settled.pending.settled_by(connection));
            queue::settle_locked(
                &mut locked,
                queue,
                settled.verdict,
                entry,
                core.now,
                &mut core.fx,
            );
        }
        break (locked.commit(core.now, &mut core.fx), total);
    };
    for message in returned {
        content::return_message(core, id, &message, out);
    }
    if total.logged {
        out.need(core.need(lsn, total.quorum));
    }
    Ok(())
}
