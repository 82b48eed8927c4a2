//! One partition: a log of record batches, its newest part in memory, all of it in the commit log or in rows.
//!
//! ```text
//!  offsets  start ........... logged.front ............ ring.front ........ durable ........ end
//!           the tables have it | the commit log has it  | memory has it too                  |
//!           ^ moved up by        ^ moved up by the fold   ^ moved up when the budget is used up:
//!             retention                                     only what is written or folded leaves memory
//! ```
//! A batch that left memory before it is folded leaves behind where the commit log has it ([`Logged`]): it never changes, so
//! the log gives back what memory would have had. A batch's row key ends with its *last* offset, so a seek from any offset
//! lands on the batch that holds it.
//! Readers see what is durable for the topic's class: `durable` follows the engine's positions, never the clock.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use hashbrown::HashMap;
use storage::{BodyAt, Durability, Effects, Engine, Error, Keyspace, Lsn, Need};

use super::arena::Arena;
use super::batch::{self, Header};
use super::producer::{Producer, Stored, Verdict};
use super::undecided::{Aborted, Undecided};
use super::{PartitionRef, TopicConfig};
use crate::rows::{self, Tag};
use crate::{Millis, Wake};

/// Every epoch is the first: one node leads all partitions for ever.
pub const LEADER_EPOCH: i32 = 0;
/// So many steps of durability are noted before somebody looks at them who reads nothing.
const CROWDED: usize = 256;
/// Bytes of batches between two entries of the index. Retention and searches by time go in steps of this.
const INDEX_BYTES: u64 = 1 << 20;
const VERSION: u8 = 1;

/// A batch that the tables may not have yet, and where the commit log has it.
#[derive(Debug, Clone, Copy)]
struct Logged {
    base: u64,
    last: u64,
    /// Of the record in the shard's log that holds it: the tables have it when they have that.
    seq: u64,
    /// Counted from the start of its record until that is committed.
    body: BodyAt,
}

/// A batch in memory.
#[derive(Debug, Clone)]
struct Resident {
    logged: Logged,
    bytes: Bytes,
}

/// Where the log stands at the last batch of about every [`INDEX_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    /// Last offset of the batch.
    pub(super) last: u64,
    /// Largest timestamp up to here, and the last offset of the first batch that holds it.
    pub(super) max: MaxTimestamp,
    /// Bytes of all batches ever appended up to here.
    pub(super) bytes: u64,
}

/// The largest timestamp and the last offset of the first batch that holds it. -1: no record yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MaxTimestamp {
    pub(super) timestamp: i64,
    pub(super) last: u64,
}

impl MaxTimestamp {
    const NONE: Self = Self {
        timestamp: -1,
        last: 0,
    };

    fn see(&mut self, timestamp: i64, last: u64) {
        if timestamp > self.timestamp {
            *self = Self { timestamp, last };
        }
    }
}

/// An append that readers may not see yet.
#[derive(Debug, Clone, Copy)]
struct Pending {
    end: u64,
    /// `None`: not committed when it was last looked at.
    need: Option<Need>,
}

/// One waiting reader.
struct Waiter {
    reader: u64,
    wake: Arc<dyn Wake>,
}

/// The state of a partition.
pub struct Partition {
    pub(super) at: PartitionRef,
    /// Offset of the first record that still exists.
    pub(super) start: u64,
    /// Offset that the next record gets.
    pub(super) end: u64,
    /// Readers see records below this.
    durable: u64,
    pending: VecDeque<Pending>,
    /// Batches that left memory and were not folded then. Their offsets are those just below the ring's.
    logged: VecDeque<Logged>,
    ring: VecDeque<Resident>,
    /// How many batches at the end of the ring belong to a record that is not committed yet.
    uncommitted: usize,
    pub(super) index: VecDeque<Mark>,
    pub(super) max: MaxTimestamp,
    /// Bytes ever appended, and how many of them retention has taken.
    pub(super) bytes_end: u64,
    pub(super) bytes_start: u64,
    pub(super) producers: HashMap<i64, Producer, foldhash::fast::RandomState>,
    undecided: Undecided,
    waiters: Vec<Waiter>,
    /// Rows of batches below this are gone from the tables, or their deletion is in the log.
    swept: u64,
}

