//! What the log holds after a stop of any kind: checked, and cut at a torn tail.
//!
//! The rule: the log is cut at the first bad group, in whichever file, later files included, **unless** anything says
//! that bytes at or behind the cut had been on the disk: a later intact group header, the fold's intent, the position
//! of the tables, the mark of a clean stop. Then that is damage, not a torn tail, and the engine does not start.

use std::fs::{self, File};
use std::path::Path;

use super::ahead;
use super::group::{self, Found, Header};
use super::map::Map;
use super::record::Record;
use super::segment::{self, Opened, Segment};
use crate::{Error, SHARDS, mark};

/// The log as it is after recovery.
#[derive(Debug)]
pub(crate) struct Recovered {
    pub(crate) segments: Vec<Segment>,
    /// Position after the last good group.
    pub(crate) end: u64,
    /// Last seq of each shard.
    pub(crate) seqs: [u64; SHARDS],
    /// Highest term seen.
    pub(crate) term: u32,
    /// Bytes that were cut off as a torn tail.
    pub(crate) cut_bytes: u64,
}

/// A place where the log stops being good.
#[derive(Debug)]
pub(crate) struct Bad {
    /// Index into the list of files.
    pub(crate) file: usize,
    pub(crate) position: u64,
    pub(crate) what: &'static str,
    /// Highest synced position that intact headers behind it claim.
    pub(crate) later_claim: u64,
    /// Intact groups behind it.
    pub(crate) later_groups: u64,
    /// Bytes from there to the end, all files.
    pub(crate) bytes: u64,
}

/// The log from `folded` on, as far as it is good.
#[derive(Debug)]
pub(crate) struct Scan {
    pub(crate) files: Vec<Opened>,
    pub(crate) end: u64,
    pub(crate) seqs: [u64; SHARDS],
    pub(crate) term: u32,
    pub(crate) bad: Option<Bad>,
}

/// Checks the log behind `folded` (the tables hold what is before it, and `seqs`), cuts a torn tail, syncs the rest.
/// `claim` is the highest position known to have been synced.
pub(crate) fn recover(
    dir: &Path,
    folded: u64,
    seqs: [u64; SHARDS],
    claim: u64,
) -> Result<Recovered, Error> {
    let scan = scan(dir, folded, seqs)?;
    let claim = claim.max(folded);
    let mut cut_bytes = 0;
    if let Some(bad) = &scan.bad {
        let claim = claim.max(bad.later_claim);
        if claim > bad.position {
            let path = scan
                .files
                .get(bad.file)
                .map_or_else(|| dir.to_path_buf(), |file| path_of(file).to_path_buf());
            let what = format!(
                "{}; the log had been synced up to position {claim:#x}",
                bad.what
            );
            return Err(Error::damaged(path, bad.position, what));
        }
        cut_bytes = bad.bytes;
        cut(&scan.files, bad)?;
    }
    if scan.end < claim {
        let what = format!(
            "the log ends at {:#x}, but had been synced up to {claim:#x}",
            scan.end
        );
        return Err(Error::damaged(dir, scan.end, what));
    }
    let kept = scan
        .bad
        .as_ref()
        .map_or(usize::MAX, |bad| bad.file.saturating_add(1));
    let mut segments: Vec<Segment> = Vec::new();
    for opened in scan.files.into_iter().take(kept) {
        if let Opened::Segment(mut segment) = opened {
            segment.end = segment.end.min(scan.end);
            if segment.start <= scan.end {
                segments.push(segment);
            }
        }
    }
    // A killed process leaves pages that the kernel has and the disk has not: the fold needs them there.
    for segment in segments.iter().filter(|segment| segment.end > folded) {
        let synced = File::open(&segment.path).and_then(|file| file.sync_all());
        synced.map_err(|e| Error::io("cannot sync", &segment.path, e))?;
    }
    mark::sync_dir(dir).map_err(|e| Error::io("cannot sync", dir, e))?;
    Ok(Recovered {
        segments,
        end: scan.end,
        seqs: scan.seqs,
        term: scan.term,
        cut_bytes,
    })
}

