//! `CLIENT`: a connection about itself and about others.

mod filter;
mod tracking;

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use protocol_resp::{Args, Encoder};

use super::connection::{client_name, is_plain, ok};
use crate::resp::client::Client;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::{int, is, milliseconds};
use crate::resp::permission::{self, Rights};
use crate::resp::session::{Replies, Session};
use crate::resp::spec::*;
use crate::resp::tracking::Choice;
use broker::access::Verbs;

use filter::Filter;

const SUB: Flags = NOSCRIPT.and(LOADING).and(STALE);

pub(crate) const COMMANDS: &[Spec] = &[container(
    "client",
    "2.4.0",
    "Looks at connections and changes them.",
    &[
        on_session(
            "client|id",
            2,
            SUB,
            id,
            "5.0.0",
            "Returns the connection's number.",
        ),
        on_session(
            "client|setname",
            3,
            SUB,
            setname,
            "2.6.9",
            "Names the connection.",
        ),
        on_session(
            "client|getname",
            2,
            SUB,
            getname,
            "2.6.9",
            "Returns the connection's name.",
        ),
        on_session(
            "client|setinfo",
            4,
            SUB,
            setinfo,
            "7.2.0",
            "Names the client's library.",
        ),
        on_session(
            "client|list",
            -2,
            SUB.and(ADMIN),
            list,
            "2.4.0",
            "Lists the connections.",
        )
        .needing(Rights::Admin("clients", Verbs::DESCRIBE)),
        on_session(
            "client|info",
            2,
            SUB,
            info,
            "6.2.0",
            "Shows the connection.",
        ),
        on_session(
            "client|kill",
            -3,
            SUB.and(ADMIN),
            kill,
            "2.4.0",
            "Closes connections.",
        )
        .needing(Rights::Admin("clients", Verbs::ADMIN)),
        on_session(
            "client|no-evict",
            3,
            SUB.and(ADMIN),
            no_evict,
            "7.0.0",
            "Exempts the connection from eviction.",
        ),
        on_session(
            "client|no-touch",
            3,
            SUB,
            no_touch,
            "7.2.0",
            "Lets commands not count as use of keys.",
        ),
        on_session(
            "client|pause",
            -3,
            SUB.and(ADMIN),
            pause,
            "3.0.0",
            "Lets commands wait for a time.",
        )
        .needing(Rights::Admin("clients", Verbs::ADMIN)),
        on_session(
            "client|unpause",
            2,
            SUB.and(ADMIN),
            unpause,
            "6.2.0",
            "Ends the pause.",
        )
        .needing(Rights::Admin("clients", Verbs::ADMIN)),
        on_session(
            "client|reply",
            3,
            SUB,
            reply,
            "3.2.0",
            "Turns replies off and on.",
        ),
        on_session(
            "client|unblock",
            -3,
            SUB.and(ADMIN),
            unblock,
            "5.0.0",
            "Ends a blocked command of another connection.",
        )
        .needing(Rights::Admin("clients", Verbs::ADMIN)),
        on_session_held(
            "client|tracking",
            -3,
            SUB,
            tracking::tracking,
            "6.0.0",
            "Tells the client when keys change whose values it keeps.",
        )
        .locking(Locks::With(tracking::shards))
        .needing(Rights::With(permission::tracking)),
        on_session(
            "client|caching",
            3,
            SUB,
            tracking::caching,
            "6.0.0",
            "Says whether the client keeps what the next command reads.",
        ),
        on_session(
            "client|trackinginfo",
            2,
            SUB,
            tracking::info,
            "6.2.0",
            "Shows how the connection tracks keys.",
        ),
        on_session(
            "client|getredir",
            2,
            SUB,
            tracking::getredir,
            "6.0.0",
            "Returns which connection is told of changed keys.",
        ),
        on_session(
            "client|help",
            2,
            LOADING.and(STALE),
            help,
            "5.0.0",
            "Explains the subcommands.",
        ),
    ],
)];

fn id(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version)
        .integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    Ok(())
}

fn setname(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.client.facts.lock().name = client_name(args.at(2))?;
    ok(session, out)
}

fn getname(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let facts = session.client.facts.lock();
    let mut out = Encoder::new(out, session.version);
    if facts.name.is_empty() {
        out.null();
    } else {
        out.bulk(facts.name.as_bytes());
    }
    Ok(())
}

fn setinfo(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let (option, value) = (args.at(2), args.at(3));
    let field = if is(option, "LIB-NAME") {
        "lib-name"
    } else if is(option, "LIB-VER") {
        "lib-ver"
    } else {
        return Err(Fail::Owned(format!(
            "ERR Unrecognized option '{}'",
            lossy(option, 128)
        )));
    };
    if !is_plain(value) {
        return Err(Fail::Owned(format!(
            "ERR {} cannot contain spaces, newlines or special characters.",
            lossy(option, 128)
        )));
    }
    let mut facts = session.client.facts.lock();
    let value = lossy(value, 256);
    if field == "lib-name" {
        facts.lib_name = value;
    } else {
        facts.lib_ver = value;
    }
    drop(facts);
    ok(session, out)
}

