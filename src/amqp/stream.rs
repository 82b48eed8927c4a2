//! Consumers of streams: each reads the log of its queue at a place of its own.
//!
//! ```text
//!  partition ── read, some KiB at once ─▶ chunk ─ unpack ─▶ record ─ filter ─▶ basic.deliver, while there is credit
//!     └ at its end: rings the reader at the next append, and again when that is durable
//! ```
//! Nothing is handed over by the broker and nothing goes back: an acknowledgement gives credit for one record more, whatever
//! it says.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use broker::queue::Definition;
use broker::stream::batch::Header;
use broker::stream::unpack::Unpacked;
use broker::stream::{self, Bounds, Moment, PartitionRef, Read, Record};
use broker::{Broker, Wake};
use bytes::Bytes;
use hashbrown::HashMap;
use protocol_amqp::{ReplyCode, Table, Value};
use smallvec::SmallVec;

use super::channel::{Channel, Pending};
use super::deliver;
use super::fault::{Fault, Result, binary};
use super::record;
use super::session::{Core, reference};
use crate::net::Outbox;

type Map<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// Octets of batches read at once: a KiB for each record that the consumer may have, within these. One batch comes whatever
/// its size. What is read is held until there is credit for it, by each of thousands of slow consumers.
const CHUNK_MIN: usize = 4 << 10;
const CHUNK_MAX: usize = 128 << 10;
/// Of a record, besides what a message's body may have: key and headers.
const RECORD_OVERHEAD: usize = 1 << 20;
/// Records looked at for one consumer before others have their turn, and octets.
const TURN_RECORDS: usize = 1_000;
const TURN_OCTETS: usize = 512 << 10;
/// Octets of memory by which readers may grow in one turn of their connection.
const TURN_HELD: usize = 8 << 20;
/// Looks at a place from which records vanish while it is read.
const LOOKS: usize = 4;
/// Filter values of one consumer.
const FILTERS_MAX: usize = 1_000;

/// Rings its connection, and says which reader has something to look at.
struct Bell {
    rung: AtomicBool,
    connection: Arc<dyn Wake>,
}

impl Wake for Bell {
    fn wake(&self) {
        self.rung.store(true, Ordering::SeqCst);
        self.connection.wake();
    }
}

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        Wake::wake(&*self);
    }
}

/// Which records a consumer wants.
#[derive(Debug, Default)]
struct Filter {
    values: Vec<Box<[u8]>>,
    /// Those without a value, too.
    unfiltered: bool,
}

impl Filter {
    fn lets(&self, record: &Record) -> bool {
        if self.values.is_empty() {
            return true;
        }
        match record::filter_value(record) {
            None => self.unfiltered,
            Some(value) => self.values.iter().any(|wanted| **wanted == *value),
        }
    }
}

/// One consumer's place in its stream.
pub(super) struct Reader {
    at: PartitionRef,
    /// Names it among all readers of partitions.
    number: u64,
    bell: Arc<Bell>,
    /// Records below are not for it.
    next: u64,
    /// Where the log is read next.
    position: u64,
    credit: u32,
    /// Octets of batches that it reads at once.
    chunk_max: usize,
    filter: Filter,
    /// Batches that were read and not begun.
    chunk: VecDeque<Bytes>,
    /// The batch under way, and how long it is.
    open: Option<(Unpacked, usize)>,
    /// Octets of memory for what was read.
    held: usize,
}

/// Those of a connection, by the number of the consumer.
#[derive(Default)]
pub(super) struct Readers {
    map: Map<u64, Reader>,
    held: usize,
    /// Grows, so that another one is served first each time.
    turn: usize,
}