impl std::fmt::Debug for Partition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Partition")
            .field("at", &self.at)
            .field("start", &self.start)
            .field("durable", &self.durable)
            .field("end", &self.end)
            .field("logged", &self.logged.len())
            .field("resident", &self.ring.len())
            .finish_non_exhaustive()
    }
}

/// Why a batch was not appended.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    #[error("This server does not host this topic-partition.")]
    Unknown,
    #[error("The record batch size of {size} bytes exceeds the maximum configured size ({max}).")]
    TooLarge { size: usize, max: usize },
    #[error("The timestamp of the message is out of acceptable range.")]
    Timestamp,
    #[error("The broker received an out of order sequence number.")]
    OutOfOrder,
    #[error("Producer attempted to produce with an old epoch.")]
    OldEpoch,
    #[error("Expected transactional write from producer.")]
    NotTransactional,
    /// Compacted topics need keys.
    #[error("Compacted topic cannot accept message without key.")]
    NoKey,
    #[error("the disk cannot be read")]
    Storage,
}

/// An appended batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub base_offset: u64,
    pub log_start: u64,
    /// Set when the topic's timestamps are append times.
    pub append_time: Option<Millis>,
    /// It was stored earlier: nothing changed now.
    pub duplicate: bool,
}

/// The range of offsets that a reader may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bounds {
    /// First offset that exists.
    pub start: u64,
    /// First offset that no reader sees yet.
    pub high_watermark: u64,
    /// First offset that a reader of committed records does not see yet: `LSO` in Kafka.
    pub last_stable: u64,
    /// First offset that no record has yet.
    pub end: u64,
}

/// A range of offsets whose batches the tables have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Cold {
    pub(super) at: PartitionRef,
    pub(super) from: u64,
    /// Exclusive.
    pub(super) to: u64,
}

/// Where the batches that a reader wants are, when they are not in memory. Reading them needs no lock: batches never change.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    Tables(Cold),
    /// In the commit log, one after the other from `range.from` on. What the log has let go by then is folded: the tables
    /// have all of `range`.
    Log {
        bodies: Vec<BodyAt>,
        range: Cold,
    },
}

/// The key of one of a partition's rows, which ends with an offset or a producer id.
fn row_key(at: PartitionRef, tag: Tag, tail: [u8; 8]) -> [u8; 19] {
    let mut key = [0; 19];
    let (head, end) = key.split_at_mut(11);
    head.copy_from_slice(&rows::object_prefix(at.slot, tag, at.id));
    end.copy_from_slice(&tail);
    key
}

pub(super) fn batch_key(at: PartitionRef, last: u64) -> [u8; 19] {
    row_key(at, Tag::Batch, last.to_be_bytes())
}

fn producer_key(at: PartitionRef, producer: i64) -> [u8; 19] {
    row_key(at, Tag::Producer, rows::ordered_i64(producer))
}

fn mark_key(at: PartitionRef, last: u64) -> [u8; 19] {
    row_key(at, Tag::BatchIndex, last.to_be_bytes())
}

fn aborted_key(at: PartitionRef, last: u64) -> [u8; 19] {
    row_key(at, Tag::Aborted, last.to_be_bytes())
}

/// The last eight bytes of a key: offset or producer id.
pub(super) fn key_tail(key: &[u8]) -> Option<[u8; 8]> {
    key.last_chunk().copied()
}

impl Partition {
    fn new(at: PartitionRef) -> Self {
        Self {
            at,
            start: 0,
            end: 0,
            durable: 0,
            pending: VecDeque::new(),
            logged: VecDeque::new(),
            ring: VecDeque::new(),
            uncommitted: 0,
            index: VecDeque::new(),
            max: MaxTimestamp::NONE,
            bytes_end: 0,
            bytes_start: 0,
            producers: HashMap::default(),
            undecided: Undecided::default(),
            waiters: Vec::new(),
            swept: 0,
        }
    }

