//! The Kafka face: one session per connection.
//!
//! Requests are answered strictly in order, as Kafka's own broker does: a request that has to wait (a long-polled Fetch, a member
//! waiting for its group) pauses its connection and no other. Waiting never holds a thread: the session is rung, or its
//! deadline comes, and it looks again.

mod apis;
mod error;
mod permission;
mod topics;

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::Identity;
use broker::stream::group;
use broker::stream::transaction::Instance;
use broker::{Ctx, Durability, Effects, Lsn, Mailbox, Millis, Need, Wake};
use bytes::{Bytes, BytesMut};
use kafka_protocol::protocol::{Decodable, Encodable};
use protocol_kafka::header::put_response_header;
use protocol_kafka::wire::Write;
use protocol_kafka::{DecodeError, RequestHeader, frame, shape};

use crate::audit;
use crate::auth::Seat;
use crate::config::Face;
use crate::net::{ConnInfo, Flow, NewSession, Outbox, Session};
use crate::node::Node;
use crate::tls::Certificate;

pub use apis::{API_TABLE, Row};

use self::apis::{FetchWork, GroupWait, LoginWait, ProduceWait, ProduceWork, Sasl};
use self::topics::TopicCache;

/// Octets of a request before the login: Kafka's `sasl.server.max.receive.size`.
const BEFORE_LOGIN_MAX: usize = 512 << 10;
/// The one node's id in everything that names brokers.
const NODE_ID: i32 = 1;
/// What a cold request may be long: the largest is a group member's assignment of many thousand partitions.
const COLD_REQUEST_MAX: usize = 16 << 20;

/// Makes the sessions of the Kafka listener.
pub fn sessions(node: &Arc<Node>) -> NewSession {
    let node = Arc::clone(node);
    Arc::new(move |info| Box::new(KafkaSession::new(Arc::clone(&node), info)))
}

/// A connection's state.
pub(crate) struct KafkaSession {
    node: Arc<Node>,
    info: ConnInfo,
    wake: Arc<dyn Wake>,
    /// Answers of groups that this connection waits for.
    mailbox: Arc<Mailbox<group::Answer>>,
    answers: Vec<group::Answer>,
    waiting: Option<Waiting>,
    /// Grows with every request that may wait, so that a late answer to a former one is known.
    tickets: u64,
    seed: u64,
    fx: Effects,
    topics: TopicCache,
    produce: ProduceWork,
    fetch: FetchWork,
    /// The transactional id and producer that were last found to belong together.
    admitted: Option<(String, Instance)>,
    identity: Identity,
    /// It has said who it is, and is not only who anybody of this machine is.
    logged_in: bool,
    /// Its place among the connections of its user.
    seat: Option<Seat>,
    sasl: Option<Sasl>,
    hint: usize,
}

/// Why no further request is looked at.
enum Waiting {
    Fetch {
        header: RequestHeader,
        until: Instant,
    },
    Produce(ProduceWait),
    Group(GroupWait),
    Login(LoginWait),
}

/// One request, its body still in the frame that it came in.
#[derive(Debug)]
struct Request {
    header: RequestHeader,
    frame: BytesMut,
}

impl Request {
    fn version(&self) -> i16 {
        self.header.version
    }