impl Readers {
    /// Octets of memory for what was read and not delivered.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    pub(super) fn insert(&mut self, consumer: u64, reader: Reader) {
        self.map.insert(consumer, reader);
    }

    /// The consumer is gone.
    pub(super) fn remove(&mut self, broker: &Broker, consumer: u64) {
        if let Some(reader) = self.map.remove(&consumer) {
            self.held -= reader.held;
            stream::unwatch(broker, reader.at, reader.number);
        }
    }

    /// A record was acknowledged, rejected or given back. It is looked for more at the end of the turn.
    pub(super) fn give_credit(&mut self, consumer: Option<u64>) {
        if let Some(reader) = consumer.and_then(|consumer| self.map.get_mut(&consumer)) {
            reader.credit += 1;
            reader.bell.rung.store(true, Ordering::Relaxed);
        }
    }
}

/// Where a consumer of this queue begins, and what it wants to have. It has nothing yet.
pub(super) fn reader(
    core: &Core,
    queue: &Definition,
    at: PartitionRef,
    prefetch: u16,
    arguments: Table<'_>,
) -> Result<Reader> {
    // Above the numbers of connections, which are readers, too.
    static NUMBERS: AtomicU64 = AtomicU64::new(1 << 63);
    let filter = filter(arguments)?;
    let (next, position) = start(core, queue, at, arguments.get("x-stream-offset"))?;
    Ok(Reader {
        at,
        number: NUMBERS.fetch_add(1, Ordering::Relaxed),
        bell: Arc::new(Bell {
            rung: AtomicBool::new(true),
            connection: core.info.handle.wake(),
        }),
        next,
        position,
        credit: prefetch.into(),
        chunk_max: (usize::from(prefetch) << 10).clamp(CHUNK_MIN, CHUNK_MAX),
        filter,
        chunk: VecDeque::new(),
        open: None,
        held: 0,
    })
}

fn filter(arguments: Table<'_>) -> Result<Filter> {
    let mut filter = Filter::default();
    match arguments.get("x-stream-filter") {
        Some(Value::LongStr(value)) => filter.values.push(value.into()),
        Some(Value::Array(values)) => {
            let values = values.iter().filter_map(|value| value.as_bytes());
            filter
                .values
                .extend(values.take(FILTERS_MAX + 1).map(Into::into));
        }
        _ => {}
    }
    if filter.values.len() > FILTERS_MAX {
        return Err(Fault::precondition(format!(
            "x-stream-filter has more than {FILTERS_MAX} values"
        )));
    }
    filter.unfiltered = arguments.get("x-stream-match-unfiltered") == Some(Value::Bool(true));
    Ok(filter)
}

/// The first offset that is wanted, and where to read for it.
fn start(
    core: &Core,
    queue: &Definition,
    at: PartitionRef,
    wanted: Option<Value<'_>>,
) -> Result<(u64, u64)> {
    let broker = core.broker();
    let gone = || Fault::no_queue(&queue.name);
    let failed = |error: storage::Error| {
        tracing::error!(queue = %queue.name, %error, "cannot read a stream");
        Fault::connection(ReplyCode::InternalError, "the storage failed")
    };
    let bounds = || {
        let bounds = stream::bounds(broker, at).map_err(failed)?;
        bounds.ok_or_else(gone)
    };
    let Bounds { start, end, .. } = bounds()?;
    let since = |millis: u64| {
        let moment = Moment::Since(i64::try_from(millis).unwrap_or(i64::MAX));
        let found = stream::find(broker, at, moment).map_err(failed)?;
        // Nothing is as young: what comes will be.
        found.map_or_else(|| Ok(bounds()?.end), |(offset, _)| Ok(offset))
    };
    let from = match wanted {
        None | Some(Value::LongStr(b"next")) => end,
        Some(Value::LongStr(b"first")) => start,
        Some(Value::LongStr(b"last")) => stream::newest(broker, at)
            .map_err(failed)?
            .ok_or_else(gone)?,
        Some(Value::Timestamp(seconds)) => since(seconds.saturating_mul(1000))?,
        Some(Value::LongStr(text)) => {
            let bad = || bad_offset(&queue.name, Value::LongStr(text));
            let age = super::arguments::age(text).ok_or_else(bad)?;
            since(core.now.0.saturating_sub(age))?
        }
        Some(number) => {
            let number = number
                .as_int()
                .ok_or_else(|| bad_offset(&queue.name, number))?;
            // As in RabbitMQ, one below 0 is before the first.
            let number = u64::try_from(number).unwrap_or(0);
            // One that is not there yet is waited for.
            return Ok((number, number.clamp(start, end)));
        }
    };
    Ok((from, from))
}