/// Reads and checks every group behind `folded`.
pub(crate) fn scan(dir: &Path, folded: u64, mut seqs: [u64; SHARDS]) -> Result<Scan, Error> {
    let files = segment::list(dir)?;
    let term = files
        .iter()
        .map(|file| {
            if let Opened::Segment(s) = file {
                s.term
            } else {
                0
            }
        })
        .max()
        .unwrap_or(0);
    // The newest file that begins at or before `folded` holds it, or ends there.
    let first = files.iter().rposition(|file| start_of(file) <= folded);
    let Some(first) = first else {
        let oldest = files.first();
        if let Some(oldest) = oldest.filter(|_| folded == 0).and_then(segment_of)
            && oldest.previous_end == 0
        {
            return walk(files, 0, 0, &mut seqs, term);
        }
        if folded == 0 && oldest.is_none() {
            return Ok(Scan {
                files,
                end: 0,
                seqs,
                term,
                bad: None,
            });
        }
        let what =
            format!("the tables end at position {folded:#x}, but the log from there on is missing");
        return Err(Error::damaged(dir, folded, what));
    };
    walk(files, first, folded, &mut seqs, term)
}

fn walk(
    files: Vec<Opened>,
    first: usize,
    folded: u64,
    seqs: &mut [u64; SHARDS],
    term: u32,
) -> Result<Scan, Error> {
    let mut position = folded;
    let mut bad = None;
    let mut max_term = term;
    for (index, opened) in files.iter().enumerate().skip(first) {
        let stop = |what, later: (u64, u64), position: u64| {
            let bytes = files
                .iter()
                .skip(index)
                .map(|file| bytes_behind(file, position))
                .sum();
            Some(Bad {
                file: index,
                position,
                what,
                later_claim: later.0,
                later_groups: later.1,
                bytes,
            })
        };
        let Some(segment) = segment_of(opened) else {
            bad = stop(
                "a file without a header",
                later_claims(&files, index + 1)?,
                position,
            );
            break;
        };
        if index > first || segment.start > position {
            if segment.previous_end != position {
                bad = stop(
                    "a missing file or a short one",
                    later_claims(&files, index)?,
                    position,
                );
                break;
            }
            position = segment.start;
        }
        let map = map(segment)?;
        let good = check_groups(segment, map.bytes(), position, |header, payload| {
            max_term = max_term.max(header.term);
            note_seqs(payload, header.first, seqs)
        })?;
        position = good.end;
        if let Some(what) = good.bad {
            let here = claims(segment, map.bytes(), position + 1);
            let later = later_claims(&files, index + 1)?;
            bad = stop(what, (here.0.max(later.0), here.1 + later.1), position);
            break;
        }
    }
    Ok(Scan {
        files,
        end: position,
        seqs: *seqs,
        term: max_term,
        bad,
    })
}

struct Good {
    end: u64,
    bad: Option<&'static str>,
}

/// Visits the good groups of a file from `position` on.
fn check_groups(
    segment: &Segment,
    bytes: &[u8],
    mut position: u64,
    mut visit: impl FnMut(&Header, &[u8]) -> bool,
) -> Result<Good, Error> {
    let bad = loop {
        let rest = usize::try_from(segment.offset_of(position))
            .ok()
            .and_then(|at| bytes.get(at..))
            .unwrap_or(&[]);
        if rest.is_empty() {
            break (position > segment.end).then_some("a short file");
        }
        let header = match Header::find(rest) {
            Found::Header(header) => header,
            Found::Unknown(version) => {
                let known = 1;
                return Err(Error::Format {
                    path: segment.path.clone(),
                    found: u32::from(version),
                    known,
                });
            }
            Found::Nothing if ahead::unused(rest) => break None,
            Found::Nothing => break Some("no group header"),
        };
        if header.first != position {
            break Some("a group of another place");
        }
        let Some(payload) = rest.get(group::HEADER..group::HEADER + header.length as usize) else {
            break Some("a group cut short");
        };
        if crc32c::crc32c(payload) != header.payload_crc {
            break Some("a group with a wrong checksum");
        }
        if !visit(&header, payload) {
            let known = u32::from(super::record::VERSION);
            return Err(Error::Format {
                path: segment.path.clone(),
                found: known + 1,
                known,
            });
        }
        position = header.end();
    };
    Ok(Good { end: position, bad })
}

