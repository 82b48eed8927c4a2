//! SASL PLAIN and SCRAM, against the principals of the node.

use std::time::Instant;

use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;
use protocol_kafka::RequestHeader;

use super::{Failure, KafkaSession, Request};
use crate::audit;
use crate::auth::scram::Mechanism;
use crate::auth::{self, Attempt, Refused, ScramExchange, SeatsFull};
use crate::config::Face;
use crate::kafka::{Waiting, respond};
use crate::net::Outbox;

const PLAIN: &str = "PLAIN";

/// What the client has chosen, and how far that is.
#[derive(Debug)]
pub(in crate::kafka) enum Sasl {
    Plain,
    Scram(Mechanism),
    /// The first answer was sent.
    ScramFinal(Mechanism, Box<ScramExchange>),
}

impl Sasl {
    fn name(&self) -> &'static str {
        match self {
            Self::Plain => PLAIN,
            Self::Scram(mechanism) | Self::ScramFinal(mechanism, _) => mechanism.name(),
        }
    }
}

/// A login whose end the connection waits for.
pub(in crate::kafka) struct LoginWait {
    header: RequestHeader,
    pub(in crate::kafka) attempt: Attempt,
    mechanism: &'static str,
    /// What the server says last, if it is accepted.
    message: String,
}

/// Why a login comes to nothing.
enum Why {
    Refused(Refused),
    Full(SeatsFull),
}

impl From<Refused> for Why {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl From<SeatsFull> for Why {
    fn from(full: SeatsFull) -> Self {
        Self::Full(full)
    }
}

pub(super) fn handshake(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: SaslHandshakeRequest = request.decode()?;
    let chosen = match body.mechanism.as_str() {
        PLAIN => Some(Sasl::Plain),
        other => Mechanism::parse(other).map(Sasl::Scram),
    };
    // Version 0 goes on with bare tokens, which nobody has used since 2017; told the mechanism is unknown, such a client stops.
    let chosen = chosen.filter(|_| request.version() >= 1);
    let error = if chosen.is_some() {
        0
    } else {
        Code::UnsupportedSaslMechanism.code()
    };
    session.sasl = chosen;
    let mechanisms = [PLAIN, Mechanism::Sha256.name(), Mechanism::Sha512.name()];
    let response = SaslHandshakeResponse::default()
        .with_error_code(error)
        .with_mechanisms(mechanisms.map(StrBytes::from_static_str).into());
    respond(out, &request.header, &response)
}

pub(super) fn authenticate(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: SaslAuthenticateRequest = request.decode()?;
    let header = request.header;
    let (message, peer) = (&*body.auth_bytes, session.info.peer.ip());
    let Some(sasl) = session.sasl.take() else {
        let response = SaslAuthenticateResponse::default()
            .with_error_code(Code::IllegalSaslState.code())
            .with_error_message(Some(StrBytes::from_static_str(
                "SaslHandshake must come first",
            )));
        return respond(out, &header, &response);
    };
    let mechanism = sasl.name();
    let (attempt, message) = match sasl {
        // There is nobody to be, and who logs in nevertheless may be anybody.
        Sasl::Plain if session.node.auth.knows_nobody() && session.identity.is_somebody() => {
            return respond(out, &header, &SaslAuthenticateResponse::default());
        }
        Sasl::Plain => {
            let attempt = match auth::plain(message) {
                Some((user, password)) => {
                    let wake = session.info.handle.wake();
                    session.node.auth.login(user, password, peer, wake)
                }
                None => Attempt::refused(peer),
            };
            (attempt, String::new())
        }
        Sasl::Scram(kind) => match session.node.auth.scram(kind, message, peer) {
            Ok((exchange, first)) => {
                session.sasl = Some(Sasl::ScramFinal(kind, Box::new(exchange)));
                let response =
                    SaslAuthenticateResponse::default().with_auth_bytes(first.into_bytes().into());
                return respond(out, &header, &response);
            }
            Err(_) => (Attempt::refused(peer), String::new()),
        },
        Sasl::ScramFinal(_, exchange) => exchange.finish(&session.node.auth, message),
    };
    let wait = LoginWait {
        header,
        attempt,
        mechanism,
        message,
    };
    resume(session, wait, Instant::now(), out)
}

/// Answers, if the end has come; waits on otherwise.
pub(in crate::kafka) fn resume(
    session: &mut KafkaSession,
    mut wait: LoginWait,
    now: Instant,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let Some(end) = wait.attempt.poll(&session.node, now) else {
        session.waiting = Some(Waiting::Login(wait));
        return Ok(());
    };
    // KIP-368: a connection stays the same principal's, from its first login on.
    let end = end.and_then(|identity| {
        let known = session.identity.name().filter(|_| session.logged_in);
        if known.is_none() || known == identity.name() {
            Ok(identity)
        } else {
            Err(Refused::Wrong)
        }
    });
    let (user, from) = (wait.attempt.user(), session.info.peer.ip());
    let end = end.map_err(Why::from).and_then(|identity| {
        if session.seat.is_none() {
            session.seat = session.node.auth.seat(identity.name())?;
        }
        Ok(identity)
    });
    audit::login(&session.node, Face::Kafka, user, from, end.is_ok());
    let refused = match end {
        Ok(identity) => {
            session.identity = identity;
            session.logged_in = true;
            let response = SaslAuthenticateResponse::default()
                .with_auth_bytes(wait.message.into_bytes().into());
            return respond(out, &wait.header, &response);
        }
        Err(why) => why,
    };
    let text = match refused {
        Why::Full(full) => {
            format!(
                "Authentication failed: the user has {} connections, and may have no more",
                full.limit
            )
        }
        Why::Refused(Refused::Busy) => {
            "Authentication failed: too many logins are being verified, try again".into()
        }
        Why::Refused(Refused::Wrong) if wait.mechanism == PLAIN => {
            "Authentication failed: Invalid username or password".into()
        }
        Why::Refused(Refused::Wrong) => format!(
            "Authentication failed during authentication due to invalid credentials with SASL mechanism {}",
            wait.mechanism
        ),
    };
    let response = SaslAuthenticateResponse::default()
        .with_error_code(Code::SaslAuthenticationFailed.code())
        .with_error_message(Some(StrBytes::from_string(text)));
    respond(out, &wait.header, &response)?;
    Err(Failure::Login)
}
