//! The audit log: who logged in or was refused, what was denied, and who changed users and grants. No payloads, no passwords.
//!
//! A change of rights is written with its row in one record. Logins and denials are gathered for a second, the same ones as one row with
//! a count, and at most [`DISTINCT_MAX`] different ones, the rest as one number: a flood cannot fill the disk. Each row's seal is
//! SHA-256 over the seal before it, its number and its body (`broker::audit`).

use std::net::IpAddr;
use std::sync::Arc;

use broker::audit::{self, Row, Seal};
use broker::{Effects, Locked, Millis, ShardId};
use hashbrown::HashMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::config::Face;
use crate::node::Node;

/// Different events that are told apart within a second.
pub const DISTINCT_MAX: usize = 64;
/// Octets of a name in a row.
const NAME_MAX: usize = 128;

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A login that was accepted.
    Allowed,
    /// A login or an operation that was refused.
    Denied,
    /// Users or grants are other than before.
    Changed,
}

/// Something that somebody must be able to find later.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Event {
    pub face: Face,
    /// The principal, or the name that was tried.
    pub who: String,
    pub from: Option<IpAddr>,
    /// The verb: `login`, a command, a method, a change.
    pub what: String,
    /// What it was done to; may be empty.
    pub object: String,
    pub outcome: Outcome,
}

/// What is gathered and not written yet.
#[derive(Debug, Default)]
pub struct Audit {
    pending: Mutex<Pending>,
}

#[derive(Debug, Default)]
struct Pending {
    events: HashMap<Event, u64, foldhash::fast::RandomState>,
    /// Beyond [`DISTINCT_MAX`].
    others: u64,
}

fn short(bytes: &[u8]) -> String {
    let shown = bytes.get(..bytes.len().min(NAME_MAX)).unwrap_or_default();
    String::from_utf8_lossy(shown).into_owned()
}

impl Audit {
    /// Remembers an event; it is written within a second.
    pub fn note(&self, event: Event) {
        let mut pending = self.pending.lock();
        let room = pending.events.len() < DISTINCT_MAX;
        match pending.events.get_mut(&event) {
            Some(count) => *count += 1,
            None if room => {
                pending.events.insert(event, 1);
            }
            None => pending.others += 1,
        }
    }

    fn login(&self, face: Face, user: &[u8], from: IpAddr, accepted: bool) {
        self.note(Event {
            face,
            who: short(user),
            from: Some(from),
            what: "login".to_owned(),
            object: String::new(),
            outcome: if accepted {
                Outcome::Allowed
            } else {
                Outcome::Denied
            },
        });
    }

    /// An operation that was refused.
    pub fn denied(&self, face: Face, who: Option<&str>, from: IpAddr, what: &str, object: &[u8]) {
        self.note(Event {
            face,
            who: who.unwrap_or_default().to_owned(),
            from: Some(from),
            what: what.to_owned(),
            object: short(object),
            outcome: Outcome::Denied,
        });
    }

    /// Writes what was gathered. Does nothing when that is nothing.
    pub fn write(&self, node: &Node) {
        let (events, others) = {
            let mut pending = self.pending.lock();
            (
                std::mem::take(&mut pending.events),
                std::mem::take(&mut pending.others),
            )
        };
        if events.is_empty() && others == 0 {
            return;
        }
        let now = Millis(node.clock.now_ms());
        let mut fx = Effects::new();
        let mut locked = node.broker.lock_one(ShardId::CATALOG);
        for (event, times) in &events {
            append(&mut locked, &event.body(now, *times), &mut fx);
        }
        if others > 0 {
            let body = json!({ "time_ms": now.0, "what": "other events, not told apart", "times": others });
            append(&mut locked, &body, &mut fx);
        }
        locked.commit(now, &mut fx);
        drop(locked);
        node.broker.engine.flush();
    }
}

/// A login's end on any face: counts refusals, and notes it unless it was let in where there is nobody to be.
pub fn login(node: &Node, face: Face, user: &[u8], from: IpAddr, accepted: bool) {
    if !accepted {
        node.metrics.auth_failures_total.of(face).inc();
    }
    if !accepted || node.auth.required() || !node.broker.access.is_empty() {
        node.audit.login(face, user, from, accepted);
    }
}

impl Event {
    fn body(&self, now: Millis, times: u64) -> Value {
        json!({
            "time_ms": now.0,
            "face": self.face.name(),
            "who": self.who,
            "from": self.from.map(|from| from.to_canonical().to_string()),
            "what": self.what,
            "object": self.object,
            "outcome": match self.outcome {
                Outcome::Allowed => "allowed",
                Outcome::Denied => "denied",
                Outcome::Changed => "changed",
            },
            "times": times,
        })
    }

    /// Writes it with the change that it is about. Locks: the catalog.
    pub fn write(&self, locked: &mut Locked<'_>, now: Millis, fx: &mut Effects) {
        append(locked, &self.body(now, 1), fx);
    }
}

fn append(locked: &mut Locked<'_>, body: &Value, fx: &mut Effects) {
    audit::append(locked, body.to_string().as_bytes(), seal, fx);
}