/// The letters of `flags=`.
fn flags(client: &Client) -> String {
    let (facts, seen) = (client.facts.lock().clone(), &client.seen);
    let asked = client.tracking.asked();
    let tracks_prefixes = (asked.as_ref()).is_some_and(|asked| asked.choice == Choice::Prefixes);
    let letters = [
        (facts.monitors, 'O'),
        (seen.subscriptions() > 0, 'P'),
        (seen.multi.load(Ordering::Relaxed) >= 0, 'x'),
        (facts.blocked || facts.held, 'b'),
        (asked.is_some(), 't'),
        (client.tracking.is_broken(), 'R'),
        (tracks_prefixes, 'B'),
        (seen.touched.load(Ordering::Relaxed), 'd'),
        (seen.closing.load(Ordering::Relaxed), 'c'),
        (client.unix.is_some(), 'U'),
        (facts.no_evict, 'e'),
        (facts.no_touch, 'T'),
    ];
    let set: String = letters
        .iter()
        .filter(|(is_set, _)| *is_set)
        .map(|(_, letter)| letter)
        .collect();
    if set.is_empty() { "N".into() } else { set }
}

/// The line that `CLIENT LIST` shows.
pub(in crate::resp) fn line(client: &Client, now_ms: u64) -> String {
    let facts = client.facts.lock().clone();
    let seen = &client.seen;
    let redirect = client.tracking.asked().map_or(-1, |asked| {
        let id = asked.redirect.map_or(0, |(id, _)| id);
        i64::try_from(id).unwrap_or(i64::MAX)
    });
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
    let (input, output) = (
        seen.input.load(Ordering::Relaxed),
        seen.output.load(Ordering::Relaxed),
    );
    let multi_bytes = seen.multi_bytes.load(Ordering::Relaxed);
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={} db={} sub={} psub={} ssub={} multi={} watch={} qbuf={input} qbuf-free=0 \
         argv-mem=0 multi-mem={multi_bytes} rbs=0 rbp=0 obl={output} oll=0 omem=0 tot-mem={} events=r cmd={} user={} redir={redirect} resp={} \
         lib-name={} lib-ver={} tot-net-in={} tot-net-out={} tot-cmds={}",
        client.id,
        client.peer_name(),
        client.local_name(),
        facts.name,
        seconds(client.since_ms),
        seconds(client.used_ms.load(Ordering::Relaxed)),
        flags(client),
        seen.db.load(Ordering::Relaxed),
        seen.channels.load(Ordering::Relaxed),
        seen.patterns.load(Ordering::Relaxed),
        seen.shard_channels.load(Ordering::Relaxed),
        seen.multi.load(Ordering::Relaxed),
        seen.watches.load(Ordering::Relaxed),
        input + output + multi_bytes + size_of::<Client>() + size_of::<Session>(),
        seen.command_name(),
        if facts.user.is_empty() {
            "default"
        } else {
            &facts.user
        },
        if seen.resp3.load(Ordering::Relaxed) {
            3
        } else {
            2
        },
        facts.lib_name,
        facts.lib_ver,
        seen.bytes_in.load(Ordering::Relaxed),
        seen.bytes_out.load(Ordering::Relaxed),
        seen.commands.load(Ordering::Relaxed),
    );
    text
}

fn list(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.show();
    let filter = Filter::parse(session, &args.from(2))?;
    let (own, now) = (session.client.id, session.ctx.now.0);
    let skip_me = filter.skip_me == Some(true);
    let mut text = String::new();
    for client in session.hub.clients() {
        if filter.takes(&client, now) && !(skip_me && client.id == own) {
            text.push_str(&line(&client, now));
            text.push('\n');
        }
    }
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}

fn info(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.show();
    let text = line(&session.client, session.ctx.now.0) + "\n";
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}

fn end(session: &mut Session, client: &Arc<Client>) {
    client.killed.store(true, Ordering::Relaxed);
    if client.id == session.client.id {
        // The reply leaves first.
        session.closing = true;
    } else {
        client.handle.kill();
    }
}

