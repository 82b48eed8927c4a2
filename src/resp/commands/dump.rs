//! `DUMP` and `RESTORE`: a value as bytes that other servers of the family understand.

use std::collections::HashMap;

use broker::cache::{
    Consumer, EntryId, Error, Expire, Group, Hash, Held, IdempotenceSettings, NO_ELEMENTS, Name,
    Restored, RestoredConsumer, RestoredGroup, RestoredIdempotence, RestoredPending, Set, Span,
    Stream, Value, View, body,
};
use protocol_resp::Args;
use protocol_resp::rdb::{self, Object, RdbError};

use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::{int, is};
use crate::resp::spec::*;

const ONE: Keys = Keys::Range(1, 1, 1);

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "dump",
        2,
        READ,
        ONE,
        dump,
        "2.6.0",
        "Returns a value as bytes.",
    ),
    on_keys(
        "restore",
        -4,
        WRITE.and(DENYOOM),
        ONE,
        restore,
        "2.6.0",
        "Makes a key hold a value given as bytes.",
    ),
];

/// Bytes of elements that are given at once, as for a copy.
const DUMP_MAX: usize = 1 << 30;

/// Bytes that were taken for a dump; once they were too many, nothing more is.
#[derive(Debug, Default)]
struct Load(usize);

impl Load {
    fn takes(&mut self, bytes: usize) -> bool {
        self.0 = self.0.saturating_add(bytes);
        self.0 <= DUMP_MAX
    }
}

fn dump(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    match object(&mut view, &name)? {
        Some(object) => out.bulk(&rdb::dump(&object)),
        None => out.null(),
    }
    Ok(())
}

fn object(view: &mut View<'_>, name: &Name<'_>) -> Result<Option<Object>, Fail> {
    let Some(held) = view.value(name)? else {
        return Ok(None);
    };
    if let Some(text) = held.string() {
        return Ok(Some(Object::String(text.to_vec())));
    }
    let Held::Object(value) = held else {
        return Ok(None);
    };
    let mut load = Load::default();
    let object = match value {
        Value::List(_) => {
            let mut items = Vec::new();
            if let Some(list) = view.listed(name)? {
                list.each_while(0..list.len(), false, |item| {
                    let takes = load.takes(item.len());
                    if takes {
                        items.push(item.to_vec());
                    }
                    takes
                })?;
            }
            Object::List(items)
        }
        Value::Zset(_) => {
            let mut members = Vec::new();
            view.ranked(name, NO_ELEMENTS, |zset| {
                let ranks = 0..zset.len();
                zset.each_while(ranks, false, |member, score| {
                    let takes = load.takes(member.len());
                    if takes {
                        members.push((member.to_vec(), score));
                    }
                    takes
                })?;
                Ok::<_, Fail>(())
            })?;
            Object::Zset(members)
        }
        Value::Stream(_) => {
            let mut entries = Vec::new();
            view.between(name, Span::ALL, |all| {
                all.each(|entry| {
                    let bytes = |(field, value): (&[u8], &[u8])| field.len() + value.len();
                    if load.takes(entry.pairs().map(bytes).sum()) {
                        let pairs = entry.pairs();
                        let pairs = pairs.map(|(field, value)| (field.to_vec(), value.to_vec()));
                        entries.push((id_out(entry.id), pairs.collect()));
                    }
                })
            })?;
            let Some(stream) = view.stream(name)? else {
                return Ok(None);
            };
            Object::Stream(stream_parts(stream, entries))
        }
        Value::Set(_) => {
            let mut members = Vec::new();
            if let Some(elements) = view.elements::<Set>(name)? {
                elements.each(&mut |member, _| {
                    let member = member.to_vec();
                    if load.takes(member.len()) {
                        members.push(member);
                    }
                })?;
            }
            Object::Set(members)
        }
        Value::Hash(hash) => {
            let deadlines: HashMap<Vec<u8>, u64> = hash
                .field_deadlines()
                .map(|(field, at_ms)| (field.to_vec(), at_ms))
                .collect();
            let mut pairs = Vec::new();
            if let Some(elements) = view.elements::<Hash>(name)? {
                elements.each(&mut |field, value| {
                    let field = field.to_vec();
                    if load.takes(field.len() + value.len()) {
                        pairs.push((field, value.to_vec()));
                    }
                })?;
            }
            if deadlines.is_empty() {
                Object::Hash(pairs)
            } else {
                let lasting = pairs.into_iter().map(|(field, value)| {
                    let at_ms = deadlines.get(&field).copied();
                    (field, value, at_ms)
                });
                Object::LastingHash(lasting.collect())
            }
        }
        Value::Int(_) | Value::Buffer(_) => return Ok(None),
    };
    if load.0 <= DUMP_MAX {
        Ok(Some(object))
    } else {
        Err(Error::TooLarge.into())
    }
}

