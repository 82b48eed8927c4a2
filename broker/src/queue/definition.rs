//! Definitions as rows of the catalog.
//!
//! Strings in keys and values are `len u16 LE | octets`.
//! ```text
//! Exchange  name                       → flags u8 | kind u8 | alternate | arguments | (what u8 | value)…
//! Queue     name                       → flags u8 | kind u8 | id u64 | (partition u64 | slot u16, of a stream) | arguments | limits
//! Binding   source | to queue? u8 | destination | key | hash u64 of the arguments → arguments | any u8 | (name | has u8 | value)…
//! ```

use std::sync::Arc;

use bytes::Bytes;
use storage::ShardId;

use super::exchange::{Binding, Destination, ExchangeDefinition, ExchangeKind, HashOn};
use super::headers::{HeaderMatch, Property};
use super::limits::Limits;
use crate::rows::{self, Tag};
use crate::stream::PartitionRef;
use crate::{Effects, Slot};

/// What a queue promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueueKind {
    Classic,
    /// Always waits for the disk.
    Quorum,
    /// The records of a topic's one partition: see [`crate::stream_queue`].
    Stream,
}

/// A queue as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Definition {
    pub name: Arc<str>,
    /// Never used twice.
    pub id: u64,
    /// Of a stream, its partition's.
    pub slot: Slot,
    pub kind: QueueKind,
    /// Of a stream: where its messages are.
    pub partition: Option<PartitionRef>,
    pub durable: bool,
    pub auto_delete: bool,
    /// The connection that alone may use it.
    pub exclusive_owner: Option<u64>,
    /// As the client sent them; compared when declared again.
    pub arguments: Bytes,
    pub limits: Limits,
}

impl Definition {
    #[must_use]
    pub fn shard(&self) -> ShardId {
        self.slot.shard()
    }

    /// Does it outlive a restart? Then persistent messages in it do too.
    #[must_use]
    pub const fn is_stored(&self) -> bool {
        self.durable && self.exclusive_owner.is_none()
    }
}

const DURABLE: u8 = 1;
const AUTO_DELETE: u8 = 2;
const INTERNAL: u8 = 4;
const DELAYS: u8 = 8;

const HASH_HEADER: u8 = 1;
const HASH_PROPERTY: u8 = 2;
const HISTORY: u8 = 3;

/// By their number in rows.
const PROPERTIES: [Property; 3] = [
    Property::CorrelationId,
    Property::MessageId,
    Property::Timestamp,
];

fn key_of(tag: Tag, parts: &[&[u8]]) -> Vec<u8> {
    let mut key = rows::prefix(Slot::CATALOG, tag).to_vec();
    for part in parts {
        push(&mut key, part);
    }
    key
}

fn push(out: &mut Vec<u8>, part: &[u8]) {
    let len = u16::try_from(part.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(part.get(..usize::from(len)).unwrap_or(part));
}

fn push_long(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&u32::try_from(part.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(part);
}

/// Walks a row; everything ends as `None` when it is no such row.
struct Row<'a>(&'a [u8]);

impl<'a> Row<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }
    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*head)
    }
    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[octet]| octet)
    }
    fn part(&mut self) -> Option<&'a [u8]> {
        let len = u16::from_le_bytes(self.array()?);
        self.take(usize::from(len))
    }
    fn long(&mut self) -> Option<&'a [u8]> {
        let len = u32::from_le_bytes(self.array()?);
        self.take(usize::try_from(len).ok()?)
    }
    fn text(&mut self) -> Option<Arc<str>> {
        Some(std::str::from_utf8(self.part()?).ok()?.into())
    }
}

