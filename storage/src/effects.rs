//! One record in the making: absolute row changes, encoded as they will lie in the log.
//!
//! The buffer has the form of [`crate::log::record`] from the start, so that an append is one memcpy; only bodies of
//! [`BIG`] bytes and more stay outside as `Bytes` and join on the way to the disk (`writev`).

use bytes::Bytes;

use crate::log::record::{self, Kind};
use crate::{Lsn, ShardId};

/// Longest key of a row in bytes (the tables' limit).
pub const MAX_KEY_LEN: usize = 65_535;

/// Bodies of this many bytes and more are not copied.
const BIG: usize = 4096;

/// The row changes of one command, transaction or script, to be appended as one record. Reusable: see [`Effects::clear`].
///
/// # Panics
/// Keys longer than [`MAX_KEY_LEN`] and values of 4 GiB and more panic: callers bound what peers send.
#[derive(Debug)]
pub struct Effects {
    /// Record header, then sections; without the large bodies.
    buf: Vec<u8>,
    /// Where in `buf` each section's header starts. A shard has a new section whenever it was not the last one.
    sections: smallvec::SmallVec<[u32; 4]>,
    /// The shard of the last section; [`NO_SHARD`] at first.
    shard: u8,
    big: Vec<BigBody>,
    big_bytes: usize,
}

/// A body that lies at `at` (a place in the buffer, before the bytes there) when written.
#[derive(Clone, Debug)]
pub(crate) struct BigBody {
    pub(crate) at: usize,
    pub(crate) bytes: Bytes,
}

const NO_SHARD: u8 = u8::MAX;

impl Default for Effects {
    fn default() -> Self {
        Self::new()
    }
}

impl Effects {
    /// No changes.
    pub fn new() -> Self {
        let mut effects = Self {
            buf: Vec::with_capacity(512),
            sections: smallvec::SmallVec::new(),
            shard: NO_SHARD,
            big: Vec::new(),
            big_bytes: 0,
        };
        effects.buf.resize(record::HEADER, 0);
        effects
    }

    /// Forgets all changes and keeps the memory, unless that is large.
    pub fn clear(&mut self) {
        self.buf.truncate(record::HEADER);
        if self.buf.capacity() > 1 << 20 {
            self.buf.shrink_to(4096);
        }
        self.sections.clear();
        self.shard = NO_SHARD;
        self.big.clear();
        self.big_bytes = 0;
    }

