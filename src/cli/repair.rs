//! `flowmesh repair`.

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::{Exit, Output, backup::told, fail, output, say, settings};
use crate::config::Mode;

pub(super) fn command(server: &dyn Fn(Command) -> Command) -> Command {
    server(
        Command::new("repair")
            .about("Cut a damaged log at its first damage, when a server refuses to start because of it; what comes behind is lost")
            .arg(Arg::new("yes").long("yes").action(ArgAction::SetTrue).help("Really do it; make a copy of the data directory first")),
    )
}

pub(super) fn run(root: &ArgMatches, matches: &ArgMatches) -> Exit {
    let (config, _) = match settings::load(&[root, matches], Mode::Server) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let dir = &config.data_dir;
    if !dir.is_dir() {
        return fail(
            Exit::Failed,
            format_args!("there is no data directory {}", dir.display()),
        );
    }
    if !matches.get_flag("yes") {
        return fail(
            Exit::Usage,
            format_args!(
                "repair cuts the log in {} at its first damage, and what comes behind is lost: make a copy, then add --yes",
                dir.display()
            ),
        );
    }
    let repaired = match storage::repair(dir) {
        Ok(repaired) => repaired,
        Err(error) => return fail(Exit::from(&error), told(&error)),
    };
    match (output(matches), &repaired.damage) {
        (Output::Json, _) => say(&json!(repaired).to_string()),
        (Output::Table, None) => say("nothing is damaged, nothing was changed"),
        (Output::Table, Some(damage)) => say(&format!(
            "cut {} at position {} ({}): {} bytes and {} whole groups behind it are lost, {}",
            damage.path.display(),
            damage.position,
            damage.what,
            damage.lost_bytes,
            damage.lost_groups,
            if damage.was_synced {
                "some of what had been told as safe on the disk"
            } else {
                "nothing of which had been told as safe on the disk"
            },
        )),
    }
}
