//! What commands need and memory does not have is read before they run, without the locks: see [`broker::cache::Cold`].

use broker::cache::{self, Cold, Name, TOUCH_MAX};
use broker::{Effects, Locked, Millis, ShardSet};
use protocol_resp::{Args, first_key};
use smallvec::SmallVec;

use super::spec::Spec;
use crate::node::Node;

/// What the commands name and memory does not have; `None`, after a few loads, when all of it is there.
#[inline]
pub(super) fn note<'c, 'a: 'c>(
    locked: &mut Locked<'_>,
    db: usize,
    now: Millis,
    fx: &mut Effects,
    commands: impl Iterator<Item = (&'c Spec, &'c Args<'a>)>,
) -> Option<Cold> {
    let set = locked.set();
    let maybe = (set.iter().filter(|id| *id != broker::ShardId::CATALOG))
        .any(|id| locked.shard(id).cache.may_be_cold(db));
    if !maybe {
        return None;
    }
    let mut cold = Cold::default();
    for (spec, args) in commands {
        spec.each_key(args, &mut |place| {
            let name = Name::new(args.at(place));
            let shard = name.slot.shard();
            // A handler refuses what does not fit its pattern; its keys are not locked.
            if set.contains(shard) {
                let mut keys = locked.shard(shard).keys(db, now, fx);
                keys.note_cold(&name, spec.element_args(args), &mut cold);
            }
        });
    }
    (!cold.is_empty()).then_some(cold)
}

/// Reads without locks, then locks again and gives what was read to memory.
#[cold]
pub(super) fn read<'n>(
    node: &'n Node,
    set: ShardSet,
    mut cold: Cold,
    now: Millis,
    fx: &mut Effects,
) -> Locked<'n> {
    let done = cold.read(&node.broker.engine);
    let mut locked = node.broker.lock(set);
    match done {
        Ok(()) => cold.install(&mut locked, now, fx),
        // The command will meet it again, and its client is told.
        Err(error) => tracing::debug!(%error, "cannot read ahead"),
    }
    locked
}

/// Brings the keys of the commands at the front of a pipeline near the processor. Returns how many bytes of `input` the
/// commands take that it looked at.
pub(super) fn touch(node: &Node, db: usize, input: &[u8]) -> usize {
    let mut keys = SmallVec::<[&[u8]; TOUCH_MAX]>::new();
    let mut at = 0;
    while keys.len() < TOUCH_MAX {
        let rest = input.get(at..).unwrap_or_default();
        let Some((key, end)) = first_key(rest) else {
            break;
        };
        keys.push(rest.get(key).unwrap_or_default());
        at += end;
    }
    // A command alone comes to its key at once.
    if keys.len() > 1 {
        let names: SmallVec<[Name<'_>; TOUCH_MAX]> = keys.into_iter().map(Name::new).collect();
        cache::touch(&node.broker, db, &names);
    }
    at
}
