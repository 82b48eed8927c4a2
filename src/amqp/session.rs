//! One AMQP connection: bytes in, bytes out, no I/O of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::Identity;
use broker::queue::{self, Definition, Event, Inbox, QueueKind, QueueRef, Route, Verdict, Window};
use broker::{Broker, Durability, Effects, Lsn, Millis, Need};
use bytes::BytesMut;
use hashbrown::HashMap;
use protocol_amqp::{
    DecodeError, FRAME_MIN_SIZE, Frame, FrameKind, Frames, Method, PROTOCOL_HEADER, ProtocolHeader,
    ReplyCode,
};

use super::blocked::{self, Blocked};
use super::channel::{Channel, Pending};
use super::fault::{Fault, Result, Scope, binary, snippet};
use super::stream::{self, Readers};
use super::{content, deliver, handshake, methods, names, overdue};
use crate::auth::Seat;
use crate::config::Face;
use crate::net::{ConnInfo, Flow, Outbox, Session as NetSession};
use crate::node::Node;
use crate::tls::Certificate;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// How long a client may take to answer our connection.close.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest frame before the login: a token of many groups is longer than RabbitMQ's `initial_frame_max` of 8 KiB.
const BEFORE_LOGIN_MAX: u32 = 16 << 10;

/// How far the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    Header,
    /// connection.start was sent.
    Started,
    /// connection.tune was sent.
    Tuning,
    /// connection.tune-ok came.
    Tuned,
    Running,
    /// connection.close was sent.
    Closing,
}

/// A consumer of this connection.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) channel: u16,
    pub(super) tag: Box<[u8]>,
    pub(super) queue: Arc<Definition>,
    pub(super) no_ack: bool,
}

/// What all channels of a connection share.
pub(super) struct Core {
    pub(super) node: Arc<Node>,
    pub(super) info: ConnInfo,
    pub(super) inbox: Arc<Inbox>,
    pub(super) fx: Effects,
    pub(super) phase: Phase,
    pub(super) user: String,
    /// By which it logged in.
    pub(super) mechanism: &'static str,
    /// Its connection.open was answered.
    pub(super) is_open: bool,
    /// What the client said of itself, if somebody listened to [`super::events`] then.
    pub(super) client_properties: Box<[u8]>,
    pub(super) identity: Identity,
    /// A login whose end is waited for.
    pub(super) login: Option<Box<handshake::Login>>,
    /// What the client showed in the TLS handshake.
    pub(super) certificate: Option<Certificate>,
    /// 0 = no limit.
    pub(super) frame_max: u32,
    pub(super) channel_max: u16,
    /// The client wants to hear when its consumer's queue is deleted.
    pub(super) cancel_notify: bool,
    pub(super) failure_close: bool,
    pub(super) blocked: Blocked,
    /// Half of the negotiated heartbeat; zero = none.
    pub(super) beat: Duration,
    pub(super) subscriptions: Map<u64, Subscription>,
    pub(super) next_consumer: u64,
    /// Of consumers of streams.
    pub(super) readers: Readers,
    /// Octets of bodies that are not whole yet, and of transactions.
    pub(super) held: usize,
    /// Its place among the connections of its user.
    pub(super) seat: Option<Seat>,
    /// How often, and when next, channels are looked at for messages that they have kept too long.
    look_every: Duration,
    next_look: Instant,
    /// Gone with the connection.
    pub(super) exclusive: Vec<Arc<Definition>>,
    /// Acknowledged in this turn and not yet told to the queues.
    pub(super) done: Vec<Pending>,
    /// Channels that have published in this turn what the broker was not told yet.
    pub(super) batched: Vec<u16>,
    /// Channels that owe confirms for this turn.
    pub(super) unconfirmed: Vec<u16>,
    pub(super) now: Millis,
}

impl Core {
    pub(super) fn broker(&self) -> &Broker {
        &self.node.broker
    }

