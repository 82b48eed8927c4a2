//! A stream that was one somewhere else.

use super::group::{self, Consumer, Group, Pending};
use super::idempotence::{Idempotence, IdempotenceSettings};
use super::{EntryId, Meta, Stream};
use crate::cache::text::Text;

/// What makes a stream; see [`crate::cache::View::make_stream`].
#[derive(Debug, Clone, Default)]
pub struct Restored {
    /// Ids, which must grow, and what [`super::body`] writes.
    pub entries: Vec<(EntryId, Vec<u8>)>,
    pub last: EntryId,
    pub max_deleted: EntryId,
    /// Entries ever added.
    pub added: u64,
    pub groups: Vec<RestoredGroup>,
    pub idempotence: Option<RestoredIdempotence>,
}

/// A producer's name, and the ids it chose with their entries', oldest first.
pub type RestoredProducer = (Vec<u8>, Vec<(Vec<u8>, EntryId)>);

/// What is known of producers.
#[derive(Debug, Clone, Default)]
pub struct RestoredIdempotence {
    pub settings: IdempotenceSettings,
    pub added: u64,
    pub duplicates: u64,
    pub producers: Vec<RestoredProducer>,
}

/// One group of it.
#[derive(Debug, Clone, Default)]
pub struct RestoredGroup {
    pub name: Vec<u8>,
    pub last: EntryId,
    /// Entries of the stream up to there; -1: not known. `None`: to be estimated.
    pub read: Option<i64>,
    pub consumers: Vec<RestoredConsumer>,
    pub pending: Vec<RestoredPending>,
}

#[derive(Debug, Clone, Default)]
pub struct RestoredConsumer {
    pub name: Vec<u8>,
    pub seen_ms: u64,
    pub active_ms: Option<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
pub struct RestoredPending {
    pub id: EntryId,
    pub at_ms: u64,
    pub count: u64,
    /// Place of the consumer; `None`: it was released.
    pub consumer: Option<usize>,
}

impl Stream {
    /// `None`: ids that do not grow, names that are there twice, pending entries of nobody.
    pub(in crate::cache) fn restored(parts: Restored) -> Option<Self> {
        let mut stream = Self::new(0);
        let mut before = None;
        for (id, body) in &parts.entries {
            if before.is_some_and(|before| before >= *id) || *id > parts.last {
                return None;
            }
            before = Some(*id);
            stream.entries.append(*id, body);
        }
        stream.meta = Meta {
            last: parts.last,
            deleted: parts.max_deleted,
            added: parts.added,
        };
        for restored in parts.groups {
            let estimate = || stream.counts().added_until(restored.last).unwrap_or(-1);
            let read = restored.read.unwrap_or_else(estimate);
            let mut group = Group::new(group::unused(&stream.numbers), restored.last, read);
            for (number, consumer) in (0u32..).zip(restored.consumers) {
                let consumer = Consumer::new(&consumer.name, consumer.seen_ms, consumer.active_ms);
                group.add_consumer(number, consumer).then_some(())?;
            }
            for each in restored.pending {
                let consumer = match each.consumer {
                    Some(place) => Some(u32::try_from(place).ok()?),
                    None => None,
                };
                let pending = Pending {
                    consumer,
                    at_ms: each.at_ms,
                    count: each.count,
                };
                group.load_pending(each.id, pending)?;
            }
            stream.load_group(&Text::new(&restored.name), group)?;
        }
        if let Some(known) = parts.idempotence {
            stream.idempotence = Some(Box::new(known.build()?));
        }
        Some(stream)
    }
}

impl RestoredIdempotence {
    fn build(mut self) -> Option<Idempotence> {
        let IdempotenceSettings {
            duration_s,
            ids_max,
        } = self.settings;
        let allowed = IdempotenceSettings::DURATIONS_S.contains(&duration_s)
            && IdempotenceSettings::SIZES.contains(&ids_max);
        allowed.then_some(())?;
        let mut known = Idempotence::new(self.settings, self.added, self.duplicates);
        let mut all = Vec::new();
        for (producer, ids) in &mut self.producers {
            let allowed = ids.len() as u64 <= ids_max && !producer.is_empty();
            allowed.then_some(())?;
            all.extend(ids.iter().map(|(chosen, id)| (*id, &**producer, &**chosen)));
        }
        // They go in this order.
        all.sort_by_key(|(id, ..)| *id);
        for (place, (id, producer, chosen)) in (0..).zip(all) {
            (!chosen.is_empty()).then_some(())?;
            known.put(place, producer, chosen, id)?;
        }
        Some(known)
    }
}
