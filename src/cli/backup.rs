//! `flowmesh backup` and `restore`.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::{Arg, ArgAction, ArgMatches, Command};
use serde_json::json;

use super::ask::ask;
use super::{Exit, Output, fail, output, say, settings};
use crate::config::{Config, Mode};

const WHY: &str = "the data directory is in use";

pub(super) fn commands(server: &dyn Fn(Command) -> Command) -> [Command; 2] {
    [
        server(
            Command::new("backup")
                .about("Copy the data of all faces, at one moment, into a new directory; the server may run")
                .arg(path("dir", "DIR", "New or empty directory, on the server's machine")),
        ),
        server(
            Command::new("restore")
                .about("Make a data directory from a backup, after reading every row of it; the server must not run")
                .arg(path("dir", "BACKUP", "Directory that `flowmesh backup` made"))
                .arg(Arg::new("check").long("check").action(ArgAction::SetTrue).help("Only check that the backup is whole")),
        ),
    ]
}

fn path(id: &'static str, value: &'static str, help: &'static str) -> Arg {
    Arg::new(id)
        .value_name(value)
        .required(true)
        .value_parser(clap::value_parser!(PathBuf))
        .help(help)
}

/// Opens the data directory itself; if a server has it, asks that server.
pub(super) fn backup(root: &ArgMatches, matches: &ArgMatches) -> Exit {
    let (config, _) = match settings::load(&[root, matches], Mode::Server) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let Some(dir) = matches.get_one::<PathBuf>("dir") else {
        return fail(Exit::Usage, "name a directory");
    };
    // The server has its own working directory.
    let dir = match std::path::absolute(dir) {
        Ok(dir) => dir,
        Err(error) => return fail(Exit::Failed, format_args!("{}: {error}", dir.display())),
    };
    if !config.data_dir.is_dir() {
        return fail(
            Exit::Failed,
            format_args!("there is no data directory {}", config.data_dir.display()),
        );
    }
    let began = Instant::now();
    let by = match storage::Engine::open(config.engine()) {
        Ok(engine) => match engine.backup(&dir).and_then(|()| engine.close()) {
            Ok(()) => "offline",
            Err(error) => return fail(Exit::from(&error), told(&error)),
        },
        Err(storage::Error::InUse { .. }) => match ask(
            &config,
            "POST",
            "/api/v1/backup",
            &json!({ "dir": dir }),
            WHY,
        ) {
            Ok(_) => "server",
            Err(message) => return fail(Exit::Failed, message),
        },
        Err(error) => return fail(Exit::from(&error), told(&error)),
    };
    let took_ms = began.elapsed().as_millis();
    match output(matches) {
        Output::Table => say(&format!("backup in {} ({took_ms} ms)", dir.display())),
        Output::Json => say(
            &json!({ "dir": dir, "by": by, "took_ms": u64::try_from(took_ms).unwrap_or(u64::MAX) })
                .to_string(),
        ),
    }
}

/// Restores beside the data directory, and only when every row was read back gives it the name.
pub(super) fn restore(root: &ArgMatches, matches: &ArgMatches) -> Exit {
    let (config, _) = match settings::load(&[root, matches], Mode::Server) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let Some(backup) = matches.get_one::<PathBuf>("dir") else {
        return fail(Exit::Usage, "name the backup");
    };
    if matches.get_flag("check") {
        return match storage::verify(backup) {
            Ok(seen) => match output(matches) {
                Output::Table => say(&format!(
                    "{} files, {} bytes: the backup is whole",
                    seen.files, seen.bytes
                )),
                Output::Json => say(&json!(seen).to_string()),
            },
            Err(error) => fail(Exit::from(&error), told(&error)),
        };
    }
    let target = &config.data_dir;
    if std::fs::read_dir(target).is_ok_and(|mut entries| entries.next().is_some()) {
        return fail(
            Exit::Failed,
            format_args!(
                "{} is not empty; move it away, or choose another with --data-dir",
                target.display()
            ),
        );
    }
    match restore_into(&config, backup, target) {
        Ok(seen) => match output(matches) {
            Output::Table => say(&format!(
                "{} rows and {} bodies restored into {} and read back",
                seen.rows,
                seen.bodies,
                target.display()
            )),
            Output::Json => say(&json!(seen).to_string()),
        },
        Err(RestoreError::Storage(error)) => fail(Exit::from(&error), told(&error)),
        Err(RestoreError::Move { path, source }) => {
            fail(Exit::Failed, format_args!("{}: {source}", path.display()))
        }
    }
}

#[derive(Debug)]
enum RestoreError {
    Move {
        path: PathBuf,
        source: std::io::Error,
    },
    Storage(storage::Error),
}

fn restore_into(
    config: &Config,
    backup: &Path,
    target: &Path,
) -> Result<storage::Verified, RestoreError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| RestoreError::Move { path, source }
    };
    let parent = match target.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    std::fs::create_dir_all(&parent).map_err(at(&parent))?;
    // Beside the target, so that the rename stays on one file system; goes by itself when something fails.
    let copy = tempfile::Builder::new()
        .prefix(".flowmesh-restore-")
        .tempdir_in(&parent)
        .map_err(at(&parent))?;
    let options = storage::Options {
        dir: copy.path().to_owned(),
        ..config.engine()
    };
    let seen = storage::restore(backup, options).map_err(RestoreError::Storage)?;
    // An empty directory may be replaced, any other may not.
    std::fs::rename(copy.path(), target).map_err(at(target))?;
    // It has its name now and must not go with the guard.
    let _ = copy.keep();
    std::fs::File::open(&parent)
        .and_then(|dir| dir.sync_all())
        .map_err(at(&parent))?;
    Ok(seen)
}

/// The error with its causes, which storage's texts leave to the source chain.
pub(super) fn told(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}