    /// No changes?
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.sections.is_empty()
    }

    /// Bytes the record takes in the log.
    #[inline]
    pub fn size(&self) -> usize {
        self.buf.len() + self.big_bytes
    }

    /// Where the record of these effects begins, when [`crate::Engine::append`] has said that it ends at `end`.
    #[inline]
    pub fn start(&self, end: Lsn) -> Lsn {
        Lsn(end.0 - self.size() as u64)
    }

    /// Row `key` becomes `value`.
    #[inline]
    pub fn put(&mut self, shard: ShardId, key: &[u8], value: &[u8]) {
        let head = self.head(shard, Kind::Put, key.len(), Some(value.len()));
        self.buf.extend_from_slice(head.bytes());
        self.buf.extend_from_slice(key);
        self.buf.extend_from_slice(value);
    }

    /// As [`Effects::put`], key and value given in parts that are concatenated.
    #[inline]
    pub fn put_parts(&mut self, shard: ShardId, key: &[&[u8]], value: &[&[u8]]) {
        let head = self.head(shard, Kind::Put, total(key), Some(total(value)));
        self.buf.extend_from_slice(head.bytes());
        self.extend(key);
        self.extend(value);
    }

    /// Row `key` goes.
    #[inline]
    pub fn del(&mut self, shard: ShardId, key: &[u8]) {
        self.del_parts(shard, &[key]);
    }

    /// As [`Effects::del`], the key given in parts.
    #[inline]
    pub fn del_parts(&mut self, shard: ShardId, key: &[&[u8]]) {
        let head = self.head(shard, Kind::Del, total(key), None);
        self.buf.extend_from_slice(head.bytes());
        self.extend(key);
    }

    /// Counter row `key` (an `i64`, little endian; absent is 0) changes by `delta`, wrapping. Summed by the fold.
    #[inline]
    pub fn add(&mut self, shard: ShardId, key: &[u8], delta: i64) {
        self.add_parts(shard, &[key], delta);
    }

    /// As [`Effects::add`], the key given in parts.
    #[inline]
    pub fn add_parts(&mut self, shard: ShardId, key: &[&[u8]], delta: i64) {
        let head = self.head(shard, Kind::Add, total(key), Some(8));
        self.buf.extend_from_slice(head.bytes());
        self.extend(key);
        self.buf.extend_from_slice(&delta.to_le_bytes());
    }

    /// Row `key` of [`crate::Keyspace::Bodies`] becomes `head ++ body`. Large bodies are shared, not copied.
    ///
    /// Returns where the value (head and body) will begin, in bytes from the start of the record: with the record's
    /// place in the log ([`Effects::start`]) that is the position at which [`crate::Engine::read_bodies`] finds it.
    #[inline]
    pub fn put_body(&mut self, shard: ShardId, key: &[u8], head: &[u8], body: &Bytes) -> u64 {
        self.put_body_parts(shard, &[key], head, body)
    }

    /// As [`Effects::put_body`], the key given in parts.
    pub fn put_body_parts(
        &mut self,
        shard: ShardId,
        key: &[&[u8]],
        head: &[u8],
        body: &Bytes,
    ) -> u64 {
        let op = self.head(
            shard,
            Kind::PutBody,
            total(key),
            Some(head.len() + body.len()),
        );
        self.buf.extend_from_slice(op.bytes());
        self.extend(key);
        let at = self.size() as u64;
        self.buf.extend_from_slice(head);
        if body.len() < BIG {
            self.buf.extend_from_slice(body);
        } else {
            self.big.push(BigBody {
                at: self.buf.len(),
                bytes: body.clone(),
            });
            self.big_bytes += body.len();
        }
        at
    }

    /// Row `key` of [`crate::Keyspace::Bodies`] goes.
    #[inline]
    pub fn del_body(&mut self, shard: ShardId, key: &[u8]) {
        self.del_body_parts(shard, &[key]);
    }

    /// As [`Effects::del_body`], the key given in parts.
    #[inline]
    pub fn del_body_parts(&mut self, shard: ShardId, key: &[&[u8]]) {
        let head = self.head(shard, Kind::DelBody, total(key), None);
        self.buf.extend_from_slice(head.bytes());
        self.extend(key);
    }

    /// The record without its large bodies; header fields that only the log knows are still zero.
    pub(crate) fn encoded(&self) -> &[u8] {
        &self.buf
    }

    /// Where in [`Effects::encoded`] each section header starts.
    pub(crate) fn sections(&self) -> &[u32] {
        &self.sections
    }

    pub(crate) fn big(&self) -> &[BigBody] {
        &self.big
    }

    /// Opens a section if the shard changed, accounts for the op in the section's length, and gives the op's first bytes.
    #[inline]
    fn head(
        &mut self,
        shard: ShardId,
        kind: Kind,
        key: usize,
        value: Option<usize>,
    ) -> record::OpHead {
        assert!(key <= MAX_KEY_LEN, "row key of {key} bytes");
        if self.shard != shard.0 {
            self.section(shard);
        }
        let head = record::OpHead::new(kind, key, value);
        let size = head.bytes().len() + key + value.unwrap_or(0);
        if let Some(&start) = self.sections.last() {
            record::grow_section(&mut self.buf, start as usize, size);
        }
        head
    }

    #[cold]
    fn section(&mut self, shard: ShardId) {
        assert!(shard.index() < crate::SHARDS, "shard {}", shard.0);
        self.shard = shard.0;
        self.sections
            .push(u32::try_from(self.buf.len()).expect("a record is smaller than 4 GiB"));
        record::open_section(&mut self.buf, shard);
    }

    #[inline]
    fn extend(&mut self, parts: &[&[u8]]) {
        for part in parts {
            self.buf.extend_from_slice(part);
        }
    }
}

#[inline]
fn total(parts: &[&[u8]]) -> usize {
    parts.iter().map(|part| part.len()).sum()
}
