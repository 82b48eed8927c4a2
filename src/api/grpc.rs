//! gRPC: `grpc.health.v1.Health` and reflection.

use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use tonic_health::ServingStatus;

use super::door::Door;
use super::wire::Wiring;
use super::{Stopped, stopped};
use crate::config::Face;
use crate::node::{Node, Phase};

/// Calls at once on one connection.
const STREAMS_MAX: u32 = 100;
/// How often a silent peer is asked whether it is still there; its answers keep the connection.
const KEEPALIVE: Duration = Duration::from_secs(30);
/// Longer than the two together, so that only who does not answer is silent.
const SILENCE_MAX: Duration = Duration::from_secs(90);
/// Of one call's headers; hyper's own default is 16 KiB, too.
const HEADERS_MAX: u32 = 16 << 10;

/// Serves until the stop. Each listener with whether it speaks TLS.
pub(super) async fn serve(node: &Arc<Node>, listeners: Vec<(TcpListener, bool)>, stop: &Stopped) {
    let mut servers = tokio::task::JoinSet::new();
    for (listener, tls) in listeners {
        let (reporter, health) = tonic_health::server::health_reporter();
        let reflection = match tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
            .build_v1()
        {
            Ok(reflection) => reflection,
            Err(error) => {
                tracing::error!(%error, "gRPC reflection");
                continue;
            }
        };
        let wiring = Wiring::new(node, Face::Grpc, tls, |configs| &configs.grpc);
        let most = node.config.admin_max_connections;
        let door = match Door::new(listener, wiring, most, SILENCE_MAX) {
            Ok(door) => door,
            Err(error) => {
                tracing::error!(%error, "gRPC listener");
                continue;
            }
        };
        let mut phases = node.phases();
        // Ends with the thread's runtime.
        tokio::spawn(async move {
            loop {
                let status = match *phases.borrow_and_update() {
                    Phase::Ready => ServingStatus::Serving,
                    Phase::Starting | Phase::Stopping => ServingStatus::NotServing,
                };
                // "" is the server as a whole (gRPC health checking protocol).
                reporter.set_service_status("", status).await;
                if phases.changed().await.is_err() {
                    return;
                }
            }
        });
        let stop = stop.clone();
        servers.spawn(async move {
            let served = tonic::transport::Server::builder()
                .max_concurrent_streams(STREAMS_MAX)
                .http2_keepalive_interval(Some(KEEPALIVE))
                .http2_max_header_list_size(HEADERS_MAX)
                .add_service(health)
                .add_service(reflection)
                .serve_with_incoming_shutdown(door.guests(), stopped(stop))
                .await;
            if let Err(error) = served {
                tracing::error!(%error, "gRPC server ended");
            }
        });
    }
    while servers.join_next().await.is_some() {}
}
