//! `CONFIG`.

use std::rc::Rc;

use broker::access::DEFAULT;
use broker::cache::{LimitSettings, matches};
use broker::{Locked, ShardSet};
use protocol_resp::{Args, Encoder};

use super::help;
use super::params::{Change, change_of, letters};
use crate::node::Node;
use crate::resp::acl::edit;
use crate::resp::commands;
use crate::resp::commands::acl::{by, durable};
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::hub::Hub;
use crate::resp::permission::{self, Asking};
use crate::resp::session::runner::busy;
use crate::resp::session::{NESTED, Session};

pub(in crate::resp::commands) fn setting(hub: &Hub, name: &str) -> String {
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

/// A change that was checked: the parameter, its new value as it is shown and as it was given, and how it is made.
struct Checked<'a> {
    name: &'static str,
    value: String,
    given: &'a [u8],
    change: Change,
}

/// Checks one pair of `CONFIG SET`; nothing to do: what is fixed may be set to what it is.
fn check<'a>(session: &Session, name: &[u8], given: &'a [u8]) -> Result<Option<Checked<'a>>, Fail> {
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
    let change = change_of(known);
    let value = match change {
        Change::To(check, _) | Change::Limits(check, _) => check(given),
        Change::Letters => letters(given),
        // As it is: it is shown to whoever may ask, as in Redis.
        Change::Password => Ok(lossy(given, given.len())),
        Change::Immutable => Err("can't set immutable config"),
        Change::Fixed if old.as_bytes().eq_ignore_ascii_case(given) => return Ok(None),
        Change::Fixed => Err("this setting is fixed here"),
    };
    Ok(Some(Checked {
        name: known,
        value: value.map_err(|why| failed(name, why))?,
        given,
        change,
    }))
}

fn failed(name: &[u8], why: &str) -> Fail {
    Fail::Owned(format!(
        "ERR CONFIG SET failed (possibly related to argument '{}') - {why}",
        lossy(name, 128)
    ))
}

/// The shards that `CONFIG SET` locks within a transaction.
pub(super) fn config_shards(args: &Args<'_>) -> ShardSet {
    let mut names = args
        .from(2)
        .iter()
        .step_by(2)
        .map(<[u8]>::to_ascii_lowercase);
    let needs = |name: Vec<u8>| {
        let change = std::str::from_utf8(&name).map(change_of);
        matches!(change, Ok(Change::Limits(..) | Change::Letters))
    };
    if names.any(needs) {
        ShardSet::DATA
    } else {
        ShardSet::EMPTY
    }
}

pub(super) fn config_set(
    session: &mut Session,
    args: &Args<'_>,
    held: Option<&mut Locked<'_>>,
    out: &mut Vec<u8>,
) -> Done {
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
        if changes.iter().any(|known| known.name == change.name) {
            return Err(failed(name, "duplicate parameter"));
        }
        changes.push(change);
    }
    let node = Rc::clone(&session.node);
    match held {
        Some(held) => apply(session, args, changes, Some(held))?,
        None => {
            let mut all = all_keys(&node, &changes)?;
            apply(session, args, changes, all.as_mut())?;
        }
    }
    Encoder::new(out, session.version).ok();
    Ok(())
}

/// Makes changes that were checked; `all`: the locks of all keys, if one of them needs those.
fn apply(
    session: &mut Session,
    args: &Args<'_>,
    changes: Vec<Checked<'_>>,
    mut all: Option<&mut Locked<'_>>,
) -> Done {
    let limits = wanted_limits(session, &changes)?;
    let is_password = |of: &&Checked<'_>| matches!(of.change, Change::Password);
    if let Some(password) = changes.iter().find(is_password) {
        set_password(session, password, args)?;
    }
    if let (Some(all), Some(limits)) = (&mut all, limits) {
        broker::cache::set_limits(all, limits);
    }
    for Checked {
        name,
        value,
        given,
        change,
    } in changes
    {
        match (change, &mut all) {
            (Change::To(_, apply), _) => apply(session, &value, given)?,
            // The shards note what happens before anybody is told, and no more when nobody is.
            (Change::Letters, Some(all)) => {
                let on = session.hub.wanted.set(given);
                broker::cache::hear(all, on);
            }
            _ => {}
        }
        let mut settings = session.hub.settings.write();
        if let Some((_, old)) = settings.iter_mut().find(|(known, _)| *known == name) {
            *old = value;
        }
    }
    Ok(())
}

/// The locks of all keys, if a change needs them.
fn all_keys<'n>(node: &'n Node, changes: &[Checked<'_>]) -> Result<Option<Locked<'n>>, Fail> {
    let needing = |of: &&Checked<'_>| matches!(of.change, Change::Limits(..) | Change::Letters);
    if !changes.iter().any(|change| needing(&change)) {
        return Ok(None);
    }
    let all = (node.broker).lock_unless(ShardSet::DATA, &|| node.scripts.is_busy());
    all.map(Some).ok_or_else(|| busy(node))
}

/// `requirepass`: the only password of `default`, or none is asked for.
fn set_password(session: &mut Session, change: &Checked<'_>, args: &Args<'_>) -> Done {
    if session.nested {
        return Err(NESTED);
    }
    // Who may configure the server may not change users for that.
    if let Some(spec) = commands::by_full_name(b"acl|setuser")
        && !session.identity().is_superuser()
    {
        let asking = Asking::new(session.identity(), &session.node, session.db);
        permission::check(&asking, spec, args)
            .map_err(|denied| denied.fail(session.identity(), spec))?;
    }
    let password = [b">", change.given].concat();
    let rules: [&[u8]; 2] = if change.given.is_empty() {
        [b"resetpass", b"nopass"]
    } else {
        [b"resetpass", &password]
    };
    let done = edit::set(&session.node, &by(session), DEFAULT, &rules);
    let lsn = done.map_err(|fail| match fail.text().strip_prefix("ERR ") {
        Some(why) => failed(change.name.as_bytes(), why),
        None => fail,
    })?;
    durable(session, lsn);
    Ok(())
}

/// What becomes of the limits of memory, if they are right together.
fn wanted_limits(
    session: &Session,
    changes: &[Checked<'_>],
) -> Result<Option<LimitSettings>, Fail> {
    let node = &session.node;
    let mut limits = node.broker.limiter.now().settings().clone();
    let mut last = None;
    for Checked {
        name,
        value,
        change,
        ..
    } in changes
    {
        if let Change::Limits(_, apply) = change {
            apply(&mut limits, value);
            last = Some(name);
        }
    }
    let Some(last) = last else { return Ok(None) };
    if let Some((name, why)) = node.config.wrong_limits(&limits) {
        // Whichever of them was set.
        let known = changes.iter().any(|change| change.name == name);
        let name = if known { name } else { last };
        return Err(failed(name.as_bytes(), &why));
    }
    Ok(Some(limits))
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
