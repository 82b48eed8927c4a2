//! The law, checked: drop the shards' memory, load it from tables and log, and it is equal.
//!
//! ```text
//!  broker ── facts ─▶ one line per key, message, partition, offset … ─┐
//!    │ fold                                                           ├─ compare ─▶ differences, in words
//!  second broker over the same engine ── facts ─▶ the same lines ─────┘
//!  every row of the tables ── does somebody there own it? ────────────────────────▶ rows of nobody
//! ```
//! Excepted, since a restart ends them: transient messages, exclusive and transient queues, sessions, subscriptions,
//! deliveries in flight, clocks of last use. Each domain says its facts beside its own structures (`law.rs` there).

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::sync::Arc;

use storage::ShardId;

use crate::rows::Tag;
use crate::{
    Broker, Budgets, Keyspace, ShardSet, Slot, access, cache, functions, queue, stream,
    stream_queue,
};

/// Longer values are shown by their beginning, their length and a hash.
const SHOWN: usize = 160;

/// One thing that memory and tables do not agree about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// Key, queue, message, partition, …
    pub what: String,
    /// What memory says of it; `None`: it does not know it.
    pub memory: Option<String>,
    /// What a load says of it; `None`: it does not bring it back.
    pub tables: Option<String>,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let say = |side: &Option<String>| side.clone().unwrap_or_else(|| "nothing".to_owned());
        let (memory, tables) = (say(&self.memory), say(&self.tables));
        write!(
            f,
            "{}: memory has {memory}; a load gives {tables}",
            self.what
        )
    }
}

/// What a broker says of itself.
#[derive(Debug, Default)]
pub(crate) struct Facts {
    equal: BTreeMap<String, String>,
    /// True before, so true after; a load may make more of them true (a delivered mark runs ahead).
    kept: BTreeSet<String>,
    /// Facts with this beginning may come back from a load, so many of them: sessions hold them now.
    held: BTreeMap<String, u64>,
    /// What contradicts itself, whatever the tables say.
    wrong: Vec<String>,
    /// Whose rows may stand in the tables.
    owners: HashSet<(ShardId, Tag, u64)>,
    names: HashSet<(Tag, Arc<str>)>,
}

impl Facts {
    pub(crate) fn say(&mut self, what: String, value: impl AsRef<str>) {
        self.equal.insert(what, brief(value.as_ref()));
    }

    pub(crate) fn keep(&mut self, what: String) {
        self.kept.insert(what);
    }

    pub(crate) fn hold(&mut self, beginning: String, count: u64) {
        self.held.insert(beginning, count);
    }

    pub(crate) fn wrong(&mut self, what: String) {
        self.wrong.push(what);
    }

    /// Rows with this tag and id are somebody's.
    pub(crate) fn own(&mut self, shard: ShardId, tag: Tag, id: u64) {
        self.owners.insert((shard, tag, id));
    }

    /// Rows with this tag and name are somebody's.
    pub(crate) fn own_name(&mut self, tag: Tag, name: &Arc<str>) {
        self.names.insert((tag, Arc::clone(name)));
    }
}

fn brief(text: &str) -> String {
    if text.len() <= SHOWN {
        return text.to_owned();
    }
    let head: String = text.chars().take(SHOWN / 2).collect();
    format!(
        "{head}… ({} octets, hash {:016x})",
        text.len(),
        hash([text.as_bytes()])
    )
}

