//! What a client may do, by RabbitMQ's table of operations: `configure`, `write` and `read` on queues and exchanges.
//!
//! | method | queue | exchange |
//! | --- | --- | --- |
//! | queue.declare | configure; with x-dead-letter-exchange read | write on the dead letter exchange |
//! | the same of a stream | configure, and configure on the topic | – |
//! | exchange.declare | – | configure; with alternate-exchange read, and write on the alternate |
//! | passive declarations | describe | describe |
//! | queue.delete, exchange.delete | configure | configure |
//! | queue.bind, unbind | write | read |
//! | exchange.bind, unbind | – | write on the destination, read on the source |
//! | basic.publish | – | write |
//! | basic.get, consume, queue.purge | read | – |
//!
//! The default exchange is called `amq.default`. Whoever may do something may describe.
//!
//! A stream is a queue and a topic: what is asked of the queue is asked of the topic, too (`delete` to delete it), and who
//! publishes needs `write` on the topics that the message comes to. So does the Kafka face ask for both.

use std::sync::Arc;

use broker::access::{Identity, Kind, Namespace, Standing, Verbs};
use broker::queue::{Definition, QueueKind, Route};
use protocol_amqp::ReplyCode;

use super::fault::{Fault, Result};
use super::session::Core;
use crate::config::Face;

impl Core {
    /// The identity is as the catalog has it now. True: something has changed, so consumers must be looked at.
    pub(super) fn stand(&mut self) -> Result<bool> {
        match self.identity.refresh(&self.node.broker.access) {
            Standing::Same => Ok(false),
            Standing::Changed => Ok(true),
            Standing::Gone => Err(Fault::connection(
                ReplyCode::ConnectionForced,
                format!("user '{}' is deleted", self.user),
            )
            .about(0, 0)),
        }
    }

    pub(super) fn may_queue(&self, name: &str, verb: Verbs) -> Result {
        self.may(Kind::Queue, "queue", name, verb)
    }

    /// To consume from it, or to look at it.
    pub(super) fn may_consume(&self, queue: &Definition) -> Result {
        self.may_queue(&queue.name, Verbs::READ)?;
        self.may_stream(queue, Verbs::READ)
    }

    /// What is done to a queue that is a topic, as done to the topic.
    pub(super) fn may_stream(&self, queue: &Definition, verb: Verbs) -> Result {
        match queue.kind {
            QueueKind::Stream => self.may_topic(&queue.name, verb),
            _ => Ok(()),
        }
    }

    pub(super) fn may_topic(&self, name: &str, verb: Verbs) -> Result {
        self.may(Kind::Topic, "topic", name, verb)
    }

    /// To write to the topics that a route leads to; see [`denied_topic`].
    pub(super) fn may_reach(&self, route: &Route) -> Result {
        let mut streams = route.streams();
        streams.try_for_each(|queue| self.may_stream(queue, Verbs::WRITE))
    }

    pub(super) fn may_exchange(&self, name: &str, verb: Verbs) -> Result {
        let name = if name.is_empty() { "amq.default" } else { name };
        self.may(Kind::Exchange, "exchange", name, verb)
    }

    /// To publish; the name as it came, since each message asks.
    pub(super) fn may_publish(&self, exchange: &[u8]) -> Result {
        let name: &[u8] = if exchange.is_empty() {
            b"amq.default"
        } else {
            exchange
        };
        let (kind, namespace) = (Kind::Exchange, Namespace::DEFAULT);
        if self.identity.allows(kind, namespace, name, Verbs::WRITE) {
            return Ok(());
        }
        self.may_exchange(&String::from_utf8_lossy(exchange), Verbs::WRITE)
    }

    /// To open the vhost: to do anything in it.
    pub(super) fn may_enter(&self) -> Result {
        let some = |kind| self.identity.allows_some(kind, Verbs::DESCRIBE);
        if some(Kind::Queue) || some(Kind::Exchange) {
            return Ok(());
        }
        self.note_denied("open vhost", b"/");
        Err(Fault::connection(
            ReplyCode::NotAllowed,
            format!("access to vhost '/' refused for user '{}'", self.user),
        ))
    }

    fn may(&self, kind: Kind, word: &str, name: &str, verb: Verbs) -> Result {
        let namespace = Namespace::DEFAULT;
        if self.identity.allows(kind, namespace, name.as_bytes(), verb) {
            return Ok(());
        }
        let verb = verb.words().next().unwrap_or_default();
        let what = format!("{verb} {word}");
        self.note_denied(&what, name.as_bytes());
        Err(Fault::refused(format!(
            "access to {word} '{name}' in vhost '/' refused for user '{}'",
            self.user
        )))
    }

    fn note_denied(&self, what: &str, object: &[u8]) {
        let (who, from) = (self.identity.name(), self.info.peer.ip());
        self.node.audit.denied(Face::Amqp, who, from, what, object);
    }
}

/// A topic that a route leads to and that may not be written to. Without a note of it.
pub(super) fn denied_topic(identity: &Identity, route: &Route) -> Option<Arc<str>> {
    let may = |name: &str| {
        let (kind, namespace) = (Kind::Topic, Namespace::DEFAULT);
        identity.allows(kind, namespace, name.as_bytes(), Verbs::WRITE)
    };
    let denied = route.streams().find(|queue| !may(&queue.name))?;
    Some(Arc::clone(&denied.name))
}
