//! `flowmesh dev`: a server for a developer's machine, and what to paste to use it.

use std::fmt::Write;
use std::net::SocketAddr;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Exit, Output, output, say, server, settings};
use crate::config::{Face, Mode, StorageKind};
use crate::node::Node;

pub(super) fn command() -> Command {
    Command::new("dev")
        .about("Serve clients on this machine for development: data in .flowmesh/, nothing waits for the disk")
        .arg(Arg::new("ephemeral").long("ephemeral").action(ArgAction::SetTrue).help("Forget all data at exit (the same as --storage memory)"))
}

pub(super) fn run(matches: &[&ArgMatches]) -> Exit {
    let mut config = match settings::load(matches, Mode::Dev) {
        Ok((config, _)) => config,
        Err(exit) => return exit,
    };
    if matches
        .iter()
        .any(|matches| matches.try_get_one::<bool>("ephemeral").ok().flatten() == Some(&true))
    {
        config.storage = StorageKind::Memory;
    }
    let json = matches
        .iter()
        .any(|matches| output(matches) == Output::Json);
    server::serve(config, Mode::Dev, |node| {
        say(&if json {
            server::addresses(node).to_string()
        } else {
            banner(node)
        });
    })
}

/// At most 15 lines: it must not scroll away what was there before.
fn banner(node: &Node) -> String {
    let at = |face| node.addresses_of(face).next();
    let (user, password) = match node.auth.user() {
        Some(user) => (user, "PASSWORD"),
        None => ("guest", "guest"),
    };
    let login = if node.auth.required() {
        format!("{user}:{password}@")
    } else {
        String::new()
    };
    let off = || "off".to_owned();
    let resp = at(Face::Resp).map_or_else(off, |addr| format!("redis://{login}{addr}"));
    let amqp = at(Face::Amqp).map_or_else(off, |addr| format!("amqp://{user}:{password}@{addr}"));
    let kafka = at(Face::Kafka).map_or_else(off, |addr| addr.to_string());
    let http = at(Face::Http).map_or_else(off, |addr| format!("http://{addr}"));
    let kept = if node.config.storage == StorageKind::Memory {
        "gone at exit"
    } else {
        "kept; --ephemeral forgets"
    };
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "FlowMesh {} is ready. Ctrl-C stops it.\n\n  Redis     {resp}\n  RabbitMQ  {amqp}\n  Kafka     {kafka}\n  HTTP      {http}\n  Data      {} ({kept})\n\n",
        env!("CARGO_PKG_VERSION"),
        node.data_dir.display(),
    );
    if let Some(addr) = at(Face::Resp) {
        let password = if node.auth.required() {
            " -a PASSWORD"
        } else {
            ""
        };
        let _ = writeln!(
            text,
            "  redis-cli{}{password} -p {} set hello world",
            host(addr),
            addr.port()
        );
    }
    if at(Face::Amqp).is_some() {
        let _ = writeln!(
            text,
            "  amqp-declare-queue -u {amqp} -q hello && amqp-publish -u {amqp} -r hello -b world"
        );
    }
    if at(Face::Kafka).is_some() {
        let _ = writeln!(
            text,
            "  echo world | kcat -P -b {kafka} -t hello && kcat -C -e -b {kafka} -t hello"
        );
    }
    text
}

fn host(addr: SocketAddr) -> String {
    if addr.ip().is_loopback() {
        String::new()
    } else {
        format!(" -h {}", addr.ip())
    }
}
