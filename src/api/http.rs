//! HTTP: health, readiness, metrics, information and the landing page.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use axum::Extension;
use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{ConnectInfo, DefaultBodyLimit, Request, State};
use axum::http::{StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{get, post};
use broker::Millis;
use broker::access::Verbs;
use serde_json::{Value, json};

use super::door::{Door, Peer, SILENCE_MAX};
use super::gate::{self, Caller, wrong};
use super::wire::Wiring;
use super::{Stopped, amqp, profile, stopped, users};
use crate::auth::is_local;
use crate::config::{Entrance, Face, Mode, Value as _};
use crate::node::{Node, Phase};
use crate::telemetry::metrics::{Encoder, Kind};
use crate::telemetry::{objects, process};

/// Serves until the stop. Each listener with whether it speaks TLS.
pub(super) async fn serve(node: &Arc<Node>, listeners: Vec<(TcpListener, bool)>, stop: &Stopped) {
    let started_ms = node.started_ms;
    node.metrics
        .register(move |out| process_metrics(out, started_ms));
    let app = router(node);
    let mut servers = tokio::task::JoinSet::new();
    for (listener, tls) in listeners {
        let wiring = Wiring::new(node, Face::Http, tls, |configs| &configs.http);
        let most = node.config.admin_max_connections;
        let listener = match Door::new(listener, wiring, most, SILENCE_MAX) {
            Ok(listener) => listener,
            Err(error) => {
                tracing::error!(%error, "HTTP listener");
                continue;
            }
        };
        let service = app.clone().into_make_service_with_connect_info::<Peer>();
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
        .route("/backup", post(backup))
        .merge(profile::routes())
        .merge(users::routes())
        .merge(amqp::routes())
        .layer(middleware::from_fn_with_state(Arc::clone(node), bounded))
        .layer(middleware::from_fn_with_state(
            Arc::clone(node),
            gate::logged_in,
        ));
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
        .layer(DefaultBodyLimit::max(node.config.http_max_body.as_usize()))
        .layer(middleware::from_fn_with_state(Arc::clone(node), counted))
        .with_state(Arc::clone(node))
}

async fn counted(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let answer = next.run(request).await;
    node.metrics.commands_total.of(Face::Http).inc();
    if answer.status().is_client_error() || answer.status().is_server_error() {
        node.metrics.errors_total.of(Face::Http).inc();
    }
    answer
}

/// A body that says that it is too large is not waited for; one that does not say is cut off by [`DefaultBodyLimit`].
async fn bounded(State(node): State<Arc<Node>>, request: Request, next: Next) -> Response {
    let most = node.config.http_max_body.0;
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|text| text.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > most) {
        let mut refused = wrong(
            StatusCode::PAYLOAD_TOO_LARGE,
            format_args!("the body of a request is at most {most} bytes"),
        );
        // The body is not read, so nothing can follow it.
        let close = header::HeaderValue::from_static("close");
        refused.headers_mut().insert(header::CONNECTION, close);
        return refused;
    }
    next.run(request).await
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

async fn info(State(node): State<Arc<Node>>, Extension(caller): Extension<Caller>) -> Response {
    match caller.may(&node, "server", Verbs::DESCRIBE) {
        Ok(()) => Json(describe(&node)).into_response(),
        Err(wrong) => *wrong,
    }
}

/// `{"dir": "/absolute/path"}`. Only from this machine: it writes where it is told. A web page cannot send it, since JSON needs a
/// permission (CORS preflight) that is never given.
async fn backup(
    State(node): State<Arc<Node>>,
    ConnectInfo(Peer { addr, .. }): ConnectInfo<Peer>,
    Extension(caller): Extension<Caller>,
    request: Result<Json<BackupRequest>, JsonRejection>,
) -> Response {
    // Before the request is looked at: who may not is told so, whatever it asks.
    if let Err(wrong) = caller.may(&node, "backup", Verbs::ADMIN) {
        return *wrong;
    }
    let request = match request {
        Ok(Json(request)) => request,
        Err(rejection) => return rejection.into_response(),
    };
    if !is_local(addr.ip()) {
        return wrong(
            StatusCode::FORBIDDEN,
            "a backup can only be asked for from the server's machine",
        );
    }
    if !request.dir.is_absolute() {
        return wrong(StatusCode::BAD_REQUEST, "dir must be an absolute path");
    }
    let engine = Arc::clone(&node.broker.engine);
    let dir = request.dir.clone();
    let began = Instant::now();
    let done = tokio::task::spawn_blocking(move || engine.backup(&dir)).await;
    match done {
        Ok(Ok(())) => Json(json!({ "dir": request.dir, "took_ms": u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX) })).into_response(),
        Ok(Err(error @ storage::Error::Target { .. })) => wrong(StatusCode::BAD_REQUEST, error.to_string()),
        Ok(Err(error)) => {
            tracing::error!(%error, "backup failed");
            wrong(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
        }
        Err(error) => wrong(StatusCode::INTERNAL_SERVER_ERROR, error.to_string()),
    }
}

#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct BackupRequest {
    dir: PathBuf,
}

/// What `/api/v1/info` says.
fn describe(node: &Node) -> Value {
    let now = process::read();
    let faces: serde_json::Map<String, Value> = Face::ALL
        .iter()
        .map(|face| {
            let at = |entrance| -> Vec<String> {
                let addresses = node.addresses_at(entrance);
                addresses.map(|addr| addr.to_string()).collect()
            };
            let open = node.traffic.of(*face).open.value();
            (
                face.name().to_owned(),
                json!({
                    "addresses": at(Entrance::plain(*face)),
                    "tls_addresses": at(Entrance::tls(*face)),
                    "connections": open,
                }),
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
        "objects": {
            "keys": objects::keys_by_database(&node.broker, node.config.resp_databases, Millis(node.clock.now_ms())).iter().sum::<usize>(),
            "queues": node.broker.routes.queues().len(),
            "topics": node.broker.topics.len(),
        },
        "storage": storage_info(node),
        "process": {
            "resident_bytes": now.resident_bytes,
            "cpu_seconds": now.cpu_seconds,
            "open_files": now.open_files,
            "threads": now.threads,
        },
    })
}

fn storage_info(node: &Node) -> Value {
    let stats = node.broker.engine.stats();
    let budgets = &node.broker.budgets;
    let budget = |budget: &broker::Budget| json!({ "used_bytes": budget.used(), "limit_bytes": budget.limit() });
    json!({
        "kind": node.config.storage.show(),
        "appended": stats.appended.0,
        "synced": stats.synced.0,
        "folded": stats.folded.0,
        "unfolded_bytes": stats.unfolded_bytes,
        "log_bytes": stats.log_bytes,
        "log_segments": stats.log_segments,
        "table_bytes": stats.table_bytes,
        "folds": stats.folds,
        "recovery_us": stats.recovery_us,
        "memory": { "cache": budget(&budgets.cache), "queue": budget(&budgets.queue), "stream": budget(&budgets.stream) },
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
                "amqp://{}{}",
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
