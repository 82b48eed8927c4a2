//! `flowmesh config`: what counts, who said it, and whether it is right.

use std::fmt::Write;

use clap::{Arg, ArgAction, ArgMatches, Command};

use super::{Exit, Output, fail, output, say, settings};
use crate::config::{Config, KNOBS, Mode, Source, markdown};

pub(super) fn command(server: &dyn Fn(Command) -> Command) -> Command {
    let dev = Arg::new("dev")
        .long("dev")
        .action(ArgAction::SetTrue)
        .help("As `flowmesh dev` would read it");
    Command::new("config")
        .about("Show or check the configuration")
        .subcommand_required(true)
        .subcommand(
            server(Command::new("show").about("Print every value"))
                .arg(
                    Arg::new("sources")
                        .long("sources")
                        .action(ArgAction::SetTrue)
                        .help("Also who said it: flag, variable, file or default"),
                )
                .arg(dev.clone()),
        )
        .subcommand(
            server(Command::new("validate").about("Check the configuration without starting"))
                .arg(dev),
        )
        .subcommand(Command::new("reference").about("Print the reference of all knobs as Markdown"))
}

pub(super) fn run(root: &ArgMatches, matches: &ArgMatches) -> Exit {
    match matches.subcommand() {
        Some(("show", inner)) => match settings::load(&[root, inner], mode(inner)) {
            Ok((config, sources)) => {
                show(&config, &sources, inner.get_flag("sources"), output(inner))
            }
            Err(exit) => exit,
        },
        Some(("validate", inner)) => match settings::load(&[root, inner], mode(inner)) {
            Ok(_) if output(inner) == Output::Json => say("{\"valid\":true}"),
            Ok(_) => say("the configuration is valid"),
            Err(exit) => exit,
        },
        Some(("reference", _)) => say(&markdown()),
        _ => fail(Exit::Usage, "show, validate or reference?"),
    }
}

fn mode(matches: &ArgMatches) -> Mode {
    if matches.get_flag("dev") {
        Mode::Dev
    } else {
        Mode::Server
    }
}

fn show(config: &Config, sources: &[Source], with_sources: bool, output: Output) -> Exit {
    let rows = KNOBS
        .iter()
        .zip(sources)
        .map(|(knob, source)| (knob, knob.show(config), source.to_string()));
    match output {
        Output::Json => {
            let all: serde_json::Map<String, serde_json::Value> = rows
                .map(|(knob, value, source)| {
                    let value = if with_sources {
                        serde_json::json!({ "value": value, "source": source })
                    } else {
                        value.into()
                    };
                    (knob.name.to_owned(), value)
                })
                .collect();
            say(&serde_json::Value::from(all).to_string())
        }
        Output::Table => {
            let rows: Vec<_> = rows.collect();
            let name = rows
                .iter()
                .map(|(knob, ..)| knob.name.len())
                .max()
                .unwrap_or(0);
            let value = rows
                .iter()
                .map(|(_, value, _)| value.len())
                .max()
                .unwrap_or(0);
            let mut text = String::new();
            for (knob, shown, source) in &rows {
                // Writing to a String cannot fail.
                let _ = if with_sources {
                    writeln!(text, "{:name$}  {shown:value$}  {source}", knob.flag())
                } else {
                    writeln!(text, "{:name$}  {shown}", knob.flag())
                };
            }
            say(&text)
        }
    }
}
