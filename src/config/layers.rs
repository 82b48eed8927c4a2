//! Where each value came from: flag over variable over file over default, and what is wrong with any of them.

use std::fmt;
use std::path::{Path, PathBuf};

use super::{Config, KNOBS, Knob, Mode, Secret, Value, knob, likeness, nearest};

/// Who said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The table of knobs.
    Default,
    /// The file, at that path.
    File(PathBuf),
    /// The environment variable.
    Env(String),
    /// The command line.
    Flag(String),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Env(name) => f.write_str(name),
            Self::Flag(name) => write!(f, "--{name}"),
        }
    }
}

/// One thing wrong with the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Who said it.
    pub source: Source,
    /// What is wrong and what would be right.
    pub message: String,
}

/// All that is wrong, so that it is mended in one go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Problem>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().enumerate() {
            if i > 0 {
                writeln!(f)?;
            }
            match &problem.source {
                Source::Default => write!(f, "{}", problem.message)?,
                source => write!(f, "{source}: {}", problem.message)?,
            }
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// The configuration while its layers are laid one over the other, weakest first.
#[derive(Debug)]
pub struct Layers {
    mode: Mode,
    config: Config,
    sources: Vec<Source>,
    problems: Vec<Problem>,
}

impl Layers {
    /// The defaults of `mode`.
    pub fn new(mode: Mode) -> Self {
        let mut config = Config::default();
        for knob in KNOBS {
            // The table's test reads every default, so this cannot fail in a build that passed it.
            if let Err(wrong) = (knob.set)(&mut config, knob.default_in(mode)) {
                panic!("default of {}: {wrong}", knob.name);
            }
        }
        Self {
            mode,
            config,
            sources: vec![Source::Default; KNOBS.len()],
            problems: Vec::new(),
        }
    }

    /// Lays the file over it.
    pub fn file(&mut self, path: &Path) {
        match std::fs::read_to_string(path) {
            Ok(text) => self.toml(&text, path),
            Err(error) => self.problem(
                Source::File(path.to_owned()),
                format!("cannot be read: {error}"),
            ),
        }
    }

    /// Lays the file's text over it.
    pub fn toml(&mut self, text: &str, path: &Path) {
        let source = Source::File(path.to_owned());
        let table: toml::Table = match text.parse() {
            Ok(table) => table,
            Err(error) => {
                return self.problem(
                    source,
                    format!("is not valid TOML: {}", error.to_string().trim_end()),
                );
            }
        };
        let (dev, rest): (Vec<_>, Vec<_>) = table
            .into_iter()
            .partition(|(key, value)| key == "dev" && value.is_table());
        for (key, value) in rest {
            self.toml_value(&key, value, &source, text);
        }
        for (_, value) in dev {
            if self.mode == Mode::Dev
                && let toml::Value::Table(table) = value
            {
                for (key, value) in table {
                    self.toml_value(&key, value, &source, text);
                }
            }
        }
    }

    /// `[resp]` then `addr` is the same as `resp_addr`.
    fn toml_value(&mut self, key: &str, value: toml::Value, source: &Source, text: &str) {
        let value = match value {
            toml::Value::Table(table) => {
                for (inner, value) in table {
                    self.toml_value(&format!("{key}_{inner}"), value, source, text);
                }
                return;
            }
            toml::Value::String(text) => text,
            toml::Value::Integer(number) => number.to_string(),
            toml::Value::Boolean(yes) => yes.to_string(),
            toml::Value::Array(items) => {
                let texts: Option<Vec<&str>> = items.iter().map(toml::Value::as_str).collect();
                match texts {
                    Some(texts) => texts.join(","),
                    None => {
                        return self
                            .problem(source.clone(), format!("{key}: a list may only hold texts"));
                    }
                }
            }
            other => {
                return self.problem(
                    source.clone(),
                    format!("{key}: {} is not a value for any key", other.type_str()),
                );
            }
        };
        match knob(key) {
            Some(found) => self.set(found, &value, source.clone()),
            None => {
                let line = text
                    .lines()
                    .position(|line| line.trim_start().starts_with(key))
                    .map_or(String::new(), |i| format!(" (line {})", i + 1));
                self.problem(
                    source.clone(),
                    format!(
                        "unknown key `{key}`{line}; did you mean `{}`?",
                        nearest(key)
                    ),
                );
            }
        }
    }

    /// Lays `FLOWMESH_*` over it. Returns misspelt names with the nearest known variable, for a warning: not an error,
    /// because orchestrators inject variables such as `FLOWMESH_SERVICE_HOST` for a service named flowmesh.
    pub fn env(&mut self, vars: impl Iterator<Item = (String, String)>) -> Vec<(String, String)> {
        let mut unknown = Vec::new();
        for (name, value) in vars {
            let Some(rest) = name.strip_prefix("FLOWMESH_") else {
                continue;
            };
            if rest == "CONFIG" {
                continue;
            }
            match KNOBS
                .iter()
                .find(|knob| knob.name.eq_ignore_ascii_case(rest))
            {
                Some(found) => self.set(found, &value, Source::Env(name)),
                // Only what looks like a misspelling: scripts keep variables of their own under our prefix.
                None if likeness(rest, nearest(rest)) > 0.6 => {
                    let likely = knob(nearest(rest)).map(Knob::env).unwrap_or_default();
                    unknown.push((name, likely));
                }
                None => {}
            }
        }
        unknown
    }

    /// Lays one flag over it.
    pub fn flag(&mut self, knob: &'static Knob, value: &str) {
        self.set(knob, value, Source::Flag(knob.flag()));
    }

    /// Lays over it what a flag that is no knob stands for; `with` sees who said each value.
    pub fn expand(
        &mut self,
        flag: &str,
        with: impl FnOnce(&mut Config, &[Source]) -> Result<(), String>,
    ) {
        if let Err(message) = with(&mut self.config, &self.sources) {
            self.problem(Source::Flag(flag.to_owned()), message);
        }
    }

    fn set(&mut self, knob: &'static Knob, value: &str, source: Source) {
        match (knob.set)(&mut self.config, value.trim()) {
            Ok(()) => {
                if let Some(i) = KNOBS.iter().position(|row| row.name == knob.name)
                    && let Some(slot) = self.sources.get_mut(i)
                {
                    *slot = source;
                }
            }
            Err(wrong) => {
                let message = match source {
                    Source::File(_) => format!("{}: {wrong}", knob.name),
                    _ => wrong,
                };
                self.problem(source, message);
            }
        }
    }

    fn problem(&mut self, source: Source, message: String) {
        self.problems.push(Problem { source, message });
    }

    /// The values with who said each, if nothing is wrong.
    pub fn finish(mut self) -> Result<(Config, Vec<Source>), ConfigError> {
        if let Some(path) = self.config.password_file.clone() {
            match std::fs::read_to_string(&path) {
                Ok(text) => match Secret::parse(text.lines().next().unwrap_or("")) {
                    Ok(secret) if !secret.is_empty() => self.config.password = secret,
                    _ => self.problem(
                        Source::File(path),
                        "is empty; its first line must be the password".into(),
                    ),
                },
                Err(error) => self.problem(
                    Source::File(path),
                    format!("password file cannot be read: {error}"),
                ),
            }
        }
        for message in self.config.check() {
            self.problem(Source::Default, message);
        }
        if self.problems.is_empty() {
            Ok((self.config, self.sources))
        } else {
            Err(ConfigError(self.problems))
        }
    }
}
