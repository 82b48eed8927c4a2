//! Deleting entries with regard to what groups have pending (Redis 8.2): `XDELEX`, `XACKDEL`, and the words that `XADD` and `XTRIM` share
//! with them.

use broker::cache::{Deletion, EntryId, Need, Refs};
use protocol_resp::{Args, Encoder, number};

use super::{ONE, id};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::is;
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_keys(
        "xdelex",
        -5,
        WRITE.and(FAST),
        ONE,
        xdelex,
        "8.2.0",
        "Deletes entries with regard to what groups have pending.",
    ),
    on_keys(
        "xackdel",
        -6,
        WRITE.and(FAST),
        ONE,
        xackdel,
        "8.2.0",
        "Says that entries are done with, and deletes them.",
    ),
];

/// What is to become of references, if this is a word for it.
pub(super) fn refs(word: &[u8]) -> Option<Refs> {
    if is(word, "KEEPREF") {
        Some(Refs::Keep)
    } else if is(word, "DELREF") {
        Some(Refs::Delete)
    } else if is(word, "ACKED") {
        Some(Refs::Acked)
    } else {
        None
    }
}

/// `[KEEPREF|DELREF|ACKED] IDS n id …` from `at` on: the two may come in either order.
fn asked(args: &Args<'_>, mut at: usize) -> Result<(Refs, Vec<EntryId>), Fail> {
    let (mut how, mut ids) = (None, None);
    while let Some(word) = args.get(at) {
        if let Some(refs) = refs(word) {
            if how.replace(refs).is_some() {
                return Err(Fail::Syntax);
            }
            at += 1;
            continue;
        }
        if !is(word, "IDS") || ids.is_some() {
            return Err(Fail::Syntax);
        }
        let count = args.get(at + 1).and_then(number::parse_i64);
        let count = count
            .and_then(|count| usize::try_from(count).ok())
            .filter(|count| *count > 0)
            .ok_or(Fail::Text("ERR Number of IDs must be a positive integer"))?;
        let from = at + 2;
        if count > args.len().saturating_sub(from) {
            return Err(Fail::Text(
                "ERR The `numids` parameter must match the number of arguments",
            ));
        }
        let given = args.from(from);
        let read = given.iter().take(count).map(|text| id(text, 0));
        ids = Some(read.collect::<Result<Vec<_>, _>>()?);
        at = from + count;
    }
    Ok((how.unwrap_or_default(), ids.ok_or(Fail::Syntax)?))
}

fn write(out: &mut Encoder<'_>, deletions: &[Deletion]) {
    out.array(deletions.len());
    for deletion in deletions {
        out.integer(match deletion {
            Deletion::Missing => -1,
            Deletion::Deleted => 1,
            Deletion::Referenced => 2,
        });
    }
}

/// `XDELEX key [KEEPREF|DELREF|ACKED] IDS n id …`.
fn xdelex(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (refs, ids) = asked(args, 2)?;
    let (name, mut view, out) = cx.on(args.at(1));
    let deletions = match view.stream(&name)? {
        None => None,
        Some(_) => view.edit_stream(&name, false, &Need::Entries(&ids), |stream, rows| {
            stream.delete_by(&ids, refs, rows)
        })?,
    };
    write(
        out,
        &deletions.unwrap_or(vec![Deletion::Missing; ids.len()]),
    );
    Ok(())
}

/// `XACKDEL key group [KEEPREF|DELREF|ACKED] IDS n id …`.
fn xackdel(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (refs, ids) = asked(args, 3)?;
    let group = args.at(2);
    let (name, mut view, out) = cx.on(args.at(1));
    let known = view.stream(&name)?.and_then(|stream| stream.group(group));
    let deletions = match known {
        None => None,
        Some(_) => view.edit_stream(&name, false, &Need::Entries(&ids), |stream, rows| {
            stream.acknowledge_and_delete(group, &ids, refs, rows)
        })?,
    };
    write(
        out,
        &deletions.unwrap_or(vec![Deletion::Missing; ids.len()]),
    );
    Ok(())
}
