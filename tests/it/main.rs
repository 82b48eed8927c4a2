//! Tests of the built binary, one module per theme. Each module starts its own servers, on free ports of this machine.

mod access;
mod acl;
mod amqp;
#[path = "../support/amqp_login.rs"]
mod amqp_login;
mod backlog;
mod cli;
mod eviction;
/// A disk whose power fails.
#[path = "../../storage/tests/engine/forgetful.rs"]
mod forgetful;
mod governor;
mod grpc;
mod hostile;
mod http;
mod kafka;
mod keyspace;
mod limits;
mod logins;
mod power;
mod residency;
mod resp;
#[path = "../../storage/tests/engine/rng.rs"]
mod rng;
mod roles;
mod scripts;
mod server;
mod sessions;
mod streams;
mod tls;
mod unix;
