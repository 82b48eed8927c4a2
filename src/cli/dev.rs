//! `flowmesh dev`: a server for a developer's machine, and what to paste to use it.

use std::fmt::Write;
use std::net::SocketAddr;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Exit, Output, output, say, server, settings};
use crate::config::{ClientAuth, Config, Entrance, Face, KNOBS, Mode, Source, StorageKind};
use crate::node::Node;
use crate::tls::dev::Files;

pub(super) fn command() -> Command {
    Command::new("dev")
        .about("Serve clients on this machine for development: data in .flowmesh/, nothing waits for the disk")
        .arg(Arg::new("ephemeral").long("ephemeral").action(ArgAction::SetTrue).help("Forget all data at exit (the same as --storage memory)"))
        .arg(Arg::new("tls").long("tls").action(ArgAction::SetTrue).help(
            "Also listen with TLS, with throw-away certificates below the data directory unless --tls-cert names others",
        ))
}

pub(super) fn run(matches: &[&ArgMatches]) -> Exit {
    let given = |flag: &str| {
        matches
            .iter()
            .any(|matches| matches.try_get_one::<bool>(flag).ok().flatten() == Some(&true))
    };
    let loaded = settings::load_with(matches, Mode::Dev, |layers| {
        if given("tls") {
            layers.expand("tls", add_tls);
        }
    });
    let mut config = match loaded {
        Ok((config, _)) => config,
        Err(exit) => return exit,
    };
    if given("ephemeral") {
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

/// Where clients connect with TLS unless told otherwise. Redis has no usual port for it; 6380 is the one of Azure's Redis.
const TLS_ADDRESSES: [(&str, &str); 5] = [
    ("resp_tls_addr", "6380"),
    ("amqp_tls_addr", "5671"),
    ("kafka_tls_addr", "9093"),
    ("grpc_tls_addr", "50052"),
    ("http_tls_addr", "8443"),
];

/// Addresses that nobody spoke of, and certificates if none are named. Clients may show the one that is made for them.
fn add_tls(config: &mut Config, sources: &[Source]) -> Result<(), String> {
    for (name, port) in TLS_ADDRESSES {
        let row = KNOBS
            .iter()
            .zip(sources)
            .find(|(knob, _)| knob.name == name);
        if let Some((knob, Source::Default)) = row {
            knob.put(config, port)?;
        }
    }
    if config.tls_cert.is_none() {
        let dir = config.data_dir.join("tls");
        let files = Files::ensure(&dir, &config.user).map_err(|error| error.to_string())?;
        config.tls_cert = Some(files.cert);
        config.tls_key = Some(files.key);
        if config.tls_client_ca.is_none() {
            config.tls_client_ca = Some(files.ca);
            config.tls_client_auth = config.tls_client_auth.or(Some(ClientAuth::Optional));
        }
    }
    Ok(())
}

/// What to paste to use TLS; empty without.
fn tls_lines(node: &Node) -> String {
    let at = |face| node.addresses_at(Entrance::tls(face)).next();
    let mut text = String::new();
    let dir = node.config.data_dir.join("tls");
    let files = Files::within(&dir);
    let made = node.config.tls_cert.as_ref() == Some(&files.cert);
    let ca = if made {
        &files.ca.display().to_string()
    } else {
        "CA.crt"
    };
    let mut ports = Vec::new();
    for face in Face::ALL {
        if let Some(addr) = at(face) {
            ports.push(format!("{} {}", face.name(), addr.port()));
        }
    }
    if ports.is_empty() {
        return text;
    }
    // Writing to a String cannot fail.
    let _ = writeln!(text, "\n  TLS       {}", ports.join(", "));
    if made {
        let _ = writeln!(
            text,
            "  Files     {}: ca.crt, client.crt, client.key",
            dir.display()
        );
    }
    if let Some(addr) = at(Face::Resp) {
        let _ = writeln!(
            text,
            "  redis-cli --tls --cacert {ca} -p {} ping",
            addr.port()
        );
    }
    if let Some(addr) = at(Face::Amqp) {
        let _ = writeln!(
            text,
            "  amqp-declare-queue --ssl --cacert {ca} -s localhost --port {} -q hello",
            addr.port()
        );
    }
    if let Some(addr) = at(Face::Kafka) {
        let _ = writeln!(
            text,
            "  kcat -L -X security.protocol=ssl -X ssl.ca.location={ca} -b localhost:{}",
            addr.port()
        );
    }
    if let Some(addr) = at(Face::Http) {
        let _ = writeln!(
            text,
            "  curl --cacert {ca} https://localhost:{}/healthz",
            addr.port()
        );
    }
    text
}

/// At most 15 lines, and 6 of TLS: it must not scroll away what was there before.
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
    text.push_str(&tls_lines(node));
    text
}

fn host(addr: SocketAddr) -> String {
    if addr.ip().is_loopback() {
        String::new()
    } else {
        format!(" -h {}", addr.ip())
    }
}
