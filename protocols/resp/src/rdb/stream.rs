//! Streams: entries in listpacks of their own shape, and consumer groups.
//!
//! ```text
//! listpacks, each under the id of its master entry │ entries, last id, first id, largest deleted id, ever added │ groups
//!
//! master     entries, deleted ones, n, n fields, 0
//! entry      flags, ms and seq after the master's, its fields or only their values, how many elements these are
//! group      name, last id, entries read │ pending: id, ms, deliveries │ consumers: name, seen, active, ids of its pending
//!            from version 5 on │ ids of pending entries that are nobody's
//! behind     from version 4 on │ seconds, ids a producer │ producers: name, ids they chose with the entries' │ added so, came again
//! ```
//! What has nothing of the later versions is written as version 3, which Valkey reads, too.

use std::collections::{HashMap, HashSet};

use super::listpack::{self, Listpack};
use super::{Input, Pair, output};
use crate::number::parse_i64;

/// Milliseconds and sequence number of an entry.
pub type Id = (u64, u64);

/// An entry with its fields and values.
pub type Entry = (Id, Vec<Pair>);

/// A stream with its groups.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stream {
    /// Ids grow.
    pub entries: Vec<Entry>,
    pub last: Id,
    /// The largest id that was deleted by name.
    pub max_deleted: Id,
    /// Entries ever added.
    pub added: u64,
    pub groups: Vec<Group>,
    pub idempotence: Option<Idempotence>,
}

/// A producer's name, and the ids it chose with their entries'.
pub type Producer = (Vec<u8>, Vec<(Vec<u8>, Id)>);

/// What is known of producers (Redis 8.6).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Idempotence {
    pub duration_s: u64,
    pub ids_max: u64,
    pub producers: Vec<Producer>,
    pub added: u64,
    pub duplicates: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    pub name: Vec<u8>,
    pub last: Id,
    /// Entries of the stream up to `last`; -1: not known. `None`: the format is too old to say.
    pub read: Option<i64>,
    pub consumers: Vec<Consumer>,
    /// In the order of ids.
    pub pending: Vec<Pending>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Consumer {
    pub name: Vec<u8>,
    /// When it asked last, in ms since the epoch.
    pub seen_ms: u64,
    /// When it was given something last.
    pub active_ms: Option<u64>,
}

/// An entry that was delivered and is not acknowledged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pending {
    pub id: Id,
    /// When it was delivered last, in ms since the epoch.
    pub at_ms: u64,
    /// How often.
    pub count: u64,
    /// Whose it is, by place; `None`: it was released (Redis 8.8).
    pub consumer: Option<usize>,
}

/// Redis' `stream-node-max-entries` and `stream-node-max-bytes`.
const NODE_ENTRIES: usize = 100;
const NODE_BYTES: usize = 4096;

const DELETED: i64 = 1;
const SAME_FIELDS: i64 = 2;

/// `version`: 1 to 5, as the type says.
pub(super) fn read(input: &mut Input<'_>, version: u8) -> Option<Stream> {
    let mut stream = Stream::default();
    for _ in 0..input.length()? {
        let key = input.string()?;
        let master = id_of(&key)?;
        let elements = input.strings(listpack::read)?;
        node(elements, master, input, &mut stream.entries)?;
    }
    let grow = |pair: &[(Id, _)]| matches!(pair, [(a, _), (b, _)] if a < b);
    let length = input.length()?;
    let counted = usize::try_from(length).is_ok_and(|length| length == stream.entries.len());
    if !counted || !stream.entries.windows(2).all(grow) {
        return None;
    }
    stream.last = id(input)?;
    if stream
        .entries
        .last()
        .is_some_and(|(top, _)| *top > stream.last)
    {
        return None;
    }
    stream.added = length;
    if version >= 2 {
        // The first entry's id follows from the entries.
        id(input)?;
        stream.max_deleted = id(input)?;
        stream.added = input.length()?;
    }
    let mut names = HashSet::new();
    for _ in 0..input.length()? {
        let group = group(input, version)?;
        if !names.insert(group.name.clone()) {
            return None;
        }
        stream.groups.push(group);
    }
    if version >= 4 {
        stream.idempotence = Some(idempotence(input)?);
    }
    Some(stream)
}

fn idempotence(input: &mut Input<'_>) -> Option<Idempotence> {
    let mut known = Idempotence {
        duration_s: input.length()?,
        ids_max: input.length()?,
        ..Idempotence::default()
    };
    for _ in 0..input.length()? {
        let producer = input.string()?;
        let mut ids = Vec::new();
        for _ in 0..input.length()? {
            // It takes more in memory than here, as pending entries do.
            input.spend(NOTED_BYTES)?;
            ids.push((input.string()?, id(input)?));
        }
        known.producers.push((producer, ids));
    }
    known.added = input.length()?;
    known.duplicates = input.length()?;
    Some(known)
}

fn id(input: &mut Input<'_>) -> Option<Id> {
    Some((input.length()?, input.length()?))
}

