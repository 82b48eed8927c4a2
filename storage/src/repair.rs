//! Cuts a damaged log at its first damage, and says what that loses. The last resort when the engine refuses to start
//! because bytes that had been synced are bad.

use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::engine::{CLEAN, LOG_DIR, TERM, lock, open_tables};
use crate::fault::Faults;
use crate::fold::{self, INTENT};
use crate::log::recover;
use crate::log::segment::Segment;
use crate::{Error, mark};

/// What [`repair`] found and did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Repaired {
    /// Where the log ends now.
    pub position: u64,
    /// What was damaged; `None`: nothing was, and nothing was changed.
    pub damage: Option<Damage>,
}

/// The first damage, and what went with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// The position in the log.
    pub position: u64,
    /// What was found there.
    pub what: String,
    /// Bytes of log from there to its end: they are lost.
    pub lost_bytes: u64,
    /// Groups of records behind the damage that were intact, and are lost with it.
    pub lost_groups: u64,
    /// Whether anything there had been reported as safe on the disk.
    pub was_synced: bool,
}

/// Cuts the log of `dir` at its first damage. No other process may have `dir` open.
///
/// # Errors
/// [`Error::InUse`]; [`Error::Tables`] if the tables themselves cannot be opened (restore a backup then); what the disk
/// says.
pub fn repair(dir: &Path) -> Result<Repaired, Error> {
    let _lock = lock(dir)?;
    let log_dir = dir.join(LOG_DIR);
    std::fs::create_dir_all(&log_dir).map_err(|e| Error::io("cannot make", &log_dir, e))?;
    let folded = open_tables(dir, 8 << 20)?.folded()?;
    let marks = [
        mark::read(dir, CLEAN),
        fold::intent(dir).map(|intent| intent.map(|end| vec![end])),
    ];
    let claims = marks
        .iter()
        .flatten()
        .flatten()
        .filter_map(|fields| fields.first().copied());
    let claim = claims.max().unwrap_or(0).max(folded.position);
    let bad_marks = marks.iter().any(Result::is_err);

    let (end, damage) = match recover::scan(&log_dir, folded.position, folded.seqs) {
        Ok(scan) => {
            let damage = scan.bad.as_ref().map(|bad| {
                let was_synced = claim.max(bad.later_claim) > bad.position;
                let path = scan
                    .files
                    .get(bad.file)
                    .map_or(log_dir.as_path(), recover::path_of);
                damage(
                    path,
                    bad.position,
                    bad.what,
                    (bad.bytes, bad.later_groups),
                    was_synced,
                )
            });
            if let Some(bad) = &scan.bad {
                recover::cut(&scan.files, bad)?;
            }
            let short = || damage_of_end(&log_dir, scan.end, claim);
            (scan.end, damage.or_else(short))
        }
        // The file that the tables' position is in is gone: the log begins anew where the tables end.
        Err(Error::Damaged { path, what, .. }) => {
            (0, Some(damage(&path, folded.position, &what, (0, 0), true)))
        }
        Err(e) => return Err(e),
    };
    let position = end.max(folded.position);
    if end < folded.position {
        begin_anew(&log_dir, folded.position, dir)?;
    }
    if damage.is_some() || bad_marks {
        // They promise more than there is now.
        mark::remove(dir, INTENT, &Faults::default())?;
        mark::remove(dir, CLEAN, &Faults::default())?;
    }
    mark::sync_dir(&log_dir).map_err(|e| Error::io("cannot sync", &log_dir, e))?;
    Ok(Repaired { position, damage })
}

fn damage(
    path: &Path,
    position: u64,
    what: &str,
    (lost_bytes, lost_groups): (u64, u64),
    was_synced: bool,
) -> Damage {
    Damage {
        path: path.into(),
        position,
        what: what.into(),
        lost_bytes,
        lost_groups,
        was_synced,
    }
}

fn damage_of_end(log_dir: &Path, end: u64, claim: u64) -> Option<Damage> {
    let what = format!("the log ends there, but had been synced up to {claim:#x}");
    (end < claim).then(|| damage(log_dir, end, &what, (claim - end, 0), true))
}

/// An empty log at `position`: what is left of the old one does not reach the tables.
fn begin_anew(log_dir: &Path, position: u64, dir: &Path) -> Result<(), Error> {
    let err = |e| Error::io("cannot begin anew", log_dir, e);
    for entry in std::fs::read_dir(log_dir).map_err(err)? {
        let path = entry.map_err(err)?.path();
        if path.extension().is_some_and(|extension| extension == "log") {
            std::fs::remove_file(path).map_err(err)?;
        }
    }
    let term = mark::read(dir, TERM)
        .ok()
        .flatten()
        .and_then(|fields| fields.first().copied())
        .unwrap_or(0);
    let term = u32::try_from(term).unwrap_or(u32::MAX);
    let (_, file) = Segment::create(log_dir, term, position, position).map_err(err)?;
    file.sync_all().map_err(err)
}