    /// What showing or confirming a message at `lsn` waits for.
    pub(super) fn need(&self, lsn: Lsn, quorum: bool) -> Need {
        if lsn == Lsn(0) {
            return Need::none();
        }
        Need::of(
            lsn,
            if quorum {
                Durability::Sync
            } else {
                self.node.config.amqp_durability
            },
        )
    }

    /// Tells the queues what was acknowledged.
    pub(super) fn flush_done(&mut self) {
        let mut done = std::mem::take(&mut self.done);
        self.settle(Verdict::Done, &mut done);
        self.done = done;
    }

    /// Tells the queues what became of messages: one lock and one record per queue. Leaves `settled` empty.
    pub(super) fn settle(&mut self, verdict: Verdict, settled: &mut Vec<Pending>) {
        if settled.iter().any(|pending| pending.entry.is_none()) {
            for pending in settled.extract_if(.., |pending| pending.entry.is_none()) {
                self.readers.give_credit(pending.consumer);
            }
        }
        let Some(first) = settled.first().map(|pending| pending.queue) else {
            return;
        };
        if settled.iter().any(|pending| pending.queue != first) {
            settled.sort_by_key(|pending| (pending.queue.shard, pending.queue.id));
        }
        let connection = self.info.id;
        let mut rest = settled.drain(..).peekable();
        while let Some(queue) = rest.peek().map(|pending| pending.queue) {
            let run = std::iter::from_fn(|| rest.next_if(|pending| pending.queue == queue))
                .filter_map(|pending| pending.settled_by(connection));
            let (broker, fx) = (&self.node.broker, &mut self.fx);
            queue::settle(broker, queue, verdict, run, self.now, fx);
        }
    }

    /// Messages of a queue come, which may want them back sooner than others.
    pub(super) fn expect_within(&mut self, queue: &Definition) {
        let Some(millis) = queue.limits.consumer_timeout_ms else {
            return;
        };
        let every = overdue::interval(Duration::from_millis(millis));
        if every < self.look_every {
            self.look_every = every;
            self.next_look = Instant::now() + every;
        }
    }

    /// Looks at the queues of some consumers again.
    pub(super) fn dispatch(&mut self, wanted: impl Fn(&Subscription) -> bool) {
        let mut queues: Vec<QueueRef> = self
            .subscriptions
            .values()
            .filter(|s| wanted(s))
            .map(|s| reference(&s.queue))
            .collect();
        queues.sort_by_key(|queue| (queue.shard, queue.id));
        queues.dedup();
        for queue in queues {
            queue::dispatch(&self.node.broker, queue, self.now, &mut self.fx);
        }
    }

    /// Removes a consumer from its queue; an auto-delete queue may go with it.
    pub(super) fn unsubscribe(&mut self, consumer: u64) {
        let Some(subscription) = self.subscriptions.remove(&consumer) else {
            return;
        };
        self.readers.remove(&self.node.broker, consumer);
        let queue = reference(&subscription.queue);
        if queue::unsubscribe(&self.node.broker, queue, self.info.id, consumer) {
            self.exclusive
                .retain(|known| known.id != subscription.queue.id);
            queue::delete_abandoned(
                &self.node.broker,
                &subscription.queue,
                self.now,
                &mut self.fx,
            );
        }
        self.tell_consumer(&subscription, None);
    }

    /// The channel is gone: its consumers too, and what it had goes back.
    pub(super) fn release(&mut self, id: u16, channel: Channel) {
        let mut back = Vec::new();
        let mut channel = channel;
        self.held -= channel.held();
        channel
            .unacked
            .take_until(0, |_, pending| back.push(pending));
        if let Some(tx) = channel.tx.take() {
            back.extend(tx.settled.into_iter().map(|settled| settled.pending));
        }
        // Consumers first, or what is given back would come to them again.
        for consumer in channel.consumers.values() {
            self.unsubscribe(*consumer);
        }
        self.settle(Verdict::Requeue, &mut back);
        if !channel.closing {
            self.tell_channel(id, false);
        }
    }
}

/// The short name of a queue in the broker.
pub(super) fn reference(queue: &Definition) -> QueueRef {
    QueueRef {
        shard: queue.shard(),
        id: queue.id,
    }
}