/// A hash of the same octets in the same order is the same in every run.
pub(crate) fn hash<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> u64 {
    let mut hasher = foldhash::quality::FixedState::with_seed(0).build_hasher();
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// Folds, loads everything a second time and compares; the first `limit` differences. Reads all data, and takes the
/// messages out of `broker`'s queues to look at them: call it when no session and no job is left, and do not use the broker
/// afterwards. Purges that were begun are finished, as a start does.
///
/// # Errors
/// When the tables cannot be read or written.
pub fn check(broker: &Broker, limit: usize) -> Result<Vec<Difference>, cache::Error> {
    let engine = &broker.engine;
    engine.flush();
    engine.fold_now()?;
    let second = Broker::open(Arc::clone(engine), Budgets::like(&broker.budgets))?;
    second.topics.set_durability(broker.topics.durability());
    // What opening it has finished must be in the tables, or it seems to be nobody's.
    engine.flush();
    engine.fold_now()?;

    let mut differences = Vec::new();
    let mut owners = Facts::default();
    for shard in ShardSet::ALL.iter() {
        let (before, after) = (facts(broker, shard)?, facts(&second, shard)?);
        compare(&before, &after, &mut differences);
        owners.owners.extend(after.owners);
        owners.names.extend(after.names);
        differences.truncate(limit);
    }
    if differences.len() < limit {
        nobodys(broker, &owners, limit - differences.len(), &mut differences)?;
    }
    Ok(differences)
}

fn facts(broker: &Broker, shard: ShardId) -> Result<Facts, cache::Error> {
    let mut facts = Facts::default();
    if shard == ShardId::CATALOG {
        queue::law::catalog(&broker.routes, &mut facts);
        stream_queue::law(broker, &mut facts);
        stream::law::catalog(broker.lock_one(shard).catalog(), &mut facts);
        access::law::catalog(&broker.access, &mut facts);
        functions::law(&broker.functions, &mut facts);
        let chain = broker.lock_one(shard).catalog().audit;
        facts.say("audit log".to_owned(), format!("{chain:?}"));
    } else {
        let mut locked = broker.lock_one(shard);
        let memory = locked.shard(shard);
        cache::law::shard(memory, &mut facts)?;
        queue::law::shard(memory, &mut facts);
        stream::law::shard(memory, &broker.topics, &mut facts)?;
    }
    Ok(facts)
}

fn compare(before: &Facts, after: &Facts, differences: &mut Vec<Difference>) {
    let mut differ = |what: &str, memory: Option<&String>, tables: Option<&String>| {
        differences.push(Difference {
            what: what.to_owned(),
            memory: memory.cloned(),
            tables: tables.cloned(),
        });
    };
    for wrong in &before.wrong {
        differ(wrong, Some(&"a contradiction".to_owned()), None);
    }
    for wrong in after
        .wrong
        .iter()
        .filter(|wrong| !before.wrong.contains(wrong))
    {
        differ(wrong, None, Some(&"a contradiction".to_owned()));
    }
    for (what, memory) in &before.equal {
        let tables = after.equal.get(what);
        if tables != Some(memory) {
            differ(what, Some(memory), tables);
        }
    }
    let mut held = before.held.clone();
    for (what, tables) in &after.equal {
        if before.equal.contains_key(what) {
            continue;
        }
        let of_session = held
            .iter_mut()
            .find(|(beginning, left)| **left > 0 && what.starts_with(beginning.as_str()));
        match of_session {
            Some((_, left)) => *left -= 1,
            None => differ(what, None, Some(tables)),
        }
    }
    for what in before.kept.difference(&after.kept) {
        differ(what, Some(&"yes".to_owned()), None);
    }
}

/// Rows of the tables that no object owns: they would stay for ever.
fn nobodys(
    broker: &Broker,
    owners: &Facts,
    limit: usize,
    differences: &mut Vec<Difference>,
) -> Result<(), storage::Error> {
    let mut found = 0;
    for keyspace in [Keyspace::Rows, Keyspace::Bodies] {
        broker
            .engine
            .scan(keyspace, &[], None, usize::MAX, &mut |key, _| {
                if !is_owned(key, owners) {
                    found += 1;
                    differences.push(Difference {
                        what: format!("row {}", brief(&key.escape_ascii().to_string())),
                        memory: None,
                        tables: Some("a row that belongs to nobody".to_owned()),
                    });
                }
                found < limit
            })?;
    }
    Ok(())
}

fn is_owned(key: &[u8], owners: &Facts) -> bool {
    let Some((&[high, low, byte], name)) = key.split_first_chunk::<3>() else {
        return false;
    };
    let Some(slot) = Slot::from_raw(u16::from_be_bytes([high, low])) else {
        return false;
    };
    let shard = slot.shard();
    let object = |tag| {
        name.first_chunk::<8>().is_some_and(|id| {
            owners
                .owners
                .contains(&(shard, tag, u64::from_be_bytes(*id)))
        })
    };
    let database = || {
        name.first_chunk::<4>().is_some_and(|id| {
            owners
                .owners
                .contains(&(shard, Tag::Key, u64::from(u32::from_be_bytes(*id))))
        })
    };
    let named = |tag, name: Option<&[u8]>| {
        name.and_then(|name| std::str::from_utf8(name).ok())
            .is_some_and(|name| owners.names.contains(&(tag, Arc::from(name))))
    };
    let is = |tag: Tag| byte == tag as u8;
    if is(Tag::Key) || is(Tag::KeyCount) {
        database()
    } else if let Some(tag) = ELEMENTS.into_iter().find(|tag| is(*tag)) {
        object(tag)
    } else if is(Tag::FieldDeadline) {
        object(Tag::HashField)
    } else if is(Tag::ElementCount) {
        object(Tag::HashField) || object(Tag::SetMember) || object(Tag::ZsetMember)
    } else if is(Tag::ZsetOrder) || is(Tag::ZsetPage) {
        object(Tag::ZsetMember)
    } else if MESSAGES.into_iter().any(is) {
        object(Tag::Message)
    } else if is(Tag::Expiry) {
        // `deadline u64 | queue u64 | …`.
        let queue = name.get(8..).and_then(|rest| rest.first_chunk::<8>());
        queue.is_some_and(|id| {
            let queue = (shard, Tag::Message, u64::from_be_bytes(*id));
            owners.owners.contains(&queue)
        })
    } else if PARTITION.into_iter().any(is) {
        object(Tag::Batch)
    } else if is(Tag::GroupOffset) || is(Tag::PendingOffset) {
        let name = name
            .split_first_chunk::<2>()
            .and_then(|(length, rest)| rest.get(..usize::from(u16::from_be_bytes(*length))));
        named(Tag::Group, name)
    } else if is(Tag::Transaction) {
        named(Tag::Transaction, Some(stream::transaction::id_of(name)))
    } else if is(Tag::Queue) || is(Tag::Exchange) {
        // `length u16 LE | name | …`.
        named(
            if is(Tag::Queue) {
                Tag::Queue
            } else {
                Tag::Exchange
            },
            name.get(2..),
        )
    } else if let Some(tag) = NAMED.into_iter().find(|tag| is(*tag)) {
        named(tag, Some(name))
    } else if is(Tag::Grant) {
        named(
            Tag::Principal,
            access::law::principal_of(name).map(str::as_bytes),
        )
    } else {
        // What says who else is an owner, or what no tag here stands for.
        true
    }
}

const ELEMENTS: [Tag; 6] = [
    Tag::HashField,
    Tag::ListItem,
    Tag::SetMember,
    Tag::ZsetMember,
    Tag::Stream,
    Tag::StringPage,
];

/// Whose key is a name.
const NAMED: [Tag; 2] = [Tag::Principal, Tag::Library];

/// Of a queue.
const MESSAGES: [Tag; 4] = [Tag::Message, Tag::QueueState, Tag::Attempts, Tag::Seen];

const PARTITION: [Tag; 5] = [
    Tag::Batch,
    Tag::BatchIndex,
    Tag::Producer,
    Tag::PartitionState,
    Tag::Aborted,
];

#[cfg(test)]
mod tests;
