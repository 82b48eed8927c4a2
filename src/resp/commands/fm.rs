//! What Redis does not have: messages and records in the same transaction as keys.
//!
//! Such a command is planned before any lock is taken (which queues, which partition), checked under the locks before
//! anything changes, and then runs with its transaction as one record of the log.

use std::sync::Arc;

use broker::access::{Identity, Kind, Namespace, Verbs};
use broker::queue::{self, Headers, Message, Route, RouteError};
use broker::stream::{self, PartitionRef, Topic};
use broker::{Ctx, Durability, Effects, Locked, ShardSet};
use bytes::Bytes;
use protocol_amqp::{Properties, TableBuilder, Value};
use protocol_resp::{Args, Encoder};

use super::function::Loads;
use crate::node::Node;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{int, is};
use crate::resp::permission::{self, Rights};
use crate::resp::session::TRANSACTION_MAX;
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    Spec {
        run: Run::Planned(plan_publish),
        ..container(
            "fm.publish",
            "0.1.0",
            "Publishes a message to an exchange.",
            &[],
        )
    }
    .with_arity(-4)
    .with_flags(WRITE.and(DENYOOM))
    .needing(Rights::With(permission::publish)),
    Spec {
        run: Run::Planned(plan_produce),
        ..container("fm.produce", "0.1.0", "Appends a record to a topic.", &[])
    }
    .with_arity(-4)
    .with_flags(WRITE.and(DENYOOM))
    .needing(Rights::With(permission::produce)),
];

/// AMQP short strings are no longer.
const SHORT_MAX: usize = 255;

type Pairs = Vec<(Vec<u8>, Vec<u8>)>;

/// A command that knows what it needs.
#[derive(Debug)]
pub(crate) enum Plan {
    Publish {
        route: Route,
        message: Message,
        headers: Pairs,
        mandatory: bool,
    },
    Produce {
        topic: Arc<Topic>,
        at: PartitionRef,
        index: usize,
        key: Vec<u8>,
        value: Vec<u8>,
        headers: Pairs,
    },
    /// See [`super::function`].
    Load(Loads),
}

/// What must follow the commit of a transaction with plans.
#[derive(Debug, Default)]
pub(crate) struct After {
    /// The strictest class among the messages and records.
    pub(crate) class: Option<Durability>,
}

impl After {
    fn strictest(&mut self, class: Durability) {
        self.class = self.class.max(Some(class));
    }
}

/// Message headers as a headers exchange compares them.
struct Texts<'a>(&'a Pairs);

impl Headers for Texts<'_> {
    fn value(&self, name: &[u8]) -> Option<Bytes> {
        let (_, value) = self.0.iter().find(|(known, _)| known == name)?;
        let mut built = TableBuilder::new();
        built.push(b"", Value::LongStr(value));
        Some(Bytes::copy_from_slice(built.as_table().as_bytes()))
    }
}

/// `HEADERS n name value …` at `at`; where it ends.
fn headers(args: &Args<'_>, at: usize) -> Result<(Pairs, usize), Fail> {
    let count =
        usize::try_from(int(args.get(at + 1).ok_or(Fail::Syntax)?)?).map_err(|_| Fail::Syntax)?;
    let end = count
        .checked_mul(2)
        .and_then(|words| words.checked_add(at + 2))
        .ok_or(Fail::Syntax)?;
    if end > args.len() {
        return Err(Fail::Syntax);
    }
    let pairs = (at + 2..end)
        .step_by(2)
        .map(|place| (args.at(place).to_vec(), args.at(place + 1).to_vec()))
        .collect();
    Ok((pairs, end))
}