    fn client_id(&self) -> &str {
        let bytes = self
            .header
            .client_id
            .as_ref()
            .map_or(&[][..], |span| span.of(&self.frame));
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// Decodes the body of a cold request.
    fn decode<R: Decodable>(&mut self) -> Result<R, DecodeError> {
        if self.frame.len() > COLD_REQUEST_MAX {
            return Err(DecodeError::TooMany);
        }
        let mut body: Bytes = std::mem::take(&mut self.frame).freeze();
        let body = body.split_off(self.header.body.min(body.len()));
        shape::decode(
            self.header.key,
            self.header.version,
            body,
            shape::Limits::default(),
        )
    }
}

/// Why a connection cannot go on.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("request {key} version {version} is not served")]
    Unserved { key: i16, version: i16 },
    #[error("not logged in")]
    Login,
    /// Producers that want no answers learn of an error by losing their connection.
    #[error("a batch sent with acks=0 was not stored")]
    Unacknowledged,
    #[error("the response does not fit version {version} of request {key}: {reason}")]
    Encode {
        key: i16,
        version: i16,
        reason: String,
    },
    #[error(transparent)]
    Storage(#[from] storage::Error),
}

impl KafkaSession {
    fn new(node: Arc<Node>, info: ConnInfo) -> Self {
        let wake = info.handle.wake();
        node.broker.access.watch(info.id, Arc::clone(&wake));
        Self {
            mailbox: Arc::new(Mailbox::new(Arc::clone(&wake))),
            wake,
            answers: Vec::new(),
            waiting: None,
            tickets: 0,
            seed: getrandom::u64().unwrap_or(info.id),
            fx: Effects::new(),
            topics: TopicCache::default(),
            produce: ProduceWork::default(),
            fetch: FetchWork::default(),
            admitted: None,
            identity: node.auth.before_login(info.peer.ip()),
            logged_in: false,
            seat: None,
            sasl: None,
            hint: 0,
            node,
            info,
        }
    }

    /// A command's view of the world, now.
    fn ctx(&mut self) -> Ctx {
        self.seed = self
            .seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        Ctx::new(Millis(self.node.clock.now_ms()), self.seed)
    }

    fn now(&self) -> Millis {
        Millis(self.node.clock.now_ms())
    }

    /// The class that acknowledged changes have.
    fn class(&self) -> Durability {
        self.node.broker.topics.durability()
    }

    /// What an answer waits for that tells of everything up to `lsn`.
    fn need(&self, lsn: Lsn) -> Need {
        Need::of(lsn, self.class())
    }

    /// Where clients reach this node.
    fn advertised(&self) -> (String, i32) {
        let config = &self.node.config;
        let told = if self.info.tls {
            &config.kafka_tls_advertised
        } else {
            &config.kafka_advertised
        };
        match told {
            Some(address) => (address.host.clone(), i32::from(address.port)),
            None => (
                self.info.local.ip().to_canonical().to_string(),
                i32::from(self.info.local.port()),
            ),
        }
    }

    fn handle(&mut self, frame: BytesMut, out: &mut Outbox) -> Result<(), Failure> {
        let header = RequestHeader::decode(&frame)?;
        self.node.metrics.commands_total.of(Face::Kafka).inc();
        let (key, version) = (header.key, header.version);
        let row = apis::find(key).ok_or(Failure::Unserved { key, version })?;
        if !self.identity.is_free(&self.node.broker.access) {
            self.stand()?;
            if !self.identity.is_somebody() && !row.before_login {
                return Err(Failure::Login);
            }
        }
        let mut request = Request { header, frame };
        if !row.serves(version) {
            if key == protocol_kafka::header::API_VERSIONS {
                return apis::unsupported_version(&request, out);
            }
            return Err(Failure::Unserved { key, version });
        }
        (row.run)(self, &mut request, out)
    }