fn bad_offset(name: &str, wanted: Value<'_>) -> Fault {
    let value = match wanted {
        Value::LongStr(text) => binary(text),
        other => super::arguments::plain(other),
    };
    let kind = wanted.type_name();
    Fault::precondition(format!(
        "invalid arg 'x-stream-offset' for queue '{name}' in vhost '/': {{invalid_stream_offset_arg,{{{kind},{value}}}}}"
    ))
}

/// Delivers what there is to those who have credit.
pub(super) fn serve(core: &mut Core, channels: &mut Map<u16, Channel>, out: &mut Outbox) {
    if core.readers.map.is_empty() {
        return;
    }
    // Taken out, so that a reader and the rest of the connection can be changed side by side.
    let mut readers = std::mem::take(&mut core.readers);
    let is_rung = |reader: &Reader| reader.bell.rung.load(Ordering::SeqCst);
    let rung = readers.map.iter().filter(|(_, reader)| is_rung(reader));
    let mut rung: SmallVec<[u64; 8]> = rung.map(|(consumer, _)| *consumer).collect();
    let first = readers.turn % rung.len().max(1);
    rung.rotate_left(first);
    readers.turn = readers.turn.wrapping_add(1);
    let before = readers.held;
    for consumer in rung {
        // Asked again when there is room.
        if out.is_full() {
            break;
        }
        let Some(reader) = readers.map.get_mut(&consumer) else {
            continue;
        };
        if readers.held > before.saturating_add(TURN_HELD) {
            // Its bell stays rung; what was read is weighed before more is.
            reader.bell.connection.wake();
            break;
        }
        reader.bell.rung.store(false, Ordering::SeqCst);
        readers.held -= reader.held;
        if let Err(error) = reader.serve(core, channels, consumer, out) {
            core.broker().engine.fail("read a stream", &error);
        }
        readers.held += reader.held;
    }
    core.readers = readers;
}

impl Reader {
    fn serve(
        &mut self,
        core: &Core,
        channels: &mut Map<u16, Channel>,
        consumer: u64,
        out: &mut Outbox,
    ) -> std::result::Result<(), storage::Error> {
        let Some(subscription) = core.subscriptions.get(&consumer) else {
            return Ok(());
        };
        let Some(channel) = channels.get_mut(&subscription.channel) else {
            return Ok(());
        };
        let (mut records, mut octets) = (0, 0);
        while self.credit > 0 {
            if out.is_full() {
                self.bell.rung.store(true, Ordering::SeqCst);
                break;
            }
            if records >= TURN_RECORDS || octets >= TURN_OCTETS {
                Wake::wake(&*self.bell);
                break;
            }
            let Some(record) = self.next_record(core, &subscription.queue) else {
                match self.read(core.broker())? {
                    Some(read) => octets += read,
                    None => break,
                }
                continue;
            };
            records += 1;
            octets += record.octets();
            if record.offset < self.next {
                continue;
            }
            self.next = record.offset + 1;
            if !self.filter.lets(&record) {
                continue;
            }
            self.credit -= 1;
            let id = subscription.channel;
            let tag = channel.next_tag();
            let message = record::message(record, &subscription.queue.name, core.frame_max);
            protocol_amqp::deliver(
                out.bytes(),
                id,
                &subscription.tag,
                tag,
                false,
                &message.exchange,
                &message.routing_key,
            );
            let (body, properties) = (&message.body, &message.properties);
            deliver::frames(body, Some(body), properties, id, core.frame_max, out);
            let pending = Pending {
                queue: reference(&subscription.queue),
                consumer: Some(consumer),
                timeout: deliver::timeout(&subscription.queue),
                entry: None,
            };
            channel.unacked.push(tag, Some(pending));
        }
        Ok(())
    }

