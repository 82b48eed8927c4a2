//! A publish: method, content header, body frames, and then into the broker.

use std::borrow::Cow;
use std::cell::Cell;

use broker::access::Verbs;
use broker::queue::{self, Delivered, Message, NoHeaders, Route, RouteError, Routes};
use broker::{Broker, Effects, Lsn, Millis, ShardSet, stream_queue};
use protocol_amqp::{ContentHeader, Frame, FrameKind, Method, Properties, ReplyCode, Value};

use super::channel::{Channel, Confirms, RouteCache, Stage, TxPublish};
use super::delay;
use super::fault::{Fault, Result};
use super::headers::MessageHeaders;
use super::session::{Core, has_quorum};
use super::{names, permission};
use crate::net::Outbox;

/// Octets that one transaction may write: it becomes one record of the log, which is smaller than 4 GiB.
pub(super) const TX_MAX: usize = 1 << 30;
/// Delayed messages of one transaction.
const TX_DELAYED_MAX: usize = 50_000;
/// Properties above this are not kept for the next message: each of 2,047 channels may have had one large table.
const KEEP_PROPERTIES: usize = 4 << 10;

pub(super) fn unexpected(detail: impl Into<String>) -> Fault {
    Fault::connection(ReplyCode::UnexpectedFrame, detail).about(60, 40)
}

/// Content where none was announced: no method is to blame.
pub(super) fn unannounced() -> Fault {
    unexpected("expected method frame, got non method frame instead").about(0, 0)
}

/// A method came: there must be no content under way.
pub(super) fn no_content(channel: &Channel) -> Result {
    match channel.publishing.stage {
        Stage::Method => Ok(()),
        Stage::Header => Err(unexpected(
            "expected content header for class 60, got non content header frame instead",
        )),
        Stage::Body => Err(unexpected(
            "expected content body, got non content body frame instead",
        )),
    }
}

/// `basic.publish`
pub(super) fn start(
    channel: &mut Channel,
    exchange: &[u8],
    routing_key: &[u8],
    mandatory: bool,
    immediate: bool,
) -> Result {
    no_content(channel)?;
    if immediate {
        return Err(Fault::not_implemented("immediate=true"));
    }
    let publishing = &mut channel.publishing;
    publishing.exchange.clear();
    publishing.exchange.extend_from_slice(exchange);
    publishing.routing_key.clear();
    publishing.routing_key.extend_from_slice(routing_key);
    publishing.mandatory = mandatory;
    publishing.stage = Stage::Header;
    Ok(())
}

/// A content header frame.
pub(super) fn header(core: &mut Core, channel: &mut Channel, payload: &[u8]) -> Result {
    match channel.publishing.stage {
        Stage::Header => {}
        Stage::Method => {
            return Err(unannounced());
        }
        Stage::Body => {
            return Err(unexpected(
                "expected content body, got non content body frame instead",
            ));
        }
    }
    let syntax = |error: protocol_amqp::DecodeError| {
        Fault::connection(ReplyCode::SyntaxError, error.to_string())
    };
    let header = ContentHeader::decode(payload).map_err(syntax)?;
    if header.class != protocol_amqp::BASIC_CLASS {
        return Err(unexpected(format!(
            "expected content header for class 60, got one for class {} instead",
            header.class
        )));
    }
    let properties = Properties::parse(header.properties).map_err(syntax)?;
    let publishing = &mut channel.publishing;
    publishing.stage = Stage::Method;
    let limit = core.node.config.amqp_max_message_size.0;
    if header.body_size > limit {
        return Err(Fault::precondition(format!(
            "message size {} is larger than configured max size {limit}",
            header.body_size
        )));
    }
    check_properties(core, &properties)?;
    publishing.expiration_ms = expiration(&properties);
    publishing.properties.clear();
    if properties
        .reply_to
        .is_some_and(|name| name.0 == names::REPLY_TO.as_bytes())
    {
        let Some(queue) = &channel.reply_queue else {
            publishing.stage = Stage::Method;
            return Err(Fault::precondition("fast reply consumer does not exist"));
        };
        let reply_to = Some(queue.as_str().into());
        Properties {
            reply_to,
            ..properties
        }
        .write(&mut publishing.properties);
    } else {
        publishing.properties.extend_from_slice(header.properties);
    }
    publishing.persistent = properties.is_persistent();
    publishing.priority = properties.priority.unwrap_or(0);
    let headers = properties.headers.unwrap_or_default();
    publishing.copies = headers.get("CC").is_some() || headers.get("BCC").is_some();
    publishing.delay_ms = delay::of(headers);
    publishing.body_size = header.body_size;
    publishing.whole = publishing.assembly.start(header.body_size).map(Some);
    if publishing.whole.is_none() {
        publishing.stage = Stage::Body;
        publishing.held = publishing.properties.len();
        core.held += publishing.held;
    }
    Ok(())
}

