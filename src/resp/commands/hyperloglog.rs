//! HyperLogLog: how many distinct elements there were, about, in at most 12 KiB. It is a string, whose bytes are Redis'.

mod sketch;

use broker::cache::{Expire, Member, Name, View};
use protocol_resp::Args;

use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::permission::{BOTH, Rights};
use crate::resp::spec::*;
use broker::access::Verbs;
use sketch::Corrupt;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "pfadd",
        -2,
        WRITE.and(DENYOOM).and(FAST),
        Keys::Range(1, 1, 1),
        pfadd,
        "2.8.9",
        "Adds elements to a HyperLogLog.",
    ),
    on_keys(
        "pfcount",
        -2,
        READ,
        Keys::Range(1, -1, 1),
        pfcount,
        "2.8.9",
        "Estimates how many distinct elements HyperLogLogs saw.",
    ),
    on_keys(
        "pfmerge",
        -2,
        WRITE.and(DENYOOM),
        Keys::Range(1, -1, 1),
        pfmerge,
        "2.8.9",
        "Merges HyperLogLogs into one.",
    )
    .needing(Rights::Split(BOTH, Verbs::READ)),
];

const NOT_ONE: Fail = Fail::Text("WRONGTYPE Key is not a valid HyperLogLog string value.");

impl From<Corrupt> for Fail {
    fn from(Corrupt: Corrupt) -> Self {
        Self::Text("INVALIDOBJ Corrupted HLL object detected")
    }
}

/// The sketch at a key, as it is.
fn sketch(view: &mut View<'_>, name: &Name<'_>) -> Result<Option<Vec<u8>>, Fail> {
    let Some(value) = view.string(name)? else {
        return Ok(None);
    };
    let bytes = Member::to_vec(value);
    if sketch::is_one(&bytes) {
        Ok(Some(bytes))
    } else {
        Err(NOT_ONE)
    }
}

fn pfadd(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let dense = view
        .string(&name)?
        .is_some_and(|value| value.with(|bytes| sketch::is_one(bytes) && sketch::is_dense(bytes)));
    let changed = if dense {
        // Only the pages that change are written.
        let mut changed = false;
        view.edit_string(&name, |bytes| {
            let mut all = 0..0;
            for element in args.iter().skip(2) {
                let range = sketch::add_dense(bytes, element);
                all = match (all.is_empty(), range.is_empty()) {
                    (_, true) => all,
                    (true, _) => range,
                    _ => all.start.min(range.start)..all.end.max(range.end),
                };
            }
            changed = !all.is_empty();
            ((), all)
        })?;
        if changed {
            view.edit_string(&name, |bytes| ((), sketch::make_stale(bytes)))?;
        }
        changed
    } else {
        let old = sketch(&mut view, &name)?;
        let mut changed = old.is_none();
        let mut bytes = old.unwrap_or_else(sketch::empty);
        for element in args.iter().skip(2) {
            changed |= sketch::add(&mut bytes, element)?;
        }
        if changed {
            sketch::make_stale(&mut bytes);
            view.set_string(&name, &bytes, Expire::Keep)?;
        }
        changed
    };
    out.integer(i64::from(changed));
    Ok(())
}

fn pfcount(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    if args.len() > 2 {
        let mut all = sketch::no_registers();
        for key in args.iter().skip(1) {
            let (name, mut view, _) = cx.on(key);
            if let Some(bytes) = sketch(&mut view, &name)? {
                sketch::merge(&mut all, &bytes)?;
            }
        }
        cx.out
            .integer(i64::try_from(sketch::estimate(&all)).unwrap_or(i64::MAX));
        return Ok(());
    }
    let (name, mut view, out) = cx.on(args.at(1));
    let Some(mut bytes) = sketch(&mut view, &name)? else {
        out.integer(0);
        return Ok(());
    };
    let count = match sketch::cached(&bytes) {
        Some(count) => count,
        None => {
            // The estimate is kept in the string, so it is a change like any other.
            let count = sketch::count(&bytes)?;
            if sketch::is_dense(&bytes) {
                view.edit_string(&name, |bytes| ((), sketch::cache(bytes, count)))?;
            } else {
                sketch::cache(&mut bytes, count);
                view.set_string(&name, &bytes, Expire::Keep)?;
            }
            count
        }
    };
    out.integer(i64::try_from(count).unwrap_or(i64::MAX));
    Ok(())
}

fn pfmerge(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let mut all = sketch::no_registers();
    let (mut dense, mut target) = (false, None);
    for (place, key) in args.iter().enumerate().skip(1) {
        let (name, mut view, _) = cx.on(key);
        let Some(bytes) = sketch(&mut view, &name)? else {
            continue;
        };
        dense |= sketch::is_dense(&bytes);
        sketch::merge(&mut all, &bytes)?;
        if place == 1 {
            target = Some(bytes);
        }
    }
    let mut target = target.unwrap_or_else(sketch::empty);
    if dense {
        sketch::make_dense(&mut target)?;
    }
    for (register, value) in all.iter().enumerate().filter(|(_, value)| **value > 0) {
        sketch::raise(&mut target, register, *value)?;
    }
    sketch::make_stale(&mut target);
    let (name, mut view, out) = cx.on(args.at(1));
    view.set_string(&name, &target, Expire::Keep)?;
    out.ok();
    Ok(())
}
