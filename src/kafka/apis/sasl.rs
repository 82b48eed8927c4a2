//! SASL PLAIN against the node's one principal.

use std::net::IpAddr;

use bytes::Bytes;
use kafka_protocol::ResponseError as Code;
use kafka_protocol::messages::{
    SaslAuthenticateRequest, SaslAuthenticateResponse, SaslHandshakeRequest, SaslHandshakeResponse,
};
use kafka_protocol::protocol::StrBytes;

use super::{Failure, KafkaSession, Request};
use crate::config::Face;
use crate::kafka::{Login, respond};
use crate::net::Outbox;

const MECHANISM: &str = "PLAIN";

pub(super) fn handshake(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: SaslHandshakeRequest = request.decode()?;
    // Version 0 goes on with bare tokens, which nobody has used since 2017; told the mechanism is unknown, such a client stops.
    let known = body.mechanism.as_str() == MECHANISM && request.version() >= 1;
    if known && session.login == Login::Required {
        session.login = Login::Plain;
    }
    let error = if known {
        0
    } else {
        Code::UnsupportedSaslMechanism.code()
    };
    let response = SaslHandshakeResponse::default()
        .with_error_code(error)
        .with_mechanisms(vec![StrBytes::from_static_str(MECHANISM)]);
    respond(out, &request.header, &response)
}

pub(super) fn authenticate(
    session: &mut KafkaSession,
    request: &mut Request,
    out: &mut Outbox,
) -> Result<(), Failure> {
    let body: SaslAuthenticateRequest = request.decode()?;
    let mut response = SaslAuthenticateResponse::default();
    if session.login == Login::Required {
        response.error_code = Code::IllegalSaslState.code();
        response.error_message = Some(StrBytes::from_static_str("SaslHandshake must come first"));
    } else if !session.node.auth.required()
        || accepts(session, &body.auth_bytes, session.info.peer.ip())
    {
        session.login = Login::Done;
    } else {
        session
            .node
            .metrics
            .auth_failures_total
            .of(Face::Kafka)
            .inc();
        response.error_code = Code::SaslAuthenticationFailed.code();
        response.error_message = Some(StrBytes::from_static_str(
            "Authentication failed: Invalid username or password",
        ));
    }
    respond(out, &request.header, &response)
}

/// RFC 4616: authorization identity, user and password, separated by zero bytes.
fn accepts(session: &KafkaSession, message: &Bytes, peer: IpAddr) -> bool {
    let mut parts = message.split(|byte| *byte == 0);
    let (Some(_), Some(user), Some(password), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return false;
    };
    session.node.auth.login(user, password, peer)
}
