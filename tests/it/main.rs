//! Tests of the built binary, one module per theme. Each module starts its own servers, on free ports of this machine.

mod access;
mod acl;
mod amqp;
#[path = "../support/amqp_login.rs"]
mod amqp_login;
mod backlog;
mod cli;
mod eviction;
mod governor;
mod grpc;
mod hostile;
mod http;
mod kafka;
mod keyspace;
mod limits;
mod logins;
mod residency;
mod resp;
mod roles;
mod scripts;
mod server;
mod sessions;
mod streams;
mod tls;
mod unix;
