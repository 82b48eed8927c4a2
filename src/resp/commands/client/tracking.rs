//! `CLIENT TRACKING` and what belongs to it.

use std::sync::Arc;

use broker::{Locked, ShardSet};
use bytes::Bytes;
use protocol_resp::{Args, Encoder};

use super::super::connection::ok;
use super::on_off;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{int, is};
use crate::resp::session::Session;
use crate::resp::tracking::{Asked, Choice};

/// What the words of `CLIENT TRACKING on …` say.
#[derive(Debug, Default)]
struct Words<'a> {
    redirect: Option<&'a [u8]>,
    bcast: bool,
    optin: bool,
    optout: bool,
    no_loop: bool,
    prefixes: Vec<&'a [u8]>,
}

/// The shards that it locks within a transaction: readers are told by all.
pub(super) fn shards(args: &Args<'_>) -> ShardSet {
    if is(args.at(2), "ON") {
        ShardSet::DATA
    } else {
        ShardSet::EMPTY
    }
}

pub(super) fn tracking(
    session: &mut Session,
    args: &Args<'_>,
    held: Option<&mut Locked<'_>>,
    out: &mut Vec<u8>,
) -> Done {
    let mut words = Words::default();
    let mut redirect = None;
    let mut at = 3;
    while let Some(word) = args.get(at) {
        at += 1;
        if is(word, "REDIRECT") && args.get(at).is_some() {
            if words.redirect.is_some() {
                return Err(Fail::Text(
                    "ERR A client can only redirect to a single other client",
                ));
            }
            words.redirect = args.get(at);
            let id = int(args.at(at))?;
            let other = u64::try_from(id).ok();
            let other = other.and_then(|id| session.hub.client(id));
            let other = other.ok_or(Fail::Text(
                "ERR The client ID you want redirect to does not exist",
            ))?;
            redirect = Some((other.id, Arc::downgrade(&other)));
            at += 1;
        } else if is(word, "BCAST") {
            words.bcast = true;
        } else if is(word, "OPTIN") {
            words.optin = true;
        } else if is(word, "OPTOUT") {
            words.optout = true;
        } else if is(word, "NOLOOP") {
            words.no_loop = true;
        } else if is(word, "PREFIX") && args.get(at).is_some() {
            words.prefixes.push(args.at(at));
            at += 1;
        } else {
            return Err(Fail::Syntax);
        }
    }
    if !on_off(args.at(2))? {
        session.stop_tracking();
        return ok(session, out);
    }
    let old = session.client.tracking.asked();
    let choice = choice(&words, old.as_ref())?;
    let old_prefixes = old.map(|asked| asked.prefixes).unwrap_or_default();
    let mut prefixes: Vec<Bytes> = Vec::new();
    if words.bcast {
        check_overlaps(&old_prefixes, &words.prefixes)?;
        prefixes.extend(
            words
                .prefixes
                .iter()
                .map(|prefix| Bytes::copy_from_slice(prefix)),
        );
        if prefixes.is_empty() && !old_prefixes.iter().any(Bytes::is_empty) {
            prefixes.push(Bytes::new());
        }
    }
    let mut all = [old_prefixes, prefixes.clone()].concat();
    all.sort_unstable();
    let asked = Asked {
        choice,
        no_loop: words.no_loop,
        redirect,
        prefixes: all,
    };
    session.start_tracking(asked, &prefixes, held)?;
    ok(session, out)
}

fn choice(words: &Words<'_>, old: Option<&Asked>) -> Result<Choice, Fail> {
    if !words.bcast && !words.prefixes.is_empty() {
        return Err(Fail::Text(
            "ERR PREFIX option requires BCAST mode to be enabled",
        ));
    }
    let was_bcast = old.is_some_and(|asked| asked.choice == Choice::Prefixes);
    if old.is_some() && was_bcast != words.bcast {
        return Err(Fail::Text(
            "ERR You can't switch BCAST mode on/off before disabling tracking for this client, and then re-enabling it with a different mode.",
        ));
    }
    if words.bcast && (words.optin || words.optout) {
        return Err(Fail::Text(
            "ERR OPTIN and OPTOUT are not compatible with BCAST",
        ));
    }
    if words.optin && words.optout {
        return Err(Fail::Text(
            "ERR You can't specify both OPTIN mode and OPTOUT mode",
        ));
    }
    let switches = match old.map(|asked| asked.choice) {
        Some(Choice::OptIn) => words.optout,
        Some(Choice::OptOut) => words.optin,
        _ => false,
    };
    if switches {
        return Err(Fail::Text(
            "ERR You can't switch OPTIN/OPTOUT mode before disabling tracking for this client, and then re-enabling it with a different mode.",
        ));
    }
    Ok(if words.bcast {
        Choice::Prefixes
    } else if words.optin {
        Choice::OptIn
    } else if words.optout {
        Choice::OptOut
    } else {
        Choice::Read
    })
}

