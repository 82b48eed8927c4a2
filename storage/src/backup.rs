//! Backup of everything at one moment while writers go on, and restore with verification.
//!
//! The fold is held, so the tables stand still; what was written meanwhile is in the log. Files that never change once
//! they are named (tables, blobs, versions) become hard links; files that are appended to or replaced (fjall's journals
//! and `current`, our log and marks) are copied: a link to them would go on changing. Without its journal fjall would
//! restart its sequence numbers and prefer old rows, so the journal is never left out.
//!
//! `MANIFEST` names each file with its length, and with a checksum where it was copied; tables carry their own.

use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::engine::{FORMAT, LOG_DIR, TABLES_DIR, TERM};
use crate::log::segment::Segment;
use crate::{Durability, Engine, Error, Keyspace, Lsn, Need, Options, Outcome, mark};

const MANIFEST: &str = "MANIFEST";
const MANIFEST_VERSION: u32 = 1;
/// fjall's worker may finish a compaction while we list its files: then we begin again.
const ATTEMPTS: usize = 20;

#[derive(Debug, Serialize, Deserialize)]
struct Manifest {
    version: u32,
    /// Log position of the moment.
    position: u64,
    files: Vec<Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    path: String,
    length: u64,
    /// CRC32C, where the file was copied.
    #[serde(skip_serializing_if = "Option::is_none")]
    crc32c: Option<u32>,
}

/// What a restore or a verification has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Log position of the backup.
    pub position: u64,
    /// Files of the backup.
    pub files: u64,
    /// Bytes of these files.
    pub bytes: u64,
    /// Rows read back from the restored tables; 0 for [`verify`].
    pub rows: u64,
    /// The same for bodies.
    pub bodies: u64,
}

impl Engine {
    /// Copies the state of all faces at one moment into `dir`, a new or empty directory, while writers go on.
    ///
    /// # Errors
    /// [`Error::Target`] if `dir` is not empty or lies in the data directory; what the disk says. A failed backup
    /// leaves what it copied, without its `MANIFEST`.
    pub fn backup(&self, dir: &Path) -> Result<(), Error> {
        let source = self.options.dir.as_path();
        new_or_empty(dir)?;
        let inside =
            |a: io::Result<PathBuf>, b: io::Result<PathBuf>| Ok::<_, io::Error>(a?.starts_with(b?));
        if inside(dir.canonicalize(), source.canonicalize())
            .map_err(|e| Error::io("cannot find", dir, e))?
        {
            return Err(target(dir, "lies in the data directory"));
        }
        // First most of it without holding anything.
        self.fold_now()?;
        let hold = self.folder.hold();
        let upto = self.written();
        if self.wait(Need::of(upto, Durability::Sync)) == Outcome::Unknown {
            return Err(Error::Failed);
        }
        self.folder.tables.sync()?;
        let mut copy = Copy {
            from: source,
            to: dir,
            files: Vec::new(),
        };
        copy.tables(|| self.folder.tables.busy())?;
        // What the tables themselves say: the position in memory may have skipped ahead.
        let folded = self.folder.tables.folded()?.position;
        drop(hold);
        copy.log(self.segments(), folded, upto.0)?;
        for name in [FORMAT, TERM] {
            copy.file(&PathBuf::from(name), None)?;
        }
        copy.finish(upto.0)
    }
}

/// Checks that `backup` is whole: every file with its length, and checksums where the backup has them.
///
/// # Errors
/// [`Error::Target`] if it is no backup, [`Error::Damaged`] naming the first bad file.
pub fn verify(backup: &Path) -> Result<Verified, Error> {
    let manifest = read_manifest(backup)?;
    let mut verified = Verified {
        position: manifest.position,
        ..Verified::default()
    };
    for entry in &manifest.files {
        let path = backup.join(&entry.path);
        let length = match fs::metadata(&path) {
            Ok(meta) => meta.len(),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {
                return Err(Error::damaged(path, 0, "missing"));
            }
            Err(e) => return Err(Error::io("cannot read", path, e)),
        };
        if length != entry.length {
            return Err(Error::damaged(
                path,
                length,
                format!("{length} bytes instead of {}", entry.length),
            ));
        }
        if let Some(want) = entry.crc32c {
            let found = crc_of(&path).map_err(|e| Error::io("cannot read", &path, e))?;
            if found != want {
                return Err(Error::damaged(path, 0, "checksum mismatch"));
            }
        }
        verified.files += 1;
        verified.bytes += length;
    }
    Ok(verified)
}