/// An id of 16 bytes.
fn id_of(bytes: &[u8]) -> Option<Id> {
    let (ms, seq) = bytes.split_first_chunk::<8>()?;
    Some((
        u64::from_be_bytes(*ms),
        u64::from_be_bytes(seq.try_into().ok()?),
    ))
}

fn raw_id(input: &mut Input<'_>) -> Option<Id> {
    id_of(input.take(16)?)
}

fn raw(id: Id) -> [u8; 16] {
    (u128::from(id.0) << 64 | u128::from(id.1)).to_be_bytes()
}

/// The elements of a listpack, one after the other.
struct Elements(std::vec::IntoIter<Vec<u8>>);

impl Elements {
    fn text(&mut self) -> Option<Vec<u8>> {
        self.0.next()
    }

    fn integer(&mut self) -> Option<i64> {
        parse_i64(&self.text()?)
    }

    fn count(&mut self) -> Option<usize> {
        usize::try_from(self.integer()?).ok()
    }
}

/// Appends the entries of a listpack that are not deleted.
fn node(
    elements: Vec<Vec<u8>>,
    master: Id,
    input: &mut Input<'_>,
    entries: &mut Vec<Entry>,
) -> Option<()> {
    let mut elements = Elements(elements.into_iter());
    let (valid, deleted) = (elements.count()?, elements.count()?);
    let mut names = Vec::new();
    for _ in 0..elements.count()? {
        names.push(elements.text()?);
    }
    if elements.integer()? != 0 {
        return None;
    }
    let (mut seen, mut gone) = (0, 0);
    while let Some(flags) = elements.text() {
        let flags = parse_i64(&flags)?;
        let id = (
            master.0.checked_add_signed(elements.integer()?)?,
            master.1.checked_add_signed(elements.integer()?)?,
        );
        let mut pairs = Vec::new();
        let size = if flags & SAME_FIELDS != 0 {
            for name in &names {
                input.spend(name.len() + size_of::<Vec<u8>>())?;
                pairs.push((name.clone(), elements.text()?));
            }
            names.len() + 3
        } else {
            let count = elements.count()?;
            for _ in 0..count {
                pairs.push((elements.text()?, elements.text()?));
            }
            count * 2 + 4
        };
        if elements.count()? != size {
            return None;
        }
        if flags & DELETED != 0 {
            gone += 1;
        } else {
            seen += 1;
            entries.push((id, pairs));
        }
    }
    (seen == valid && gone == deleted).then_some(())
}

/// What a pending entry takes of the room that a payload has, beside its own 25 bytes.
const PENDING_BYTES: usize = 64;
/// The same for an id that a producer chose.
const NOTED_BYTES: usize = 256;

/// A list of ids that wait, which are a consumer's, or nobody's.
fn take_waiting(
    input: &mut Input<'_>,
    waiting: &mut HashMap<Id, (u64, u64)>,
    consumer: Option<usize>,
    pending: &mut Vec<Pending>,
) -> Option<()> {
    for _ in 0..input.length()? {
        let id = raw_id(input)?;
        let (at_ms, count) = waiting.remove(&id)?;
        pending.push(Pending {
            id,
            at_ms,
            count,
            consumer,
        });
    }
    Some(())
}

fn group(input: &mut Input<'_>, version: u8) -> Option<Group> {
    let name = input.string()?;
    let last = id(input)?;
    let read = if version >= 2 {
        Some(input.length()?.cast_signed())
    } else {
        None
    };
    let mut waiting = HashMap::new();
    for _ in 0..input.length()? {
        // It takes more in memory than here, as entries do.
        input.spend(PENDING_BYTES)?;
        let id = raw_id(input)?;
        let at_ms = u64::try_from(input.long()?).unwrap_or(0);
        let count = input.length()?;
        if waiting.insert(id, (at_ms, count)).is_some() {
            return None;
        }
    }
    let (mut consumers, mut names) = (Vec::new(), HashSet::new());
    let mut pending = Vec::with_capacity(waiting.len());
    for consumer in 0..usize::try_from(input.length()?).ok()? {
        let name = input.string()?;
        if !names.insert(name.clone()) {
            return None;
        }
        let seen = input.long()?;
        let active = if version >= 3 { input.long()? } else { seen };
        consumers.push(Consumer {
            name,
            seen_ms: u64::try_from(seen).unwrap_or(0),
            active_ms: u64::try_from(active).ok(),
        });
        take_waiting(input, &mut waiting, Some(consumer), &mut pending)?;
    }
    if version >= 5 {
        take_waiting(input, &mut waiting, None, &mut pending)?;
    }
    // Every other entry that waits is somebody's.
    if !waiting.is_empty() {
        return None;
    }
    pending.sort_unstable_by_key(|pending| pending.id);
    Some(Group {
        name,
        last,
        read,
        consumers,
        pending,
    })
}

fn put_id(id: Id, into: &mut Vec<u8>) {
    output::length(id.0, into);
    output::length(id.1, into);
}

impl Stream {
    /// The first version that has all of it.
    pub(super) fn version(&self) -> u8 {
        let mut pending = self.groups.iter().flat_map(|group| &group.pending);
        if pending.any(|pending| pending.consumer.is_none()) {
            5
        } else if self.idempotence.is_some() {
            4
        } else {
            3
        }
    }
}