pub(super) fn is_quorum(queue: &Definition) -> bool {
    queue.kind == QueueKind::Quorum
}

/// A quorum queue is among those that a message goes to.
pub(super) fn has_quorum(route: &Route) -> bool {
    route.queues.iter().any(|queue| is_quorum(queue))
}

/// The session of one connection.
pub(super) struct Session {
    core: Core,
    channels: Map<u16, Channel>,
    events: Vec<Event>,
    /// Something was read since the last tick.
    heard: bool,
    /// Ticks in a row without anything read.
    silent: u32,
    /// Something was written since the last tick.
    spoke: bool,
    next_tick: Instant,
}

impl Session {
    pub(super) fn new(node: Arc<Node>, info: ConnInfo) -> Self {
        let inbox = Inbox::new(info.handle.wake());
        node.broker.access.watch(info.id, info.handle.wake());
        let next_tick = Instant::now() + node.config.handshake_timeout;
        Self {
            core: Core {
                inbox,
                fx: Effects::new(),
                phase: Phase::Header,
                user: String::new(),
                mechanism: "",
                is_open: false,
                client_properties: Box::default(),
                identity: node.auth.before_login(info.peer.ip()),
                login: None,
                certificate: None,
                frame_max: FRAME_MIN_SIZE,
                channel_max: node.config.amqp_channel_max,
                cancel_notify: false,
                failure_close: false,
                blocked: Blocked::default(),
                beat: Duration::ZERO,
                subscriptions: Map::default(),
                next_consumer: 1,
                readers: Readers::default(),
                held: 0,
                seat: None,
                look_every: overdue::interval(node.config.amqp_consumer_timeout),
                next_look: Instant::now() + overdue::interval(node.config.amqp_consumer_timeout),
                exclusive: Vec::new(),
                done: Vec::new(),
                batched: Vec::new(),
                unconfirmed: Vec::new(),
                now: Millis(node.clock.now_ms()),
                node,
                info,
            },
            channels: Map::default(),
            events: Vec::new(),
            heard: false,
            silent: 0,
            spoke: false,
            next_tick,
        }
    }

    /// `Err`: the connection must be closed with this fault.
    fn frame(&mut self, frame: &Frame<'_>, out: &mut Outbox) -> Result<Flow> {
        if self.core.login.is_some() {
            // The client must wait for connection.tune.
            return Ok(Flow::Close);
        }
        if self.core.phase == Phase::Closing {
            return Ok(self.while_closing(frame, out));
        }
        if frame.kind == FrameKind::Heartbeat {
            if frame.channel != 0 {
                return Err(Fault::connection(
                    ReplyCode::UnexpectedFrame,
                    format!("type 8, {}", snippet(frame.payload)),
                ));
            }
            return Ok(Flow::Continue);
        }
        if frame.channel == 0 {
            if frame.kind != FrameKind::Method {
                return Err(content::unannounced());
            }
            return self.connection_method(frame.payload, out);
        }
        if self.core.phase != Phase::Running {
            return Err(Fault::connection(
                ReplyCode::UnexpectedFrame,
                format!("type {}, {}", frame.kind.number(), snippet(frame.payload)),
            )
            .about(0, 0));
        }
        self.channel_frame(frame, out).map(|()| Flow::Continue)
    }

    fn while_closing(&mut self, frame: &Frame<'_>, out: &mut Outbox) -> Flow {
        if frame.channel != 0 || frame.kind != FrameKind::Method {
            return Flow::Continue;
        }
        match Method::decode(frame.payload) {
            Ok(Method::ConnectionCloseOk {}) => Flow::Close,
            // Both sides closed at the same time.
            Ok(Method::ConnectionClose { .. }) => {
                protocol_amqp::method(out.bytes(), 0, &Method::ConnectionCloseOk {});
                Flow::Close
            }
            _ => Flow::Continue,
        }
    }

