//! Keyspace notifications of the commands that run here: derived behind each command, told behind the commit.

use broker::Locked;
use broker::cache::{self, Name};
use protocol_resp::Args;

use super::Session;
use crate::resp::notify::{self, Before};
use crate::resp::parse::is;
use crate::resp::spec::Spec;

impl Session {
    /// Looks at what a command will not tell afterwards, while events are wanted.
    #[cold]
    pub(super) fn before_events(
        &mut self,
        spec: &Spec,
        args: &Args<'_>,
        locked: &mut Locked<'_>,
    ) -> Before {
        let mut before = Before {
            now_ms: self.ctx.now.0,
            ..Before::default()
        };
        match spec.name {
            "ltrim" | "xsetid" => before.exists = self.exists(args.at(1), locked),
            "xgroup|setid" => before.exists = self.exists(args.at(2), locked),
            "xadd" => before.entries = Some(self.entries(args.at(1), locked)),
            "xgroup|delconsumer" => {
                if self.has_consumer(args.at(2), args.at(3), args.at(4), locked) {
                    before.consumers.push(args.at(2).to_vec());
                }
            }
            _ => {
                for (key, group, consumer) in consumers(spec, args) {
                    if !self.has_consumer(key, group, consumer, locked) {
                        before.consumers.push(key.to_vec());
                    }
                }
            }
        }
        before
    }

    /// Notes what a command did. `reply`: its answer.
    #[cold]
    pub(super) fn note_events(
        &mut self,
        spec: &Spec,
        args: &Args<'_>,
        mut before: Before,
        locked: &mut Locked<'_>,
        reply: &[u8],
    ) {
        let notes = cache::heard(locked);
        if let Some(entries) = before.entries {
            let added = usize::from(!notes.is_empty());
            before.trimmed = self.entries(args.at(1), locked) < entries + added;
        }
        if spec.name != "xgroup|delconsumer" && !before.consumers.is_empty() {
            let named: Vec<_> = consumers(spec, args).collect();
            before.consumers.retain(|key| {
                let found = named.iter().find(|(of, ..)| *of == key.as_slice());
                found.is_some_and(|(key, group, consumer)| {
                    self.has_consumer(key, group, consumer, locked)
                })
            });
        }
        let db = self.db;
        let events = notify::events(spec, args, db, &before, &notes, reply);
        self.told.extend(events);
        if notify::tells_misses(&self.hub, spec) {
            for place in spec.key_places(args) {
                let key = args.at(place);
                if !self.exists(key, locked) {
                    self.told.push(notify::missed(db, key));
                }
            }
        }
    }

    /// Tells what was noted, behind the commit and under its locks.
    #[cold]
    pub(super) fn tell_events(&mut self, locked: &mut Locked<'_>) {
        let rest = cache::heard(locked);
        self.told.extend(notify::of_notes(&rest));
        if !self.told.is_empty() {
            self.hub.notify(self.told.drain(..));
        }
    }

    fn exists(&mut self, key: &[u8], locked: &mut Locked<'_>) -> bool {
        let name = Name::new(key);
        let shard = name.slot.shard();
        let mut view = locked
            .shard(shard)
            .keys(self.db, self.ctx.now, &mut self.fx);
        view.exists(&name).unwrap_or(false)
    }

    fn entries(&mut self, key: &[u8], locked: &mut Locked<'_>) -> usize {
        let name = Name::new(key);
        let shard = name.slot.shard();
        let mut view = locked
            .shard(shard)
            .keys(self.db, self.ctx.now, &mut self.fx);
        let stream = view.stream(&name);
        stream.ok().flatten().map_or(0, |stream| stream.len())
    }

    fn has_consumer(
        &mut self,
        key: &[u8],
        group: &[u8],
        consumer: &[u8],
        locked: &mut Locked<'_>,
    ) -> bool {
        let name = Name::new(key);
        let shard = name.slot.shard();
        let mut view = locked
            .shard(shard)
            .keys(self.db, self.ctx.now, &mut self.fx);
        let stream = view.stream(&name).ok().flatten();
        let group = stream.and_then(|stream| stream.group(group));
        group.is_some_and(|group| group.consumer(consumer).is_some())
    }
}

/// Key, group and consumer of commands that make the consumer if it is not there.
fn consumers<'a>(
    spec: &Spec,
    args: &Args<'a>,
) -> impl Iterator<Item = (&'a [u8], &'a [u8], &'a [u8])> + use<'a> {
    let args = *args;
    let (group, consumer) = match spec.name {
        "xclaim" | "xautoclaim" => (2, 3),
        "xreadgroup" => {
            let place = (1..args.len()).find(|place| is(args.at(*place), "GROUP"));
            place.map_or((0, 0), |place| (place + 1, place + 2))
        }
        _ => (0, 0),
    };
    let places = if group == 0 {
        Vec::new()
    } else {
        spec.key_places(&args)
    };
    let mut places = places.into_iter();
    std::iter::from_fn(move || {
        let key = args.at(places.next()?);
        Some((key, args.at(group), args.at(consumer)))
    })
}