fn id_out(id: EntryId) -> rdb::Id {
    (id.ms, id.seq)
}

fn id_in((ms, seq): rdb::Id) -> EntryId {
    EntryId { ms, seq }
}

fn stream_parts(stream: &Stream, entries: Vec<rdb::Entry>) -> rdb::Stream {
    rdb::Stream {
        entries,
        last: id_out(stream.last_id()),
        max_deleted: id_out(stream.max_deleted()),
        added: stream.added(),
        groups: stream
            .groups()
            .map(|(name, group)| group_parts(name, group))
            .collect(),
        idempotence: idempotence_parts(stream),
    }
}

/// What is known of producers, those whose time has come as well: whoever restores it looks at the time again.
fn idempotence_parts(stream: &Stream) -> Option<rdb::Idempotence> {
    let facts = stream.idempotence(0)?;
    let mut producers: Vec<rdb::Producer> = Vec::new();
    let mut places: HashMap<Vec<u8>, usize> = HashMap::new();
    stream.each_noted(|producer, chosen, id| {
        let place = *places.entry(producer.to_vec()).or_insert_with(|| {
            producers.push((producer.to_vec(), Vec::new()));
            producers.len() - 1
        });
        if let Some((_, ids)) = producers.get_mut(place) {
            ids.push((chosen.to_vec(), id_out(id)));
        }
    });
    Some(rdb::Idempotence {
        duration_s: facts.settings.duration_s,
        ids_max: facts.settings.ids_max,
        producers,
        added: facts.added,
        duplicates: facts.duplicates,
    })
}

fn group_parts(name: &[u8], group: &Group) -> rdb::Group {
    let consumers: Vec<&Consumer> = group.consumers().collect();
    let places: HashMap<&[u8], usize> = (consumers.iter().enumerate())
        .map(|(place, consumer)| (&*consumer.name, place))
        .collect();
    let pending = group.pending_from(EntryId::MIN);
    rdb::Group {
        name: name.to_vec(),
        last: id_out(group.last),
        read: Some(group.read),
        pending: pending
            .filter_map(|(id, pending, consumer)| {
                Some(rdb::Pending {
                    id: id_out(id),
                    at_ms: pending.at_ms,
                    count: pending.count,
                    consumer: match consumer {
                        Some(consumer) => Some(*places.get(&*consumer.name)?),
                        None => None,
                    },
                })
            })
            .collect(),
        consumers: consumers
            .iter()
            .map(|consumer| rdb::Consumer {
                name: consumer.name.to_vec(),
                seen_ms: consumer.seen_ms,
                active_ms: consumer.active_ms,
            })
            .collect(),
    }
}

#[derive(Debug, Default)]
struct Options {
    replace: bool,
    absolute: bool,
    /// Seconds since the last use.
    idle: Option<u64>,
    /// How often it is used, as the counter of LFU says.
    frequency: Option<u8>,
}

fn options(args: &Args<'_>) -> Result<Options, Fail> {
    let mut options = Options::default();
    let mut at = 4;
    while let Some(word) = args.get(at) {
        let left = args.len() - at - 1;
        if is(word, "REPLACE") {
            options.replace = true;
        } else if is(word, "ABSTTL") {
            options.absolute = true;
        } else if is(word, "IDLETIME") && left >= 1 && options.frequency.is_none() {
            let idle = u64::try_from(int(args.at(at + 1))?);
            let idle = idle.map_err(|_| Fail::Text("ERR Invalid IDLETIME value, must be >= 0"))?;
            options.idle = Some(idle);
            at += 1;
        } else if is(word, "FREQ") && left >= 1 && options.idle.is_none() {
            let counter = u8::try_from(int(args.at(at + 1))?);
            let counter = counter
                .map_err(|_| Fail::Text("ERR Invalid FREQ value, must be >= 0 and <= 255"))?;
            options.frequency = Some(counter);
            at += 1;
        } else {
            return Err(Fail::Syntax);
        }
        at += 1;
    }
    Ok(options)
}