    /// Everything that `input` has and that need not wait.
    fn run(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow {
        let mut limit = self.node.config.kafka_max_request_size.as_usize();
        if !self.identity.is_somebody() {
            limit = limit.min(BEFORE_LOGIN_MAX);
        }
        while self.waiting.is_none() && !out.is_full() {
            match frame::next_frame(input, limit) {
                Ok(Some(frame)) => {
                    if let Err(failure) = self.handle(frame, out) {
                        return self.fail(&failure);
                    }
                }
                Ok(None) => break,
                Err(error) => return self.fail(&error.into()),
            }
        }
        self.hint = match frame::missing(input) {
            0 => 0,
            missing => input.len() + missing,
        };
        Flow::Continue
    }

    fn fail(&self, failure: &Failure) -> Flow {
        self.node.metrics.errors_total.of(Face::Kafka).inc();
        match failure {
            Failure::Storage(_) | Failure::Encode { .. } => {
                tracing::error!(conn = self.info.id, peer = %self.info.peer, error = %failure, "kafka connection closed");
            }
            _ => {
                tracing::debug!(conn = self.info.id, peer = %self.info.peer, error = %failure, "kafka connection closed")
            }
        }
        // What was answered before still goes out: a producer's earlier batches are acknowledged.
        Flow::Close
    }

    /// Looks again at what the connection waits for.
    fn look(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        if let Err(failure) = self.stand() {
            // What it waits for is given up when the connection closes.
            return self.fail(&failure);
        }
        let result = match self.waiting.take() {
            None => Ok(()),
            Some(Waiting::Login(wait)) => apis::resume_login(self, wait, now, out),
            Some(Waiting::Fetch { header, until }) => {
                apis::resume_fetch(self, header, until, now, out)
            }
            Some(Waiting::Produce(wait)) => apis::resume_produce(self, wait, now, out),
            Some(Waiting::Group(wait)) => apis::resume_group(self, wait, out),
        };
        match result {
            Ok(()) => Flow::Continue,
            Err(failure) => self.fail(&failure),
        }
    }
}

/// Appends a whole response: size, header and body.
fn respond(out: &mut Outbox, header: &RequestHeader, body: &impl Encodable) -> Result<(), Failure> {
    let bytes = out.bytes();
    let start = bytes.len();
    bytes.put_i32(0);
    put_response_header(bytes, header.key, header.version, header.correlation_id);
    if let Err(error) = body.encode(bytes, header.version) {
        bytes.truncate(start);
        return Err(Failure::Encode {
            key: header.key,
            version: header.version,
            reason: error.to_string(),
        });
    }
    close_frame(bytes, start);
    Ok(())
}

/// Fills in the size of the frame that begins at `start`.
fn close_frame(bytes: &mut [u8], start: usize) {
    let size = i32::try_from(bytes.len() - start - frame::SIZE_LENGTH).unwrap_or(i32::MAX);
    if let Some(head) = bytes.get_mut(start..start + frame::SIZE_LENGTH) {
        head.copy_from_slice(&size.to_be_bytes());
    }
}

impl Session for KafkaSession {
    /// security.protocol SSL: the certificate is the login. Of another one SASL is still asked (SASL_SSL).
    fn secured(&mut self, peer: &Certificate) {
        let from = self.info.peer.ip();
        if let Some((identity, name)) = self.node.auth.by_certificate(peer.names(), from) {
            let seat = self.node.auth.seat(identity.name());
            audit::login(&self.node, Face::Kafka, name.as_bytes(), from, seat.is_ok());
            // One too many is a stranger: its next request ends the connection.
            if let Ok(seat) = seat {
                self.seat = seat;
                self.identity = identity;
                self.logged_in = true;
            }
        }
    }

    fn read(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow {
        self.run(input, out)
    }

    fn wake(&mut self, out: &mut Outbox) -> Flow {
        self.look(Instant::now(), out)
    }

    fn deadline(&self) -> Option<Instant> {
        match self.waiting.as_ref()? {
            Waiting::Fetch { until, .. } => Some(*until),
            Waiting::Produce(wait) => wait.until,
            Waiting::Group(wait) => Some(wait.look_at),
            Waiting::Login(wait) => Some(wait.attempt.look_at()),
        }
    }

    fn tick(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.look(now, out)
    }

    fn paused(&self) -> bool {
        self.waiting.is_some()
    }

    fn held(&self) -> usize {
        match &self.waiting {
            Some(Waiting::Produce(wait)) => wait.held(),
            _ => 0,
        }
    }

    fn is_stranger(&self) -> bool {
        !self.identity.is_somebody()
    }

    fn frame_hint(&self) -> usize {
        self.hint
    }

    fn closed(&mut self) {
        if let Some(Waiting::Group(wait)) = self.waiting.take() {
            apis::hang_up(self, &wait);
        }
        self.fetch.unwatch(&self.node.broker, self.info.id);
        self.node.broker.access.unwatch(self.info.id);
    }
}

/// `Instant` of a moment of the node's clock.
fn instant_of(moment: Millis, now: Millis) -> Instant {
    Instant::now() + Duration::from_millis(moment.0.saturating_sub(now.0))
}

#[cfg(test)]
mod tests;