pub(super) fn write(stream: &Stream, into: &mut Vec<u8>) {
    let version = stream.version();
    let nodes = nodes(stream);
    output::count(nodes.len(), into);
    for (master, bytes) in &nodes {
        output::bytes(&raw(*master), into);
        output::bytes(bytes, into);
    }
    output::count(stream.entries.len(), into);
    put_id(stream.last, into);
    put_id(stream.entries.first().map_or((0, 0), |(id, _)| *id), into);
    put_id(stream.max_deleted, into);
    output::length(stream.added, into);
    output::count(stream.groups.len(), into);
    for group in &stream.groups {
        write_group(group, into);
        if version >= 5 {
            let released = (group.pending.iter()).filter(|pending| pending.consumer.is_none());
            output::count(released.clone().count(), into);
            released.for_each(|pending| into.extend_from_slice(&raw(pending.id)));
        }
    }
    if version >= 4 {
        let known = stream.idempotence.as_ref();
        write_idempotence(known.unwrap_or(&Idempotence::UNUSED), into);
    }
}

impl Idempotence {
    /// Of a stream without producers: Redis' defaults.
    const UNUSED: Self = Self {
        duration_s: 100,
        ids_max: 100,
        producers: Vec::new(),
        added: 0,
        duplicates: 0,
    };
}

fn write_idempotence(known: &Idempotence, into: &mut Vec<u8>) {
    output::length(known.duration_s, into);
    output::length(known.ids_max, into);
    output::count(known.producers.len(), into);
    for (producer, ids) in &known.producers {
        output::bytes(producer, into);
        output::count(ids.len(), into);
        for (chosen, id) in ids {
            output::bytes(chosen, into);
            put_id(*id, into);
        }
    }
    output::length(known.added, into);
    output::length(known.duplicates, into);
}

/// Listpacks under the ids of their masters.
fn nodes(stream: &Stream) -> Vec<(Id, Vec<u8>)> {
    let mut nodes = Vec::new();
    let mut rest = stream.entries.as_slice();
    while let Some((master, first)) = rest.first() {
        // The head says how many follow, so they are written first.
        let mut body = Listpack::new();
        let mut count = 0;
        for (id, pairs) in rest {
            // An entry is not begun behind so many bytes.
            if count == NODE_ENTRIES || body.len() > NODE_BYTES {
                break;
            }
            if !follows(*master, *id) {
                break;
            }
            entry(*master, first, *id, pairs, &mut body);
            count += 1;
        }
        let mut head = Listpack::new();
        head.push_integer(count as i64);
        head.push_integer(0);
        head.push_integer(first.len() as i64);
        first.iter().for_each(|(name, _)| head.push(name));
        head.push_integer(0);
        head.append(body);
        nodes.push((*master, head.finish()));
        rest = rest.get(count..).unwrap_or_default();
    }
    nodes
}

/// Is the difference one that can be written?
fn follows(master: Id, id: Id) -> bool {
    let near = |a: u64, b: u64| {
        let difference = i128::from(b) - i128::from(a);
        i64::try_from(difference).is_ok()
    };
    near(master.0, id.0) && near(master.1, id.1)
}

fn entry(master: Id, names: &[Pair], id: Id, pairs: &[Pair], into: &mut Listpack) {
    let same = names.iter().map(|(name, _)| name);
    let same = same.eq(pairs.iter().map(|(name, _)| name));
    into.push_integer(if same { SAME_FIELDS } else { 0 });
    into.push_integer(id.0.wrapping_sub(master.0).cast_signed());
    into.push_integer(id.1.wrapping_sub(master.1).cast_signed());
    if !same {
        into.push_integer(pairs.len() as i64);
    }
    for (name, value) in pairs {
        if !same {
            into.push(name);
        }
        into.push(value);
    }
    let size = if same {
        pairs.len() + 3
    } else {
        pairs.len() * 2 + 4
    };
    into.push_integer(size as i64);
}

fn write_group(group: &Group, into: &mut Vec<u8>) {
    output::bytes(&group.name, into);
    put_id(group.last, into);
    output::length(group.read.unwrap_or(-1).cast_unsigned(), into);
    output::count(group.pending.len(), into);
    for pending in &group.pending {
        into.extend_from_slice(&raw(pending.id));
        into.extend_from_slice(&pending.at_ms.to_le_bytes());
        output::length(pending.count, into);
    }
    let mut own = vec![Vec::new(); group.consumers.len()];
    for pending in &group.pending {
        if let Some(own) = pending.consumer.and_then(|place| own.get_mut(place)) {
            own.push(pending.id);
        }
    }
    output::count(group.consumers.len(), into);
    for (consumer, own) in group.consumers.iter().zip(own) {
        output::bytes(&consumer.name, into);
        into.extend_from_slice(&consumer.seen_ms.to_le_bytes());
        let active = consumer.active_ms.unwrap_or(u64::MAX);
        into.extend_from_slice(&active.to_le_bytes());
        output::count(own.len(), into);
        own.iter().for_each(|id| into.extend_from_slice(&raw(*id)));
    }
}
