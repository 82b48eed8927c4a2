//! Flags from the table of knobs, and the configuration from all its layers.

use std::path::{Path, PathBuf};

use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Command};

use super::{Exit, fail};
use crate::config::{Config, KNOBS, Layers, Mode, Source};

/// Looked for in the working directory when no file is named.
const FILE: &str = "flowmesh.toml";

/// Adds one flag per knob, and `--config`.
pub(super) fn add(command: Command) -> Command {
    let config = Arg::new("config")
        .long("config")
        .short('c')
        .value_name("FILE")
        .value_parser(clap::value_parser!(PathBuf))
        .help("Configuration file (TOML) [env: FLOWMESH_CONFIG] [default: flowmesh.toml if there is one]");
    KNOBS.iter().fold(command.arg(config), |command, knob| {
        let default = if knob.default.is_empty() {
            "none"
        } else {
            knob.default
        };
        let dev = knob
            .dev_default
            .map(|dev| format!("; dev: {dev}"))
            .unwrap_or_default();
        let short = knob.help.trim_end_matches('.');
        command.arg(
            Arg::new(knob.name)
                .long(knob.flag())
                // The spelling of the file works here too.
                .alias(knob.name)
                .value_name(value_name(knob.kind))
                .help_heading(knob.group)
                .help(format!("{short} [default: {default}{dev}]"))
                .long_help(format!(
                    "{}\n\n[a {}]\n[env: {}]\n[default: {default}{dev}] {}",
                    knob.help,
                    knob.kind,
                    knob.env(),
                    knob.why
                )),
        )
    })
}

/// Reads all layers; later matches are stronger. What is wrong is already told when this returns `Err`.
pub(super) fn load(matches: &[&ArgMatches], mode: Mode) -> Result<(Config, Vec<Source>), Exit> {
    load_with(matches, mode, |_| ())
}

/// The same; `expand` has the last word before the values are checked.
pub(super) fn load_with(
    matches: &[&ArgMatches],
    mode: Mode,
    expand: impl FnOnce(&mut Layers),
) -> Result<(Config, Vec<Source>), Exit> {
    let mut layers = Layers::new(mode);
    let named = matches
        .iter()
        .rev()
        .find_map(|matches| {
            matches
                .try_get_one::<PathBuf>("config")
                .ok()
                .flatten()
                .cloned()
        })
        .or_else(|| {
            std::env::var_os("FLOWMESH_CONFIG")
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
        });
    match named {
        Some(path) => layers.file(&path),
        None if Path::new(FILE).is_file() => layers.file(Path::new(FILE)),
        None => {}
    }
    let vars = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    let unknown = layers.env(vars);
    for matches in matches {
        for knob in KNOBS {
            if matches.try_contains_id(knob.name).is_ok()
                && matches.value_source(knob.name) == Some(ValueSource::CommandLine)
                && let Some(value) = matches.get_one::<String>(knob.name)
            {
                layers.flag(knob, value);
            }
        }
    }
    for (name, likely) in unknown {
        // Kubernetes' own for a service of our name: FLOWMESH_SERVICE_HOST, FLOWMESH_PORT_6379_TCP_ADDR, …
        if !name.starts_with("FLOWMESH_SERVICE_") && !name.starts_with("FLOWMESH_PORT") {
            let _ = fail(
                Exit::Done,
                format_args!("unknown variable {name} ignored; did you mean {likely}?"),
            );
        }
    }
    expand(&mut layers);
    let loaded = layers.finish().map_err(|error| fail(Exit::Usage, error))?;
    crate::telemetry::log::check(&loaded.0.log_level).map_err(|error| fail(Exit::Usage, error))?;
    Ok(loaded)
}

/// `SIZE` for `size (512, 64KiB, 1GiB)`, `os|interval|sync` for `os, interval or sync`.
fn value_name(kind: &str) -> String {
    if kind.contains(" or ") {
        kind.replace(", ", "|").replace(" or ", "|")
    } else {
        kind.split(' ')
            .next()
            .unwrap_or("value")
            .to_ascii_uppercase()
    }
}
