//! HTTP: health, readiness, metrics, information and the landing page.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use axum::Router;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::{Stopped, stopped};
use crate::auth::is_local;
use crate::config::{Face, Mode};
use crate::node::{Node, Phase};
use crate::telemetry::metrics::{Encoder, Kind};
use crate::telemetry::process;

/// Serves until the stop.
pub(super) async fn serve(node: &Arc<Node>, listeners: Vec<TcpListener>, stop: &Stopped) {
    let started_ms = node.started_ms;
    node.metrics
        .register(move |out| process_metrics(out, started_ms));
    let app = router(node);
    let mut servers = tokio::task::JoinSet::new();
    for listener in listeners {
        let listener = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "HTTP listener");
                continue;
            }
        };
        let service = app
            .clone()
            .into_make_service_with_connect_info::<SocketAddr>();
        let server = axum::serve(listener, service).with_graceful_shutdown(stopped(stop.clone()));
        servers.spawn(async move {
            if let Err(error) = server.await {
                tracing::error!(%error, "HTTP server ended");
            }
        });
    }
    while servers.join_next().await.is_some() {}
}

fn router(node: &Arc<Node>) -> Router {
    let api = Router::new()
        .route("/info", get(info))
        .layer(middleware::from_fn_with_state(Arc::clone(node), logged_in));
    Router::new()
        .route("/", get(landing))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .nest("/api/v1", api)
        .fallback(|| async {
            (
                StatusCode::NOT_FOUND,
                Json(json!({ "error": "no such path; GET / lists what is here" })),
            )
        })
        .with_state(Arc::clone(node))
}

/// Asks for the password (HTTP Basic, RFC 7617) when there is one; health and metrics stay open for probes and scrapers.
async fn logged_in(
    State(node): State<Arc<Node>>,
    ConnectInfo(peer): ConnectInfo<SocketAddr>,
    request: Request,
    next: Next,
) -> Response {
    if node.auth.required() {
        let given = basic(request.headers());
        let known = given
            .as_ref()
            .is_some_and(|(user, password)| node.auth.login(user, password, peer.ip()));
        if !known {
            if given.is_some() {
                node.metrics.auth_failures_total.of(Face::Http).inc();
            }
            let mut refused = (
                StatusCode::UNAUTHORIZED,
                Json(json!({ "error": "log in with HTTP Basic" })),
            )
                .into_response();
            refused.headers_mut().insert(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"flowmesh\""),
            );
            return refused;
        }
    } else if !is_local(peer.ip()) {
        return (
            StatusCode::FORBIDDEN,
            Json(json!({ "error": "no password is set, so only this machine may ask" })),
        )
            .into_response();
    }
    next.run(request).await
}

fn basic(headers: &HeaderMap) -> Option<(Vec<u8>, Vec<u8>)> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, encoded) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain = base64(encoded.trim().as_bytes())?;
    let colon = plain.iter().position(|byte| *byte == b':')?;
    let (user, rest) = plain.split_at_checked(colon)?;
    Some((user.to_vec(), rest.get(1..)?.to_vec()))
}

/// RFC 4648 §4, padding optional.
fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len() / 4 * 3 + 2);
    let (mut bits, mut count) = (0u32, 0);
    for byte in text.iter().take_while(|byte| **byte != b'=') {
        let six = match byte {
            b'A'..=b'Z' => byte - b'A',
            b'a'..=b'z' => byte - b'a' + 26,
            b'0'..=b'9' => byte - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(six)) & 0xFF_FFFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            let [.., low] = (bits >> count).to_be_bytes();
            out.push(low);
        }
    }
    Some(out)
}

async fn healthz() -> &'static str {
    "ok\n"
}

async fn readyz(State(node): State<Arc<Node>>) -> (StatusCode, &'static str) {
    match node.phase() {
        Phase::Ready => (StatusCode::OK, "ready\n"),
        Phase::Starting => (StatusCode::SERVICE_UNAVAILABLE, "starting\n"),
        Phase::Stopping => (StatusCode::SERVICE_UNAVAILABLE, "stopping\n"),
    }
}

async fn metrics(State(node): State<Arc<Node>>) -> impl IntoResponse {
    (
        [(
            header::CONTENT_TYPE,
            "text/plain; version=0.0.4; charset=utf-8",
        )],
        node.metrics.encode(),
    )
}