    fn connection_method(&mut self, payload: &[u8], out: &mut Outbox) -> Result<Flow> {
        let method = decode(payload)?;
        match method {
            Method::ConnectionClose { .. } => {
                self.settle(out);
                self.release_all();
                protocol_amqp::method(out.bytes(), 0, &Method::ConnectionCloseOk {});
                Ok(Flow::Close)
            }
            Method::ConnectionUpdateSecret { .. } if self.core.phase == Phase::Running => {
                protocol_amqp::method(out.bytes(), 0, &Method::ConnectionUpdateSecretOk {});
                Ok(Flow::Continue)
            }
            Method::ConnectionBlocked { .. } | Method::ConnectionUnblocked {} => Ok(Flow::Continue),
            other => handshake::method(&mut self.core, &other, out),
        }
    }

    fn channel_frame(&mut self, frame: &Frame<'_>, out: &mut Outbox) -> Result {
        let id = frame.channel;
        let Some(channel) = self.channels.get_mut(&id) else {
            return self.unopened(frame, out);
        };
        if channel.closing {
            if frame.kind == FrameKind::Method
                && matches!(decode(frame.payload), Ok(Method::ChannelCloseOk {}))
            {
                self.channels.remove(&id);
            } else if frame.kind == FrameKind::Method
                && matches!(decode(frame.payload), Ok(Method::ChannelClose { .. }))
            {
                // Both sides closed at the same time.
                protocol_amqp::method(out.bytes(), id, &Method::ChannelCloseOk {});
            }
            return Ok(());
        }
        let result = match frame.kind {
            FrameKind::Method => match decode(frame.payload)? {
                // The two that come by the thousand.
                Method::BasicPublish {
                    exchange,
                    routing_key,
                    mandatory,
                    immediate,
                    ..
                } => content::start(channel, exchange.0, routing_key.0, mandatory, immediate),
                Method::BasicAck {
                    delivery_tag,
                    multiple,
                } => content::no_content(channel).and_then(|()| {
                    methods::basic::ack(&mut self.core, channel, delivery_tag, multiple)
                }),
                method => {
                    content::no_content(channel)?;
                    self.rare_method(id, &method, out)
                }
            },
            FrameKind::Header => content::header(&mut self.core, channel, frame.payload),
            FrameKind::Body => content::body(&mut self.core, channel, frame),
            FrameKind::Heartbeat => return Ok(()),
        };
        let result = result.and_then(|()| match self.channels.get_mut(&id) {
            Some(channel) if content::is_complete(channel) => {
                content::publish(&mut self.core, channel, id, frame, out)
            }
            _ => Ok(()),
        });
        match result {
            Err(fault) if fault.scope == Scope::Channel => {
                let (class, method) = match frame.kind {
                    FrameKind::Method => ids(frame.payload),
                    _ => (60, 40),
                };
                self.close_channel(id, &fault, class, method, out);
                Ok(())
            }
            other => other,
        }
    }

    /// Methods that are answered, in order with what the connection has done before.
    fn rare_method(&mut self, id: u16, method: &Method<'_>, out: &mut Outbox) -> Result {
        self.settle(out);
        if let Method::ChannelClose { .. } = method {
            if let Some(channel) = self.channels.remove(&id) {
                self.core.release(id, channel);
            }
            protocol_amqp::method(out.bytes(), id, &Method::ChannelCloseOk {});
            return Ok(());
        }
        if matches!(
            method,
            Method::BasicCancel { .. } | Method::BasicRecover { .. }
        ) {
            // What is on its way comes before the answer.
            self.deliver_all(out);
        }
        match self.channels.get_mut(&id) {
            Some(channel) => methods::dispatch(&mut self.core, channel, id, method, out),
            None => Ok(()),
        }
    }

