//! `flowmesh server`.

use clap::ArgMatches;

use super::{Exit, Output, backup, fail, output, say, settings};
use crate::config::{Config, Entrance, Face, Mode};
use crate::node::{self, Node};
use crate::telemetry::log;

/// Serves until a signal. With `-o json` one line with the addresses is printed when clients can connect.
pub(super) fn run(matches: &[&ArgMatches]) -> Exit {
    let config = match settings::load(matches, Mode::Server) {
        Ok((config, _)) => config,
        Err(exit) => return exit,
    };
    let json = matches
        .iter()
        .any(|matches| output(matches) == Output::Json);
    serve(config, Mode::Server, |node| {
        if json {
            say(&addresses(node).to_string());
        }
    })
}

/// Runs the node and turns its end into an exit code.
pub(super) fn serve(config: Config, mode: Mode, ready: impl FnOnce(&Node)) -> Exit {
    if let Err(message) = log::start(&config) {
        return fail(Exit::Usage, message);
    }
    match node::run(config, mode, ready) {
        Ok(()) => Exit::Done,
        Err(error) => fail(Exit::from(&error), backup::told(&error)),
    }
}

/// `{"pid":1,"resp":["127.0.0.1:6379"],…}`; an entrance with TLS, if there is one, is `resp-tls`, a
/// Unix socket `resp-unix`.
pub(super) fn addresses(node: &Node) -> serde_json::Value {
    let mut all = serde_json::Map::new();
    all.insert("pid".into(), std::process::id().into());
    for face in Face::ALL {
        for entrance in [Entrance::plain(face), Entrance::tls(face)] {
            let addresses = node.addresses_at(entrance);
            let list: Vec<String> = addresses.map(|addr| addr.to_string()).collect();
            if !entrance.tls || !list.is_empty() {
                all.insert(entrance.to_string(), list.into());
            }
        }
    }
    if let Some(path) = &node.config.resp_unix_socket {
        all.insert("resp-unix".into(), vec![path.display().to_string()].into());
    }
    all.into()
}
