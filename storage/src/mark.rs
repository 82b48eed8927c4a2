//! Small files that are replaced whole: the format, the term, the fold's intent, the mark of a clean stop.
//!
//! ```text
//! magic [u8; 4] "FMMK" | version u32 | fields u64 … | CRC32C u32      integers little endian
//! ```
//! Replaced by writing beside, syncing, renaming and syncing the directory: either the old or the new content.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::Error;
use crate::fault::{Faults, Step};

const MAGIC: &[u8; 4] = b"FMMK";
/// Version of these files.
const VERSION: u32 = 1;

/// Replaces `dir/name` by `fields`, durably.
pub(crate) fn write(dir: &Path, name: &str, fields: &[u64], faults: &Faults) -> Result<(), Error> {
    let path = dir.join(name);
    let err = |source| Error::io("cannot write", &path, source);
    faults.check(Step::Mark).map_err(err)?;
    let mut bytes = Vec::with_capacity(12 + 8 * fields.len());
    bytes.extend_from_slice(MAGIC);
    bytes.extend_from_slice(&VERSION.to_le_bytes());
    for field in fields {
        bytes.extend_from_slice(&field.to_le_bytes());
    }
    bytes.extend_from_slice(&crc32c::crc32c(&bytes).to_le_bytes());
    let beside = dir.join(format!("{name}.new"));
    let mut file = File::create(&beside).map_err(err)?;
    file.write_all(&bytes).map_err(err)?;
    file.sync_all().map_err(err)?;
    fs::rename(&beside, &path).map_err(err)?;
    sync_dir(dir).map_err(err)
}

/// The fields of `dir/name`; `None` if there is no such file.
pub(crate) fn read(dir: &Path, name: &str) -> Result<Option<Vec<u64>>, Error> {
    let path = dir.join(name);
    let bytes = match fs::read(&path) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(Error::io("cannot read", path, e)),
    };
    let damaged = |what: &str| Error::damaged(&path, 0, what);
    let (body, crc) = bytes
        .split_last_chunk::<4>()
        .ok_or_else(|| damaged("too short"))?;
    let (magic, rest) = body
        .split_first_chunk::<4>()
        .ok_or_else(|| damaged("too short"))?;
    let (version, fields) = rest
        .split_first_chunk::<4>()
        .ok_or_else(|| damaged("too short"))?;
    if magic != MAGIC || crc32c::crc32c(body) != u32::from_le_bytes(*crc) {
        return Err(damaged("checksum mismatch"));
    }
    let version = u32::from_le_bytes(*version);
    if version != VERSION {
        return Err(Error::Format {
            path,
            found: version,
            known: VERSION,
        });
    }
    let (fields, _) = fields.as_chunks::<8>();
    Ok(Some(
        fields
            .iter()
            .map(|field| u64::from_le_bytes(*field))
            .collect(),
    ))
}

/// Removes `dir/name` durably, if it exists.
pub(crate) fn remove(dir: &Path, name: &str, faults: &Faults) -> Result<(), Error> {
    let path = dir.join(name);
    let err = |source| Error::io("cannot remove", &path, source);
    faults.check(Step::Mark).map_err(err)?;
    match fs::remove_file(&path) {
        Ok(()) => sync_dir(dir).map_err(err),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(e) => Err(err(e)),
    }
}

/// Makes names in `dir` durable.
pub(crate) fn sync_dir(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}