    fn unopened(&mut self, frame: &Frame<'_>, out: &mut Outbox) -> Result {
        let method = match frame.kind {
            FrameKind::Method => decode(frame.payload)?,
            _ => {
                return Err(Fault::connection(
                    ReplyCode::ChannelError,
                    "expected 'channel.open'",
                ));
            }
        };
        match method {
            Method::ChannelOpen { .. } => {
                let (open, limit) = (self.channels.len(), usize::from(self.core.channel_max));
                if limit != 0 && open >= limit {
                    return Err(Fault::connection(
                        ReplyCode::NotAllowed,
                        format!(
                            "number of channels opened ({open}) has reached the negotiated channel_max ({limit})"
                        ),
                    ));
                }
                self.channels.insert(frame.channel, Channel::default());
                let ok = Method::ChannelOpenOk {
                    channel_id: "".into(),
                };
                protocol_amqp::method(out.bytes(), frame.channel, &ok);
                self.core.tell_channel(frame.channel, true);
                Ok(())
            }
            // Late answers to a close of ours.
            Method::ChannelCloseOk {} => Ok(()),
            Method::ChannelClose { .. } => {
                protocol_amqp::method(out.bytes(), frame.channel, &Method::ChannelCloseOk {});
                Ok(())
            }
            _ => Err(Fault::connection(
                ReplyCode::ChannelError,
                "expected 'channel.open'",
            )),
        }
    }

    fn close_channel(
        &mut self,
        id: u16,
        fault: &Fault,
        class_id: u16,
        method_id: u16,
        out: &mut Outbox,
    ) {
        self.settle(out);
        self.core.node.metrics.errors_total.of(Face::Amqp).inc();
        if let Some(channel) = self.channels.remove(&id) {
            self.core.release(id, channel);
        }
        self.channels.insert(
            id,
            Channel {
                closing: true,
                ..Channel::default()
            },
        );
        let text = fault.text();
        let close = Method::ChannelClose {
            reply_code: fault.code.code(),
            reply_text: text.as_str().into(),
            class_id,
            method_id,
        };
        protocol_amqp::method(out.bytes(), id, &close);
    }

    fn close_connection(&mut self, fault: &Fault, class_id: u16, method_id: u16, out: &mut Outbox) {
        self.settle(out);
        self.core.node.metrics.errors_total.of(Face::Amqp).inc();
        self.release_all();
        let text = fault.text();
        let close = Method::ConnectionClose {
            reply_code: fault.code.code(),
            reply_text: text.as_str().into(),
            class_id,
            method_id,
        };
        protocol_amqp::method(out.bytes(), 0, &close);
        self.core.phase = Phase::Closing;
        self.next_tick = Instant::now() + CLOSE_TIMEOUT;
    }

    /// Closes channels that have kept a message for too long.
    fn look(&mut self, now: Instant, out: &mut Outbox) {
        self.core.next_look = now + self.core.look_every;
        let core = &self.core;
        let late: Vec<(u16, Fault)> = self
            .channels
            .iter_mut()
            .filter_map(|(id, channel)| Some((*id, overdue::look(core, channel, *id, now)?)))
            .collect();
        for (id, fault) in late {
            self.close_channel(id, &fault, 0, 0, out);
        }
    }

    /// What this turn has gathered: messages and acknowledgements to the queues, confirms to the client.
    fn settle(&mut self, out: &mut Outbox) {
        for id in std::mem::take(&mut self.core.batched) {
            if let Some(channel) = self.channels.get_mut(&id)
                && let Err(fault) = content::flush(&mut self.core, channel, id, out)
            {
                self.close_channel(id, &fault, 60, 40, out);
            }
        }
        self.core.flush_done();
        if self
            .channels
            .values()
            .any(|channel| blocked(&channel.window))
        {
            let channels: Vec<u16> = self
                .channels
                .iter()
                .filter(|(_, c)| c.window.take_blocked())
                .map(|(id, _)| *id)
                .collect();
            self.core
                .dispatch(|subscription| channels.contains(&subscription.channel));
        }
        for id in self.core.unconfirmed.drain(..) {
            let Some(confirms) = self
                .channels
                .get_mut(&id)
                .and_then(|channel| channel.confirms.as_mut())
            else {
                continue;
            };
            // In order: acks up to each refused message, its nack, and the rest.
            for refused in std::mem::take(&mut confirms.refused) {
                confirm(out, id, confirms.confirmed, refused - 1);
                let nack = Method::BasicNack {
                    delivery_tag: refused,
                    multiple: false,
                    requeue: false,
                };
                protocol_amqp::method(out.bytes(), id, &nack);
                confirms.confirmed = refused;
            }
            confirm(out, id, confirms.confirmed, confirms.published);
            confirms.confirmed = confirms.published;
        }
    }