/// Milliseconds that a message may wait in a queue; `None` also when it is no number.
pub(super) fn expiration(properties: &Properties<'_>) -> Option<u64> {
    let text = properties.expiration?;
    whole_number(&String::from_utf8_lossy(text.0)).ok()
}

fn check_properties(core: &Core, properties: &Properties<'_>) -> Result {
    if let Some(user) = properties.user_id
        && user.0 != core.user.as_bytes()
    {
        return Err(Fault::precondition(format!(
            "user_id property set to '{}' but authenticated user was '{}'",
            String::from_utf8_lossy(user.0),
            core.user
        )));
    }
    if let Some(expiration) = properties.expiration {
        let text = String::from_utf8_lossy(expiration.0);
        if let Err(why) = whole_number(&text) {
            return Err(Fault::precondition(format!(
                "invalid expiration '{text}': {why}"
            )));
        }
    }
    for name in ["CC", "BCC"] {
        match properties.headers.and_then(|headers| headers.get(name)) {
            None => {}
            Some(Value::Array(keys)) if keys.iter().all(|key| key.as_bytes().is_some()) => {}
            Some(other) => {
                return Err(Fault::precondition(format!(
                    "invalid message: {{unacceptable_type_in_header,\"{name}\",{}}}",
                    other.type_name()
                )));
            }
        }
    }
    Ok(())
}

/// Milliseconds of an expiration, or why they are none, in the words of Erlang's `string:to_integer`.
fn whole_number(text: &str) -> std::result::Result<u64, String> {
    let sign = usize::from(text.starts_with(['-', '+']));
    let digits = text
        .bytes()
        .skip(sign)
        .take_while(u8::is_ascii_digit)
        .count();
    let (number, rest) = text.split_at_checked(sign + digits).unwrap_or((text, ""));
    if digits == 0 {
        return Err("no_integer".into());
    }
    if !rest.is_empty() {
        return Err(format!("{{leftover_string,\"{rest}\"}}"));
    }
    if number.starts_with('-') {
        return Err(format!("{{value_negative,{number}}}"));
    }
    number
        .parse()
        .map_err(|_| format!("{{value_too_big,{number}}}"))
}

/// A body frame. One that holds the whole body is not kept: [`publish`] reads it where it lies.
pub(super) fn body(core: &mut Core, channel: &mut Channel, frame: &Frame<'_>) -> Result {
    let publishing = &mut channel.publishing;
    match publishing.stage {
        Stage::Body => {}
        Stage::Method => {
            return Err(unannounced());
        }
        Stage::Header => {
            return Err(unexpected(
                "expected content header for class 60, got non content header frame instead",
            ));
        }
    }
    if publishing.assembly.left() == publishing.body_size
        && frame.payload.len() as u64 == publishing.body_size
    {
        publishing.stage = Stage::Method;
        publishing.assembly.start(0);
        publishing.whole = Some(None);
        core.held -= std::mem::take(&mut publishing.held);
        return Ok(());
    }
    let whole = publishing
        .assembly
        .push(frame.shared())
        .map_err(|_| unexpected("content body is longer than its header declared"))?;
    if whole.is_some() {
        publishing.stage = Stage::Method;
        publishing.whole = Some(whole);
        core.held -= std::mem::take(&mut publishing.held);
    } else {
        publishing.held += frame.payload.len();
        core.held += frame.payload.len();
    }
    Ok(())
}

/// Has the last frame completed a message?
pub(super) fn is_complete(channel: &Channel) -> bool {
    channel.publishing.whole.is_some()
}

pub(super) fn tx_too_large() -> Fault {
    Fault::precondition(format!("transaction is larger than {TX_MAX} octets"))
}

/// The message is complete: into the queues, or into the transaction.
pub(super) fn publish(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    frame: &Frame<'_>,
    out: &mut Outbox,
) -> Result {
    let result = publish_whole(core, channel, id, frame, out);
    if channel.publishing.properties.capacity() > KEEP_PROPERTIES {
        channel.publishing.properties = Vec::new();
    }
    result
}