    /// Reads a partition's state from the tables: its own row, the index, the headers behind the last index entry, the producers.
    pub(super) fn load(at: PartitionRef, engine: &Engine) -> Result<Self, Error> {
        let mut partition = Self::new(at);
        let state = rows::object_prefix(at.slot, Tag::PartitionState, at.id);
        if let Some(row) = engine.get(Keyspace::Rows, &state)? {
            partition.decode_state(&row);
        }
        let prefix = rows::object_prefix(at.slot, Tag::BatchIndex, at.id);
        rows::each(engine, &prefix, &mut |key, value| {
            if let Some(mark) = decode_mark(key, value) {
                partition.end = partition.end.max(mark.last + 1);
                partition.bytes_end = mark.bytes;
                partition.max.see(mark.max.timestamp, mark.max.last);
                partition.index.push_back(mark);
            }
            true
        })?;
        let from = batch_key(
            at,
            partition
                .index
                .back()
                .map_or(partition.start, |mark| mark.last + 1),
        );
        let to = rows::prefix_end(&rows::object_prefix(at.slot, Tag::Batch, at.id));
        engine.scan(
            Keyspace::Bodies,
            &from,
            to.as_deref(),
            usize::MAX,
            &mut |key, value| {
                if let (Some(last), Ok((header, _))) = (key_tail(key), Header::read(value)) {
                    let last = u64::from_be_bytes(last);
                    partition.end = partition.end.max(last + 1);
                    partition.bytes_end += value.len() as u64;
                    if !header.is_control() {
                        partition.max.see(header.max_timestamp, last);
                    }
                }
                true
            },
        )?;
        let prefix = rows::object_prefix(at.slot, Tag::Producer, at.id);
        rows::each(engine, &prefix, &mut |key, value| {
            if let (Some(id), Some(producer)) = (key_tail(key), Producer::decode(value)) {
                let id = rows::from_ordered_i64(id);
                if let Some(first) = producer.open {
                    partition.undecided.begin(first, id);
                }
                partition.producers.insert(id, producer);
            }
            true
        })?;
        let prefix = rows::object_prefix(at.slot, Tag::Aborted, at.id);
        rows::each(engine, &prefix, &mut |key, value| {
            if let Some(aborted) = decode_aborted(key, value) {
                partition.undecided.add_aborted(aborted);
            }
            true
        })?;
        partition.durable = partition.end;
        Ok(partition)
    }

    /// Appends a batch that [`Header::check`] has let through: decides its offset, stamps it, records it in `fx`.
    /// Readers that wait are rung; they find the batch once it is durable. Whether a transactional one may be written, the
    /// caller has seen to.
    #[expect(clippy::too_many_arguments, reason = "what one append needs to know")]
    pub(super) fn append(
        &mut self,
        mut bytes: BytesMut,
        header: &Header,
        config: &TopicConfig,
        now: Millis,
        seq: u64,
        arena: &mut Arena,
        fx: &mut Effects,
    ) -> Result<Appended, AppendError> {
        let transactional = header.is_transactional();
        if bytes.len() > config.max_message_bytes {
            return Err(AppendError::TooLarge {
                size: bytes.len(),
                max: config.max_message_bytes,
            });
        }
        let now_ms = i64::try_from(now.0).unwrap_or(i64::MAX);
        let mut max_timestamp = header.max_timestamp;
        if config.append_time {
            batch::stamp_append_time(&mut bytes, header.attributes, now_ms);
            max_timestamp = now_ms;
        } else if max_timestamp > now_ms.saturating_add_unsigned(config.timestamp_after_max_ms)
            || (max_timestamp >= 0
                && max_timestamp < now_ms.saturating_sub_unsigned(config.timestamp_before_max_ms))
        {
            return Err(AppendError::Timestamp);
        }
        let append_time = config.append_time.then_some(now);
        let log_start = self.start;
        if header.producer_id >= 0 {
            let state = self.producers.get(&header.producer_id);
            match Producer::judge(
                state,
                header.producer_epoch,
                header.base_sequence,
                header.last_sequence(),
            ) {
                Verdict::New => {}
                Verdict::Duplicate(base_offset) => {
                    return Ok(Appended {
                        base_offset,
                        log_start,
                        append_time,
                        duplicate: true,
                    });
                }
                Verdict::OutOfOrder => return Err(AppendError::OutOfOrder),
                Verdict::OldEpoch => return Err(AppendError::OldEpoch),
            }
            if !transactional && state.is_some_and(|state| state.open.is_some()) {
                return Err(AppendError::NotTransactional);
            }
        }
        let base = self.store(bytes, header, max_timestamp, seq, arena, fx);
        if header.producer_id >= 0 {
            self.remember(header, base, now, fx);
        }
        Ok(Appended {
            base_offset: base,
            log_start,
            append_time,
            duplicate: false,
        })
    }

