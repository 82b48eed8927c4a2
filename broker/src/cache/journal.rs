//! What changed in the keys of one shard since the last commit, for the topics `__keyspace.<db>`: only while they are
//! wanted. Filled where memory and rows change; emptied by [`crate::Locked::commit`], which makes record batches of it.
//!
//! A run is one operation on one key; neighbouring elements share one. Its JSON is written as the changes come.

use base64::display::Base64Display;
use base64::prelude::BASE64_STANDARD;

use super::value::Kind;
use crate::rows::from_ordered_i64;

/// Octets of JSON after which a run ends and a new one of the same operation begins.
const RUN_BYTES: usize = 256 << 10;
/// Longest string, field, member or item that is told. Of longer ones only that they changed.
const VALUE_BYTES: usize = 512 << 10;

/// One record of the topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Note {
    pub(crate) db: usize,
    /// `None`: it is about the whole database.
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) json: Vec<u8>,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Journal {
    /// Bit by database: its changes are wanted.
    databases: u16,
    notes: Vec<Note>,
    /// The collection whose elements change now.
    at: Option<At>,
}

#[derive(Debug)]
struct At {
    db: usize,
    key: Vec<u8>,
    kind: Kind,
    /// Of a list: positions of its first item and behind its last one.
    ends: (i64, i64),
    run: Option<(&'static str, Vec<u8>)>,
}

impl Journal {
    pub(crate) fn new(databases: u16) -> Self {
        Self {
            databases,
            ..Self::default()
        }
    }

    pub(crate) fn wants(&self, db: usize) -> bool {
        self.databases >> db & 1 == 1
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.notes.is_empty() && self.at.is_none()
    }

    /// All that was noted since the last call, in order.
    pub(crate) fn take(&mut self) -> Vec<Note> {
        self.end();
        std::mem::take(&mut self.notes)
    }

    /// The changes of elements that come next are of this collection. `ends`: see [`At`].
    pub(super) fn begin(&mut self, db: usize, key: &[u8], kind: Kind, ends: (i64, i64)) {
        self.end();
        if self.wants(db) {
            self.at = Some(At {
                db,
                key: key.to_vec(),
                kind,
                ends,
                run: None,
            });
        }
    }

    fn end(&mut self) {
        if let Some(mut at) = self.at.take() {
            self.notes.extend(at.end_run());
        }
    }

    /// An element is there, or has changed.
    pub(super) fn put(&mut self, name: &[u8], value: &[u8]) {
        let Some(at) = &mut self.at else {
            return;
        };
        match at.kind {
            Kind::Hash => {
                let json = at.element("hset", "fields", &mut self.notes);
                json.push(b'[');
                text(json, name);
                json.push(b',');
                text(json, value);
                json.push(b']');
            }
            Kind::Set => text(at.element("sadd", "members", &mut self.notes), name),
            Kind::Zset => {
                let score = value
                    .first_chunk()
                    .map_or(0.0, |raw| f64::from_le_bytes(*raw));
                let json = at.element("zadd", "members", &mut self.notes);
                json.push(b'[');
                text(json, name);
                json.push(b',');
                number(json, score);
                json.push(b']');
            }
            Kind::List => {
                let Some(position) = name.first_chunk().map(|raw| from_ordered_i64(*raw)) else {
                    return;
                };
                let op = at.grows_at(position);
                let json = at.element(op, "items", &mut self.notes);
                json.extend_from_slice(format!("[{position},").as_bytes());
                text(json, value);
                json.push(b']');
            }
            // Strings are told as a whole, streams by what they do: see `Journal::tell`.
            Kind::String | Kind::Stream => {}
        }
    }

    /// Something happened to the collection that is not the putting or going of an element.
    pub(super) fn tell(&mut self, op: &'static str, list: &str, write: impl FnOnce(&mut Vec<u8>)) {
        if let Some(at) = &mut self.at {
            write(at.element(op, list, &mut self.notes));
        }
    }

    /// An element is gone.
    pub(super) fn del(&mut self, name: &[u8]) {
        let Some(at) = &mut self.at else {
            return;
        };
        match at.kind {
            Kind::Hash => text(at.element("hdel", "fields", &mut self.notes), name),
            Kind::Set => text(at.element("srem", "members", &mut self.notes), name),
            Kind::Zset => text(at.element("zrem", "members", &mut self.notes), name),
            Kind::List => {
                let Some(position) = name.first_chunk().map(|raw| from_ordered_i64(*raw)) else {
                    return;
                };
                let op = at.shrinks_at(position);
                let json = at.element(op, "positions", &mut self.notes);
                json.extend_from_slice(position.to_string().as_bytes());
            }
            Kind::String | Kind::Stream => {}
        }
    }

