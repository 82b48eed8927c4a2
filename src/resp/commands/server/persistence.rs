//! `SAVE` and its kin, `WAITAOF`, `SHUTDOWN`, and replication that is not there.

use std::sync::Arc;
use std::time::{Duration, Instant};

use protocol_resp::{Args, Encoder, number};

use crate::resp::commands::connection::ok;
use crate::resp::fail::{Done, Fail};
use crate::resp::hub::Hub;
use crate::resp::parse::{int, is, milliseconds, natural};
use crate::resp::saves::Saves;
use crate::resp::session::{NESTED, Session};

const RUNNING: Fail = Fail::Text("ERR Background save already in progress");
const NO_THREAD: Fail = Fail::Text("ERR cannot start a thread");

pub(super) fn save(session: &mut Session, _: &Args<'_>, _: &mut Vec<u8>) -> Done {
    if session.nested {
        return Err(NESTED);
    }
    if !session.hub.saves.begin(session.ctx.now.0) {
        return Err(RUNNING);
    }
    let (node, hub) = (Arc::clone(&session.node), Arc::clone(&session.hub));
    let begun = session.away("save", move || {
        hub.saves.run(&node).map(|()| b"+OK\r\n".to_vec())
    });
    begun.inspect_err(|_| session.hub.saves.give_up())
}

/// Starts a fold that nobody waits for.
fn in_background(session: &Session, which: fn(&Hub) -> &Saves, running: Fail) -> Done {
    if !which(&session.hub).begin(session.ctx.now.0) {
        return Err(running);
    }
    let (node, hub) = (Arc::clone(&session.node), Arc::clone(&session.hub));
    let work = move || {
        if let Err(error) = which(&hub).run(&node) {
            tracing::error!(%error, "background save");
        }
    };
    let thread = std::thread::Builder::new().name("save".into());
    thread.spawn(work).map_err(|_| {
        which(&session.hub).give_up();
        NO_THREAD
    })?;
    Ok(())
}

pub(super) fn bgsave(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    match (args.len(), args.get(1)) {
        (1, _) => {}
        (2, Some(word)) if is(word, "SCHEDULE") => {}
        _ => return Err(Fail::Syntax),
    }
    in_background(session, |hub| &hub.saves, RUNNING)?;
    Encoder::new(out, session.version).simple("Background saving started");
    Ok(())
}

pub(super) fn bgrewriteaof(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    const RUNNING: Fail =
        Fail::Text("ERR Background append only file rewriting already in progress");
    in_background(session, |hub| &hub.rewrites, RUNNING)?;
    Encoder::new(out, session.version).simple("Background append only file rewriting started");
    Ok(())
}

pub(super) fn lastsave(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let last = session.hub.saves.last_s(session.node.started_ms);
    Encoder::new(out, session.version).integer(i64::try_from(last).unwrap_or(i64::MAX));
    Ok(())
}

fn timeout(text: &[u8]) -> Result<Option<Instant>, Fail> {
    Ok(match milliseconds(text)? {
        Duration::ZERO => None,
        time => Instant::now().checked_add(time),
    })
}

pub(super) fn wait(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    natural(args.at(1), "ERR value is not an integer or out of range")?;
    timeout(args.at(2))?;
    Encoder::new(out, session.version).integer(0);
    Ok(())
}

/// The log is the append-only file: what it has on the disk itself counts as local.
pub(super) fn waitaof(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let local = int(args.at(1))?;
    if !(0..=1).contains(&local) {
        return Err(Fail::Text(
            "ERR value is out of range, value must between 0 and 1",
        ));
    }
    let replicas = natural(args.at(2), "ERR value is out of range, must be positive")?;
    let until = timeout(args.at(3))?;
    session.wait_for_disk(local == 1, replicas > 0, until, out);
    Ok(())
}

pub(super) fn shutdown(session: &mut Session, args: &Args<'_>, _: &mut Vec<u8>) -> Done {
    let (mut save, mut nosave, mut abort) = (false, false, false);
    for word in args.iter().skip(1) {
        match word {
            word if is(word, "SAVE") => save = true,
            word if is(word, "NOSAVE") => nosave = true,
            word if is(word, "ABORT") => abort = true,
            // No replica is waited for, and no failed save keeps it from stopping.
            word if is(word, "NOW") || is(word, "FORCE") => {}
            _ => return Err(Fail::Syntax),
        }
    }
    if (abort && args.len() > 2) || (save && nosave) {
        return Err(Fail::Syntax);
    }
    if abort {
        return Err(Fail::Text("ERR No shutdown in progress."));
    }
    tracing::info!(client = session.client.id, "a client asks for the stop");
    session.node.stop();
    // As Redis: whoever asked hears nothing but the end of its connection.
    session.closing = true;
    Ok(())
}

pub(super) fn replicaof(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let (host, port) = (args.at(1), args.at(2));
    if is(host, "NO") && is(port, "ONE") {
        return ok(session, out);
    }
    if !number::parse_i64(port).is_some_and(|port| (0..=65_535).contains(&port)) {
        return Err(Fail::Text("ERR Invalid master port"));
    }
    Err(Fail::Text(
        "ERR REPLICAOF is not supported: this server is a master and cannot follow another one",
    ))
}