fn seal(before: &Seal, seq: u64, body: &[u8]) -> Seal {
    Sha256::new()
        .chain_update(before)
        .chain_update(seq.to_be_bytes())
        .chain_update(body)
        .finalize()
        .into()
}

fn hex(seal: &Seal) -> String {
    seal.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The rows behind `after`, at most `limit`, as JSON. Blocks: it folds first.
///
/// # Errors
/// When the tables cannot be read.
pub fn show(node: &Arc<Node>, after: u64, limit: usize) -> Result<Value, storage::Error> {
    node.audit.write(node);
    node.broker.engine.fold_now()?;
    let mut rows = Vec::new();
    audit::each(&node.broker.engine, after, &mut |row| {
        if let Some(row) = row {
            let mut said = serde_json::from_slice(&row.body).unwrap_or(Value::Null);
            if let Some(said) = said.as_object_mut() {
                said.insert("seq".to_owned(), json!(row.seq));
            }
            rows.push(said);
        }
        rows.len() < limit
    })?;
    Ok(json!({ "rows": rows }))
}

/// Recomputes the chain. `seal` is the last row's: noted elsewhere, it shows later that no row was cut off the end.
/// Blocks: it folds first.
///
/// # Errors
/// When the tables cannot be read.
pub fn verify(node: &Arc<Node>) -> Result<Value, storage::Error> {
    node.audit.write(node);
    node.broker.engine.fold_now()?;
    let mut chain = Check::default();
    audit::each(&node.broker.engine, 0, &mut |row| chain.add(row))?;
    chain.end();
    let last = chain.last.as_ref();
    Ok(json!({
        "rows": chain.rows,
        "last": last.map(|row| row.seq),
        "seal": last.map(|row| hex(&row.seal)),
        "broken": chain.broken,
    }))
}

#[derive(Debug, Default)]
struct Check {
    rows: u64,
    first: u64,
    last: Option<Row>,
    /// The first row that does not follow from the one before.
    broken: Option<u64>,
}

impl Check {
    fn add(&mut self, row: Option<Row>) -> bool {
        let expected = self.last.as_ref().map(|last| last.seq + 1);
        let follows = row.as_ref().is_some_and(|row| {
            let linked = match &self.last {
                Some(last) => row.before == last.seal && row.seq == last.seq + 1,
                // The oldest may be gone; the very first begins the chain.
                None => row.seq > 1 || row.before == [0; 32],
            };
            linked && seal(&row.before, row.seq, &row.body) == row.seal
        });
        if !follows {
            self.broken = row.map(|row| row.seq).or(expected).or(Some(1));
            return false;
        }
        if let (None, Some(row)) = (&self.last, &row) {
            self.first = row.seq;
        }
        self.rows += 1;
        self.last = row;
        true
    }

    /// Only what is beyond the limit may be missing at the beginning.
    fn end(&mut self) {
        let last = self.last.as_ref().map_or(0, |row| row.seq);
        let oldest = last.saturating_sub(audit::ROWS_MAX) + 1;
        if self.broken.is_none() && self.rows > 0 && self.first > oldest {
            self.broken = Some(oldest);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(last: Option<&Row>, body: &[u8]) -> Row {
        let (seq, before) = last.map_or((1, [0; 32]), |last| (last.seq + 1, last.seal));
        Row {
            seq,
            before,
            seal: seal(&before, seq, body),
            body: body.to_vec(),
        }
    }

    #[test]
    fn a_row_that_was_changed_or_taken_out_is_found() {
        let first = row(None, b"1");
        let second = row(Some(&first), b"2");
        let third = row(Some(&second), b"3");
        let check = |rows: &[&Row]| {
            let mut check = Check::default();
            rows.iter().all(|row| check.add(Some((*row).clone())));
            check.end();
            check.broken
        };
        assert_eq!(check(&[]), None);
        assert_eq!(check(&[&first, &second, &third]), None);
        assert_eq!(check(&[&second, &third]), Some(1));
        let late = |seq: u64| {
            let before = [7; 32];
            let seal = seal(&before, seq, b"x");
            let body = b"x".to_vec();
            Row {
                seq,
                before,
                seal,
                body,
            }
        };
        let beyond = late(audit::ROWS_MAX + 1);
        assert_eq!(check(&[&beyond]), Some(2), "999,999 rows are missing");
        let mut full = Check {
            rows: audit::ROWS_MAX,
            first: 2,
            last: Some(beyond),
            broken: None,
        };
        full.end();
        assert_eq!(full.broken, None, "the oldest goes when there are too many");
        assert_eq!(check(&[&first, &third]), Some(3));
        let other = Row {
            body: b"x".to_vec(),
            ..second
        };
        assert_eq!(check(&[&first, &other, &third]), Some(2));
        assert!(!Check::default().add(None));
    }

    #[test]
    fn the_same_again_is_counted() {
        let audit = Audit::default();
        for number in 0..1000 {
            let name = format!("user{}", number % 100);
            audit.login(
                Face::Resp,
                name.as_bytes(),
                IpAddr::from([127, 0, 0, 1]),
                false,
            );
        }
        let pending = audit.pending.lock();
        assert_eq!(pending.events.len(), DISTINCT_MAX);
        assert!(pending.events.values().all(|count| *count == 10));
        assert_eq!(pending.others, 360);
    }
}