fn restore(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let options = options(args)?;
    let (name, mut view, out) = cx.on(args.at(1));
    if !options.replace && view.exists(&name)? {
        return Err(Fail::Text("BUSYKEY Target key name already exists."));
    }
    let ttl = int(args.at(2))?;
    let ttl = u64::try_from(ttl).map_err(|_| Fail::Text("ERR Invalid TTL value, must be >= 0"))?;
    let object = rdb::restore(args.at(3)).map_err(|error| match error {
        RdbError::Footer => Fail::Text("ERR DUMP payload version or checksum are wrong"),
        RdbError::Data => BAD_DATA,
    })?;
    let now = view.now_ms();
    let expire = match ttl {
        0 => Expire::Never,
        at if options.absolute => Expire::At(at),
        ttl => Expire::At(now.saturating_add(ttl)),
    };
    if matches!(expire, Expire::At(at) if at <= now) {
        // Its time has passed: all that is left to do is to delete the old one.
        view.delete(&name)?;
        out.ok();
        return Ok(());
    }
    let value = value(object).ok_or(BAD_DATA)?;
    view.put(&name, value, expire)?;
    if let Some(seconds) = options.idle {
        view.set_idle_seconds(&name, seconds)?;
    }
    if let Some(counter) = options.frequency {
        view.set_uses(&name, counter)?;
    }
    out.ok();
    Ok(())
}

const BAD_DATA: Fail = Fail::Text("ERR Bad data format");

fn value(object: Object) -> Option<Value> {
    Some(match object {
        Object::String(text) => Value::string(&text),
        Object::List(items) => View::make_list(items.iter().map(Vec::as_slice)),
        Object::Set(members) => View::make_set(members.iter().map(Vec::as_slice)),
        Object::Hash(pairs) => View::make_hash(
            pairs
                .iter()
                .map(|(field, value)| (&**field, &**value, None)),
        ),
        Object::LastingHash(fields) => View::make_hash(
            fields
                .iter()
                .map(|(field, value, at_ms)| (&**field, &**value, at_ms.map(|at| at.max(1)))),
        ),
        Object::Zset(pairs) => {
            // -0 is kept as 0, as everywhere.
            View::make_zset(pairs.iter().map(|(member, score)| (&**member, score + 0.0)))
        }
        Object::Stream(stream) => View::make_stream(stream_of(stream))?,
    })
}

fn stream_of(stream: rdb::Stream) -> Restored {
    let entries = stream.entries.iter().map(|(id, pairs)| {
        let mut bytes = Vec::new();
        body(pairs.iter().map(|(f, v)| (&**f, &**v)), &mut bytes);
        (id_in(*id), bytes)
    });
    Restored {
        entries: entries.collect(),
        last: id_in(stream.last),
        max_deleted: id_in(stream.max_deleted),
        added: stream.added,
        groups: stream.groups.into_iter().map(group_of).collect(),
        idempotence: stream.idempotence.map(idempotence_of),
    }
}

fn idempotence_of(known: rdb::Idempotence) -> RestoredIdempotence {
    let producers = known.producers.into_iter().map(|(producer, ids)| {
        let ids = ids.into_iter().map(|(chosen, id)| (chosen, id_in(id)));
        (producer, ids.collect())
    });
    RestoredIdempotence {
        settings: IdempotenceSettings {
            duration_s: known.duration_s,
            ids_max: known.ids_max,
        },
        added: known.added,
        duplicates: known.duplicates,
        producers: producers.collect(),
    }
}

fn group_of(group: rdb::Group) -> RestoredGroup {
    let consumer = |consumer: rdb::Consumer| RestoredConsumer {
        name: consumer.name,
        seen_ms: consumer.seen_ms,
        active_ms: consumer.active_ms,
    };
    let pending = |pending: rdb::Pending| RestoredPending {
        id: id_in(pending.id),
        at_ms: pending.at_ms,
        count: pending.count,
        consumer: pending.consumer,
    };
    RestoredGroup {
        name: group.name,
        last: id_in(group.last),
        read: group.read,
        consumers: group.consumers.into_iter().map(consumer).collect(),
        pending: group.pending.into_iter().map(pending).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dump_has_a_limit() {
        let mut load = Load::default();
        assert!(load.takes(DUMP_MAX) && !load.takes(1) && !load.takes(0));
        assert!(!load.takes(usize::MAX));
    }
}
