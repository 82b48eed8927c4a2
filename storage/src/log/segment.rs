//! The files of the log, and what is known of each.
//!
//! ```text
//! <start as 16 hex digits>.log
//! header   magic [u8; 8] "FMLOGSEG" | version u32 | term u32 | start u64 | previous end u64 | made u64 (ms) |
//!          0 [u8; 20] | CRC32C u32                                   64 bytes, integers little endian
//! group …
//! ```
//! Positions go on from file to file: a file's `previous end` is where the one before it stops. Its own `start` is the
//! same position, or a higher one after an unclean stop: positions that a lost tail may have used are never given twice.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use super::record::{u32_at, u64_at};
use crate::Error;

/// Bytes of a file before its first group.
pub(crate) const HEADER: u64 = 64;
const MAGIC: &[u8; 8] = b"FMLOGSEG";
const VERSION: u32 = 1;
const CRC: usize = 60;

/// One file of the log.
#[derive(Clone, Debug)]
pub(crate) struct Segment {
    pub(crate) path: PathBuf,
    pub(crate) term: u32,
    /// Position of its first group.
    pub(crate) start: u64,
    /// Position after its last group; `u64::MAX` while it is being written.
    pub(crate) end: u64,
    pub(crate) previous_end: u64,
    /// Wall clock when it was made, milliseconds.
    pub(crate) made_ms: u64,
    /// Open as long as it may hold unsynced bytes.
    pub(crate) unsynced: Option<Arc<File>>,
}

impl Segment {
    /// Makes the file with its header. Neither it nor its name is synced yet.
    pub(crate) fn create(
        dir: &Path,
        term: u32,
        start: u64,
        previous_end: u64,
    ) -> io::Result<(Self, Arc<File>)> {
        let path = dir.join(file_name(start));
        let made_ms = now_ms();
        let mut header = [0; HEADER as usize];
        header[0..8].copy_from_slice(MAGIC);
        header[8..12].copy_from_slice(&VERSION.to_le_bytes());
        header[12..16].copy_from_slice(&term.to_le_bytes());
        header[16..24].copy_from_slice(&start.to_le_bytes());
        header[24..32].copy_from_slice(&previous_end.to_le_bytes());
        header[32..40].copy_from_slice(&made_ms.to_le_bytes());
        let crc = crc32c::crc32c(&header[..CRC]);
        header[CRC..].copy_from_slice(&crc.to_le_bytes());
        let mut file = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&path)?;
        if let Err(error) = io::Write::write_all(&mut file, &header) {
            // On a full disk it is tried again.
            let _ = fs::remove_file(&path);
            return Err(error);
        }
        let file = Arc::new(file);
        let unsynced = Some(Arc::clone(&file));
        Ok((
            Self {
                path,
                term,
                start,
                end: u64::MAX,
                previous_end,
                made_ms,
                unsynced,
            },
            file,
        ))
    }

    /// Where `position` is in the file.
    pub(crate) fn offset_of(&self, position: u64) -> u64 {
        offset(self.start, position)
    }
}

/// Where `position` is in the file that begins at `start`.
pub(crate) fn offset(start: u64, position: u64) -> u64 {
    HEADER + (position - start)
}

/// What a file that is named like a segment holds at its start.
#[derive(Debug)]
pub(crate) enum Opened {
    Segment(Segment),
    /// No valid header. The position is from the file's name.
    Torn {
        path: PathBuf,
        start: u64,
    },
}

/// All files of the log in order of position. A file ends where the next one says, or with its last byte: then zeros may
/// be behind its last group (`ahead`).
pub(crate) fn list(dir: &Path) -> Result<Vec<Opened>, Error> {
    let err = |source| Error::io("cannot list", dir, source);
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).map_err(err)? {
        let path = entry.map_err(err)?.path();
        let Some(start) = start_in_name(&path) else {
            continue;
        };
        found.push((start, path));
    }
    found.sort_unstable();
    let mut files = found
        .into_iter()
        .map(|(start, path)| open(path, start))
        .collect::<Result<Vec<_>, _>>()?;
    let mut next_begins = u64::MAX;
    for file in files.iter_mut().rev() {
        if let Opened::Segment(segment) = file {
            if segment.start <= next_begins {
                segment.end = segment.end.min(next_begins);
            }
            next_begins = segment.previous_end;
        }
    }
    Ok(files)
}

fn open(path: PathBuf, start: u64) -> Result<Opened, Error> {
    let err = |source| Error::io("cannot read", &path, source);
    let file = File::open(&path).map_err(err)?;
    let length = file.metadata().map_err(err)?.len();
    let mut header = [0; HEADER as usize];
    match io::Read::read_exact(&mut &file, &mut header) {
        Ok(()) => {}
        Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
            return Ok(Opened::Torn { path, start });
        }
        Err(e) => return Err(err(e)),
    }
    let valid =
        header.starts_with(MAGIC) && u32_at(&header, CRC) == Some(crc32c::crc32c(&header[..CRC]));
    if !valid {
        return Ok(Opened::Torn { path, start });
    }
    let field = |at| u64_at(&header, at).unwrap_or_default();
    let version = u32_at(&header, 8).unwrap_or_default();
    if version != VERSION {
        return Err(Error::Format {
            path,
            found: version,
            known: VERSION,
        });
    }
    if field(16) != start {
        return Err(Error::damaged(
            path,
            16,
            format!("its header says position {:#x}: renamed?", field(16)),
        ));
    }
    Ok(Opened::Segment(Segment {
        path,
        term: u32_at(&header, 12).unwrap_or_default(),
        start,
        end: start + (length - HEADER),
        previous_end: field(24),
        made_ms: field(32),
        unsynced: None,
    }))
}

pub(crate) fn file_name(start: u64) -> String {
    format!("{start:016x}.log")
}

fn start_in_name(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?.strip_suffix(".log")?;
    (name.len() == 16).then(|| u64::from_str_radix(name, 16).ok())?
}

/// Wall clock in milliseconds: for retention by age only.
pub(crate) fn now_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