/// A key must not be told twice to one client.
fn check_overlaps(old: &[Bytes], new: &[&[u8]]) -> Done {
    let overlap = |one: &[u8], other: &[u8]| one.starts_with(other) || other.starts_with(one);
    for (place, prefix) in new.iter().enumerate() {
        let shown = lossy(prefix, 512);
        if let Some(known) = old.iter().find(|known| overlap(known, prefix)) {
            return Err(Fail::Owned(format!(
                "ERR Prefix '{shown}' overlaps with an existing prefix '{}'. Prefixes for a single client must not overlap.",
                lossy(known, 512)
            )));
        }
        let behind = new.iter().skip(place + 1);
        if let Some(other) = behind.into_iter().find(|other| overlap(prefix, other)) {
            return Err(Fail::Owned(format!(
                "ERR Prefix '{shown}' overlaps with another provided prefix '{}'. Prefixes for a single client must not overlap.",
                lossy(other, 512)
            )));
        }
    }
    Ok(())
}

pub(super) fn caching(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let choice = session.client.tracking.asked().map(|asked| asked.choice);
    let wanted = match choice {
        Some(Choice::OptIn) => true,
        Some(Choice::OptOut) => false,
        _ => {
            return Err(Fail::Text(
                "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled",
            ));
        }
    };
    let yes = match args.at(2) {
        word if is(word, "yes") => true,
        word if is(word, "no") => false,
        _ => return Err(Fail::Syntax),
    };
    if yes != wanted {
        return Err(Fail::Text(if yes {
            "ERR CLIENT CACHING YES is only valid when tracking is enabled in OPTIN mode."
        } else {
            "ERR CLIENT CACHING NO is only valid when tracking is enabled in OPTOUT mode."
        }));
    }
    session.choose_caching();
    ok(session, out)
}

pub(super) fn info(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let asked = session.client.tracking.asked();
    let mut flags = Vec::new();
    match &asked {
        None => flags.push("off"),
        Some(asked) => {
            flags.push("on");
            let caching = session.chose_caching();
            match asked.choice {
                Choice::Read => {}
                Choice::Prefixes => flags.push("bcast"),
                Choice::OptIn => {
                    flags.push("optin");
                    flags.extend(caching.then_some("caching-yes"));
                }
                Choice::OptOut => {
                    flags.push("optout");
                    flags.extend(caching.then_some("caching-no"));
                }
            }
            flags.extend(asked.no_loop.then_some("noloop"));
            flags.extend(
                session
                    .client
                    .tracking
                    .is_broken()
                    .then_some("broken_redirect"),
            );
        }
    }
    let mut out = Encoder::new(out, session.version);
    out.map(3);
    out.bulk(b"flags");
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk(flag.as_bytes()));
    out.bulk(b"redirect");
    out.integer(redirect(asked.as_ref()));
    out.bulk(b"prefixes");
    let prefixes = asked.map(|asked| asked.prefixes).unwrap_or_default();
    out.array(prefixes.len());
    prefixes.iter().for_each(|prefix| out.bulk(prefix));
    Ok(())
}

/// -1: it does not track; 0: it is told itself.
fn redirect(asked: Option<&Asked>) -> i64 {
    let Some(asked) = asked else {
        return -1;
    };
    let id = asked.redirect.as_ref().map_or(0, |(id, _)| *id);
    i64::try_from(id).unwrap_or(i64::MAX)
}

pub(super) fn getredir(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let asked = session.client.tracking.asked();
    Encoder::new(out, session.version).integer(redirect(asked.as_ref()));
    Ok(())
}
