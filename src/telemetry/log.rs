//! Log lines, on standard error or in a file that can be rotated.

use std::fs::File;
use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use arc_swap::ArcSwap;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt;
use tracing_subscriber::fmt::writer::BoxMakeWriter;

use crate::config::{Config, LogFormat};

/// The file of this process, if it logs to one.
static FILE: OnceLock<Arc<LogFile>> = OnceLock::new();

/// Checks a filter such as `info,flowmesh::amqp=debug`.
pub fn check(level: &str) -> Result<EnvFilter, String> {
    EnvFilter::try_new(level).map_err(|error| format!("log-level `{level}`: {error}"))
}

/// Starts logging for the whole process. Later calls change nothing.
pub fn start(config: &Config) -> Result<(), String> {
    let filter = check(&config.log_level)?;
    let writer = match &config.log_file {
        None => BoxMakeWriter::new(io::stderr),
        Some(path) => {
            let file = LogFile::open(path)
                .map_err(|error| format!("log-file {}: {error}", path.display()))?;
            let file = Arc::new(file);
            let _ = FILE.set(Arc::clone(&file));
            BoxMakeWriter::new(file)
        }
    };
    let builder = fmt::Subscriber::builder()
        .with_env_filter(filter)
        .with_writer(writer);
    // A second start in one process happens only in tests; the first one's logs go on.
    let _ = match config.log_format {
        LogFormat::Text => {
            let color = config.log_file.is_none() && color();
            tracing::subscriber::set_global_default(builder.with_ansi(color).finish())
        }
        LogFormat::Json => {
            tracing::subscriber::set_global_default(builder.json().flatten_event(true).finish())
        }
    };
    Ok(())
}

/// Opens the file of its name anew: what had the name was moved away (logrotate). When it cannot be opened the old file goes on.
pub fn reopen() {
    let Some(file) = FILE.get() else {
        return;
    };
    match file.reopen() {
        Ok(()) => tracing::info!("log file opened again"),
        Err(error) => {
            tracing::warn!(%error, path = %file.path.display(), "log file cannot be opened again, the old one stays in use");
        }
    }
}

/// Colours only for a person who did not forbid them (https://no-color.org).
pub fn color() -> bool {
    io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// A file that is appended to, a line with one write, and that another may take the place of.
#[derive(Debug)]
struct LogFile {
    path: PathBuf,
    file: ArcSwap<File>,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        // The working directory does not change, but a message should name the whole path.
        let path = std::path::absolute(path)?;
        Ok(Self {
            file: ArcSwap::from_pointee(append_to(&path)?),
            path,
        })
    }

    fn reopen(&self) -> io::Result<()> {
        self.file.store(Arc::new(append_to(&self.path)?));
        Ok(())
    }
}

fn append_to(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).open(path)
}

impl Write for &LogFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        (&**self.file.load()).write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_was_moved_away_gets_a_successor() {
        let dir = tempfile::tempdir().unwrap();
        let (path, old) = (dir.path().join("log"), dir.path().join("log.1"));
        std::fs::write(&path, "before\n").unwrap();
        let file = LogFile::open(&path).unwrap();
        (&file).write_all(b"one\n").unwrap();
        std::fs::rename(&path, &old).unwrap();
        (&file).write_all(b"two\n").unwrap();
        file.reopen().unwrap();
        (&file).write_all(b"three\n").unwrap();
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "before\none\ntwo\n");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "three\n");
        // The directory went away: the open file stays.
        std::fs::remove_file(&path).unwrap();
        std::fs::create_dir(&path).unwrap();
        assert!(file.reopen().is_err());
        (&file).write_all(b"four\n").unwrap();
    }
}