/// Copies `backup` into the new or empty directory of `options`, opens it, and reads every row and body back.
///
/// # Errors
/// As [`verify`]; [`Error::Target`] if the directory is not empty; what opening it says.
pub fn restore(backup: &Path, options: Options) -> Result<Verified, Error> {
    let manifest = read_manifest(backup)?;
    let mut verified = verify(backup)?;
    let to = options.dir.clone();
    new_or_empty(&to)?;
    let mut copy = Copy {
        from: backup,
        to: &to,
        files: Vec::new(),
    };
    for entry in &manifest.files {
        copy.file(Path::new(&entry.path), None)?;
    }
    copy.sync_dirs()?;
    let engine = Engine::open(options)?;
    for (keyspace, count) in [
        (Keyspace::Rows, &mut verified.rows),
        (Keyspace::Bodies, &mut verified.bodies),
    ] {
        engine.scan(keyspace, &[], None, usize::MAX, &mut |_, _| {
            *count += 1;
            true
        })?;
    }
    engine.close()?;
    Ok(verified)
}

struct Copy<'a> {
    from: &'a Path,
    to: &'a Path,
    files: Vec<Entry>,
}

impl Copy<'_> {
    /// Copies the tables as one version has them, trying again when the worker changed it meanwhile.
    fn tables(&mut self, busy: impl Fn() -> bool) -> Result<(), Error> {
        let root = self.from.join(TABLES_DIR);
        for _ in 0..ATTEMPTS {
            while busy() {
                std::thread::sleep(Duration::from_millis(5));
            }
            let before = state(&root);
            let result = self.tree(Path::new(TABLES_DIR));
            if before.is_ok() && before.as_ref().ok() == state(&root).as_ref().ok() && !busy() {
                return result;
            }
            self.files.clear();
            let copied = self.to.join(TABLES_DIR);
            fs::remove_dir_all(&copied).map_err(|e| Error::io("cannot clear", copied, e))?;
        }
        Err(target(
            self.to,
            "the tables were compacted at every attempt; try again when there is less load",
        ))
    }

    fn tree(&mut self, under: &Path) -> Result<(), Error> {
        let from = self.from.join(under);
        let to = self.to.join(under);
        fs::create_dir_all(&to).map_err(|e| Error::io("cannot make", &to, e))?;
        let err = |e| Error::io("cannot list", &from, e);
        let mut names = Vec::new();
        for entry in fs::read_dir(&from).map_err(err)? {
            let entry = entry.map_err(err)?;
            names.push((entry.file_name(), entry.file_type().map_err(err)?.is_dir()));
        }
        names.sort();
        for (name, is_dir) in names {
            let path = under.join(name);
            if is_dir {
                self.tree(&path)?;
            } else if never_changes(&path) {
                self.link(&path)?;
            } else {
                self.file(&path, None)?;
            }
        }
        Ok(())
    }

    fn link(&mut self, path: &Path) -> Result<(), Error> {
        let (from, to) = (self.from.join(path), self.to.join(path));
        if fs::hard_link(&from, &to).is_err() {
            // Another file system.
            return self.file(path, None);
        }
        let length = fs::metadata(&to)
            .map_err(|e| Error::io("cannot read", &to, e))?
            .len();
        self.files.push(Entry {
            path: name_of(path),
            length,
            crc32c: None,
        });
        Ok(())
    }

    /// Copies the first `limit` bytes (default: all) and syncs them. Holes stay holes.
    fn file(&mut self, path: &Path, limit: Option<u64>) -> Result<(), Error> {
        let (from, to) = (self.from.join(path), self.to.join(path));
        let err = |e| Error::io("cannot copy", &from, e);
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent).map_err(err)?;
        }
        let mut source = File::open(&from)
            .map_err(err)?
            .take(limit.unwrap_or(u64::MAX));
        let mut target = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&to)
            .map_err(err)?;
        let mut buffer = vec![0; 256 << 10];
        let (mut length, mut crc) = (0u64, 0);
        loop {
            let read = source.read(&mut buffer).map_err(err)?;
            let chunk = buffer.get(..read).unwrap_or(&[]);
            if chunk.is_empty() {
                break;
            }
            crc = crc32c::crc32c_append(crc, chunk);
            length += read as u64;
            if chunk.iter().all(|byte| *byte == 0) {
                target.seek(SeekFrom::Start(length)).map_err(err)?;
            } else {
                target.write_all(chunk).map_err(err)?;
            }
        }
        target.set_len(length).map_err(err)?;
        target.sync_all().map_err(err)?;
        self.files.push(Entry {
            path: name_of(path),
            length,
            crc32c: Some(crc),
        });
        Ok(())
    }

    /// Copies the log from the file that holds `folded` up to `upto`.
    fn log(&mut self, segments: Vec<Segment>, folded: u64, upto: u64) -> Result<(), Error> {
        let first = segments
            .iter()
            .rposition(|segment| segment.start <= folded)
            .unwrap_or(0);
        fs::create_dir_all(self.to.join(LOG_DIR))
            .map_err(|e| Error::io("cannot make", self.to, e))?;
        for segment in segments
            .iter()
            .skip(first)
            .filter(|segment| segment.start < upto)
        {
            let Some(name) = segment.path.file_name() else {
                continue;
            };
            let end = segment.end.min(upto);
            self.file(&Path::new(LOG_DIR).join(name), Some(segment.offset_of(end)))?;
        }
        Ok(())
    }

    /// Writes the manifest last: a backup without one is not finished.
    fn finish(self, position: u64) -> Result<(), Error> {
        let path = self.to.join(MANIFEST);
        let err = |e| Error::io("cannot write", &path, e);
        self.sync_dirs()?;
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            position,
            files: self.files,
        };
        let text = serde_json::to_vec_pretty(&manifest).map_err(|e| err(e.into()))?;
        let mut file = File::create(&path).map_err(err)?;
        file.write_all(&text).map_err(err)?;
        file.sync_all().map_err(err)?;
        mark::sync_dir(self.to).map_err(err)
    }

    fn sync_dirs(&self) -> Result<(), Error> {
        let mut dirs = vec![self.to.to_path_buf()];
        for entry in &self.files {
            let ancestors = Path::new(&entry.path).ancestors().skip(1);
            dirs.extend(ancestors.map(|dir| self.to.join(dir)));
        }
        dirs.sort();
        dirs.dedup();
        for dir in dirs {
            mark::sync_dir(&dir).map_err(|e| Error::io("cannot sync", &dir, e))?;
        }
        Ok(())
    }
}

