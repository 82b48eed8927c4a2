//! From the protocol header to connection.open-ok.

use std::time::{Duration, Instant};

use protocol_amqp::{Method, ReplyCode, Table, TableBuilder, Value};

use super::events;
use super::fault::{Fault, Result};
use super::session::{Core, Phase};
use crate::audit;
use crate::auth::{self, Attempt, Refused};
use crate::config::Face;
use crate::net::{Flow, Outbox};

const CAPABILITIES: [&str; 9] = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
];

/// Login texts say no more than RabbitMQ's.
const REFUSED: &str = "Login was refused using authentication mechanism";

pub(super) fn start(core: &mut Core, out: &mut Outbox) {
    let mut capabilities = TableBuilder::new();
    for name in CAPABILITIES {
        capabilities.push(name.as_bytes(), Value::Bool(true));
    }
    let config = &core.node.config;
    let properties = TableBuilder::new()
        .with("capabilities", Value::Table(capabilities.as_table()))
        .with("cluster_name", Value::LongStr(b"flowmesh@localhost"))
        .with("copyright", Value::LongStr(b"FlowMesh, Apache License 2.0"))
        .with(
            "information",
            Value::LongStr(b"FlowMesh, speaking AMQP 0-9-1 as RabbitMQ does"),
        )
        .with("platform", Value::LongStr(b"FlowMesh"))
        .with(
            "product",
            Value::LongStr(config.amqp_announced_product.as_bytes()),
        )
        .with(
            "version",
            Value::LongStr(config.amqp_announced_version.as_bytes()),
        );
    let start = Method::ConnectionStart {
        version_major: 0,
        version_minor: 9,
        server_properties: properties.as_table(),
        mechanisms: if core.certificate.is_some() {
            "AMQPLAIN PLAIN EXTERNAL".into()
        } else {
            "AMQPLAIN PLAIN".into()
        },
        locales: "en_US".into(),
    };
    protocol_amqp::method(out.bytes(), 0, &start);
    core.phase = Phase::Started;
}

/// The client's methods on channel 0.
pub(super) fn method(core: &mut Core, method: &Method<'_>, out: &mut Outbox) -> Result<Flow> {
    match (core.phase, method) {
        (
            Phase::Started,
            Method::ConnectionStartOk {
                client_properties,
                mechanism,
                response,
                ..
            },
        ) => start_ok(core, *client_properties, mechanism.0, response.0, out),
        (
            Phase::Tuning,
            Method::ConnectionTuneOk {
                channel_max,
                frame_max,
                heartbeat,
            },
        ) => tune_ok(core, *channel_max, *frame_max, *heartbeat),
        (Phase::Tuned, Method::ConnectionOpen { virtual_host, .. }) => {
            if virtual_host.0 != b"/" {
                let name = String::from_utf8_lossy(virtual_host.0);
                return Err(Fault::connection(
                    ReplyCode::NotAllowed,
                    format!("vhost {name} not found"),
                ));
            }
            core.may_enter()?;
            let (auth, name) = (&core.node.auth, core.identity.name());
            core.seat = auth.seat(name).map_err(|full| {
                Fault::connection(
                    ReplyCode::NotAllowed,
                    format!(
                        "connection refused for user '{}': user connection limit ({}) is reached",
                        core.user, full.limit
                    ),
                )
            })?;
            protocol_amqp::method(
                out.bytes(),
                0,
                &Method::ConnectionOpenOk {
                    known_hosts: "".into(),
                },
            );
            core.phase = Phase::Running;
            core.is_open = true;
            core.tell_connected(core.mechanism);
            Ok(Flow::Continue)
        }
        (Phase::Running, _) => Err(Fault::connection(
            ReplyCode::ChannelError,
            "unexpected method in connection state running",
        )),
        (_, other) => {
            let detail = format!(
                "unexpected method {} in connection state starting",
                other.name()
            );
            Err(Fault::connection(ReplyCode::CommandInvalid, detail))
        }
    }
}

/// Before the limits are agreed on, RabbitMQ just closes, but tells clients that said so that their login was refused.
pub(super) fn may_tell(core: &Core, fault: &Fault) -> bool {
    core.phase >= Phase::Tuned || (fault.code == ReplyCode::AccessRefused && core.failure_close)
}