fn publish_whole(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    frame: &Frame<'_>,
    out: &mut Outbox,
) -> Result {
    let Some(whole) = channel.publishing.whole.take() else {
        return Ok(());
    };
    let publishing = &channel.publishing;
    let (exchange, key) = (&publishing.exchange[..], &publishing.routing_key[..]);
    // What is delayed is routed by them later.
    let properties = if publishing.copies && publishing.delay_ms.is_none() {
        without_bcc(&publishing.properties)
    } else {
        Cow::Borrowed(&publishing.properties[..])
    };
    let properties = &properties[..];
    let mut message = match whole {
        None if frame.kind == FrameKind::Body && frame.payload.len() < 4096 => Message::new(
            exchange,
            key,
            properties,
            frame.payload,
            publishing.persistent,
        ),
        None => Message::with_body(
            exchange,
            key,
            properties,
            &frame.shared(),
            publishing.persistent,
        ),
        Some(body) => Message::with_body(exchange, key, properties, &body, publishing.persistent),
    };
    message.set_priority(publishing.priority);
    if let Some(expiration) = publishing.expiration_ms
        && publishing.delay_ms.is_none()
    {
        message.expire_at(Millis(core.now.0.saturating_add(expiration)));
    }
    core.may_publish(exchange)?;
    if core.is_traced(exchange) {
        core.trace_publish(&message, id);
    }
    let mandatory = publishing.mandatory;
    if channel.tx.is_some() {
        let route = find_route(core, channel)?;
        core.may_reach(&route)?;
        if let Some(tx) = &mut channel.tx {
            tx.octets = tx.octets.saturating_add(queue::octets(&route, &message));
            if tx.octets > TX_MAX {
                return Err(tx_too_large());
            }
            tx.delayed += usize::from(channel.publishing.delay_ms.is_some());
            if tx.delayed > TX_DELAYED_MAX {
                return Err(Fault::precondition(format!(
                    "transaction delays more than {TX_DELAYED_MAX} messages"
                )));
            }
            let publish = TxPublish {
                message,
                route,
                mandatory,
                delay_ms: channel.publishing.delay_ms,
            };
            tx.held += publish.held();
            core.held += publish.held();
            tx.publishes.push(publish);
        }
        return Ok(());
    }
    let special = publishing.copies || publishing.delay_ms.is_some();
    if special || !channel.batch.goes_to(exchange, key) {
        flush(core, channel, id, out)?;
    }
    if let Some(delay_ms) = channel.publishing.delay_ms {
        return delayed(core, channel, id, message, delay_ms, out);
    }
    if channel.publishing.copies {
        return with_copies(core, channel, id, message, out);
    }
    let returned = mandatory.then(|| message.clone());
    channel.batch.push(message);
    if core.batched.last() != Some(&id) {
        core.batched.push(id);
    }
    if let Some(message) = returned {
        // One by one: the answer to each comes before its confirm.
        let last = flush(core, channel, id, out)?;
        if last.queues == 0 {
            return_message(core, id, &message, out);
        }
    } else if channel.batch.is_full() {
        flush(core, channel, id, out)?;
    }
    Ok(())
}

/// Tells the broker what a channel has gathered. Gives what became of the last message.
pub(super) fn flush(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    out: &mut Outbox,
) -> Result<Delivered> {
    let Channel {
        batch,
        routes,
        confirms,
        ..
    } = channel;
    let Some(first) = batch.messages.first() else {
        return Ok(Delivered::default());
    };
    let denied = Cell::new(None);
    let identity = &core.identity;
    let may = |route: &Route| {
        let topic = permission::denied_topic(identity, route);
        let may = topic.is_none();
        denied.set(topic);
        may
    };
    let (broker, now, fx) = (&core.node.broker, core.now, &mut core.fx);
    let route = routes.get(first.exchange(), first.routing_key());
    let (messages, told) = (&mut batch.messages, &mut batch.told);
    let result = match route {
        // Through the remembered route while it stands.
        Some(route) => queue::publish(broker, route, messages, &NoHeaders, &may, told, now, fx),
        None => Unrouted {
            broker,
            routes,
            may: &may,
            now,
            fx,
        }
        .one_by_one(messages, told),
    };
    let lsn = match result {
        Ok(lsn) => lsn,
        Err(error) => {
            let fault = messages
                .first()
                .map(|message| route_fault(error, message.exchange()));
            messages.clear();
            if let Some(topic) = denied.take() {
                core.may_topic(&topic, Verbs::WRITE)?;
            }
            return Err(fault.unwrap_or_else(|| route_fault(error, b"")));
        }
    };
    confirm(core, confirms.as_mut(), id, told, lsn, out);
    Ok(told.last().copied().unwrap_or_default())
}