pub(super) fn put_exchange(fx: &mut Effects, exchange: &ExchangeDefinition) {
    let flags = if exchange.durable { DURABLE } else { 0 }
        | if exchange.auto_delete { AUTO_DELETE } else { 0 }
        | if exchange.internal { INTERNAL } else { 0 }
        | if exchange.delays { DELAYS } else { 0 };
    let mut value = vec![flags, exchange.kind.letter()];
    push(
        &mut value,
        exchange.alternate.as_deref().unwrap_or_default().as_bytes(),
    );
    push_long(&mut value, &exchange.arguments);
    match &exchange.hash_on {
        HashOn::RoutingKey => {}
        HashOn::Header(name) => {
            value.push(HASH_HEADER);
            push_long(&mut value, name);
        }
        HashOn::Property(which) => {
            let number = PROPERTIES.iter().position(|known| known == which);
            let number = number.and_then(|number| u8::try_from(number).ok());
            value.push(HASH_PROPERTY);
            push_long(&mut value, &[number.unwrap_or_default()]);
        }
    }
    if let Some(length) = exchange.history {
        value.push(HISTORY);
        push_long(&mut value, &length.to_le_bytes());
    }
    fx.put(
        ShardId::CATALOG,
        &key_of(Tag::Exchange, &[exchange.name.as_bytes()]),
        &value,
    );
}

pub(super) fn del_exchange(fx: &mut Effects, name: &str) {
    fx.del(ShardId::CATALOG, &key_of(Tag::Exchange, &[name.as_bytes()]));
}

pub(super) fn read_exchange(key: &[u8], value: &[u8]) -> Option<ExchangeDefinition> {
    let name = Row(key.get(3..)?).text()?;
    let mut row = Row(value);
    let flags = row.u8()?;
    let kind = ExchangeKind::from_letter(row.u8()?)?;
    let alternate = Some(row.text()?).filter(|name| !name.is_empty());
    let arguments = Bytes::copy_from_slice(row.long()?);
    let (mut hash_on, mut history) = (HashOn::RoutingKey, None);
    while let Some(what) = row.u8() {
        let value = row.long()?;
        match what {
            HASH_HEADER => hash_on = HashOn::Header(Bytes::copy_from_slice(value)),
            HASH_PROPERTY => {
                let number = usize::from(*value.first()?);
                hash_on = HashOn::Property(*PROPERTIES.get(number)?);
            }
            HISTORY => history = Some(u32::from_le_bytes(value.try_into().ok()?)),
            _ => return None,
        }
    }
    Some(ExchangeDefinition {
        name,
        kind,
        delays: flags & DELAYS != 0,
        durable: flags & DURABLE != 0,
        auto_delete: flags & AUTO_DELETE != 0,
        internal: flags & INTERNAL != 0,
        alternate,
        hash_on,
        history,
        arguments,
    })
}

pub(super) fn put_queue(fx: &mut Effects, queue: &Definition) {
    let flags =
        if queue.durable { DURABLE } else { 0 } | if queue.auto_delete { AUTO_DELETE } else { 0 };
    let kind = match queue.kind {
        QueueKind::Classic => b'c',
        QueueKind::Quorum => b'q',
        QueueKind::Stream => b's',
    };
    let mut value = vec![flags, kind];
    value.extend_from_slice(&queue.id.to_le_bytes());
    if let Some(partition) = queue.partition {
        value.extend_from_slice(&partition.id.to_le_bytes());
        value.extend_from_slice(&partition.slot.raw().to_le_bytes());
    }
    push_long(&mut value, &queue.arguments);
    queue.limits.write(&mut value);
    fx.put(
        ShardId::CATALOG,
        &key_of(Tag::Queue, &[queue.name.as_bytes()]),
        &value,
    );
}

pub(super) fn del_queue(fx: &mut Effects, name: &str) {
    fx.del(ShardId::CATALOG, &key_of(Tag::Queue, &[name.as_bytes()]));
}