    fn deliver_all(&mut self, out: &mut Outbox) {
        let mut events = std::mem::take(&mut self.events);
        let starved = self.core.inbox.drain(&mut events);
        deliver::events(&mut self.core, &mut self.channels, &mut events, out);
        self.events = events;
        if starved {
            self.core.dispatch(|_| true);
        }
        stream::serve(&mut self.core, &mut self.channels, out);
    }

    /// Consumers, unacknowledged messages and exclusive queues go back to the broker. Can be called twice.
    fn release_all(&mut self) {
        self.core.flush_done();
        for (id, channel) in std::mem::take(&mut self.channels) {
            self.core.release(id, channel);
        }
        // Nobody puts anything in any more: what is there was never shown to the client.
        let mut events = Vec::new();
        self.core.inbox.drain(&mut events);
        deliver::give_back(&mut self.core, events);
        for queue in std::mem::take(&mut self.core.exclusive) {
            methods::queue::delete_now(&mut self.core, &queue);
        }
    }

    /// Takes note of changed rights: a channel that consumes what it may not read any more is closed.
    fn stand(&mut self, out: &mut Outbox) -> Result {
        if !self.core.stand()? || self.core.phase != Phase::Running {
            return Ok(());
        }
        let denied: Vec<(u16, Fault)> = self
            .core
            .subscriptions
            .values()
            // Direct reply-to is the channel's own affair.
            .filter(|consumer| !consumer.queue.name.starts_with(names::REPLY_TO))
            .filter_map(|consumer| {
                let may = self.core.may_consume(&consumer.queue);
                Some((consumer.channel, may.err()?))
            })
            .collect();
        for (channel, fault) in denied {
            let open = self
                .channels
                .get(&channel)
                .is_some_and(|channel| !channel.closing);
            if open {
                self.close_channel(channel, &fault, 60, 20, out);
            }
        }
        Ok(())
    }

    /// Largest frame that the client may send now.
    fn frame_limit(&self) -> u32 {
        let agreed = match self.core.frame_max {
            0 => u32::MAX,
            limit => limit.max(FRAME_MIN_SIZE),
        };
        match self.core.phase {
            Phase::Header | Phase::Started => BEFORE_LOGIN_MAX,
            // Until tune-ok the client may send frames of the size that we offered.
            Phase::Tuning | Phase::Tuned => self.core.node.config.amqp_frame_max.max(agreed),
            Phase::Running | Phase::Closing => agreed,
        }
    }

    /// The end of a login, if it has come.
    fn end_login(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        match handshake::end_login(&mut self.core, now, out) {
            Ok(flow) => flow,
            Err(fault) if handshake::may_tell(&self.core, &fault) => {
                self.close_connection(&fault, 0, 0, out);
                Flow::Continue
            }
            Err(_) => Flow::Close,
        }
    }

