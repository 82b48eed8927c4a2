//! What a client may do, in Kafka's resources and operations.
//!
//! | operation | topic | group | cluster |
//! | --- | --- | --- | --- |
//! | Read, Write, Delete, Describe | `read`, `write`, `delete`, `describe` | `read`, –, `delete`, `describe` | –, –, –, `describe` |
//! | Create, Alter, AlterConfigs | `configure` | – | `admin` |
//! | DescribeConfigs | `describe` | – | `describe` |
//!
//! The cluster is the area `cluster` of kind admin. Everything is of namespace `default`. A topic that is a stream of the AMQP
//! face is a queue, too, and asks for the same of the queue, where `configure` is to delete it.

use broker::access::{Identity, Kind, Namespace, Standing, Verbs};
use broker::{Broker, stream_queue};

use super::{Failure, KafkaSession};
use crate::config::Face;

/// Bits of Kafka's operations in the "authorized operations" of answers.
const READ: i32 = 1 << 3;
const WRITE: i32 = 1 << 4;
const CREATE: i32 = 1 << 5;
const DELETE: i32 = 1 << 6;
const ALTER: i32 = 1 << 7;
const DESCRIBE: i32 = 1 << 8;
const CLUSTER_ACTION: i32 = 1 << 9;
const DESCRIBE_CONFIGS: i32 = 1 << 10;
const ALTER_CONFIGS: i32 = 1 << 11;
const IDEMPOTENT_WRITE: i32 = 1 << 12;

const CLUSTER: &[u8] = b"cluster";

/// May it be done to the topic? Without a note of it: for lists, where nobody asks for it by name.
pub(super) fn topic(broker: &Broker, identity: &Identity, name: &[u8], verb: Verbs) -> bool {
    identity.allows(Kind::Topic, Namespace::DEFAULT, name, verb)
        && (queue(identity, name, verb) || !stream_queue::is_stream(broker, name))
}

/// The same of the queue that it may be.
fn queue(identity: &Identity, name: &[u8], verb: Verbs) -> bool {
    let verb = if verb == Verbs::DELETE {
        Verbs::CONFIGURE
    } else {
        verb
    };
    identity.allows(Kind::Queue, Namespace::DEFAULT, name, verb)
}

/// The same of a group.
pub(super) fn group(identity: &Identity, name: &str, verb: Verbs) -> bool {
    identity.allows(Kind::Group, Namespace::DEFAULT, name.as_bytes(), verb)
}

/// The same of a transactional id.
pub(super) fn transaction(identity: &Identity, id: &str, verb: Verbs) -> bool {
    identity.allows(
        Kind::TransactionalId,
        Namespace::DEFAULT,
        id.as_bytes(),
        verb,
    )
}

fn cluster(identity: &Identity, verb: Verbs) -> bool {
    identity.allows(Kind::Admin, Namespace::DEFAULT, CLUSTER, verb)
}

impl KafkaSession {
    /// The identity is as the catalog has it now.
    pub(super) fn stand(&mut self) -> Result<(), Failure> {
        match self.identity.refresh(&self.node.broker.access) {
            Standing::Gone => Err(Failure::Login),
            Standing::Same | Standing::Changed => Ok(()),
        }
    }

    pub(super) fn may_topic(&self, name: &str, verb: Verbs) -> bool {
        let broker = &self.node.broker;
        let may = topic(broker, &self.identity, name.as_bytes(), verb);
        if !may {
            self.note_denied(Kind::Topic, name.as_bytes(), verb);
        }
        may
    }

    pub(super) fn may_group(&self, name: &str, verb: Verbs) -> bool {
        self.may(Kind::Group, name.as_bytes(), verb)
    }

    pub(super) fn may_transaction(&self, id: &str, verb: Verbs) -> bool {
        self.may(Kind::TransactionalId, id.as_bytes(), verb)
    }

    pub(super) fn may_cluster(&self, verb: Verbs) -> bool {
        self.may(Kind::Admin, CLUSTER, verb)
    }

    /// To make a topic: one of that name, or any.
    pub(super) fn may_create(&self, name: &str) -> bool {
        cluster(&self.identity, Verbs::ADMIN) || self.may_topic(name, Verbs::CONFIGURE)
    }

    /// A producer without transactions: to write to some topic, or to rule the cluster.
    pub(super) fn may_be_idempotent(&self) -> bool {
        self.writes_somewhere() || self.may_cluster(Verbs::ADMIN)
    }

    fn writes_somewhere(&self) -> bool {
        self.identity.allows_some(Kind::Topic, Verbs::WRITE)
    }

    fn may(&self, kind: Kind, name: &[u8], verb: Verbs) -> bool {
        let may = self.identity.allows(kind, Namespace::DEFAULT, name, verb);
        if !may {
            self.note_denied(kind, name, verb);
        }
        may
    }

    /// For the audit log.
    pub(super) fn note_denied(&self, kind: Kind, name: &[u8], verb: Verbs) {
        let verb = verb.words().next().unwrap_or_default();
        let what = format!("{verb} {}", kind.word());
        let (who, from) = (self.identity.name(), self.info.peer.ip());
        self.node.audit.denied(Face::Kafka, who, from, &what, name);
    }

    pub(super) fn topic_operations(&self, name: &str) -> i32 {
        bits(
            |verb| topic(&self.node.broker, &self.identity, name.as_bytes(), verb),
            &[
                (Verbs::READ, READ),
                (Verbs::WRITE, WRITE),
                (Verbs::CONFIGURE, CREATE | ALTER | ALTER_CONFIGS),
                (Verbs::DELETE, DELETE),
                (Verbs::DESCRIBE, DESCRIBE | DESCRIBE_CONFIGS),
            ],
        )
    }

    pub(super) fn group_operations(&self, name: &str) -> i32 {
        bits(
            |verb| group(&self.identity, name, verb),
            &[
                (Verbs::READ, READ),
                (Verbs::DELETE, DELETE),
                (Verbs::DESCRIBE, DESCRIBE),
            ],
        )
    }

    pub(super) fn cluster_operations(&self) -> i32 {
        let cluster = bits(
            |verb| cluster(&self.identity, verb),
            &[
                (
                    Verbs::ADMIN,
                    WRITE | CREATE | ALTER | CLUSTER_ACTION | ALTER_CONFIGS,
                ),
                (Verbs::DESCRIBE, DESCRIBE | DESCRIBE_CONFIGS),
            ],
        );
        cluster
            | if self.writes_somewhere() {
                IDEMPOTENT_WRITE
            } else {
                0
            }
    }
}

fn bits(may: impl Fn(Verbs) -> bool, table: &[(Verbs, i32)]) -> i32 {
    table
        .iter()
        .filter(|(verb, _)| may(*verb))
        .fold(0, |bits, (_, more)| bits | more)
}
