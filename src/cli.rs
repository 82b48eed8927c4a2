//! The command line: one file per subcommand; flags of the server come from the table of knobs.

mod ask;
mod backup;
mod config;
mod dev;
mod doctor;
mod exit;
mod repair;
mod server;
mod settings;
mod user;

use std::ffi::OsString;
use std::io::{IsTerminal, Write};
use std::process::ExitCode;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Arg, ArgMatches, Command};

pub use exit::Exit;

/// How results are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Output {
    /// For people.
    Table,
    /// For programs: one JSON value.
    Json,
}

/// Runs the command that `args` (with the program's name) ask for.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let matches = match command().try_get_matches_from(args) {
        Ok(matches) => matches,
        Err(error) => {
            // Help and version are "errors" of code 0.
            let _ = error.print();
            return if error.exit_code() == 0 {
                Exit::Done
            } else {
                Exit::Usage
            }
            .into();
        }
    };
    let exit = match matches.subcommand() {
        None => server::run(&[&matches]),
        Some(("server", inner)) => server::run(&[&matches, inner]),
        Some(("dev", inner)) => dev::run(&[&matches, inner]),
        Some(("backup", inner)) => backup::backup(&matches, inner),
        Some(("restore", inner)) => backup::restore(&matches, inner),
        Some(("repair", inner)) => repair::run(&matches, inner),
        Some((noun @ ("user" | "grant" | "audit"), inner)) => user::run(&matches, noun, inner),
        Some(("doctor", inner)) => doctor::run(&matches, inner),
        Some(("config", inner)) => config::run(&matches, inner),
        Some(("completion", inner)) => completion(inner),
        Some(("version", inner)) => version(inner),
        Some((name, _)) => fail(Exit::Usage, format!("unknown command {name}")),
    };
    exit.into()
}

/// The whole command line.
fn command() -> Command {
    let output = Arg::new("output")
        .short('o')
        .long("output")
        .value_name("FORMAT")
        .value_parser(["table", "json"])
        .default_value("table")
        .help("Print for people or for programs");
    let server = |command: Command| settings::add(command).arg(output.clone());
    let styles = if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty()) {
        Styles::plain()
    } else {
        Styles::styled()
            .header(AnsiColor::Green.on_default().bold())
            .usage(AnsiColor::Green.on_default().bold())
            .literal(AnsiColor::Cyan.on_default())
    };
    server(Command::new("flowmesh"))
        .version(env!("CARGO_PKG_VERSION"))
        .styles(styles)
        .about(
            "Redis, RabbitMQ and Kafka clients over one storage engine. Without a command: server.",
        )
        .after_help(exit::HELP)
        // Wrappers append their own: the last one counts.
        .args_override_self(true)
        .subcommand(server(
            Command::new("server")
                .about("Serve clients (the default)")
                .after_help(exit::HELP),
        ))
        .subcommand(server(dev::command()))
        .subcommands(backup::commands(&server))
        .subcommands(user::commands(&server))
        .subcommand(repair::command(&server))
        .subcommand(doctor::command(&server))
        .subcommand(config::command(&server))
        .subcommand(
            Command::new("completion")
                .about("Print a completion script for a shell")
                .arg(
                    Arg::new("shell")
                        .required(true)
                        .value_parser(clap::value_parser!(clap_complete::Shell)),
                ),
        )
        .subcommand(
            Command::new("version")
                .about("Print the version")
                .arg(output.clone()),
        )
}

fn output(matches: &ArgMatches) -> Output {
    match matches.try_get_one::<String>("output") {
        Ok(Some(format)) if format == "json" => Output::Json,
        _ => Output::Table,
    }
}

/// Prints to standard output. A reader that went away (`| head`) is no failure of ours.
fn say(text: &str) -> Exit {
    let mut out = std::io::stdout().lock();
    let _ = out.write_all(text.as_bytes());
    if !text.ends_with('\n') {
        let _ = out.write_all(b"\n");
    }
    let _ = out.flush();
    Exit::Done
}

/// Says what went wrong, on standard error.
fn fail(exit: Exit, message: impl std::fmt::Display) -> Exit {
    let mut err = std::io::stderr().lock();
    let word = if err.is_terminal() && crate::telemetry::log::color() {
        "\x1b[1;31merror:\x1b[0m"
    } else {
        "error:"
    };
    let _ = writeln!(err, "{word} {message}");
    exit
}

fn completion(matches: &ArgMatches) -> Exit {
    let Some(shell) = matches.get_one::<clap_complete::Shell>("shell") else {
        return fail(Exit::Usage, "name a shell");
    };
    let mut script = Vec::new();
    clap_complete::generate(*shell, &mut command(), "flowmesh", &mut script);
    say(&String::from_utf8_lossy(&script))
}

fn version(matches: &ArgMatches) -> Exit {
    let version = env!("CARGO_PKG_VERSION");
    match output(matches) {
        Output::Table => say(&format!("flowmesh {version}")),
        Output::Json => say(&serde_json::json!({ "name": "flowmesh", "version": version, "arch": std::env::consts::ARCH, "os": std::env::consts::OS }).to_string()),
    }
}