    fn run(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow {
        if self.core.phase == Phase::Header {
            match protocol_amqp::protocol_header(input) {
                None => return Flow::Continue,
                Some(ProtocolHeader::Accepted) => handshake::start(&mut self.core, out),
                Some(ProtocolHeader::Refused) => {
                    out.bytes().extend_from_slice(&PROTOCOL_HEADER);
                    input.clear();
                    return Flow::Close;
                }
            }
        }
        if self.core.phase != Phase::Closing
            && let Err(fault) = self.stand(out)
        {
            if !handshake::may_tell(&self.core, &fault) {
                return Flow::Close;
            }
            self.close_connection(&fault, 0, 0, out);
        }
        let mut limit = self.frame_limit();
        let mut frames = Frames::take(input, limit);
        // Publishes of this turn are held as a whole.
        let short = self.core.node.governor.stops();
        let mut count = 0;
        let flow = loop {
            let (fault, class, method) = match frames.next_frame() {
                Ok(None) => break Flow::Continue,
                // A few octets of basic.get may be answered by many MiB.
                Ok(Some(_)) if out.is_full() && self.core.phase == Phase::Running => {
                    frames.give_back(input);
                    break Flow::Continue;
                }
                Ok(Some(frame))
                    if short
                        && self.core.phase == Phase::Running
                        && blocked::is_publish(&frame)
                        && blocked::hold(&mut self.core, out) =>
                {
                    frames.give_back(input);
                    break Flow::Continue;
                }
                Ok(Some(frame)) => {
                    count += u64::from(frame.kind == FrameKind::Method);
                    match self.frame(&frame, out) {
                        Ok(Flow::Continue) => continue,
                        Ok(flow) => break flow,
                        Err(fault) => {
                            let (class, method) = match (fault.method, frame.kind) {
                                (Some(named), _) => named,
                                (None, FrameKind::Method) => ids(frame.payload),
                                (None, _) => (0, 0),
                            };
                            (fault, class, method)
                        }
                    }
                }
                Err(_) if self.core.phase == Phase::Closing => break Flow::Close,
                // What came behind the login was measured before it.
                Err(DecodeError::FrameTooLarge { .. }) if limit < self.frame_limit() => {
                    limit = self.frame_limit();
                    frames = Frames::take(input, limit);
                    continue;
                }
                Err(error) => (broken(error, frames.failed_payload()), 0, 0),
            };
            if !handshake::may_tell(&self.core, &fault) {
                break Flow::Close;
            }
            self.close_connection(&fault, class, method, out);
        };
        self.settle(out);
        if self.core.phase == Phase::Running {
            stream::serve(&mut self.core, &mut self.channels, out);
        }
        self.core
            .node
            .metrics
            .commands_total
            .of(Face::Amqp)
            .add(count);
        flow
    }
}

impl NetSession for Session {
    fn secured(&mut self, peer: &Certificate) {
        self.core.certificate = Some(peer.clone());
    }

