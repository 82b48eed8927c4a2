//! What RabbitMQ's administrators do with its command line: tracing.

use std::sync::Arc;

use axum::extract::State;
use axum::routing::get;
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};

use super::users::By;
use crate::node::Node;

pub(super) fn routes() -> Router<Arc<Node>> {
    Router::new().route("/amqp/trace", get(traced).post(trace))
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Switch {
    on: bool,
}

async fn traced(State(node): State<Arc<Node>>, _by: By) -> Json<Value> {
    Json(json!({ "on": node.is_traced() }))
}

/// As `rabbitmqctl trace_on` and `trace_off`: until the next start.
async fn trace(State(node): State<Arc<Node>>, by: By, Json(switch): Json<Switch>) -> Json<Value> {
    node.set_traced(switch.on);
    tracing::info!(on = switch.on, by = by.name(), "tracing of AMQP messages");
    Json(json!({ "on": switch.on }))
}