async fn info(State(node): State<Arc<Node>>) -> Json<Value> {
    Json(describe(&node))
}

/// What `/api/v1/info` says.
fn describe(node: &Node) -> Value {
    let now = process::read();
    let faces: serde_json::Map<String, Value> = Face::ALL
        .iter()
        .map(|face| {
            let addresses: Vec<String> = node
                .addresses_of(*face)
                .map(|addr| addr.to_string())
                .collect();
            let open = node.metrics.connections.of(*face).value();
            (
                face.name().to_owned(),
                json!({ "addresses": addresses, "connections": open }),
            )
        })
        .collect();
    json!({
        "name": "flowmesh",
        "version": env!("CARGO_PKG_VERSION"),
        "mode": match node.mode { Mode::Server => "server", Mode::Dev => "dev" },
        "phase": match node.phase() { Phase::Starting => "starting", Phase::Ready => "ready", Phase::Stopping => "stopping" },
        "pid": std::process::id(),
        "started_ms": node.started_ms,
        "uptime_ms": node.clock.now_ms().saturating_sub(node.started_ms),
        "data_dir": node.data_dir.display().to_string(),
        "faces": faces,
        "process": {
            "resident_bytes": now.resident_bytes,
            "cpu_seconds": now.cpu_seconds,
            "open_files": now.open_files,
            "threads": now.threads,
        },
    })
}

async fn landing(State(node): State<Arc<Node>>) -> impl IntoResponse {
    let at = |face| {
        node.addresses_of(face)
            .next()
            .map_or_else(|| "off".to_owned(), |addr| addr.to_string())
    };
    let login = if node.auth.required() {
        "USER:PASSWORD@"
    } else {
        ""
    };
    let page = include_str!("landing.html")
        .replace("{version}", env!("CARGO_PKG_VERSION"))
        .replace("{resp}", &format!("redis://{login}{}", at(Face::Resp)))
        .replace(
            "{amqp}",
            &format!(
                "amqp://{}{}/",
                if login.is_empty() {
                    "guest:guest@"
                } else {
                    login
                },
                at(Face::Amqp)
            ),
        )
        .replace("{kafka}", &at(Face::Kafka))
        .replace("{grpc}", &at(Face::Grpc));
    let headers = [
        (header::CONTENT_TYPE, "text/html; charset=utf-8"),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; style-src 'unsafe-inline'",
        ),
    ];
    (headers, page)
}

fn process_metrics(out: &mut Encoder, started_ms: u64) {
    let now = process::read();
    out.family(
        "process_resident_memory_bytes",
        Kind::Gauge,
        "Bytes in RAM.",
    )
    .sample(&[], now.resident_bytes);
    out.family(
        "process_virtual_memory_bytes",
        Kind::Gauge,
        "Bytes of address space.",
    )
    .sample(&[], now.virtual_bytes);
    out.family(
        "process_cpu_seconds_total",
        Kind::Counter,
        "User and system time of all threads.",
    )
    .sample(&[], now.cpu_seconds);
    out.family("process_open_fds", Kind::Gauge, "Open file descriptors.")
        .sample(&[], now.open_files);
    out.family("process_threads", Kind::Gauge, "Threads.")
        .sample(&[], now.threads);
    out.family(
        "process_start_time_seconds",
        Kind::Gauge,
        "Start, in seconds since 1970.",
    )
    .sample(&[], started_ms as f64 / 1e3);
    out.family(
        "flowmesh_build_info",
        Kind::Gauge,
        "Always 1; the version is a label.",
    )
    .sample(&[("version", env!("CARGO_PKG_VERSION"))], 1);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_read() {
        for (text, plain) in [
            ("", ""),
            ("Zg==", "f"),
            ("Zm8=", "fo"),
            ("Zm9v", "foo"),
            ("Zm9vYg", "foob"),
            ("dTpw", "u:p"),
        ] {
            assert_eq!(
                base64(text.as_bytes()).as_deref(),
                Some(plain.as_bytes()),
                "{text}"
            );
        }
        assert_eq!(base64(b"a-b"), None);
        let mut headers = HeaderMap::new();
        headers.insert(
            header::AUTHORIZATION,
            HeaderValue::from_static("Basic dTpwOnE="),
        );
        assert_eq!(basic(&headers), Some((b"u".to_vec(), b"p:q".to_vec())));
    }
}
