//! `CONFIG`.

use broker::ShardSet;
use broker::cache::matches;
use protocol_resp::{Args, Encoder};

use super::help;
use super::params::{Change, change_of};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::hub::Hub;
use crate::resp::session::Session;

pub(super) fn setting(hub: &Hub, name: &str) -> String {
    let settings = hub.settings.read();
    settings
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, value)| value.clone())
        .unwrap_or_default()
}

pub(super) fn config_get(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let settings = session.hub.settings.read();
    // A name is shown as it was asked for, what a pattern finds as it is.
    let mut found: Vec<(&[u8], &str, &str)> = Vec::new();
    for asked in args.iter().skip(2) {
        let pattern = asked.to_ascii_lowercase();
        let is_pattern = asked.iter().any(|byte| b"*?[\\".contains(byte));
        for (name, value) in settings.iter() {
            let new = || found.iter().all(|(_, known, _)| known != name);
            if matches(&pattern, name.as_bytes()) && new() {
                let shown = if is_pattern { name.as_bytes() } else { asked };
                found.push((shown, name, value));
            }
        }
    }
    let mut out = Encoder::new(out, session.version);
    out.map(found.len());
    for (shown, _, value) in found {
        out.bulk(shown);
        out.bulk(value.as_bytes());
    }
    Ok(())
}

/// `100mb` in bytes.
pub(super) fn memory(text: &[u8]) -> Option<u64> {
    let text = std::str::from_utf8(text).ok()?.to_ascii_lowercase();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    let (digits, unit) = text.split_at(end);
    let factor = match unit {
        "" | "b" => 1,
        "k" => 1000,
        "kb" => 1 << 10,
        "m" => 1_000_000,
        "mb" => 1 << 20,
        "g" => 1_000_000_000,
        "gb" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

/// A change that was checked: the parameter, its new value as it is shown and as it was given, and what applies it.
type Checked<'a> = (
    &'static str,
    String,
    &'a [u8],
    fn(&Session, &str, &[u8]) -> Done,
);

/// Checks one pair of `CONFIG SET`; nothing to do: what is fixed may be set to what it is.
fn check<'a>(session: &Session, name: &[u8], value: &'a [u8]) -> Result<Option<Checked<'a>>, Fail> {
    let settings = session.hub.settings.read();
    let found = settings
        .iter()
        .find(|(known, _)| name.eq_ignore_ascii_case(known.as_bytes()));
    let Some(&(known, ref old)) = found else {
        return Err(Fail::Owned(format!(
            "ERR Unknown option or number of arguments for CONFIG SET - '{}'",
            lossy(name, 128)
        )));
    };
    match change_of(known) {
        Change::To(check, apply) => match check(value) {
            Ok(new) => Ok(Some((known, new, value, apply))),
            Err(why) => Err(failed(name, why)),
        },
        Change::Immutable => Err(failed(name, "can't set immutable config")),
        Change::Fixed if old.as_bytes().eq_ignore_ascii_case(value) => Ok(None),
        Change::Fixed => Err(failed(name, "this setting is fixed here")),
    }
}

fn failed(name: &[u8], why: &str) -> Fail {
    Fail::Owned(format!(
        "ERR CONFIG SET failed (possibly related to argument '{}') - {why}",
        lossy(name, 128)
    ))
}

pub(super) fn config_set(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if !args.len().is_multiple_of(2) {
        return Err(crate::resp::fail::wrong_arity("config|set"));
    }
    let (names, values) = (args.from(2), args.from(3));
    let mut changes: Vec<Checked<'_>> = Vec::new();
    // All or nothing.
    for (name, value) in names.iter().step_by(2).zip(values.iter().step_by(2)) {
        let Some(change) = check(session, name, value)? else {
            continue;
        };
        if changes.iter().any(|(known, ..)| *known == change.0) {
            return Err(failed(name, "duplicate parameter"));
        }
        changes.push(change);
    }
    for (name, value, given, apply) in changes {
        apply(session, &value, given)?;
        let mut settings = session.hub.settings.write();
        if let Some((_, old)) = settings.iter_mut().find(|(known, _)| *known == name) {
            *old = value;
        }
    }
    Encoder::new(out, session.version).ok();
    Ok(())
}

pub(super) fn config_resetstat(cx: &mut Exec<'_, '_>, _: &Args<'_>) -> Done {
    cx.hub.stats.reset();
    cx.hub.tally.reset();
    for shard in ShardSet::DATA.iter() {
        let mut view = cx.locked.shard(shard).keys(0, cx.ctx.now, cx.fx);
        view.reset_counts();
    }
    cx.out.ok();
    Ok(())
}

pub(super) fn config_rewrite(_: &mut Session, _: &Args<'_>, _: &mut Vec<u8>) -> Done {
    Err(Fail::Text(
        "ERR The server is running without a config file",
    ))
}

pub(super) fn config_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    help(
        &mut Encoder::new(out, session.version),
        "CONFIG",
        &[
            (
                "GET <pattern>",
                "Return parameters matching the glob-like <pattern> and their values.",
            ),
            (
                "SET <directive> <value>",
                "Set the configuration <directive> to <value>.",
            ),
            (
                "RESETSTAT",
                "Reset statistics reported by the INFO command.",
            ),
            ("REWRITE", "Rewrite the configuration file."),
        ],
    );
    Ok(())
}
