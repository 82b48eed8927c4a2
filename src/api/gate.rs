//! Who asks over HTTP: Basic (RFC 7617), a client certificate, or anybody from this machine while there is no credential.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Instant;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Json, Response};
use broker::Wake;
use broker::access::{Identity, Kind, Namespace, Verbs};
use serde_json::json;
use tokio::sync::Notify;

use super::base64;
use super::door::Peer;
use crate::audit;
use crate::auth::Refused;
use crate::config::Face;
use crate::node::Node;

/// An error's answer.
pub(super) fn wrong(status: StatusCode, message: impl std::fmt::Display) -> Response {
    (status, Json(json!({ "error": message.to_string() }))).into_response()
}

/// Lets the request on with its [`Caller`]; health and metrics, which stay open for probes and scrapers, do not come here.
pub(super) async fn logged_in(
    State(node): State<Arc<Node>>,
    ConnectInfo(Peer { addr, certificate }): ConnectInfo<Peer>,
    mut request: Request,
    next: Next,
) -> Response {
    let (shown, from) = (certificate.get(), addr.ip());
    let certified = shown.and_then(|shown| node.auth.by_certificate(shown.names(), from));
    let who = if let Some((identity, name)) = certified {
        // The handshake was the login.
        audit::login(&node, Face::Http, name.as_bytes(), from, true);
        identity
    } else if node.auth.required() || says_who(&node, request.headers()) {
        let Some((user, password)) = basic(request.headers()) else {
            return unauthorized("log in with HTTP Basic");
        };
        let end = verified(&node, &user, &password, from).await;
        audit::login(&node, Face::Http, &user, from, end.is_ok());
        match end {
            Ok(identity) => identity,
            Err(Refused::Wrong) => return unauthorized("log in with HTTP Basic"),
            Err(Refused::Busy) => {
                return wrong(
                    StatusCode::TOO_MANY_REQUESTS,
                    "too many logins are being verified, try again",
                );
            }
        }
    } else {
        let anyone = node.auth.before_login(from);
        if !anyone.is_somebody() {
            return wrong(
                StatusCode::FORBIDDEN,
                "no password is set, so only this machine may ask",
            );
        }
        anyone
    };
    request.extensions_mut().insert(Caller { who, from });
    next.run(request).await
}

/// Where nobody need log in, but somebody can (`default` of Redis' ACL takes any password): whoever says who it is, is asked.
fn says_who(node: &Node, headers: &HeaderMap) -> bool {
    headers.contains_key(header::AUTHORIZATION) && !node.broker.access.is_empty()
}

fn unauthorized(text: &str) -> Response {
    let mut refused = wrong(StatusCode::UNAUTHORIZED, text);
    refused.headers_mut().insert(
        header::WWW_AUTHENTICATE,
        HeaderValue::from_static("Basic realm=\"flowmesh\""),
    );
    refused
}

struct Bell(Notify);

impl Wake for Bell {
    fn wake(&self) {
        self.0.notify_one();
    }
}

async fn verified(
    node: &Arc<Node>,
    user: &[u8],
    password: &[u8],
    peer: IpAddr,
) -> Result<Identity, Refused> {
    let bell = Arc::new(Bell(Notify::new()));
    let wake: Arc<dyn Wake> = bell.clone();
    let mut attempt = node.auth.login(user, password, peer, wake);
    loop {
        if let Some(end) = attempt.poll(node, Instant::now()) {
            return end;
        }
        let until = tokio::time::sleep_until(attempt.look_at().into());
        tokio::select! {
            () = bell.0.notified() => {}
            () = until => {}
        }
    }
}

fn basic(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = base64::decode(encoded.trim().as_bytes())?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    let (user, rest) = plain.split_at_checked(colon)?;
    Some((user.to_vec(), rest.get(1..)?.to_vec()))
}

/// Who asks, and from where.
#[derive(Debug, Clone)]
pub(super) struct Caller {
    pub(super) who: Identity,
    pub(super) from: IpAddr,
}

impl Caller {
    /// `verb` on an area of the server; the answer to who may not.
    pub(super) fn may(&self, node: &Node, area: &str, verb: Verbs) -> Result<(), Box<Response>> {
        let (kind, namespace) = (Kind::Admin, Namespace::DEFAULT);
        if self.who.allows(kind, namespace, area.as_bytes(), verb) {
            return Ok(());
        }
        let name = self.who.name().unwrap_or_default();
        let verb = verb.words().next().unwrap_or_default();
        self.denied(node, &format!("{verb} admin"), area);
        Err(Box::new(wrong(
            StatusCode::FORBIDDEN,
            format_args!("'{name}' has no grant of kind admin for '{area}': {verb}"),
        )))
    }

    /// Who hands out rights, which no grant gives. `what` is done to `object`, for the audit log.
    pub(super) fn superuser(
        &self,
        node: &Node,
        what: &str,
        object: &str,
    ) -> Result<(), Box<Response>> {
        if self.who.is_superuser() {
            return Ok(());
        }
        self.denied(node, what, object);
        let text = "only a superuser may see or change users, grants and the audit log";
        Err(Box::new(wrong(StatusCode::FORBIDDEN, text)))
    }

    fn denied(&self, node: &Node, what: &str, object: &str) {
        let (who, audit) = (self.who.name(), &node.audit);
        audit.denied(Face::Http, who, self.from, what, object.as_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn basic_login() {
        let mut headers = HeaderMap::new();
        assert_eq!(basic(&headers), None);
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static("Basic dTpwOnE="),
        );
        assert_eq!(basic(&headers), Some((b"u".to_vec(), b"p:q".to_vec())));
    }
}