fn start_ok(
    core: &mut Core,
    properties: Table<'_>,
    mechanism: &[u8],
    response: &[u8],
    out: &mut Outbox,
) -> Result<Flow> {
    if let Some(Value::Table(capabilities)) = properties.get("capabilities") {
        let has = |name| capabilities.get(name) == Some(Value::Bool(true));
        core.blocked.understood = has("connection.blocked");
        core.cancel_notify = has("consumer_cancel_notify");
        core.failure_close = has("authentication_failure_close");
    }
    if core.broker().routes.is_heard() {
        core.client_properties = properties.as_bytes().into();
    }
    let login = match (mechanism, &core.certificate) {
        (b"PLAIN", _) => auth::plain(response),
        (b"AMQPLAIN", _) => amqplain(response),
        // The certificate says who it is; RabbitMQ, too, does not look at the response.
        (b"EXTERNAL", Some(certificate)) => {
            let from = core.info.peer.ip();
            let named = core.node.auth.by_certificate(certificate.names(), from);
            let Some((identity, user)) = named else {
                let shown = certificate.names().next().unwrap_or_default();
                audit::login(&core.node, Face::Amqp, shown.as_bytes(), from, false);
                return Err(refused("EXTERNAL"));
            };
            audit::login(&core.node, Face::Amqp, user.as_bytes(), from, true);
            core.identity = identity;
            return Ok(welcome(core, user, "EXTERNAL", out));
        }
        (other, _) => {
            return Err(Fault::connection(
                ReplyCode::CommandInvalid,
                format!(
                    "unknown authentication mechanism '{}'",
                    String::from_utf8_lossy(other)
                ),
            ));
        }
    };
    let Some((user, password)) = login else {
        audit::login(&core.node, Face::Amqp, b"", core.info.peer.ip(), false);
        return Err(Fault::connection(
            ReplyCode::SyntaxError,
            "cannot read the login",
        ));
    };
    let wake = core.info.handle.wake();
    let peer = core.info.peer.ip();
    let attempt = core.node.auth.login(user, password, peer, wake);
    let mechanism = if mechanism == b"PLAIN" {
        "PLAIN"
    } else {
        "AMQPLAIN"
    };
    core.login = Some(Box::new(Login { attempt, mechanism }));
    end_login(core, Instant::now(), out)
}

/// A login whose end is waited for.
#[derive(Debug)]
pub(super) struct Login {
    attempt: Attempt,
    mechanism: &'static str,
}

impl Login {
    pub(super) fn look_at(&self) -> Instant {
        self.attempt.look_at()
    }
}

/// Goes on with the handshake when the login's end has come.
pub(super) fn end_login(core: &mut Core, now: Instant, out: &mut Outbox) -> Result<Flow> {
    let Some(login) = &mut core.login else {
        return Ok(Flow::Continue);
    };
    let Some(end) = login.attempt.poll(&core.node, now) else {
        return Ok(Flow::Continue);
    };
    let user = String::from_utf8_lossy(login.attempt.user()).into_owned();
    let from = core.info.peer.ip();
    audit::login(&core.node, Face::Amqp, user.as_bytes(), from, end.is_ok());
    let mechanism = login.mechanism;
    core.login = None;
    match end {
        Ok(identity) => {
            core.identity = identity;
            Ok(welcome(core, user, mechanism, out))
        }
        Err(Refused::Wrong) => {
            let why = format!("user '{user}' - invalid credentials");
            core.tell_login(&user, mechanism, events::Login::Failure(&why));
            Err(refused(mechanism))
        }
        Err(Refused::Busy) => Err(Fault::connection(
            ReplyCode::AccessRefused,
            "too many logins are being verified, try again",
        )
        .about(0, 0)),
    }
}

fn refused(mechanism: &str) -> Fault {
    Fault::connection(
        ReplyCode::AccessRefused,
        format!("{REFUSED} {mechanism}. For details see the broker logfile."),
    )
    .about(0, 0)
}

fn welcome(core: &mut Core, user: String, mechanism: &'static str, out: &mut Outbox) -> Flow {
    core.tell_login(&user, mechanism, events::Login::Success);
    core.user = user;
    core.mechanism = mechanism;
    let config = &core.node.config;
    let tune = Method::ConnectionTune {
        channel_max: config.amqp_channel_max,
        frame_max: config.amqp_frame_max,
        heartbeat: u16::try_from(config.amqp_heartbeat.as_secs()).unwrap_or(u16::MAX),
    };
    protocol_amqp::method(out.bytes(), 0, &tune);
    core.phase = Phase::Tuning;
    Flow::Continue
}

/// A field table without its length.
fn amqplain(response: &[u8]) -> Option<(&[u8], &[u8])> {
    let table = Table::parse(response).ok()?;
    Some((
        table.get("LOGIN")?.as_bytes()?,
        table.get("PASSWORD")?.as_bytes()?,
    ))
}

fn tune_ok(core: &mut Core, channel_max: u16, frame_max: u32, heartbeat: u16) -> Result<Flow> {
    let config = &core.node.config;
    negotiate(
        "frame_max",
        frame_max,
        config.amqp_frame_max,
        protocol_amqp::FRAME_MIN_SIZE,
    )?;
    negotiate(
        "channel_max",
        channel_max.into(),
        config.amqp_channel_max.into(),
        1,
    )?;
    core.frame_max = frame_max;
    core.channel_max = channel_max;
    // Twice per heartbeat, so that neither side ever waits longer than one.
    core.beat = Duration::from_secs(heartbeat.into()) / 2;
    core.phase = Phase::Tuned;
    Ok(Flow::Continue)
}

fn negotiate(field: &str, client: u32, server: u32, min: u32) -> Result {
    let (lower, limit) = if client != 0 && client < min {
        (true, min)
    } else if server != 0 && (client == 0 || client > server) {
        (false, server)
    } else {
        return Ok(());
    };
    let detail = if client == 0 { " (no limit)" } else { "" };
    let (than, bound) = if lower {
        ("lower", "minimum")
    } else {
        ("higher", "maximum")
    };
    Err(Fault::connection(
        ReplyCode::NotAllowed,
        format!(
            "negotiated {field} = {client}{detail} is {than} than the {bound} allowed value ({limit})"
        ),
    ))
}
