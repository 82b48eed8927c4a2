//! `amq.rabbitmq.event`: what happens to connections, channels, consumers and definitions, as messages with RabbitMQ's names
//! and headers. Nothing is made of it while nobody is bound there.

use broker::queue::events::{self, EXCHANGE, Event};
use broker::queue::{Binding, Definition, Destination, Message, QueueKind};
use broker::{Effects, Millis};
use protocol_amqp::{Array, ArrayBuilder, Properties, Table, TableBuilder, Value};

use super::fault::binary;
use super::session::{Core, Subscription};
use crate::node::Node;

/// In whose name the server does what nobody has asked for.
const ITSELF: &str = "rmq-internal";
const NODE: &str = "flowmesh@localhost";

/// A message of the server's own.
pub(super) fn message(
    exchange: &str,
    key: &str,
    headers: &TableBuilder,
    body: &[u8],
    timestamp: Option<u64>,
) -> Message {
    let properties = Properties {
        headers: Some(headers.as_table()),
        delivery_mode: timestamp.map(|_| 2),
        timestamp,
        ..Properties::default()
    };
    let raw = properties.to_raw();
    let is_event = timestamp.is_some();
    Message::new(exchange.as_bytes(), key.as_bytes(), &raw, body, is_event)
}

fn event(key: &str, headers: TableBuilder, user: Option<&str>, now: Millis) -> Message {
    let mut headers = headers;
    if let Some(user) = user {
        headers = headers.with("user_who_performed_action", text(user));
    }
    let headers = headers.with("timestamp_in_ms", long(now.0));
    message(EXCHANGE, key, &headers, b"", Some(now.0 / 1000))
}

fn text(text: &str) -> Value<'_> {
    Value::LongStr(text.as_bytes())
}

fn long(number: u64) -> Value<'static> {
    Value::I64(i64::try_from(number).unwrap_or(i64::MAX))
}

/// What happened to definitions.
pub(super) fn describe(event: &Event, user: Option<&str>, now: Millis) -> Message {
    let user = Some(user.unwrap_or(ITSELF));
    let headers = TableBuilder::new().with("vhost", text("/"));
    let (key, headers) = match event {
        Event::QueueCreated(queue) => ("queue.created", created(queue, headers)),
        Event::QueueDeleted(name) => ("queue.deleted", headers.with("name", text(name))),
        Event::ExchangeCreated(exchange) => {
            let arguments = arguments(&exchange.arguments);
            let headers = headers
                .with("name", text(&exchange.name))
                .with("type", text(exchange.type_name()))
                .with("durable", Value::Bool(exchange.durable))
                .with("auto_delete", Value::Bool(exchange.auto_delete))
                .with("internal", Value::Bool(exchange.internal))
                .with("arguments", Value::Array(arguments.as_array()))
                .with("policy", text(""));
            ("exchange.created", headers)
        }
        Event::ExchangeDeleted(name) => ("exchange.deleted", headers.with("name", text(name))),
        Event::BindingCreated(binding) => ("binding.created", bound(binding, headers)),
        Event::BindingDeleted(binding) => ("binding.deleted", bound(binding, headers)),
    };
    self::event(key, headers, user, now)
}

fn created(queue: &Definition, headers: TableBuilder) -> TableBuilder {
    let arguments = arguments(&queue.arguments);
    let exclusive = queue.exclusive_owner;
    let owner = exclusive.map(pid).unwrap_or_default();
    let headers = headers
        .with("name", text(&queue.name))
        .with("durable", Value::Bool(queue.durable))
        .with("auto_delete", Value::Bool(queue.auto_delete))
        .with("exclusive", Value::Bool(exclusive.is_some()))
        .with("arguments", Value::Array(arguments.as_array()));
    match queue.kind {
        QueueKind::Classic => headers.with("owner_pid", text(&owner)),
        _ => headers.with("type", text("rabbit_quorum_queue")),
    }
}

fn bound(binding: &Binding, headers: TableBuilder) -> TableBuilder {
    let arguments = arguments(&binding.arguments);
    let (kind, name) = match &binding.destination {
        Destination::Queue(queue) => ("queue", &queue.name),
        Destination::Exchange(name) => ("exchange", name),
    };
    headers
        .with("source_name", text(&binding.source))
        .with("source_kind", text("exchange"))
        .with("destination_name", text(name))
        .with("destination_kind", text(kind))
        .with("routing_key", Value::LongStr(&binding.key))
        .with("arguments", Value::Array(arguments.as_array()))
}