    /// The next record of what was read.
    fn next_record(&mut self, core: &Core, queue: &Definition) -> Option<Record> {
        loop {
            if let Some((open, _)) = &mut self.open {
                match open.next_record() {
                    Ok(Some(record)) => return Some(record),
                    Ok(None) => {}
                    Err(error) => self.skipped(queue, &error),
                }
                let done = self.open.take();
                self.held -= done.map_or(0, |(open, length)| open.weight() + length);
            }
            let batch = self.chunk.pop_front()?;
            let limit = core.node.config.amqp_max_message_size.0;
            let record_max = usize::try_from(limit).unwrap_or(usize::MAX);
            match Unpacked::open(&batch, record_max.saturating_add(RECORD_OVERHEAD)) {
                Ok(open) => {
                    self.held += open.weight();
                    self.open = Some((open, batch.len()));
                }
                Err(error) => {
                    self.held -= batch.len();
                    self.skipped(queue, &error);
                }
            }
        }
    }

    /// What a producer sent cannot be unpacked here: the consumer goes on behind it.
    fn skipped(&self, queue: &Definition, error: &dyn std::fmt::Display) {
        let (queue, from) = (&queue.name, self.next);
        tracing::warn!(%queue, from, %error, "records of a stream are not delivered");
    }

    /// Reads more of the log; gives how many octets. `None`: there is nothing now, and the bell rings when there is.
    fn read(&mut self, broker: &Broker) -> std::result::Result<Option<usize>, storage::Error> {
        let wake: Arc<dyn Wake> = Arc::clone(&self.bell) as Arc<dyn Wake>;
        let mut batches = Vec::new();
        for _ in 0..LOOKS {
            let wish = Read {
                at: self.at,
                offset: self.position,
                max_bytes: self.chunk_max,
                at_least_one: true,
                committed: true,
                watch: Some((self.number, &wake)),
            };
            // Without the topic the consumer is cancelled: the word of it is on its way.
            let Some(got) = stream::read(broker, wish, &mut batches)? else {
                return Ok(None);
            };
            if got.out_of_range {
                // Retention was faster than the consumer.
                self.position = self.position.clamp(got.bounds.start, got.bounds.end);
                self.next = self.next.max(got.bounds.start);
                continue;
            }
            if batches.is_empty() {
                if !got.waits {
                    // Retention was faster than the disk.
                    continue;
                }
                let waker = Waker::from(Arc::clone(&self.bell));
                let is_due = got
                    .need
                    .is_some_and(|need| broker.engine.notify(need, &waker));
                if is_due && !broker.engine.failed() {
                    continue;
                }
                return Ok(None);
            }
            let aborted = if got.any_aborted {
                stream::aborted(broker, self.at, self.position, &batches)?
            } else {
                Some(Vec::new())
            };
            let Some(aborted) = aborted else {
                // Deleted meanwhile: the next look begins behind it.
                batches.clear();
                continue;
            };
            for batch in batches.drain(..) {
                let Ok((header, _)) = Header::read(&batch) else {
                    continue;
                };
                let base = u64::try_from(header.base_offset).unwrap_or(0);
                self.position = self.position.max(base + header.count());
                let is_aborted = aborted.iter().any(|aborted| aborted.covers(&header));
                if !header.is_control() && !is_aborted {
                    self.held += batch.len();
                    self.chunk.push_back(batch);
                }
            }
            return Ok(Some(got.bytes));
        }
        // Later again.
        Wake::wake(&*self.bell);
        Ok(None)
    }
}