    /// Appends what is decided to come next. Returns its offset.
    fn store(
        &mut self,
        mut bytes: BytesMut,
        header: &Header,
        max_timestamp: i64,
        seq: u64,
        arena: &mut Arena,
        fx: &mut Effects,
    ) -> u64 {
        let base = self.end;
        let last = base + header.count() - 1;
        batch::stamp(&mut bytes, base, LEADER_EPOCH);
        let bytes = arena.keep(bytes);
        let shard = self.at.shard();
        let body = BodyAt {
            at: Lsn(fx.put_body(shard, &batch_key(self.at, last), &[], &bytes)),
            // Bounded by `max_message_bytes`, and by the frame that it came in.
            length: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
        };
        self.end = last + 1;
        self.bytes_end += bytes.len() as u64;
        self.max.see(max_timestamp, last);
        let marked = self
            .index
            .back()
            .map_or(self.bytes_start, |mark| mark.bytes);
        if self.bytes_end - marked >= INDEX_BYTES {
            self.put_mark(fx);
        }
        let logged = Logged {
            base,
            last,
            seq,
            body,
        };
        self.ring.push_back(Resident { logged, bytes });
        self.uncommitted += 1;
        match self.pending.back_mut() {
            Some(pending) if pending.need.is_none() => pending.end = self.end,
            _ => self.pending.push_back(Pending {
                end: self.end,
                need: None,
            }),
        }
        self.ring_waiters();
        base
    }

    /// Notes in the index where the log ends now.
    fn put_mark(&mut self, fx: &mut Effects) {
        let last = self.end.saturating_sub(1);
        if self.end == self.start || self.index.back().is_some_and(|mark| mark.last == last) {
            return;
        }
        let mark = Mark {
            last,
            max: self.max,
            bytes: self.bytes_end,
        };
        fx.put_parts(
            self.at.shard(),
            &[&mark_key(self.at, last)],
            &encode_mark(&mark).each_ref().map(|part| part.as_slice()),
        );
        self.index.push_back(mark);
    }

    /// Whether readers have not looked for long, so that what became durable is still noted one by one.
    pub(super) fn is_crowded(&self) -> bool {
        self.pending.len() + self.undecided.ending() > CROWDED
    }

    /// Whether this producer has a transaction here, so that its coordinator need not be asked.
    pub(super) fn is_open(&self, producer_id: i64, epoch: i16) -> bool {
        let producer = self.producers.get(&producer_id);
        producer.is_some_and(|producer| producer.epoch == epoch && producer.open.is_some())
    }

    /// Writes where a producer's transaction ends, whether it has written anything here or not: its older epochs are done with
    /// in any case. Returns the bytes that the marker takes.
    #[expect(clippy::too_many_arguments, reason = "what one append needs to know")]
    pub(super) fn mark(
        &mut self,
        producer_id: i64,
        epoch: i16,
        committed: bool,
        now: Millis,
        seq: u64,
        arena: &mut Arena,
        fx: &mut Effects,
    ) -> usize {
        let now_ms = i64::try_from(now.0).unwrap_or(i64::MAX);
        let bytes = batch::marker(now_ms, producer_id, epoch, committed);
        let size = bytes.len();
        let Ok((header, _)) = Header::read(&bytes) else {
            return 0;
        };
        // A marker's time is not that of any record.
        let last = self.store(bytes, &header, -1, seq, arena, fx);
        let producer = self
            .producers
            .entry(producer_id)
            .or_insert_with(|| Producer::new(epoch));
        let open = producer.open;
        producer.end(epoch, now.0);
        put_producer(self.at, producer_id, producer, fx);
        if let Some(first) = open {
            let stable = self.undecided.end(first, last);
            if !committed {
                let aborted = Aborted {
                    producer_id,
                    first,
                    last,
                    stable,
                };
                fx.put_parts(
                    self.at.shard(),
                    &[&aborted_key(self.at, last)],
                    &[
                        &producer_id.to_be_bytes(),
                        &first.to_be_bytes(),
                        &stable.to_be_bytes(),
                    ],
                );
                self.undecided.add_aborted(aborted);
            }
        }
        size
    }