/// As RabbitMQ's plugin shows a table: a term of Erlang for each entry.
fn arguments(raw: &[u8]) -> ArrayBuilder {
    let mut shown = ArrayBuilder::new();
    for entry in entries(Table::parse(raw).unwrap_or_default()) {
        shown.push(text(&entry));
    }
    shown
}

fn entries(table: Table<'_>) -> Vec<String> {
    let entry = |(name, value): (&[u8], Value<'_>)| {
        format!("{{{},{},{}}}", binary(name), value.type_name(), term(value))
    };
    table.iter().map(entry).collect()
}

fn term(value: Value<'_>) -> String {
    let each = |items: Array<'_>| -> Vec<String> {
        let one = |value: Value<'_>| format!("{{{},{}}}", value.type_name(), term(value));
        items.iter().map(one).collect()
    };
    match value {
        Value::LongStr(text) | Value::Bytes(text) => binary(text),
        Value::Table(table) => format!("[{}]", entries(table).join(",")),
        Value::Array(items) => format!("[{}]", each(items).join(",")),
        Value::Decimal(scale, number) => format!("{{{scale},{number}}}"),
        other => super::arguments::plain(other),
    }
}

/// A process of RabbitMQ's: here a number that is not used twice.
fn pid(connection: u64) -> String {
    format!("<{NODE}.{connection}.0>")
}

fn channel_pid(connection: u64, channel: u16) -> String {
    format!("<{NODE}.{connection}.{channel}>")
}

/// What a login shows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Login<'a> {
    Success,
    Failure(&'a str),
}

impl Core {
    fn announce(&mut self, message: Message) {
        events::announce(&self.node.broker, message, self.now, &mut self.fx);
    }

    fn is_heard(&self) -> bool {
        self.node.broker.routes.is_heard()
    }

    /// `127.0.0.1:40000 -> 127.0.0.1:5672`.
    pub(super) fn connection_name(&self) -> String {
        format!("{} -> {}", self.info.peer, self.info.local)
    }

    /// What a change of definitions has noted, in this user's name.
    pub(super) fn tell(&mut self, notes: Vec<events::Note>) {
        if !notes.is_empty() {
            let user = self.user.clone();
            events::tell(
                &self.node.broker,
                notes,
                Some(&user),
                self.now,
                &mut self.fx,
            );
        }
    }

    fn at_socket(&self, headers: TableBuilder) -> TableBuilder {
        headers
            .with("host", text(&self.info.local.ip().to_string()))
            .with("peer_host", text(&self.info.peer.ip().to_string()))
            .with("peer_port", long(self.info.peer.port().into()))
            .with("protocol", text("{0,9,1}"))
            .with("ssl", Value::Bool(self.info.tls))
    }

    pub(super) fn tell_login(&mut self, user: &str, mechanism: &str, login: Login<'_>) {
        if !self.is_heard() {
            return;
        }
        let name = self.connection_name();
        let headers = self
            .at_socket(TableBuilder::new())
            .with("name", text(user))
            .with("connection_name", text(&name))
            .with("connection_type", text("network"))
            .with("auth_mechanism", text(mechanism));
        let message = match login {
            Login::Success => event("user.authentication.success", headers, None, self.now),
            Login::Failure(why) => {
                let mut error = ArrayBuilder::new();
                why.bytes().for_each(|octet| error.push(long(octet.into())));
                let headers = headers.with("error", Value::Array(error.as_array()));
                event("user.authentication.failure", headers, None, self.now)
            }
        };
        self.announce(message);
    }