/// In confirm mode: what was published waits for its record and is confirmed at the end of the turn.
fn confirm(
    core: &mut Core,
    confirms: Option<&mut Confirms>,
    id: u16,
    told: &[Delivered],
    lsn: Lsn,
    out: &mut Outbox,
) {
    let Some(confirms) = confirms else { return };
    for delivered in told {
        confirms.published += 1;
        if delivered.refused {
            confirms.refused.push(confirms.published);
        }
    }
    if told.iter().any(|delivered| delivered.logged) {
        let quorum = told.iter().any(|delivered| delivered.quorum);
        out.need(core.need(lsn, quorum));
    }
    if core.unconfirmed.last() != Some(&id) {
        core.unconfirmed.push(id);
    }
}

/// Publishes messages whose route is not remembered: perhaps it depends on the headers of each.
struct Unrouted<'a> {
    broker: &'a Broker,
    routes: &'a mut RouteCache,
    may: &'a dyn Fn(&Route) -> bool,
    now: Millis,
    fx: &'a mut Effects,
}

impl Unrouted<'_> {
    /// Messages of one exchange and key, which `routes` was asked for last.
    fn one_by_one(
        mut self,
        messages: &mut Vec<Message>,
        told: &mut Vec<Delivered>,
    ) -> std::result::Result<Lsn, RouteError> {
        let mut all_told = Vec::with_capacity(messages.len());
        let mut newest = Lsn(0);
        let mut remembered = false;
        for message in std::mem::take(messages) {
            messages.push(message.clone());
            let (exchange, key) = (message.exchange(), message.routing_key());
            let route = if remembered {
                self.routes.get(exchange, key)
            } else {
                None
            };
            let lsn = match route {
                Some(route) => {
                    let (broker, may, now) = (self.broker, self.may, self.now);
                    queue::publish(broker, route, messages, &NoHeaders, may, told, now, self.fx)?
                }
                None => {
                    let (lsn, by_key) = self.by_headers(&message, messages, told)?;
                    remembered = by_key;
                    lsn
                }
            };
            newest = newest.max(lsn);
            all_told.append(told);
        }
        *told = all_told;
        Ok(newest)
    }

    /// Publishes one message; true: its route follows from the key alone, and is remembered.
    fn by_headers(
        &mut self,
        message: &Message,
        messages: &mut Vec<Message>,
        told: &mut Vec<Delivered>,
    ) -> std::result::Result<(Lsn, bool), RouteError> {
        let (broker, may, now) = (self.broker, self.may, self.now);
        let properties = Properties::parse(message.properties()).unwrap_or_default();
        let headers = MessageHeaders::of(properties);
        let (exchange, key) = (message.exchange(), message.routing_key());
        let mut route = broker.routes.route(exchange, key, &headers)?;
        let lsn = queue::publish(
            broker, &mut route, messages, &headers, may, told, now, self.fx,
        )?;
        let by_key = route.by_key;
        if by_key {
            self.routes.insert(route);
        }
        Ok((lsn, by_key))
    }
}

/// A message that is routed later. It has a row from now on; that it has no route is not known yet, so it is not returned.
fn delayed(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    message: Message,
    delay_ms: u64,
    out: &mut Outbox,
) -> Result {
    // The exchange must be there, and be one to publish to.
    let route = find_route(core, channel)?;
    core.may_reach(&route)?;
    let broker = &core.node.broker;
    if stream_queue::refusing(broker, &route, &message).is_some() {
        let refused = Delivered {
            queues: 1,
            refused: true,
            ..Delivered::default()
        };
        confirm(core, channel.confirms.as_mut(), id, &[refused], Lsn(0), out);
        return Ok(());
    }
    let mut locked = broker.lock(ShardSet::of(queue::delay::shard_of(&message)));
    let due = Millis(core.now.0.saturating_add(delay_ms));
    queue::delay::put(&mut locked, message, due, &mut core.fx);
    let lsn = locked.commit(core.now, &mut core.fx);
    drop(locked);
    // It is as safe as it would be where it goes now.
    let kept = Delivered {
        queues: 1,
        logged: true,
        quorum: has_quorum(&route),
        ..Delivered::default()
    };
    confirm(core, channel.confirms.as_mut(), id, &[kept], lsn, out);
    Ok(())
}

/// A message that goes to the keys in CC and BCC, too.
fn with_copies(
    core: &mut Core,
    channel: &mut Channel,
    id: u16,
    message: Message,
    out: &mut Outbox,
) -> Result {
    let publishing = &channel.publishing;
    let (exchange, key) = (&publishing.exchange[..], &publishing.routing_key[..]);
    let failed = |error| route_fault(error, exchange);
    let returned = publishing.mandatory.then(|| message.clone());
    let properties = Properties::parse(&publishing.properties).unwrap_or_default();
    let routes = &core.node.broker.routes;
    let mut route = copies_route(routes, exchange, key, &properties).map_err(failed)?;
    let (delivered, lsn) = deliver_copies(core, &mut route, message, &properties)?;
    if delivered.queues == 0
        && let Some(message) = returned
    {
        return_message(core, id, &message, out);
    }
    confirm(core, channel.confirms.as_mut(), id, &[delivered], lsn, out);
    Ok(())
}