    /// The transactions that were aborted among the records of `from..to`.
    pub(super) fn aborted(&self, from: u64, to: u64) -> impl Iterator<Item = &Aborted> {
        self.undecided.aborted(from, to)
    }

    pub(super) fn ring_waiters(&mut self) {
        for waiter in self.waiters.drain(..) {
            waiter.wake.wake();
        }
    }

    fn remember(&mut self, header: &Header, base_offset: u64, now: Millis, fx: &mut Effects) {
        let producer = self
            .producers
            .entry(header.producer_id)
            .or_insert_with(|| Producer::new(header.producer_epoch));
        let stored = Stored {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            base_offset,
        };
        producer.store(header.producer_epoch, now.0, stored);
        if header.is_transactional() && producer.open.is_none() {
            producer.open = Some(base_offset);
            self.undecided.begin(base_offset, header.producer_id);
        }
        put_producer(self.at, header.producer_id, producer, fx);
    }

    /// What was appended since the last call is committed: in the record that lies between `start` and `end` in the log.
    pub(super) fn committed(&mut self, start: Lsn, end: Lsn, class: Durability) {
        let first = self.ring.len() - self.uncommitted;
        for batch in self.ring.range_mut(first..) {
            batch.logged.body.at.0 += start.0;
        }
        self.uncommitted = 0;
        if let Some(pending) = self
            .pending
            .back_mut()
            .filter(|pending| pending.need.is_none())
        {
            pending.need = Some(Need::of(end, class));
        }
    }

    /// What readers may ask for, after a look at what has become durable.
    pub(super) fn bounds(&mut self, engine: &Engine) -> Bounds {
        if self.durable < self.end {
            while let Some(&Pending {
                end,
                need: Some(need),
            }) = self.pending.front()
            {
                if !engine.is_durable(need) {
                    break;
                }
                self.durable = end;
                self.pending.pop_front();
            }
        }
        let high_watermark = self.durable.max(self.start);
        Bounds {
            start: self.start,
            high_watermark,
            last_stable: self.undecided.last_stable(high_watermark).max(self.start),
            end: self.end,
        }
    }

    /// What the next step of the high watermark waits for; `None` when readers see everything.
    pub(super) fn next_need(&self) -> Option<Need> {
        self.pending.front().and_then(|pending| pending.need)
    }

    /// Rings `wake` at the next append, once. One registration per reader.
    pub(super) fn watch(&mut self, reader: u64, wake: &Arc<dyn Wake>) {
        if !self.waiters.iter().any(|waiter| waiter.reader == reader) {
            self.waiters.push(Waiter {
                reader,
                wake: Arc::clone(wake),
            });
        }
    }

    /// Takes back a [`Partition::watch`].
    pub(super) fn unwatch(&mut self, reader: u64) {
        self.waiters.retain(|waiter| waiter.reader != reader);
    }

    /// Appends to `into` the batches from the one that holds `offset` on, below `to`, within `limit`. Returns the bytes taken,
    /// or where to read instead.
    pub(super) fn read(
        &self,
        offset: u64,
        to: u64,
        mut limit: Limit,
        into: &mut Vec<Bytes>,
    ) -> Result<usize, Elsewhere> {
        let resident_from = self
            .ring
            .front()
            .map_or(self.end, |batch| batch.logged.base);
        if offset >= resident_from {
            let first = self
                .ring
                .partition_point(|batch| batch.logged.last < offset);
            for batch in self.ring.range(first..) {
                if batch.logged.base >= to || !limit.take(batch.bytes.len()) {
                    break;
                }
                into.push(batch.bytes.clone());
            }
            return Ok(limit.taken);
        }
        let logged_from = self
            .logged
            .front()
            .map_or(resident_from, |batch| batch.base);
        let mut range = Cold {
            at: self.at,
            from: offset,
            to: logged_from.min(to),
        };
        if offset < logged_from {
            return Err(Elsewhere::Tables(range));
        }
        let first = self.logged.partition_point(|batch| batch.last < offset);
        let mut bodies = Vec::new();
        for batch in self.logged.range(first..) {
            if batch.base >= to || !limit.take(batch.body.length as usize) {
                break;
            }
            bodies.push(batch.body);
            range.to = batch.last + 1;
        }
        Err(Elsewhere::Log { bodies, range })
    }

