//! What the keys of a shard say for [`crate::law`].

use std::collections::{BTreeMap, HashSet};

use super::scan::Cursor;
use super::space::Grave;
use super::value::Value;
use super::{DATABASES, Error, Name, row};
use crate::law::Facts;
use crate::rows::{self, Tag};
use crate::{Effects, Keyspace, Millis, Shard, Slot};

/// Every key with its value and deadline, loaded if need be; keys whose time has come too, as long as nobody has touched
/// them.
pub(crate) fn shard(shard: &mut Shard, facts: &mut Facts) -> Result<(), Error> {
    let id = shard.id;
    // Nothing is changed: at the beginning of time no key has expired.
    let mut unused = Effects::new();
    for number in 0..DATABASES {
        let mut view = shard.keys(number, Millis(0), &mut unused);
        let mut keys = Vec::new();
        // By slot: the tables are asked unless everything is known to be in memory.
        let mut cursor = Some(Cursor::Slot(Slot::range_of(id).0));
        while let Some(at) = cursor.filter(|at| at.shard() == id) {
            cursor = view.scan(at, usize::MAX, &mut |key, _| keys.push(key.to_vec()))?;
        }
        let counted = view.len();
        if counted != keys.len() {
            facts.wrong(format!(
                "shard {} database {number}: {counted} keys are counted, {} are there",
                id.0,
                keys.len()
            ));
        }
        let db = view.db().id;
        facts.own(id, Tag::Key, u64::from(db));
        if counted > 0 {
            facts.say(
                format!("shard {} database {number}", id.0),
                format!("id {db}, {counted} keys"),
            );
        }
        for key in keys {
            let name = Name::new(&key);
            let what = format!("database {number} key {}", key.escape_ascii());
            let entry = view.entry(&name)?;
            let found = entry.map(|entry| (entry.value.kind(), entry.value.object()));
            match (found, view.copy_of(&name)?) {
                (Some((kind, object)), Some((whole, expire_ms))) => {
                    if object != 0 {
                        facts.own(id, row::element_tag(kind), object);
                    }
                    if let Value::Zset(zset) = &whole {
                        let mut members = zset.iter();
                        let mut equal = true;
                        view.ranked(&name, super::NO_ELEMENTS, |ranked| {
                            let all = 0..ranked.len();
                            ranked.each(all, false, |member, score| {
                                equal &= members.next() == Some((member, score));
                            })
                        })?;
                        if !equal || members.next().is_some() {
                            facts.wrong(format!("{what}: its order is not that of its scores"));
                        }
                    }
                    let whole = shown(&whole);
                    let value = format!("{whole}, object {object}, expires {expire_ms}");
                    facts.say(what, value);
                }
                _ => facts.wrong(format!("{what} is listed and not there")),
            }
        }
    }
    let mut flushed = HashSet::new();
    for (_, grave) in &shard.cache.graves {
        match *grave {
            Grave::Object {
                slot,
                tag,
                id: object,
            } => {
                facts.own(id, tag, object);
                facts.say(
                    format!("grave of {object} in slot {}", slot.raw()),
                    format!("{tag:?}"),
                );
            }
            Grave::Front { slot, id, gone } => {
                let (from, below) = gone;
                facts.say(
                    format!(
                        "grave of entries before {below} of {id} in slot {}",
                        slot.raw()
                    ),
                    from.to_string(),
                );
            }
            Grave::Database(db) => {
                facts.own(id, Tag::Key, u64::from(db));
                facts.say(format!("grave of database {db} in shard {}", id.0), "");
                flushed.insert(db);
            }
        }
    }
    own_objects(shard, &flushed, facts)
}

/// What the keys of flushed databases refer to goes after them.
fn own_objects(shard: &Shard, flushed: &HashSet<u32>, facts: &mut Facts) -> Result<(), Error> {
    if flushed.is_empty() {
        return Ok(());
    }
    let (first, last) = Slot::range_of(shard.id);
    // All of them in one pass: a seek for each slot of each database takes a minute after a thousand flushes.
    for slot in (first.raw()..=last.raw()).filter_map(Slot::from_raw) {
        let prefix = rows::prefix(slot, Tag::Key);
        let end = rows::prefix_end(&prefix);
        let mut visit = |key: &[u8], stored: &[u8]| {
            let name = key.get(prefix.len()..).unwrap_or_default();
            if let Some((db, name)) = name.split_first_chunk::<4>()
                && flushed.contains(&u32::from_be_bytes(*db))
                && let Some((_, value)) = row::split(name, stored)
                && let Some((tag, object)) = row::root(value).and_then(|root| root.object())
            {
                facts.own(shard.id, tag, object);
            }
            true
        };
        shard.engine.scan(
            Keyspace::Rows,
            &prefix,
            end.as_deref(),
            usize::MAX,
            &mut visit,
        )?;
    }
    Ok(())
}

/// A value without its object's id and without the order of fields.
pub(super) fn shown(value: &Value) -> String {
    match value {
        Value::Int(value) => format!("string \"{value}\""),
        Value::Buffer(buffer) => format!("string \"{}\"", buffer.bytes.escape_ascii()),
        Value::Hash(hash) => {
            let fields: BTreeMap<_, _> = hash
                .iter()
                .map(|(field, value)| {
                    (
                        field.escape_ascii().to_string(),
                        value.escape_ascii().to_string(),
                    )
                })
                .collect();
            let deadlines: BTreeMap<_, _> = hash
                .field_deadlines()
                .map(|(field, at_ms)| (field.escape_ascii().to_string(), at_ms))
                .collect();
            if deadlines.is_empty() {
                format!("hash {fields:?}")
            } else {
                format!("hash {fields:?} deadlines {deadlines:?}")
            }
        }
        Value::List(list) => {
            let items: Vec<_> = list
                .iter()
                .map(|item| item.escape_ascii().to_string())
                .collect();
            format!("list {items:?}")
        }
        Value::Set(set) => {
            let mut members: Vec<_> = set
                .iter()
                .map(|member| member.to_vec().escape_ascii().to_string())
                .collect();
            members.sort_unstable();
            format!("set {members:?}")
        }
        Value::Stream(stream) => stream.shown(),
        Value::Zset(zset) => {
            let members: Vec<_> = zset
                .iter()
                .map(|(member, score)| (member.escape_ascii().to_string(), score))
                .collect();
            format!("zset {members:?}")
        }
    }
}