    pub(super) fn tell_connected(&mut self, mechanism: &str) {
        if !self.is_heard() {
            return;
        }
        let mut headers = self
            .at_socket(TableBuilder::new())
            .with("name", text(&self.connection_name()))
            .with("pid", text(&pid(self.info.id)))
            .with("node", text(NODE))
            .with("port", long(self.info.local.port().into()))
            .with("type", text("network"))
            .with("user", text(&self.user))
            .with("vhost", text("/"))
            .with("auth_mechanism", text(mechanism))
            .with("connected_at", long(self.now.0))
            .with("channel_max", long(self.channel_max.into()))
            .with("frame_max", long(self.frame_max.into()))
            .with("timeout", long(self.beat.as_secs() * 2));
        for name in [
            "peer_cert_issuer",
            "peer_cert_subject",
            "peer_cert_validity",
            "ssl_cipher",
            "ssl_hash",
            "ssl_key_exchange",
            "ssl_protocol",
        ] {
            headers = headers.with(name, text(""));
        }
        let properties = arguments(&self.client_properties);
        let headers = headers.with("client_properties", Value::Array(properties.as_array()));
        self.announce(event(
            "connection.created",
            headers,
            Some(&self.user),
            self.now,
        ));
    }

    pub(super) fn tell_disconnected(&mut self) {
        if !self.is_heard() {
            return;
        }
        let properties = arguments(&self.client_properties);
        let headers = TableBuilder::new()
            .with("name", text(&self.connection_name()))
            .with("pid", text(&pid(self.info.id)))
            .with("node", text(NODE))
            .with("client_properties", Value::Array(properties.as_array()));
        self.announce(event("connection.closed", headers, None, self.now));
    }

    pub(super) fn tell_channel(&mut self, channel: u16, opened: bool) {
        if !self.is_heard() {
            return;
        }
        let mut headers =
            TableBuilder::new().with("pid", text(&channel_pid(self.info.id, channel)));
        if opened {
            headers = headers
                .with(
                    "name",
                    text(&format!("{} ({channel})", self.connection_name())),
                )
                .with("connection", text(&pid(self.info.id)))
                .with("number", long(channel.into()))
                .with("user", text(&self.user))
                .with("vhost", text("/"));
        }
        let key = if opened {
            "channel.created"
        } else {
            "channel.closed"
        };
        self.announce(event(key, headers, Some(&self.user), self.now));
    }

    /// `created`: exclusive, prefetch and arguments.
    pub(super) fn tell_consumer(
        &mut self,
        consumer: &Subscription,
        created: Option<(bool, u16, &[u8])>,
    ) {
        if !self.is_heard() {
            return;
        }
        let channel = channel_pid(self.info.id, consumer.channel);
        let mut headers = TableBuilder::new()
            .with("consumer_tag", Value::LongStr(&consumer.tag))
            .with("channel", text(&channel))
            .with("queue", text(&consumer.queue.name))
            .with("vhost", text("/"));
        let mut key = "consumer.deleted";
        if let Some((exclusive, prefetch, raw)) = created {
            let arguments = arguments(raw);
            key = "consumer.created";
            headers = headers
                .with("exclusive", Value::Bool(exclusive))
                .with("ack_required", Value::Bool(!consumer.no_ack))
                .with("prefetch_count", long(prefetch.into()))
                .with("arguments", Value::Array(arguments.as_array()));
        }
        self.announce(event(key, headers, Some(&self.user), self.now));
    }
}

/// What an administrator did to users and grants.
pub fn administered(node: &Node, key: &str, named: &[(&str, &str)], by: Option<&str>) {
    if !node.broker.routes.is_heard() {
        return;
    }
    let now = Millis(node.clock.now_ms());
    let mut headers = TableBuilder::new();
    for (name, value) in named {
        headers = headers.with(name, text(value));
    }
    let message = event(key, headers, Some(by.unwrap_or(ITSELF)), now);
    events::announce(&node.broker, message, now, &mut Effects::new());
    node.broker.engine.flush();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_shown_as_terms() {
        let mut list = ArrayBuilder::new();
        list.push(Value::LongStr(b"a"));
        list.push(Value::I32(1));
        let table = TableBuilder::new()
            .with("x", Value::Array(list.as_array()))
            .with("y", Value::LongStr(b"\x01"))
            .with("z", Value::Bool(true));
        let outer = TableBuilder::new().with("t", Value::Table(table.as_table()));
        assert_eq!(
            entries(outer.as_table()),
            [
                "{<<\"t\">>,table,[{<<\"x\">>,array,[{longstr,<<\"a\">>},{signedint,1}]},{<<\"y\">>,longstr,<<1>>},\
                 {<<\"z\">>,bool,true}]}"
            ]
        );
    }
}