    /// Bytes of the batches in memory.
    pub(super) fn resident(&self) -> usize {
        self.ring.iter().map(|batch| batch.bytes.len()).sum()
    }

    /// Lets the oldest batch leave memory if the log is `written` behind its end, or if the tables have it: they have the
    /// records up to `folded`. Returns its bytes.
    pub(super) fn evict(&mut self, written: Lsn, folded: u64) -> Option<usize> {
        let Resident { logged, bytes } = self.ring.front()?;
        let (logged, length) = (*logged, bytes.len());
        let is_folded = logged.seq <= folded;
        if !is_folded && (self.ring.len() <= self.uncommitted || logged.body.end() > written.0) {
            return None;
        }
        self.ring.pop_front();
        if is_folded {
            self.logged.clear();
        } else {
            self.forget_folded(folded);
            self.logged.push_back(logged);
        }
        Some(length)
    }

    /// Forgets where the commit log has what the tables have, too.
    pub(super) fn forget_folded(&mut self, folded: u64) {
        let unfolded = self.logged.partition_point(|batch| batch.seq <= folded);
        self.logged.drain(..unfolded);
    }

    /// Gives memory back that a burst needed.
    pub(super) fn trim(&mut self, folded: u64) {
        self.forget_folded(folded);
        self.logged.shrink_to(2 * self.logged.len());
    }

    /// Bytes of batches between the start and the end.
    pub(super) fn size(&self) -> u64 {
        self.bytes_end - self.bytes_start
    }

    /// Moves the start up to an offset that readers see. Its bytes are known in steps of the index.
    pub(super) fn delete_below(&mut self, start: u64, fx: &mut Effects) {
        if start <= self.start {
            return;
        }
        // What is left behind the last mark is counted anew at a start, without what lies before the new start.
        self.put_mark(fx);
        let before = self.index.iter().rev().find(|mark| mark.last < start);
        let bytes = match before {
            _ if start >= self.end => self.bytes_end,
            Some(mark) => mark.bytes,
            None => self.bytes_start,
        };
        self.advance_start(start, bytes, fx);
    }

    /// Moves the start up to `start`, an offset up to which `bytes` were ever appended. Rows go in [`Partition::sweep`].
    pub(super) fn advance_start(&mut self, start: u64, bytes: u64, fx: &mut Effects) {
        self.start = start.max(self.start).min(self.end);
        self.bytes_start = bytes.max(self.bytes_start).min(self.bytes_end);
        let shard = self.at.shard();
        while let Some(mark) = self
            .index
            .front()
            .copied()
            .filter(|mark| mark.last < self.start)
        {
            fx.del(shard, &mark_key(self.at, mark.last));
            self.index.pop_front();
        }
        while let Some(aborted) = self.undecided.pop_below(self.start) {
            fx.del(shard, &aborted_key(self.at, aborted.last));
        }
        self.put_state(fx);
    }

    fn put_state(&self, fx: &mut Effects) {
        let key = rows::object_prefix(self.at.slot, Tag::PartitionState, self.at.id);
        fx.put_parts(
            self.at.shard(),
            &[&key],
            &[
                &[VERSION],
                &self.start.to_be_bytes(),
                &self.bytes_start.to_be_bytes(),
                &self.max.timestamp.to_be_bytes(),
                &self.max.last.to_be_bytes(),
            ],
        );
    }

    fn decode_state(&mut self, row: &[u8]) {
        let Some((&VERSION, rest)) = row.split_first() else {
            return;
        };
        let mut fields = rest
            .chunks_exact(8)
            .filter_map(|field| field.first_chunk())
            .map(|field| u64::from_be_bytes(*field));
        let mut next = || fields.next().unwrap_or(0);
        // Where no batch is left the log ends where it starts; otherwise the batches say.
        self.start = next();
        self.end = self.start;
        self.bytes_start = next();
        self.bytes_end = self.bytes_start;
        self.max = MaxTimestamp {
            timestamp: next().cast_signed(),
            last: next(),
        };
    }

