//! `amq.rabbitmq.trace`: a copy of each message that is published or delivered, while an administrator wants that
//! (`rabbitmqctl trace_on`). It costs one relaxed load per message while nobody does.

use broker::queue::events::announce;
use broker::queue::{Definition, Entry, Message, TRACE};
use protocol_amqp::{ArrayBuilder, Properties, ShortStr, Table, TableBuilder, Value};

use super::content;
use super::events;
use super::session::Core;

impl Core {
    /// Does somebody want to see this message?
    #[inline]
    pub(super) fn is_traced(&self, exchange: &[u8]) -> bool {
        self.node.is_traced() && exchange != TRACE.as_bytes() && self.node.broker.routes.is_traced()
    }

    /// A message was taken from the client, for where its exchange leads to now.
    pub(super) fn trace_publish(&mut self, message: &Message, channel: u16) {
        let properties = Properties::parse(message.properties()).unwrap_or_default();
        let (exchange, key) = (message.exchange(), message.routing_key());
        let routes = &self.node.broker.routes;
        let route = content::copies_route(routes, exchange, key, &properties).unwrap_or_default();
        let mut queues = ArrayBuilder::new();
        for queue in &route.queues {
            queues.push(Value::LongStr(queue.name.as_bytes()));
        }
        let exchange = String::from_utf8_lossy(exchange);
        let name = format!("publish.{exchange}");
        let headers = self.headers(message, &properties, channel);
        let headers = headers.with("routed_queues", Value::Array(queues.as_array()));
        self.announce_trace(&name, &headers, message);
    }

    /// A message goes to the client.
    pub(super) fn trace_deliver(&mut self, entry: &Entry, queue: &Definition, channel: u16) {
        let message = entry.message();
        let properties = Properties::parse(message.properties()).unwrap_or_default();
        let headers = self
            .headers(message, &properties, channel)
            .with("redelivered", Value::I32(i32::from(entry.is_redelivered())));
        self.announce_trace(&format!("deliver.{}", queue.name), &headers, message);
    }

    fn announce_trace(&mut self, key: &str, headers: &TableBuilder, message: &Message) {
        let copy = events::message(TRACE, key, headers, message.body(), None);
        announce(&self.node.broker, copy, self.now, &mut self.fx);
    }

    fn headers(
        &self,
        message: &Message,
        properties: &Properties<'_>,
        channel: u16,
    ) -> TableBuilder {
        let mut keys = ArrayBuilder::new();
        keys.push(Value::LongStr(message.routing_key()));
        let sent = properties.headers.unwrap_or_default();
        if let Some(Value::Array(copies)) = sent.get("CC") {
            copies.iter().for_each(|key| keys.push(key));
        }
        let shown = shown(properties, sent);
        TableBuilder::new()
            .with("exchange_name", Value::LongStr(message.exchange()))
            .with("routing_keys", Value::Array(keys.as_array()))
            .with("properties", Value::Table(shown.as_table()))
            .with("node", Value::LongStr(b"flowmesh@localhost"))
            .with("vhost", Value::LongStr(b"/"))
            .with(
                "connection",
                Value::LongStr(self.connection_name().as_bytes()),
            )
            .with("channel", Value::I32(channel.into()))
            .with("user", Value::LongStr(self.user.as_bytes()))
    }
}

fn shown(properties: &Properties<'_>, headers: Table<'_>) -> TableBuilder {
    let mut shown = TableBuilder::new();
    let texts: [(&str, Option<ShortStr<'_>>); 10] = [
        ("content_type", properties.content_type),
        ("content_encoding", properties.content_encoding),
        ("correlation_id", properties.correlation_id),
        ("reply_to", properties.reply_to),
        ("expiration", properties.expiration),
        ("message_id", properties.message_id),
        ("type", properties.kind),
        ("user_id", properties.user_id),
        ("app_id", properties.app_id),
        ("cluster_id", properties.cluster_id),
    ];
    for (name, value) in texts {
        if let Some(value) = value {
            shown = shown.with(name, Value::LongStr(value.0));
        }
    }
    for (name, value) in [
        ("delivery_mode", properties.delivery_mode.map(i64::from)),
        ("priority", properties.priority.map(i64::from)),
        ("timestamp", properties.timestamp.map(u64::cast_signed)),
    ] {
        if let Some(value) = value {
            let small = i32::try_from(value).map_or(Value::I64(value), Value::I32);
            shown = shown.with(name, small);
        }
    }
    if properties.headers.is_some() {
        shown = shown.with("headers", Value::Table(headers));
    }
    shown
}