pub(super) fn read_queue(key: &[u8], value: &[u8]) -> Option<Definition> {
    let name = Row(key.get(3..)?).text()?;
    let mut row = Row(value);
    let flags = row.u8()?;
    let kind = match row.u8()? {
        b'c' => QueueKind::Classic,
        b'q' => QueueKind::Quorum,
        b's' => QueueKind::Stream,
        _ => return None,
    };
    let id = u64::from_le_bytes(row.array()?);
    let partition = match kind {
        QueueKind::Stream => Some(PartitionRef {
            id: u64::from_le_bytes(row.array()?),
            slot: Slot::from_raw(u16::from_le_bytes(row.array()?))?,
        }),
        _ => None,
    };
    Some(Definition {
        slot: partition.map_or_else(|| Slot::of(name.as_bytes()), |partition| partition.slot),
        name,
        id,
        kind,
        partition,
        durable: flags & DURABLE != 0,
        auto_delete: flags & AUTO_DELETE != 0,
        exclusive_owner: None,
        arguments: Bytes::copy_from_slice(row.long()?),
        limits: Limits::read(row.0)?,
    })
}

fn binding_key(binding: &Binding) -> Vec<u8> {
    let mut key = key_of(Tag::Binding, &[binding.source.as_bytes()]);
    key.push(u8::from(binding.destination.is_queue()));
    push(&mut key, binding.destination.name().as_bytes());
    push(&mut key, &binding.key);
    key.extend_from_slice(&arguments_hash(&binding.arguments).to_be_bytes());
    key
}

/// FNV-1a: part of the key's format, so that bindings which differ only in arguments have rows of their own.
fn arguments_hash(arguments: &[u8]) -> u64 {
    arguments.iter().fold(0xcbf2_9ce4_8422_2325, |hash, octet| {
        (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
    })
}

pub(super) fn put_binding(fx: &mut Effects, binding: &Binding) {
    let mut value = Vec::new();
    push_long(&mut value, &binding.arguments);
    if let Some(matching) = &binding.matching {
        value.push(u8::from(matching.any));
        for (name, wanted) in &matching.wanted {
            push(&mut value, name);
            value.push(u8::from(wanted.is_some()));
            push_long(&mut value, wanted.as_deref().unwrap_or_default());
        }
    }
    fx.put(ShardId::CATALOG, &binding_key(binding), &value);
}

pub(super) fn del_binding(fx: &mut Effects, binding: &Binding) {
    fx.del(ShardId::CATALOG, &binding_key(binding));
}

/// `queue` finds the definition of a queue by name.
pub(super) fn read_binding(
    key: &[u8],
    value: &[u8],
    queue: &dyn Fn(&str) -> Option<Arc<Definition>>,
) -> Option<Binding> {
    let mut row = Row(key.get(3..)?);
    let source = row.text()?;
    let to_queue = row.u8()? != 0;
    let name = row.text()?;
    let destination = if to_queue {
        Destination::Queue(queue(&name)?)
    } else {
        Destination::Exchange(name)
    };
    let key = Bytes::copy_from_slice(row.part()?);
    let mut row = Row(value);
    let arguments = Bytes::copy_from_slice(row.long()?);
    let mut matching = None;
    if let Some(any) = row.u8() {
        let mut wanted = Vec::new();
        while let Some(name) = row.part() {
            let has = row.u8()? != 0;
            let value = row.long()?;
            wanted.push((
                Bytes::copy_from_slice(name),
                has.then(|| Bytes::copy_from_slice(value)),
            ));
        }
        matching = Some(HeaderMatch {
            any: any != 0,
            wanted,
        });
    }
    Some(Binding {
        source,
        destination,
        key,
        arguments,
        matching,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_binding_survives_its_row() {
        let binding = Binding {
            source: "s".into(),
            destination: Destination::Exchange("d".into()),
            key: Bytes::from_static(b"a.#\xff"),
            arguments: Bytes::from_static(b"\x01kV"),
            matching: Some(HeaderMatch {
                any: true,
                wanted: vec![
                    (Bytes::from_static(b"k"), None),
                    (Bytes::from_static(b"l"), Some(Bytes::from_static(b"v"))),
                ],
            }),
        };
        let key = binding_key(&binding);
        let mut value = Vec::new();
        push_long(&mut value, &binding.arguments);
        value.push(1);
        for (name, has, text) in [(b"k", 0, &b""[..]), (b"l", 1, b"v")] {
            push(&mut value, name);
            value.push(has);
            push_long(&mut value, text);
        }
        assert_eq!(read_binding(&key, &value, &|_| None), Some(binding));
    }
}
