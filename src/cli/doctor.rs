//! `flowmesh doctor`: is this machine fit for the configured server? Measures and looks; changes nothing.

mod disk;
mod machine;

use std::borrow::Cow;

use clap::{ArgMatches, Command};
use serde::Serialize;

use super::{Exit, Output, fail, output, say, settings};
use crate::config::{Config, Mode};

pub(super) fn command(server: &dyn Fn(Command) -> Command) -> Command {
    server(Command::new("doctor").about(
        "Check limits, memory, clock, addresses, and the disk and its fsync speed; the server may run",
    ))
}

/// How a check ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum State {
    Ok,
    /// It works, but not as well as it should.
    Warn,
    /// The server will not start, or will stop.
    Fail,
}

/// One line of the report.
#[derive(Debug, Serialize)]
struct Check {
    name: Cow<'static, str>,
    state: State,
    /// What was seen.
    found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
}

impl Check {
    fn ok(name: impl Into<Cow<'static, str>>, found: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            state: State::Ok,
            found: found.into(),
            advice: None,
        }
    }

    fn warn(
        name: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            name: name.into(),
            state: State::Warn,
            found: found.into(),
            advice: Some(advice.into()),
        }
    }

    fn fail(
        name: impl Into<Cow<'static, str>>,
        found: impl Into<String>,
        advice: impl Into<String>,
    ) -> Self {
        Self {
            state: State::Fail,
            ..Self::warn(name, found, advice)
        }
    }
}

pub(super) fn run(root: &ArgMatches, matches: &ArgMatches) -> Exit {
    let (config, _) = match settings::load(&[root, matches], Mode::Server) {
        Ok(loaded) => loaded,
        Err(exit) => return exit,
    };
    let checks = examine(&config);
    match output(matches) {
        Output::Json => say(&serde_json::json!(checks).to_string()),
        Output::Table => say(&table(&checks)),
    };
    let failed = checks.iter().filter(|check| check.state == State::Fail);
    match failed.count() {
        0 => Exit::Done,
        count => fail(
            Exit::Failed,
            format_args!("{count} of {} checks failed", checks.len()),
        ),
    }
}

fn examine(config: &Config) -> Vec<Check> {
    let mut checks = vec![
        machine::cores(config),
        machine::open_files(config),
        machine::backlog(),
        machine::memory(config),
        machine::overcommit(),
        machine::clock(),
    ];
    checks.extend(machine::addresses(config));
    checks.extend(disk::examine(config));
    checks
}

fn table(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.len()).max();
    let width = width.unwrap_or(0);
    let mut text = String::new();
    for check in checks {
        let word = match check.state {
            State::Ok => "ok  ",
            State::Warn => "WARN",
            State::Fail => "FAIL",
        };
        text.push_str(&format!("{word}  {:width$}  {}\n", check.name, check.found));
        if let Some(advice) = &check.advice {
            text.push_str(&format!("{:width$}        -> {advice}\n", ""));
        }
    }
    text
}

/// `1.5 GiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let mut amount = bytes as f64;
    let mut unit = 0;
    while amount >= 1024.0 && unit + 1 < UNITS.len() {
        amount /= 1024.0;
        unit += 1;
    }
    let digits = usize::from(unit > 0 && amount < 10.0);
    format!("{amount:.digits$} {}", UNITS.get(unit).unwrap_or(&""))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_lines_up_and_says_what_to_do() {
        let checks = [
            Check::ok("cores", "2"),
            Check::warn("open files", "1024 allowed", "raise it"),
        ];
        assert_eq!(
            table(&checks),
            "ok    cores       2\nWARN  open files  1024 allowed\n                  -> raise it\n"
        );
        assert_eq!(
            serde_json::json!(checks).to_string(),
            r#"[{"found":"2","name":"cores","state":"ok"},{"advice":"raise it","found":"1024 allowed","name":"open files","state":"warn"}]"#
        );
    }

    #[test]
    fn sizes_are_short() {
        for (bytes, text) in [
            (0, "0 bytes"),
            (1023, "1023 bytes"),
            (1536, "1.5 KiB"),
            (64 << 20, "64 MiB"),
            (3 << 40, "3.0 TiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
