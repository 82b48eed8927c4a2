//! The one table of row tags. Every row key is `slot u16 BE | tag u8 | …`; integers in keys are big-endian.
//!
//! | tag | noun | key after the tag | keyspace |
//! | --- | --- | --- | --- |
//! | see the constants | | | |

use storage::{Engine, Keyspace};

use crate::Slot;

/// What a row is about. The byte is part of the on-disk format: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Tag {
    // cache: a key's root row and the elements of its value
    /// `db u32 | key` → type, flags, object id, expiry, inline string.
    Key = b'k',
    /// `object id u64 | field` → value.
    HashField = b'h',
    /// `object id u64 | field` → when it is gone, in ms since the epoch (u64 LE); of hashes whose root row says so. Behind
    /// `HashField`: the sweeper goes on from the one to the other.
    FieldDeadline = b't',
    /// `object id u64 | index i64 (sign flipped)` → value; without an index: where a long list begins and ends.
    ListItem = b'l',
    /// `object id u64 | member` → nothing.
    SetMember = b's',
    /// `object id u64 | member` → score f64.
    ZsetMember = b'z',
    /// `object id u64 | score u64 in its order | member` → nothing; of sorted sets that are too large to be held whole.
    ZsetOrder = b'v',
    /// `object id u64 | first place` → how many rows of that order lie from here to the next such row (i64 LE), summed from
    /// deltas: `cache/order.rs`.
    ZsetPage = b'u',
    /// `object id u64` → elements (i64 LE) of a hash, set or sorted set that is too large to be held whole, summed from deltas.
    ElementCount = b'c',
    /// `object id u64 | …` → what a stream consists of: `cache/stream/rows.rs`.
    Stream = b'y',
    /// `object id u64 | page u32` → bytes of a string longer than a page.
    StringPage = b'p',
    /// `object id u64` → its element rows are orphans that the sweeper removes.
    Dead = b'x',
    /// `db u32` → number of keys (i64 LE), summed from deltas.
    KeyCount = b'n',

    // queue
    /// `queue id u64 | seq u64` → message header, and its body if small.
    Message = b'm',
    /// `queue id u64 | priority u8, unless it is 0` → messages with a row, delivered mark, oldest message, next seq, octets
    /// of ready bodies, whether messages may expire (each u64 LE).
    QueueState = b'q',
    /// `queue id u64 | seq u64` → how often a client had the message and gave it back, u16 LE; of quorum queues.
    Attempts = b'a',
    /// `queue id u64 | identity u128` → of which message (its seq), or until when (ms since 1970), a message with it is the
    /// same one, u64 LE.
    Seen = b'f',
    /// In the shard's first slot: `deadline u64 | queue id u64 | seq u64` → nothing: a message expires then, and messages
    /// that expire later, or never, stand before it.
    Expiry = b'e',
    /// In the shard's first slot: `due u64 | number u64` → a message that is routed at that time, in ms since 1970.
    Delayed = b'd',
    /// In the shard's first slot: `queue id u64 | from seq u64` → the queue's slot u16 LE, seq u64 LE before which
    /// messages are nobody's: the sweeper removes them.
    QueueSweep = b'w',

    // stream
    /// `partition id u64 | last offset u64` → the producer's record batch.
    Batch = b'b',
    /// `partition id u64` → log start and other moving facts of a partition.
    PartitionState = b'o',
    /// `partition id u64 | producer id i64` → idempotence state.
    Producer = b'i',
    /// `partition id u64 | last offset u64` → largest timestamp, its offset, bytes so far: one per MiB of batches.
    BatchIndex = b'j',
    /// `partition id u64 | offset u64 of the marker` → producer id, first offset: a transaction that was aborted.
    Aborted = b'r',
    /// `group length u16 | group | topic id | partition u32` → committed offset.
    GroupOffset = b'g',
    /// `group length u16 | group | producer id i64 | topic id | partition u32` → an offset that a transaction is going to commit.
    PendingOffset = b'1',

    // catalog (slot `Slot::CATALOG`)
    /// `name` → definition of an exchange.
    Exchange = b'E',
    /// `source | destination | routing key | arguments hash` → binding.
    Binding = b'B',
    /// `vhost | name` → definition of a queue.
    Queue = b'Q',
    /// `name` → definition of a topic.
    Topic = b'T',
    /// `name` → a consumer group that has committed offsets.
    Group = b'G',
    /// `transactional id` → its producer, and where its transaction stands.
    Transaction = b'X',
    /// `name` → next value of an id allocator.
    Allocator = b'A',
    /// `db index` → database id.
    Database = b'D',
    /// `name` → a principal: flags, credentials, names in certificates.
    Principal = b'U',
    /// `principal | namespace | kind | pattern | effect` → verbs.
    Grant = b'R',
    /// `seq u64` → a sealed row of the audit log.
    Audit = b'L',
    /// nothing → the node's secret.
    Secret = b'S',
    /// `name` → a library of functions: text, and what it registered.
    Library = b'F',
}