/// Notes the seqs of all records of a group. `false`: a record is of an unknown version.
fn note_seqs(mut payload: &[u8], first: u64, seqs: &mut [u64; SHARDS]) -> bool {
    while !payload.is_empty() {
        let Some((record, size)) = Record::split(payload, first) else {
            return false;
        };
        for section in record.sections() {
            if let Some(seq) = seqs.get_mut(section.shard.index()) {
                *seq = (*seq).max(section.seq);
            }
        }
        payload = payload.get(size..).unwrap_or(&[]);
    }
    true
}

/// Highest synced position that intact headers behind `position` claim, and how many there are. A header counts only
/// at its own place: a value may hold bytes that look like one.
fn claims(segment: &Segment, bytes: &[u8], position: u64) -> (u64, u64) {
    let mut highest = (0, 0);
    let mut at = usize::try_from(segment.offset_of(position)).unwrap_or(usize::MAX);
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= group::HEADER) {
        if let Found::Header(header) = Header::find(rest)
            && segment.offset_of(header.first.max(segment.start)) == at as u64
        {
            highest = (highest.0.max(header.synced), highest.1 + 1);
        }
        at += 1;
    }
    highest
}

fn later_claims(files: &[Opened], from: usize) -> Result<(u64, u64), Error> {
    let mut highest = (0, 0);
    for segment in files.iter().skip(from).filter_map(segment_of) {
        let (claim, groups) = claims(segment, map(segment)?.bytes(), segment.start);
        highest = (highest.0.max(claim), highest.1 + groups);
    }
    Ok(highest)
}

/// Removes everything from `bad` on, durably.
pub(crate) fn cut(files: &[Opened], bad: &Bad) -> Result<(), Error> {
    for (index, file) in files.iter().enumerate().skip(bad.file).rev() {
        let path = path_of(file);
        let err = |source| Error::io("cannot cut", path, source);
        match segment_of(file) {
            Some(segment) if index == bad.file && segment.start <= bad.position => {
                let file = File::options().write(true).open(path).map_err(err)?;
                file.set_len(segment.offset_of(bad.position)).map_err(err)?;
                file.sync_all().map_err(err)?;
            }
            _ => fs::remove_file(path).map_err(err)?,
        }
    }
    Ok(())
}

pub(crate) fn path_of(file: &Opened) -> &Path {
    match file {
        Opened::Segment(segment) => &segment.path,
        Opened::Torn { path, .. } => path,
    }
}

fn start_of(file: &Opened) -> u64 {
    match file {
        Opened::Segment(segment) => segment.start,
        Opened::Torn { start, .. } => *start,
    }
}

fn segment_of(file: &Opened) -> Option<&Segment> {
    match file {
        Opened::Segment(segment) => Some(segment),
        Opened::Torn { .. } => None,
    }
}

fn bytes_behind(file: &Opened, position: u64) -> u64 {
    match file {
        Opened::Segment(segment) => segment.end.saturating_sub(position.max(segment.start)),
        Opened::Torn { path, .. } => fs::metadata(path).map_or(0, |meta| meta.len()),
    }
}

fn map(segment: &Segment) -> Result<Map, Error> {
    let len = segment.offset_of(segment.end);
    Map::open(&segment.path, len).map_err(|e| Error::io("cannot map", &segment.path, e))
}
