//! What the property tests do to streams.

use proptest::prelude::*;

use crate::cache::{
    Ask, Claim, Deletion, Entry, EntryId, IdempotenceSettings, Need, Refs, Released, Stream, Trim,
    Until, body,
};

use crate::cache::row::Rows;
use crate::rows::Tag;
use crate::{Effects, ShardId, Slot};

#[derive(Debug, Clone)]
pub(super) enum StreamOp {
    Add(u8, Vec<(u8, Vec<u8>)>),
    Delete(u8, u8),
    DeleteBy(u8, u8, u8),
    AcknowledgeAndDelete(u8, u8, u8),
    Trim(u8, bool, u8),
    SetId(u8, bool),
    Group(u8, u8),
    SetGroup(u8, u8),
    Destroy(u8),
    Deliver(u8, u8, u8, bool),
    Again(u8, u8),
    Acknowledge(u8, u8, u8),
    Claim(u8, u8, u8, bool, bool),
    ClaimFrom(u8, u8, u8),
    RemoveConsumer(u8, u8),
    Release(u8, u8, u8, bool),
    AddOnce(u8, u8),
    Configure(u8),
}

pub(super) fn op() -> impl Strategy<Value = StreamOp> {
    use StreamOp::*;
    let (group, consumer) = (0u8..2, 0u8..3);
    let value = || prop::collection::vec(any::<u8>(), 0..20);
    let pairs = prop_oneof![
        3 => value().prop_map(|value| vec![(1, value.clone()), (2, value)]),
        1 => prop::collection::vec((any::<u8>(), value()), 0..4),
    ];
    prop_oneof![
        12 => (any::<u8>(), pairs).prop_map(|(step, pairs)| Add(step, pairs)),
        2 => (any::<u8>(), any::<u8>()).prop_map(|(a, b)| Delete(a, b)),
        2 => (any::<u8>(), any::<u8>(), 0u8..3).prop_map(|(a, b, refs)| DeleteBy(a, b, refs)),
        2 => (group.clone(), any::<u8>(), 0u8..3).prop_map(|(g, n, refs)| AcknowledgeAndDelete(g, n, refs)),
        1 => (any::<u8>(), any::<bool>(), 0u8..6).prop_map(|(n, roughly, refs)| Trim(n, roughly, refs)),
        1 => (any::<u8>(), any::<bool>()).prop_map(|(n, all)| SetId(n, all)),
        4 => (group.clone(), any::<u8>()).prop_map(|(g, n)| Group(g, n)),
        1 => (group.clone(), any::<u8>()).prop_map(|(g, n)| SetGroup(g, n)),
        1 => group.clone().prop_map(Destroy),
        8 => (group.clone(), consumer.clone(), 0u8..4, any::<bool>()).prop_map(|(g, c, n, b)| Deliver(g, c, n, b)),
        2 => (group.clone(), consumer.clone()).prop_map(|(g, c)| Again(g, c)),
        3 => (group.clone(), any::<u8>(), any::<u8>()).prop_map(|(g, a, b)| Acknowledge(g, a, b)),
        2 => (group.clone(), consumer.clone(), any::<u8>(), any::<bool>(), any::<bool>()).prop_map(|(g, c, n, f, j)| Claim(g, c, n, f, j)),
        2 => (group.clone(), consumer.clone(), any::<u8>()).prop_map(|(g, c, n)| ClaimFrom(g, c, n)),
        1 => (group.clone(), consumer).prop_map(|(g, c)| RemoveConsumer(g, c)),
        3 => (group, any::<u8>(), 0u8..4, any::<bool>()).prop_map(|(g, n, why, force)| Release(g, n, why, force)),
        4 => (0u8..3, 0u8..8).prop_map(|(p, n)| AddOnce(p, n)),
        1 => (1u8..4).prop_map(Configure),
    ]
}

impl StreamOp {
    /// Does it make a stream where there is none?
    pub(super) fn creates(&self) -> bool {
        matches!(self, Self::Add(..) | Self::Group(..) | Self::AddOnce(..))
    }
}

/// What operations choose from: the ids of a stream, and the last one that was given.
pub(super) struct Known {
    ids: Vec<EntryId>,
    last: EntryId,
}

impl Known {
    /// Of one that is whole.
    pub(super) fn of(stream: &Stream) -> Self {
        let all = stream.range(EntryId::MIN, EntryId::MAX);
        Self {
            ids: all.map(|entry| entry.id).collect(),
            last: stream.last_id(),
        }
    }