    /// A field of the hash has a deadline, or none any more.
    pub(super) fn field_deadline(&mut self, field: &[u8], at_ms: Option<u64>) {
        match at_ms {
            Some(at_ms) => self.tell("hexpire", "fields", |json| {
                json.push(b'[');
                text(json, field);
                json.extend_from_slice(format!(",{at_ms}]").as_bytes());
            }),
            None => self.tell("hpersist", "fields", |json| text(json, field)),
        }
    }

    /// A key holds a string now, whatever it held.
    pub(super) fn set(&mut self, db: usize, key: &[u8], value: &[u8], expire_ms: u64) {
        if !self.wants(db) {
            return;
        }
        let mut json = br#"{"op":"set","value":"#.to_vec();
        text(&mut json, value);
        if expire_ms != 0 {
            json.extend_from_slice(format!(r#","expires_ms":{expire_ms}"#).as_bytes());
        }
        json.push(b'}');
        self.push(db, Some(key), json);
    }

    /// A key has a deadline, or none any more (0).
    pub(super) fn expire(&mut self, db: usize, key: &[u8], expire_ms: u64) {
        if expire_ms == 0 {
            self.note(db, Some(key), "persist");
        } else if self.wants(db) {
            let json = format!(r#"{{"op":"expire","expires_ms":{expire_ms}}}"#);
            self.push(db, Some(key), json.into_bytes());
        }
    }

    /// A key holds a collection that was under another name, too large to be told again.
    pub(super) fn renamed(&mut self, db: usize, key: &[u8], kind: Kind, expire_ms: u64) {
        if self.wants(db) {
            let kind = kind.name();
            let json = format!(r#"{{"op":"rename_to","type":"{kind}","omitted":true}}"#);
            self.push(db, Some(key), json.into_bytes());
            if expire_ms != 0 {
                self.expire(db, key, expire_ms);
            }
        }
    }

    /// A database has the keys of another one now, and that one its.
    pub(super) fn swapped(&mut self, db: usize, with: usize) {
        if self.wants(db) {
            let json = format!(r#"{{"op":"swapdb","with":{with}}}"#);
            self.push(db, None, json.into_bytes());
        }
    }

    /// Something that has a name and nothing else.
    pub(super) fn note(&mut self, db: usize, key: Option<&[u8]>, op: &str) {
        if self.wants(db) {
            self.push(db, key, format!(r#"{{"op":"{op}"}}"#).into_bytes());
        }
    }

    fn push(&mut self, db: usize, key: Option<&[u8]>, json: Vec<u8>) {
        self.end();
        self.notes.push(Note {
            db,
            key: key.map(<[u8]>::to_vec),
            json,
        });
    }
}

impl At {
    fn end_run(&mut self) -> Option<Note> {
        let (_, mut json) = self.run.take()?;
        json.extend_from_slice(b"]}");
        Some(Note {
            db: self.db,
            key: Some(self.key.clone()),
            json,
        })
    }

    /// Where the next element of `op` is written.
    fn element(&mut self, op: &'static str, list: &str, notes: &mut Vec<Note>) -> &mut Vec<u8> {
        let goes_on = self
            .run
            .as_ref()
            .is_some_and(|(of, json)| *of == op && json.len() < RUN_BYTES);
        if !goes_on {
            notes.extend(self.end_run());
        }
        let (_, json) = self.run.get_or_insert_with(|| {
            let head = format!(r#"{{"op":"{op}","{list}":["#);
            (op, head.into_bytes())
        });
        if goes_on {
            json.push(b',');
        }
        json
    }

    fn grows_at(&mut self, position: i64) -> &'static str {
        let (first, behind) = &mut self.ends;
        if position == *behind {
            *behind += 1;
            "rpush"
        } else if position == *first - 1 {
            *first -= 1;
            "lpush"
        } else {
            "lset"
        }
    }

    fn shrinks_at(&mut self, position: i64) -> &'static str {
        let (first, behind) = &mut self.ends;
        if position == *first {
            *first += 1;
            "lpop"
        } else if position == *behind - 1 {
            *behind -= 1;
            "rpop"
        } else {
            "lrem"
        }
    }
}

/// A JSON string; what is not UTF-8 as `{"base64":"…"}`, what is too long as `{"omitted":octets}`.
pub(super) fn text(json: &mut Vec<u8>, bytes: &[u8]) {
    if bytes.len() > VALUE_BYTES {
        json.extend_from_slice(format!(r#"{{"omitted":{}}}"#, bytes.len()).as_bytes());
        return;
    }
    match std::str::from_utf8(bytes) {
        // Writing a text to memory cannot fail.
        Ok(text) => drop(serde_json::to_writer(&mut *json, text)),
        Err(_) => {
            let encoded = Base64Display::new(bytes, &BASE64_STANDARD);
            json.extend_from_slice(format!(r#"{{"base64":"{encoded}"}}"#).as_bytes());
        }
    }
}

/// A JSON number; JSON has none for what is infinite, so that is a text, as Redis writes it.
fn number(json: &mut Vec<u8>, score: f64) {
    let text = if score.is_finite() {
        format!("{score:?}")
    } else if score > 0.0 {
        r#""inf""#.to_owned()
    } else {
        r#""-inf""#.to_owned()
    };
    json.extend_from_slice(text.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::ordered_i64;

    fn told(journal: &mut Journal) -> Vec<String> {
        let notes = journal.take();
        let line = |note: Note| {
            let key = note
                .key
                .map_or("-".into(), |key| String::from_utf8_lossy(&key).into_owned());
            format!("{key} {}", String::from_utf8_lossy(&note.json))
        };
        notes.into_iter().map(line).collect()
    }

    #[test]
    fn neighbours_share_a_run_and_order_is_kept() {
        let mut journal = Journal::new(1);
        journal.begin(0, b"h", Kind::Hash, (0, 0));
        journal.put(b"a", b"1");
        journal.put(b"\xff", b"\"");
        journal.del(b"a");
        journal.put(b"a", b"2");
        journal.begin(0, b"z", Kind::Zset, (0, 0));
        journal.put(b"m", &1.5f64.to_le_bytes());
        journal.put(b"n", &f64::NEG_INFINITY.to_le_bytes());
        journal.note(0, None, "flushdb");
        journal.set(1, b"k", b"v", 0);
        assert_eq!(
            told(&mut journal),
            [
                r#"h {"op":"hset","fields":[["a","1"],[{"base64":"/w=="},"\""]]}"#,
                r#"h {"op":"hdel","fields":["a"]}"#,
                r#"h {"op":"hset","fields":[["a","2"]]}"#,
                r#"z {"op":"zadd","members":[["m",1.5],["n","-inf"]]}"#,
                r#"- {"op":"flushdb"}"#,
            ]
        );
        assert!(journal.is_empty());
    }

    #[test]
    fn ends_of_lists() {
        let mut journal = Journal::new(1);
        journal.begin(0, b"l", Kind::List, (-1, 2));
        let at = |position| ordered_i64(position);
        journal.put(&at(2), b"r");
        journal.put(&at(-2), b"l");
        journal.put(&at(0), b"s");
        journal.del(&at(-2));
        journal.del(&at(-1));
        journal.del(&at(2));
        journal.del(&at(0));
        assert_eq!(
            told(&mut journal),
            [
                r#"l {"op":"rpush","items":[[2,"r"]]}"#,
                r#"l {"op":"lpush","items":[[-2,"l"]]}"#,
                r#"l {"op":"lset","items":[[0,"s"]]}"#,
                r#"l {"op":"lpop","positions":[-2,-1]}"#,
                r#"l {"op":"rpop","positions":[2]}"#,
                r#"l {"op":"lpop","positions":[0]}"#,
            ]
        );
    }

    #[test]
    fn what_is_large_is_split_or_left_out() {
        let mut journal = Journal::new(1);
        journal.set(0, b"k", &vec![b'x'; VALUE_BYTES + 1], 7);
        journal.begin(0, b"s", Kind::Set, (0, 0));
        for n in 0..10u32 {
            journal.put(&vec![b'a' + n as u8; 100 << 10], b"");
        }
        let notes = told(&mut journal);
        assert_eq!(
            notes[0],
            r#"k {"op":"set","value":{"omitted":524289},"expires_ms":7}"#
        );
        assert_eq!(notes.len(), 1 + 4);
        assert!(
            notes
                .iter()
                .all(|note| note.len() < RUN_BYTES + (200 << 10))
        );
    }
}
