//! Methods on an open channel, by class.

pub(super) mod basic;
pub(super) mod exchange;
pub(super) mod queue;
pub(super) mod tx;

use protocol_amqp::{Method, ReplyCode};

use super::channel::{Channel, Confirms};
use super::fault::{Fault, Result};
use super::session::Core;
use crate::net::Outbox;

/// Runs one method and appends its answer.
pub(super) fn dispatch(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    method: &Method<'_>,
    out: &mut Outbox,
) -> Result {
    match *method {
        Method::ChannelOpen { .. } => Err(Fault::connection(
            ReplyCode::ChannelError,
            "second 'channel.open' seen",
        )),
        Method::ChannelFlow { active: true } => {
            protocol_amqp::method(out.bytes(), id, &Method::ChannelFlowOk { active: true });
            Ok(())
        }
        Method::ChannelFlow { active: false } => Err(Fault::not_implemented("active=false")),
        // Of RabbitMQ's old clients: always granted.
        Method::AccessRequest { .. } => {
            protocol_amqp::method(out.bytes(), id, &Method::AccessRequestOk { ticket: 1 });
            Ok(())
        }
        Method::ExchangeDeclare { .. }
        | Method::ExchangeDelete { .. }
        | Method::ExchangeBind { .. }
        | Method::ExchangeUnbind { .. } => exchange::method(core, id, method, out),
        Method::QueueDeclare { .. }
        | Method::QueueBind { .. }
        | Method::QueueUnbind { .. }
        | Method::QueuePurge { .. }
        | Method::QueueDelete { .. } => queue::method(core, channel, id, method, out),
        Method::BasicQos { .. }
        | Method::BasicConsume { .. }
        | Method::BasicCancel { .. }
        | Method::BasicGet { .. }
        | Method::BasicNack { .. }
        | Method::BasicReject { .. }
        | Method::BasicRecover { .. }
        | Method::BasicRecoverAsync { .. } => basic::method(core, channel, id, method, out),
        Method::ConfirmSelect { nowait } => {
            if channel.tx.is_some() {
                return Err(Fault::precondition("cannot switch from tx to confirm mode"));
            }
            channel.confirms.get_or_insert_with(Confirms::default);
            if !nowait {
                protocol_amqp::method(out.bytes(), id, &Method::ConfirmSelectOk {});
            }
            Ok(())
        }
        Method::TxSelect {} | Method::TxCommit {} | Method::TxRollback {} => {
            tx::method(core, channel, id, method, out)
        }
        _ => Err(Fault::connection(
            ReplyCode::CommandInvalid,
            "unimplemented method",
        )),
    }
}