/// The bytes before the noun's own part of a row key.
#[must_use]
pub fn prefix(slot: Slot, tag: Tag) -> [u8; 3] {
    let [high, low] = slot.raw().to_be_bytes();
    [high, low, tag as u8]
}

/// Prefix and a `u64` id: the start of all rows of one object.
#[must_use]
pub fn object_prefix(slot: Slot, tag: Tag, id: u64) -> [u8; 11] {
    let mut key = [0; 11];
    let (head, tail) = key.split_at_mut(3);
    head.copy_from_slice(&prefix(slot, tag));
    tail.copy_from_slice(&id.to_be_bytes());
    key
}

/// The first key behind every key that starts with `prefix`; `None` when there is none (all 0xFF).
#[must_use]
pub fn prefix_end(prefix: &[u8]) -> Option<Vec<u8>> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.last_mut() {
        if *last < 0xff {
            *last += 1;
            return Some(end);
        }
        end.pop();
    }
    None
}

/// Visits the rows of one noun of the catalog, in order of key, until `visit` is false. Keys come whole.
///
/// # Errors
/// When the tables cannot be read.
pub(crate) fn each_in_catalog(
    engine: &Engine,
    tag: Tag,
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), storage::Error> {
    each(engine, &prefix(Slot::CATALOG, tag), visit)
}

/// Visits the rows below a prefix in order until `visit` is false.
pub(crate) fn each(
    engine: &Engine,
    prefix: &[u8],
    visit: &mut dyn FnMut(&[u8], &[u8]) -> bool,
) -> Result<(), storage::Error> {
    let end = prefix_end(prefix);
    engine.scan(Keyspace::Rows, prefix, end.as_deref(), usize::MAX, visit)
}

/// Why a row of the catalog stops the start: it is of a later build than `known`, or damaged.
pub(crate) fn unreadable(key: &[u8], value: &[u8], known: u8, what: &str) -> storage::Error {
    let path = format!("catalog row {}", key.escape_ascii()).into();
    match value.first() {
        Some(version) if *version > known => storage::Error::Format {
            path,
            found: (*version).into(),
            known: known.into(),
        },
        _ => storage::Error::Damaged {
            path,
            offset: 0,
            what: what.to_owned(),
        },
    }
}

/// Signed integers in keys sort as numbers when their sign bit is flipped.
#[must_use]
pub fn ordered_i64(value: i64) -> [u8; 8] {
    (value.cast_unsigned() ^ 1 << 63).to_be_bytes()
}

/// The inverse of [`ordered_i64`].
#[must_use]
pub fn from_ordered_i64(bytes: [u8; 8]) -> i64 {
    (u64::from_be_bytes(bytes) ^ 1 << 63).cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_end_bounds_a_prefix() {
        assert_eq!(prefix_end(&[1, 2]), Some(vec![1, 3]));
        assert_eq!(prefix_end(&[1, 0xff]), Some(vec![2]));
        assert_eq!(prefix_end(&[0xff]), None);
    }

    #[test]
    fn signed_keys_keep_their_order() {
        let values = [i64::MIN, -2, -1, 0, 1, i64::MAX];
        assert!(
            values
                .windows(2)
                .all(|w| ordered_i64(w[0]) < ordered_i64(w[1]))
        );
        assert!(
            values
                .iter()
                .all(|&v| from_ordered_i64(ordered_i64(v)) == v)
        );
    }
}