    /// Deletes up to `limit` rows of batches below the start. Only those that the tables have: a batch that is not folded yet
    /// would come back behind its deletion's sweep. True: there may be more.
    pub(super) fn sweep(
        &mut self,
        engine: &Engine,
        folded: u64,
        limit: usize,
        fx: &mut Effects,
    ) -> Result<bool, Error> {
        let resident = self.ring.iter().map(|batch| &batch.logged);
        let unfolded = (self.logged.iter().chain(resident))
            .find(|batch| batch.seq > folded)
            .map_or(self.end, |batch| batch.base);
        let to = self.start.min(unfolded);
        if self.swept >= to {
            return Ok(false);
        }
        let (at, mut deleted) = (self.at, 0);
        let (from, end) = (batch_key(at, self.swept), batch_key(at, to));
        let mut swept = to;
        engine.scan(Keyspace::Bodies, &from, Some(&end), limit, &mut |key, _| {
            fx.del_body(at.shard(), key);
            deleted += 1;
            if deleted == limit {
                swept = key_tail(key).map_or(to, |last| u64::from_be_bytes(last) + 1);
            }
            true
        })?;
        self.swept = swept;
        Ok(swept < to)
    }

    /// Forgets producers that were silent since `before_ms`.
    pub(super) fn expire_producers(&mut self, before_ms: u64, fx: &mut Effects) {
        let at = self.at;
        self.producers.retain(|id, producer| {
            let keep = producer.last_ms >= before_ms || producer.open.is_some();
            if !keep {
                fx.del(at.shard(), &producer_key(at, *id));
            }
            keep
        });
    }
}

/// How much a reader takes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limit {
    max_bytes: usize,
    /// The first batch comes whatever its size.
    at_least_one: bool,
    taken: usize,
}

impl Limit {
    pub(super) fn new(max_bytes: usize, at_least_one: bool) -> Self {
        Self {
            max_bytes,
            at_least_one,
            taken: 0,
        }
    }

    /// Whether a batch of `bytes` may still come; it is counted then.
    pub(super) fn take(&mut self, bytes: usize) -> bool {
        let fits = self.taken + bytes <= self.max_bytes || self.at_least_one;
        if fits {
            self.at_least_one = false;
            self.taken += bytes;
        }
        fits
    }

    pub(super) fn is_reached(&self) -> bool {
        self.taken >= self.max_bytes
    }
}

fn put_producer(at: PartitionRef, id: i64, producer: &Producer, fx: &mut Effects) {
    let mut row = Vec::with_capacity(104);
    producer.encode(&mut row);
    fx.put(at.shard(), &producer_key(at, id), &row);
}

fn decode_aborted(key: &[u8], value: &[u8]) -> Option<Aborted> {
    let (producer_id, rest) = value.split_first_chunk()?;
    let (first, rest) = rest.split_first_chunk()?;
    Some(Aborted {
        producer_id: i64::from_be_bytes(*producer_id),
        first: u64::from_be_bytes(*first),
        last: u64::from_be_bytes(key_tail(key)?),
        stable: u64::from_be_bytes(*rest.first_chunk()?),
    })
}

fn encode_mark(mark: &Mark) -> [[u8; 8]; 3] {
    [
        mark.max.timestamp.to_be_bytes(),
        mark.max.last.to_be_bytes(),
        mark.bytes.to_be_bytes(),
    ]
}

fn decode_mark(key: &[u8], value: &[u8]) -> Option<Mark> {
    let (timestamp, rest) = value.split_first_chunk()?;
    let (last, rest) = rest.split_first_chunk()?;
    Some(Mark {
        last: u64::from_be_bytes(key_tail(key)?),
        max: MaxTimestamp {
            timestamp: i64::from_be_bytes(*timestamp),
            last: u64::from_be_bytes(*last),
        },
        bytes: u64::from_be_bytes(*rest.first_chunk()?),
    })
}

impl Partition {
    /// All that a load must bring back.
    pub(super) fn durable_state(&self) -> impl PartialEq + std::fmt::Debug + use<> {
        let mut producers: Vec<_> = self
            .producers
            .iter()
            .map(|(id, state)| (*id, state.clone()))
            .collect();
        producers.sort_by_key(|(id, _)| *id);
        let index: Vec<_> = self.index.iter().copied().collect();
        let aborted: Vec<_> = self.undecided.all_aborted().copied().collect();
        (
            (self.at, self.start, self.end),
            (self.bytes_start, self.bytes_end),
            index,
            self.max,
            producers,
            aborted,
        )
    }
}