    fn read(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow {
        self.core.now = Millis(self.core.node.clock.now_ms());
        let was = self.core.phase;
        let before = out.pending();
        self.heard = true;
        let flow = self.run(input, out);
        self.spoke |= out.pending() > before;
        if was != Phase::Running && self.core.phase == Phase::Running {
            // Handshake done: from now on the heartbeat ticks.
            self.next_tick = Instant::now() + self.core.beat;
        }
        flow
    }

    fn paused(&self) -> bool {
        self.core.login.is_some()
            || (self.core.blocked.is_held() && self.core.phase == Phase::Running)
    }

    fn is_stranger(&self) -> bool {
        self.core.phase < Phase::Tuning
    }

    fn held(&self) -> usize {
        self.core.held + self.core.readers.held()
    }

    fn wake(&mut self, out: &mut Outbox) -> Flow {
        if self.core.login.is_some() {
            return self.end_login(Instant::now(), out);
        }
        if self.core.phase != Phase::Closing
            && let Err(fault) = self.stand(out)
        {
            if !handshake::may_tell(&self.core, &fault) {
                return Flow::Close;
            }
            self.close_connection(&fault, 0, 0, out);
        }
        blocked::look(&mut self.core, out);
        // Deliveries stay in the mailbox meanwhile, where they hold back their consumers.
        if !out.is_full() && self.core.phase == Phase::Running {
            self.core.now = Millis(self.core.node.clock.now_ms());
            let before = out.pending();
            self.deliver_all(out);
            self.spoke |= out.pending() > before;
        }
        Flow::Continue
    }

    fn deadline(&self) -> Option<Instant> {
        if let Some(login) = &self.core.login {
            return Some(login.look_at().min(self.next_tick));
        }
        if self.core.phase != Phase::Running {
            return Some(self.next_tick);
        }
        let look = self.core.next_look;
        Some(if self.core.beat.is_zero() {
            look
        } else {
            look.min(self.next_tick)
        })
    }

    fn tick(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        if self.core.login.is_some() && now < self.next_tick {
            return self.end_login(now, out);
        }
        if self.core.phase != Phase::Running {
            // Handshake or close took too long.
            return Flow::Abort;
        }
        if now >= self.core.next_look {
            self.core.now = Millis(self.core.node.clock.now_ms());
            self.look(now, out);
        }
        if now < self.next_tick || self.core.beat.is_zero() {
            return Flow::Continue;
        }
        self.next_tick = now + self.core.beat;
        // Who is not read cannot be heard.
        self.silent = if std::mem::take(&mut self.heard) || self.core.blocked.is_held() {
            0
        } else if out.is_full() {
            // It is not read while it does not read: its heartbeats may have come.
            self.silent
        } else {
            self.silent + 1
        };
        // Two heartbeats are four of these ticks; the first may have been cut short.
        if self.silent > 4 {
            tracing::debug!(
                connection = self.core.info.id,
                "missed heartbeats from client"
            );
            return Flow::Abort;
        }
        if !std::mem::take(&mut self.spoke) {
            protocol_amqp::heartbeat(out.bytes());
        }
        Flow::Continue
    }

    fn stop(&mut self, out: &mut Outbox) -> Flow {
        if self.core.phase == Phase::Running {
            let fault = Fault::connection(
                ReplyCode::ConnectionForced,
                "broker forced connection closure with reason 'shutdown'",
            );
            self.close_connection(&fault, 0, 0, out);
        }
        Flow::Close
    }

    fn closed(&mut self) {
        self.core.now = Millis(self.core.node.clock.now_ms());
        self.core.broker().access.unwatch(self.core.info.id);
        self.core.blocked.end();
        self.release_all();
        if self.core.is_open {
            self.core.tell_disconnected();
        }
    }
}

impl PartialOrd for Phase {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        (*self as u8).partial_cmp(&(*other as u8))
    }
}

/// `basic.ack` of what was published after `from`, up to `to`.
fn confirm(out: &mut Outbox, id: u16, from: u64, to: u64) {
    if to > from {
        let ack = Method::BasicAck {
            delivery_tag: to,
            multiple: to - from > 1,
        };
        protocol_amqp::method(out.bytes(), id, &ack);
    }
}

fn blocked(window: &Window) -> bool {
    window.limit() != 0 && window.is_blocked()
}

/// Class and method number of a method frame.
fn ids(payload: &[u8]) -> (u16, u16) {
    match payload.first_chunk::<4>() {
        Some([c0, c1, m0, m1]) => (
            u16::from_be_bytes([*c0, *c1]),
            u16::from_be_bytes([*m0, *m1]),
        ),
        None => (0, 0),
    }
}

fn decode(payload: &[u8]) -> Result<Method<'_>> {
    Method::decode(payload).map_err(|error| match error {
        DecodeError::UnknownMethod { class, method } => {
            Fault::not_implemented(format!("method {class}.{method}"))
        }
        DecodeError::Truncated => {
            let arguments = binary(payload.get(4..).unwrap_or_default());
            Fault::connection(ReplyCode::FrameError, format!("cannot decode {arguments}"))
        }
        other => Fault::connection(ReplyCode::SyntaxError, other.to_string()),
    })
}

/// The text that RabbitMQ's reader gives to broken frames.
fn broken(error: DecodeError, payload: &[u8]) -> Fault {
    let octets = snippet(payload);
    let detail = match error {
        DecodeError::FrameTooLarge { kind, size, limit } => {
            format!("type {kind}, {octets}: {{frame_too_large,{size},{limit}}}")
        }
        DecodeError::FrameEnd { kind, octet, .. } => {
            format!("type {kind}, {octets}: {{invalid_frame_end_marker,{octet}}}")
        }
        DecodeError::UnknownFrame(kind) => format!("type {kind}, {octets}: unknown_frame"),
        other => other.to_string(),
    };
    Fault::connection(ReplyCode::FrameError, detail)
}