/// Table, blob and version files of fjall: written once, synced, then named in a version.
fn never_changes(path: &Path) -> bool {
    let parent = path.parent().and_then(Path::file_name).unwrap_or_default();
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let version = name
        .strip_prefix('v')
        .is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_digit()) && !digits.is_empty());
    version
        || (path.starts_with(Path::new(TABLES_DIR).join("keyspaces"))
            && (parent == "tables" || parent == "blobs"))
}

/// Names of all files, and the content of each `current`: differs when the tables changed.
fn state(root: &Path) -> io::Result<Vec<(PathBuf, Vec<u8>)>> {
    let mut found = Vec::new();
    let mut dirs = vec![root.to_path_buf()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir)? {
            let entry = entry?;
            let path = entry.path();
            if entry.file_type()?.is_dir() {
                dirs.push(path);
            } else {
                let content = if entry.file_name() == "current" {
                    fs::read(&path)?
                } else {
                    Vec::new()
                };
                found.push((path, content));
            }
        }
    }
    found.sort();
    Ok(found)
}

fn read_manifest(backup: &Path) -> Result<Manifest, Error> {
    let path = backup.join(MANIFEST);
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            return Err(target(
                backup,
                "no MANIFEST: not a backup, or one that was not finished",
            ));
        }
        Err(e) => return Err(Error::io("cannot read", path, e)),
    };
    let manifest: Manifest = serde_json::from_slice(&text)
        .map_err(|e| Error::damaged(&path, e.column() as u64, e.to_string()))?;
    if manifest.version != MANIFEST_VERSION {
        return Err(Error::Format {
            path,
            found: manifest.version,
            known: MANIFEST_VERSION,
        });
    }
    let plain = |path: &str| {
        Path::new(path)
            .components()
            .all(|part| matches!(part, std::path::Component::Normal(_)))
    };
    match manifest.files.iter().find(|entry| !plain(&entry.path)) {
        Some(entry) => Err(Error::damaged(
            path,
            0,
            format!("a file outside the backup: {}", entry.path),
        )),
        None => Ok(manifest),
    }
}

fn new_or_empty(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(|e| Error::io("cannot make", dir, e))?;
    let mut entries = fs::read_dir(dir).map_err(|e| Error::io("cannot list", dir, e))?;
    if entries.next().is_some() {
        Err(target(dir, "is not empty"))
    } else {
        Ok(())
    }
}

fn crc_of(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    let mut buffer = vec![0; 256 << 10];
    let mut crc = 0;
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(crc);
        }
        crc = crc32c::crc32c_append(crc, buffer.get(..read).unwrap_or(&[]));
    }
}

fn name_of(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

fn target(dir: &Path, what: &str) -> Error {
    Error::Target {
        path: dir.into(),
        what: what.into(),
    }
}

/// Where a backup stands in the log.
impl From<&Verified> for Lsn {
    fn from(verified: &Verified) -> Self {
        Self(verified.position)
    }
}