    pub(super) fn none() -> Self {
        Self {
            ids: Vec::new(),
            last: EntryId::MIN,
        }
    }

    /// One of the ids, or behind them.
    pub(super) fn nth(&self, n: u8) -> EntryId {
        let place = usize::from(n) * (self.ids.len() + 1) / 256;
        self.ids.get(place).copied().unwrap_or(self.last)
    }
}

fn refs_of(n: u8) -> Refs {
    match n {
        1 => Refs::Delete,
        2 => Refs::Acked,
        _ => Refs::Keep,
    }
}

fn name(kind: &str, number: u8) -> Vec<u8> {
    format!("{kind}-{number}").into_bytes()
}

fn group_name(number: u8) -> Vec<u8> {
    name("group", number)
}

fn consumer_name(number: u8) -> Vec<u8> {
    name("consumer with quite a long name", number)
}

impl StreamOp {
    /// Calls with what the operation needs of a stream that is not whole.
    pub(super) fn needing<R>(
        &self,
        known: &Known,
        now_ms: u64,
        run: impl FnOnce(&Need<'_>) -> R,
    ) -> R {
        let nth = |n: u8| known.nth(n);
        match self {
            Self::Delete(a, b) | Self::DeleteBy(a, b, _) => {
                run(&Need::Entries(&[nth(*a), nth(*b)]))
            }
            Self::AcknowledgeAndDelete(_, n, _) => run(&Need::Entries(&[nth(*n)])),
            Self::Trim(n, roughly, refs) => {
                run(&Need::Trim(&trim(known, *n, *roughly), refs_of(*refs), 0))
            }
            Self::Deliver(g, c, count, noack) => {
                let (group, consumer) = (group_name(*g), consumer_name(*c));
                let ask = ask(&group, &consumer, usize::from(*count), *noack, now_ms);
                run(&Need::New(&ask))
            }
            Self::Again(g, c) => {
                let (group, consumer) = (group_name(*g), consumer_name(*c));
                let ask = ask(&group, &consumer, 3, false, now_ms);
                run(&Need::Again(&ask, EntryId::MIN))
            }
            Self::Claim(_, _, n, ..) => run(&Need::Entries(&claimed(known, *n))),
            Self::ClaimFrom(g, c, n) => {
                let (group, consumer) = (group_name(*g), consumer_name(*c));
                run(&Need::Claim(&claim(&group, &consumer, now_ms), nth(*n), 3))
            }
            Self::Release(_, n, ..) => run(&Need::Entries(&[nth(*n), nth(n.wrapping_add(1))])),
            _ => run(&Need::Nothing),
        }
    }
}

/// The last id that `SetId` sets: higher, or as low as it may be.
pub(super) fn set_to(stream: &Stream, n: u8) -> EntryId {
    let last = stream.last_id();
    if n.is_multiple_of(2) {
        return stream.top().max(stream.max_deleted());
    }
    EntryId {
        ms: last.ms + u64::from(n),
        ..last
    }
}

fn trim(known: &Known, n: u8, roughly: bool) -> Trim {
    let until = if n.is_multiple_of(2) {
        Until::Len(u64::from(n))
    } else {
        Until::Id(known.nth(n))
    };
    Trim {
        until,
        roughly,
        limit: 0,
    }
}

fn claimed(known: &Known, n: u8) -> [EntryId; 3] {
    [
        known.nth(n),
        known.nth(n.wrapping_add(1)),
        EntryId { ms: 1, seq: 2 },
    ]
}

fn ask<'a>(group: &'a [u8], consumer: &'a [u8], count: usize, noack: bool, now_ms: u64) -> Ask<'a> {
    Ask {
        group,
        consumer,
        count,
        noack,
        now_ms,
    }
}

/// An entry as text.
pub(super) fn text(entry: &Entry<'_>) -> String {
    let pairs: Vec<_> = entry.pairs().collect();
    format!("{} {pairs:?}", entry.id)
}

fn texts(entries: &[Entry<'_>]) -> Vec<String> {
    entries.iter().map(text).collect()
}

/// Does it; what it answers.
pub(super) fn apply(
    stream: &mut Stream,
    op: &StreamOp,
    known: &Known,
    now_ms: u64,
    rows: &mut Rows<'_>,
) -> String {
    let (group, consumer) = (group_name, consumer_name);
    let nth = |n: u8| known.nth(n);
    match op {
        StreamOp::Add(step, pairs) => {
            let last = stream.last_id();
            let id = if step.is_multiple_of(4) {
                EntryId {
                    ms: last.ms + u64::from(*step) + 1,
                    seq: u64::from(*step),
                }
            } else {
                EntryId {
                    seq: last.seq + u64::from(*step),
                    ..last
                }
            };
            let pairs: Vec<_> = pairs
                .iter()
                .map(|(field, value)| ([*field], value))
                .collect();
            let mut bytes = Vec::new();
            body(
                pairs.iter().map(|(field, value)| (&field[..], &value[..])),
                &mut bytes,
            );
            if id > last {
                stream.add(id, &bytes, rows);
            }
            id.to_string()
        }
        StreamOp::Delete(a, b) => {
            let ids = [nth(*a), nth(*b)];
            stream.delete(&ids, rows).to_string()
        }
        StreamOp::DeleteBy(a, b, refs) => {
            let ids = [nth(*a), nth(*b)];
            let refs = refs_of(*refs);
            let deletions = stream.delete_by(&ids, refs, rows);
            for (id, deletion) in ids.iter().zip(&deletions) {
                let is_there = stream.get(*id).is_some();
                assert_eq!(
                    is_there,
                    *deletion == Deletion::Referenced,
                    "{id:?} {refs:?}"
                );
                let mut groups = stream.groups();
                assert!(
                    refs != Refs::Delete
                        || groups.all(|(_, group)| group
                            .pending_from(*id)
                            .all(|(first, ..)| first != *id)),
                    "{id:?}"
                );
            }
            format!("{deletions:?}")
        }
        StreamOp::AcknowledgeAndDelete(g, n, refs) => {
            let id = nth(*n);
            let deletions = stream.acknowledge_and_delete(&group(*g), &[id], refs_of(*refs), rows);
            let group = stream.group(&group(*g));
            let mut pending = group.iter().flat_map(|group| group.pending_from(id));
            assert!(pending.next().is_none_or(|(first, ..)| first != id));
            format!("{deletions:?}")
        }
        StreamOp::Trim(n, roughly, refs) => {
            let trim = trim(known, *n, *roughly);
            let mut plain = stream.clone();
            let removed = stream.trim_by(&trim, refs_of(*refs), rows);
            let (mut fx, place) = (Effects::new(), (ShardId(0), 1));
            let mut unseen = Rows::new(&mut fx, place, Slot::of(b""), Tag::Stream, 1);
            plain.trim(&trim, &mut unseen);
            if refs_of(*refs) == Refs::Acked {
                assert!(stream.len() >= plain.len());
            } else {
                assert_eq!(stream.len(), plain.len(), "{removed} removed");
            }
            removed.to_string()
        }
        StreamOp::SetId(n, all) => {
            let last = set_to(stream, *n);
            let deleted = all.then_some(EntryId { ms: 0, seq: 1 });
            stream.set_id(last, all.then_some(stream.added() + 1), deleted, rows);
            String::new()
        }
        StreamOp::Group(g, n) => {
            let last = nth(*n);
            let made = stream.create_group(&group(*g), last, i64::from(n % 5) - 1, rows);
            made.to_string()
        }
        StreamOp::SetGroup(g, n) => {
            let last = nth(*n);
            stream.set_group(&group(*g), last, -1, rows).to_string()
        }
        StreamOp::Destroy(g) => stream.destroy_group(&group(*g), rows).to_string(),
        StreamOp::Deliver(g, c, count, noack) => {
            let (group, consumer) = (group(*g), consumer(*c));
            let ask = ask(&group, &consumer, usize::from(*count), *noack, now_ms);
            format!("{:?}", stream.deliver(&ask, rows, texts))
        }
        StreamOp::Again(g, c) => {
            let (group, consumer) = (group(*g), consumer(*c));
            let ask = ask(&group, &consumer, 3, false, now_ms);
            let given = stream.deliver_again(&ask, EntryId::MIN, rows, |found| {
                let each = found
                    .iter()
                    .map(|(id, entry)| (*id, entry.as_ref().map(text)));
                each.collect::<Vec<_>>()
            });
            format!("{given:?}")
        }
        StreamOp::Acknowledge(g, a, b) => {
            let ids = [nth(*a), nth(*b)];
            format!("{:?}", stream.acknowledge(&group(*g), &ids, rows))
        }
        StreamOp::Claim(g, c, n, force, just_ids) => {
            let ids = claimed(known, *n);
            let (group, consumer) = (group(*g), consumer(*c));
            let mut claim = claim(&group, &consumer, now_ms);
            (claim.force, claim.just_ids) = (*force, *just_ids);
            claim.last = if n.is_multiple_of(8) {
                nth(*n)
            } else {
                EntryId::MIN
            };
            format!("{:?}", stream.claim(&claim, &ids, rows, texts))
        }
        StreamOp::ClaimFrom(g, c, n) => {
            let (group, consumer) = (group(*g), consumer(*c));
            let claim = claim(&group, &consumer, now_ms);
            let given = stream.claim_from(&claim, nth(*n), 3, rows, |next, found, gone| {
                (next, texts(found), gone.to_vec())
            });
            format!("{given:?}")
        }
        StreamOp::RemoveConsumer(g, c) => {
            let pending = stream.delete_consumer(&group(*g), &consumer(*c), rows);
            format!("{pending:?}")
        }
        StreamOp::Release(g, n, why, force) => {
            let ids = [nth(*n), nth(n.wrapping_add(1))];
            let release = crate::cache::Release {
                why: match why {
                    0 => Released::Silent,
                    1 => Released::Failed,
                    _ => Released::Fatal,
                },
                count: (*why == 3).then_some(7),
                force: *force,
            };
            format!("{:?}", stream.release(&group(*g), &ids, &release, rows))
        }
        StreamOp::AddOnce(p, n) => {
            let (producer, chosen) = (name("producer", *p), name("id", *n));
            if let Some(id) = stream.added_before(&producer, &chosen, now_ms) {
                stream.note_duplicate(rows);
                return id.to_string();
            }
            let last = stream.last_id();
            let id = EntryId {
                ms: last.ms.max(now_ms),
                seq: last.seq + 1,
            };
            stream.add(id, &[0], rows);
            stream.note_added(&producer, &chosen, id, now_ms, rows);
            id.to_string()
        }
        StreamOp::Configure(n) => {
            let settings = IdempotenceSettings {
                duration_s: u64::from(*n),
                ids_max: u64::from(*n),
            };
            stream.configure(settings, rows);
            String::new()
        }
    }
}

fn claim<'a>(group: &'a [u8], consumer: &'a [u8], now_ms: u64) -> Claim<'a> {
    Claim {
        group,
        consumer,
        min_idle_ms: 50,
        now_ms,
        at_ms: now_ms,
        ..Claim::default()
    }
}

/// What a command writes does not depend on how long the stream is.
#[test]
fn a_command_writes_what_it_changes() {
    use super::{Effects, Millis, Name, broker};
    let (_dir, broker) = broker();
    let name = Name::new(b"s");
    let mut fx = Effects::new();
    let mut entry = Vec::new();
    body([(&b"field"[..], &b"value"[..])].into_iter(), &mut entry);
    let ask = Ask {
        group: b"g",
        consumer: b"c",
        count: 1,
        noack: false,
        now_ms: 1 << 40,
    };
    let mut sizes = Vec::new();
    for n in 1..=20_000u64 {
        let mut locked = broker.lock_one(name.slot.shard());
        let mut view = locked.shard(name.slot.shard()).keys(0, Millis(n), &mut fx);
        let id = EntryId { ms: n, seq: 0 };
        view.edit_stream(&name, true, &Need::Nothing, |stream, rows| {
            stream.add(id, &entry, rows);
            stream.create_group(b"g", EntryId::MIN, 0, rows);
        })
        .expect("a stream");
        let added = fx.size();
        let mut view = locked.shard(name.slot.shard()).keys(0, Millis(n), &mut fx);
        let given = view.edit_stream(&name, false, &Need::Nothing, |stream, rows| {
            stream.deliver(&ask, rows, |entries| entries.len())
        });
        assert_eq!(given.expect("a stream").flatten(), Some(1));
        sizes.push((added, fx.size() - added));
        locked.commit(Millis(n), &mut fx);
    }
    // The first command makes the key, too.
    assert!(
        sizes[1..].iter().all(|size| *size == sizes[19_999]),
        "{:?}",
        sizes[1]
    );
    let (added, given) = sizes[19_999];
    assert!(added < 200 && given < 250, "{added} and {given} bytes");
    let mut locked = broker.lock_one(name.slot.shard());
    let mut view = locked.shard(name.slot.shard()).keys(0, Millis(1), &mut fx);
    let stream = view.stream(&name).expect("it is there").expect("a stream");
    let entries: usize = stream.memory() - stream.group(b"g").expect("a group").memory();
    assert!(entries < 20_000 * 16, "{entries} bytes for 20,000 entries");
}