fn kill(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.show();
    let clients = session.hub.clients();
    if args.len() == 3 {
        let Some(client) = clients
            .iter()
            .find(|client| client.peer_name().as_bytes() == args.at(2))
        else {
            return Err(Fail::Text("ERR No such client"));
        };
        end(session, client);
        return ok(session, out);
    }
    let filter = Filter::parse(session, &args.from(2))?;
    let (own, now) = (session.client.id, session.ctx.now.0);
    let skip_me = filter.skip_me.unwrap_or(true);
    let mut count = 0;
    for client in &clients {
        if filter.takes(client, now) && !(skip_me && client.id == own) {
            end(session, client);
            count += 1;
        }
    }
    Encoder::new(out, session.version).count(count);
    Ok(())
}

fn on_off(text: &[u8]) -> Result<bool, Fail> {
    if is(text, "on") {
        Ok(true)
    } else if is(text, "off") {
        Ok(false)
    } else {
        Err(Fail::Syntax)
    }
}

fn no_evict(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.client.facts.lock().no_evict = on_off(args.at(2))?;
    ok(session, out)
}

fn no_touch(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.client.facts.lock().no_touch = on_off(args.at(2))?;
    ok(session, out)
}

fn pause(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let all = match args.get(3) {
        None => true,
        Some(word) if is(word, "ALL") => true,
        Some(word) if is(word, "WRITE") => false,
        Some(_) => return Err(Fail::Text("ERR CLIENT PAUSE mode must be WRITE or ALL")),
    };
    let until = Instant::now().checked_add(milliseconds(args.at(2))?);
    let until = until.ok_or(Fail::Text("ERR timeout is out of range"))?;
    session.hub.pause.begin(until, all);
    ok(session, out)
}

fn unpause(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.hub.unpause();
    ok(session, out)
}

fn reply(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let word = args.at(2);
    if is(word, "ON") {
        session.replies = Replies::On;
        return ok(session, out);
    }
    if is(word, "OFF") {
        session.replies = Replies::Off;
    } else if is(word, "SKIP") {
        if session.replies == Replies::On {
            session.replies = Replies::SkipNext;
        }
    } else {
        return Err(Fail::Syntax);
    }
    Ok(())
}

fn unblock(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let error = match args.get(3) {
        None => false,
        Some(word) if is(word, "TIMEOUT") => false,
        Some(word) if is(word, "ERROR") => true,
        Some(_) => {
            return Err(Fail::Text(
                "ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR",
            ));
        }
    };
    let id = u64::try_from(int(args.at(2))?).ok();
    let found = id.and_then(|id| session.hub.client(id));
    let unblocked = found.is_some_and(|client| client.unblock(error));
    Encoder::new(out, session.version).integer(i64::from(unblocked));
    Ok(())
}

fn help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    super::server::help(
        &mut Encoder::new(out, session.version),
        "CLIENT",
        &[
            (
                "CACHING (YES|NO)",
                "Enable/disable tracking of the keys for next command in OPTIN/OPTOUT modes.",
            ),
            (
                "GETREDIR",
                "Return the client ID we are redirecting to when tracking is enabled.",
            ),
            ("GETNAME", "Return the name of the current connection."),
            ("ID", "Return the ID of the current connection."),
            (
                "INFO",
                "Return information about the current client connection.",
            ),
            ("KILL <ip:port>", "Kill connection made from <ip:port>."),
            (
                "KILL <option> <value> [<option> <value> [...]]",
                "Kill connections by ID, TYPE, ADDR, LADDR, IP, USER, NAME, LIB-NAME, LIB-VER, DB, FLAGS, IDLE, MAXAGE; SKIPME (yes|no).",
            ),
            (
                "LIST [<option> <value> ...]",
                "Return information about client connections; options as for KILL.",
            ),
            (
                "UNPAUSE",
                "Stop the current client pause, resuming traffic.",
            ),
            (
                "PAUSE <timeout> [WRITE|ALL]",
                "Suspend all, or just write, clients for <timeout> milliseconds.",
            ),
            (
                "REPLY (ON|OFF|SKIP)",
                "Control the replies sent to the current connection.",
            ),
            (
                "SETNAME <name>",
                "Assign the name <name> to the current connection.",
            ),
            (
                "SETINFO <option> <value>",
                "Set client meta attr: LIB-NAME, LIB-VER.",
            ),
            (
                "UNBLOCK <clientid> [TIMEOUT|ERROR]",
                "Unblock the specified blocked client.",
            ),
            (
                "TRACKING (ON|OFF) [REDIRECT <id>] [BCAST] [PREFIX <prefix> [...]] [OPTIN] [OPTOUT] [NOLOOP]",
                "Control server assisted client side caching.",
            ),
            (
                "TRACKINGINFO",
                "Report tracking status for the current connection.",
            ),
            (
                "NO-EVICT (ON|OFF)",
                "Protect current client connection from eviction.",
            ),
            (
                "NO-TOUCH (ON|OFF)",
                "Will not touch LRU/LFU stats when this mode is on.",
            ),
        ],
    );
    Ok(())
}
