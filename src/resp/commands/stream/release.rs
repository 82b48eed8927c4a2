//! `XNACK` (Redis 8.8): a consumer gives entries back, so that others need not wait until they have been idle for long.

use broker::cache::{Need, Release, Released};
use protocol_resp::{Args, number};

use super::{ONE, id, no_key_or_group};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{int, is};
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[on_keys(
    "xnack",
    -7,
    WRITE.and(FAST),
    ONE,
    xnack,
    "8.8.0",
    "Gives pending entries back to their group.",
)];

/// `XNACK key group SILENT|FAIL|FATAL IDS n id … [RETRYCOUNT count] [FORCE]`.
fn xnack(cx: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let (name, mut view, out) = cx.on(args.at(1));
    let group = args.at(2);
    let stream = view.stream(&name)?;
    if stream.and_then(|stream| stream.group(group)).is_none() {
        return Err(no_key_or_group(args.at(1), group));
    }
    let why = match args.at(3) {
        word if is(word, "SILENT") => Released::Silent,
        word if is(word, "FAIL") => Released::Failed,
        word if is(word, "FATAL") => Released::Fatal,
        _ => return Err(Fail::Text("ERR mode must be SILENT, FAIL, or FATAL")),
    };
    let mut release = Release {
        why,
        count: None,
        force: false,
    };
    let mut given = None;
    let mut at = 4;
    while let Some(word) = args.get(at) {
        match args.get(at + 1) {
            Some(count) if is(word, "IDS") => {
                let count = number::parse_i64(count)
                    .and_then(|count| u32::try_from(count).ok())
                    .filter(|count| (1..=i32::MAX.cast_unsigned()).contains(count))
                    .ok_or(Fail::Text("ERR numids must be a positive integer"))?;
                let (from, count) = (at + 2, count as usize);
                if count > args.len().saturating_sub(from) {
                    return Err(Fail::Text("ERR number of IDs doesn't match numids"));
                }
                given = Some((from, count));
                at = from + count;
                continue;
            }
            Some(count) if is(word, "RETRYCOUNT") => {
                let count = u64::try_from(int(count)?);
                release.count = Some(
                    count.map_err(|_| Fail::Text("ERR Invalid RETRYCOUNT value, must be >= 0"))?,
                );
                at += 1;
            }
            _ if is(word, "FORCE") => release.force = true,
            _ => {
                return Err(Fail::Owned(format!(
                    "ERR Unrecognized XNACK option '{}'",
                    lossy(word, 128)
                )));
            }
        }
        at += 1;
    }
    let (from, count) = given.ok_or(Fail::Text("ERR syntax error, expected IDS keyword"))?;
    let ids = (args.iter().skip(from).take(count)).map(|text| id(text, 0));
    let ids = ids.collect::<Result<Vec<_>, _>>()?;
    let released = view.edit_stream(&name, false, &Need::Entries(&ids), |stream, rows| {
        stream.release(group, &ids, &release, rows)
    })?;
    out.count(released.flatten().unwrap_or(0));
    Ok(())
}