/// The route of the message under way, for a transaction.
fn find_route(core: &Core, channel: &Channel) -> Result<Route> {
    let publishing = &channel.publishing;
    let properties = Properties::parse(&publishing.properties).unwrap_or_default();
    copies_route(
        &core.node.broker.routes,
        &publishing.exchange,
        &publishing.routing_key,
        &properties,
    )
    .map_err(|error| route_fault(error, &publishing.exchange))
}

/// The queues of the routing key and of those in CC and BCC together.
pub(super) fn copies_route(
    routes: &Routes,
    exchange: &[u8],
    key: &[u8],
    properties: &Properties<'_>,
) -> std::result::Result<Route, RouteError> {
    let table = properties.headers.unwrap_or_default();
    let headers = MessageHeaders::of(*properties);
    let mut all = routes.route(exchange, key, &headers)?;
    for name in ["CC", "BCC"] {
        let Some(Value::Array(keys)) = table.get(name) else {
            continue;
        };
        for key in keys.iter().filter_map(|key| key.as_bytes()) {
            all.join(routes.route(exchange, key, &headers)?);
        }
    }
    all.by_key = false;
    Ok(all)
}

/// The route of a message that was made before, for a transaction whose definitions changed meanwhile.
pub(super) fn route_message(core: &Core, message: &Message) -> Result<Route> {
    let properties = Properties::parse(message.properties()).unwrap_or_default();
    let (exchange, key) = (message.exchange(), message.routing_key());
    copies_route(&core.node.broker.routes, exchange, key, &properties)
        .map_err(|error| route_fault(error, message.exchange()))
}

fn deliver_copies(
    core: &mut Core,
    route: &mut Route,
    message: Message,
    properties: &Properties<'_>,
) -> Result<(Delivered, Lsn)> {
    let routes = std::sync::Arc::clone(&core.node.broker.routes);
    loop {
        core.may_reach(route)?;
        let mut locked = core.node.broker.lock(route.shards);
        if route.epoch == routes.epoch() {
            let fx = &mut core.fx;
            let delivered = queue::deliver_apart(&mut locked, route, message, core.now, fx);
            return Ok((delivered, locked.commit(core.now, &mut core.fx)));
        }
        drop(locked);
        *route = copies_route(
            &routes,
            message.exchange(),
            message.routing_key(),
            properties,
        )
        .map_err(|error| route_fault(error, message.exchange()))?;
    }
}

fn route_fault(error: RouteError, exchange: &[u8]) -> Fault {
    let name = String::from_utf8_lossy(exchange);
    match error {
        RouteError::NoExchange => Fault::no_exchange(name),
        RouteError::Internal => Fault::refused(format!(
            "cannot publish to internal exchange '{name}' in vhost '/'"
        )),
        RouteError::Refused => Fault::refused(format!(
            "access to a topic that exchange '{name}' leads to refused"
        )),
    }
}

/// Properties without the BCC header.
pub(super) fn without_bcc(raw: &[u8]) -> Cow<'_, [u8]> {
    let properties = Properties::parse(raw).unwrap_or_default();
    let headers = properties.headers.unwrap_or_default();
    if headers.get("BCC").is_none() {
        return Cow::Borrowed(raw);
    }
    let mut kept = protocol_amqp::TableBuilder::new();
    for (name, value) in headers.iter().filter(|(name, _)| *name != b"BCC") {
        kept.push(name, value);
    }
    let headers = Some(kept.as_table());
    Cow::Owned(
        Properties {
            headers,
            ..properties
        }
        .to_raw(),
    )
}

/// `basic.return` of a message that no queue took.
pub(super) fn return_message(core: &Core, id: u16, message: &Message, out: &mut Outbox) {
    let method = Method::BasicReturn {
        reply_code: ReplyCode::NoRoute.code(),
        reply_text: ReplyCode::NoRoute.name().into(),
        exchange: protocol_amqp::ShortStr(message.exchange()),
        routing_key: protocol_amqp::ShortStr(message.routing_key()),
    };
    protocol_amqp::method(out.bytes(), id, &method);
    super::deliver::content(message, id, core.frame_max, out);
}
