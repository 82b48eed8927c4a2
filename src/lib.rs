//! FlowMesh: Redis, RabbitMQ and Kafka clients over one storage engine, in one process. This crate composes the parts:
//! it is the only place that knows sockets and all protocols at once.

pub mod amqp;
pub mod api;
pub mod audit;
pub mod auth;
pub mod cli;
pub mod clock;
pub mod config;
pub mod governor;
pub mod jobs;
pub mod kafka;
pub mod listen;
pub mod net;
pub mod node;
pub mod resp;
pub mod room;
pub mod script_watch;
pub mod telemetry;
pub mod tls;