fn plan_publish(
    node: &Node,
    ctx: &Ctx,
    args: &Args<'_>,
    in_transaction: bool,
) -> Result<Plan, Fail> {
    let (exchange, key, body) = (args.at(1), args.at(2), args.at(3));
    let (mut pairs, mut mandatory, mut transient) = (Pairs::new(), false, false);
    let mut at = 4;
    while let Some(word) = args.get(at) {
        if is(word, "HEADERS") && pairs.is_empty() {
            (pairs, at) = headers(args, at)?;
            continue;
        }
        if is(word, "MANDATORY") {
            mandatory = true;
        } else if is(word, "TRANSIENT") {
            transient = true;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    if transient && in_transaction {
        return Err(Fail::Text(
            "ERR TRANSIENT is not allowed inside a transaction: a message that may be lost is not part of it",
        ));
    }
    if exchange.len() > SHORT_MAX
        || key.len() > SHORT_MAX
        || pairs.iter().any(|(name, _)| name.len() > SHORT_MAX)
    {
        return Err(Fail::Text(
            "ERR exchange, routing key and header names are at most 255 bytes long",
        ));
    }
    let limit = node.config.amqp_max_message_size.0;
    if body.len() as u64 > limit {
        return Err(Fail::Owned(format!(
            "ERR message size {} is larger than configured max size {limit}",
            body.len()
        )));
    }
    let mut table = TableBuilder::new();
    for (name, value) in &pairs {
        table.push(name, Value::LongStr(value));
    }
    let properties = Properties {
        headers: (!pairs.is_empty()).then(|| table.as_table()),
        delivery_mode: Some(if transient { 1 } else { 2 }),
        timestamp: Some(ctx.now.0 / 1000),
        ..Properties::default()
    };
    let message = Message::with_body(
        exchange,
        key,
        &properties.to_raw(),
        &Bytes::copy_from_slice(body),
        !transient,
    );
    let route = route(node, &message, &pairs)?;
    Ok(Plan::Publish {
        route,
        message,
        headers: pairs,
        mandatory,
    })
}

fn route(node: &Node, message: &Message, headers: &Pairs) -> Result<Route, Fail> {
    node.broker
        .routes
        .route(message.exchange(), message.routing_key(), &Texts(headers))
        .map_err(|error| {
            let exchange = lossy(message.exchange(), SHORT_MAX);
            Fail::Owned(match error {
                RouteError::NoExchange => format!("NOTFOUND no exchange '{exchange}' in vhost '/'"),
                // Asked for the topics it is by [`Plan::permit`].
                RouteError::Internal | RouteError::Refused => {
                    format!("NOPERM cannot publish to internal exchange '{exchange}' in vhost '/'")
                }
            })
        })
}

fn plan_produce(node: &Node, ctx: &Ctx, args: &Args<'_>, _: bool) -> Result<Plan, Fail> {
    let (mut pairs, mut partition) = (Pairs::new(), None);
    let mut at = 4;
    while let Some(word) = args.get(at) {
        if is(word, "HEADERS") && pairs.is_empty() {
            (pairs, at) = headers(args, at)?;
        } else if is(word, "PARTITION") && partition.is_none() {
            partition = Some(int(args.get(at + 1).ok_or(Fail::Syntax)?)?);
            at += 2;
        } else {
            return Err(Fail::Syntax);
        }
    }
    let name =
        std::str::from_utf8(args.at(1)).map_err(|_| Fail::Text("ERR a topic's name is text"))?;
    let known = node.broker.topics.get(name);
    let topic = match known {
        Some(topic) => topic,
        None if !node.config.kafka_auto_create_topics => {
            return Err(Fail::Owned(format!(
                "NOTFOUND no topic '{}', and kafka-auto-create-topics is off",
                lossy(args.at(1), 249)
            )));
        }
        None => stream::ensure_topic(&node.broker, ctx, name)
            .map_err(|error| Fail::Owned(format!("ERR {error}")))?,
    };
    if topic.is_reserved() {
        return Err(Fail::Text("ERR the server alone writes this topic"));
    }
    let key = args.at(2);
    let index = match partition {
        Some(index) => usize::try_from(index).unwrap_or(usize::MAX),
        // An empty key is no key, as a client cannot say null here.
        None => stream::partition_index(&topic, (!key.is_empty()).then_some(key), ctx),
    };
    let found = i32::try_from(index)
        .ok()
        .and_then(|index| topic.partition(index));
    let Some(at) = found else {
        return Err(Fail::Owned(format!(
            "NOTFOUND topic '{name}' has {} partitions",
            topic.partitions.len()
        )));
    };
    Ok(Plan::Produce {
        topic,
        at,
        index,
        key: key.to_vec(),
        value: args.at(3).to_vec(),
        headers: pairs,
    })
}

impl Plan {
    pub(crate) fn shards(&self) -> ShardSet {
        match self {
            Self::Publish { route, .. } => route.shards,
            Self::Produce { at, .. } => ShardSet::of(at.shard()),
            Self::Load(_) => ShardSet::CATALOG,
        }
    }

    /// Still true, now that the locks are held?
    pub(crate) fn stands(&self, node: &Node) -> bool {
        match self {
            Self::Publish { route, .. } => route.epoch == node.broker.routes.epoch(),
            Self::Produce { .. } | Self::Load(_) => true,
        }
    }

    /// Plans anew what has changed meanwhile. Without locks.
    pub(crate) fn renew(&mut self, node: &Node) -> Done {
        if let Self::Publish {
            route: old,
            message,
            headers,
            ..
        } = self
        {
            *old = route(node, message, headers)?;
        }
        Ok(())
    }

    /// May the client write to the topics that its message comes to?
    pub(crate) fn permit(&self, identity: &Identity) -> Done {
        let Self::Publish { route, .. } = self else {
            return Ok(());
        };
        let may = |name: &str| {
            let (kind, namespace) = (Kind::Topic, Namespace::DEFAULT);
            identity.allows(kind, namespace, name.as_bytes(), Verbs::WRITE)
        };
        match route.streams().find(|queue| !may(&queue.name)) {
            None => Ok(()),
            Some(queue) => Err(Fail::Owned(format!(
                "NOPERM the message would come to topic '{}', which this user may not write to",
                queue.name
            ))),
        }
    }

    /// Everything that could fail; nothing has changed yet.
    pub(crate) fn check(&self, locked: &mut Locked<'_>) -> Done {
        match self {
            Self::Publish {
                route,
                message,
                mandatory,
                ..
            } => {
                if *mandatory && route.queues.is_empty() {
                    return Err(Fail::Owned(format!(
                        "NOROUTE no queue gets a message from exchange '{}' with routing key '{}'",
                        lossy(message.exchange(), SHORT_MAX),
                        lossy(message.routing_key(), SHORT_MAX)
                    )));
                }
                // With what else is in the record it stays below 4 GiB.
                if queue::octets(route, message) > TRANSACTION_MAX {
                    return Err(Fail::Text(
                        "ERR the message is too large for so many queues at once",
                    ));
                }
                if let Some(queue) = queue::refusing(locked, route, message) {
                    return Err(Fail::Owned(format!(
                        "QUEUEFULL queue '{}' takes no more messages",
                        queue.name
                    )));
                }
                Ok(())
            }
            Self::Produce {
                topic,
                at,
                key,
                value,
                headers,
                ..
            } => {
                let size = key.len()
                    + value.len()
                    + headers
                        .iter()
                        .map(|(name, value)| name.len() + value.len() + 20)
                        .sum::<usize>();
                stream::check_record(locked, topic, *at, size)
                    .map_err(|error| Fail::Owned(format!("ERR {error}")))?;
                if topic.config.compacted && key.is_empty() {
                    return Err(Fail::Text("ERR a compacted topic needs a key"));
                }
                Ok(())
            }
            // In a transaction it fails alone.
            Self::Load(_) => Ok(()),
        }
    }

    /// Does it, and replies. The shards are locked and [`Plan::check`] has passed.
    pub(crate) fn run(
        self,
        node: &Node,
        locked: &mut Locked<'_>,
        fx: &mut Effects,
        ctx: &Ctx,
        after: &mut After,
        out: &mut Encoder<'_>,
    ) -> Done {
        match self {
            Self::Publish { route, message, .. } => {
                let delivered = queue::deliver(locked, &route, message, ctx.now, fx);
                if delivered.quorum {
                    after.strictest(Durability::Sync);
                } else if delivered.logged {
                    after.strictest(node.config.amqp_durability);
                }
                out.integer(i64::from(delivered.queues));
            }
            Self::Produce {
                topic,
                at,
                index,
                key,
                value,
                headers,
            } => {
                let headers: Vec<(&[u8], &[u8])> = headers
                    .iter()
                    .map(|(name, value)| (&**name, &**value))
                    .collect();
                let key = (!key.is_empty()).then_some(key.as_slice());
                let offset =
                    stream::append_record(locked, fx, ctx, &topic, at, key, Some(&value), &headers)
                        .map_err(|error| Fail::Owned(format!("ERR {error}")))?;
                after.strictest(node.broker.topics.durability());
                out.array(2);
                out.count(index);
                out.integer(i64::try_from(offset).unwrap_or(i64::MAX));
            }
            Self::Load(loads) => loads.run(locked, fx, out)?,
        }
        Ok(())
    }
}
