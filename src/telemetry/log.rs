//! Log lines on standard error.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;

use crate::config::{Config, LogFormat};

/// Checks a filter such as `info,flowmesh::amqp=debug`.
pub fn check(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| format!("log-level `{level}`: {error}"))
}

/// Starts logging for the whole process. Later calls change nothing.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = check(&config.log_level)?;
    let builder = fmt::Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second start in one process happens only in tests; the first one's logs go on.
    let _ = match config.log_format {
        LogFormat::Text => {
            tracing::subscriber::set_global_default(builder.with_ansi(color()).finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
    Ok(())
}

/// Colours only for a person who did not forbid them (https://no-color.org).
pub fn color() -> bool {
    std::io::stderr().is_terminal()
        && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
