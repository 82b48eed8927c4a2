//! Commands on the connection itself.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use protocol_resp::{Args, Encoder, Version, number};

use super::generic::database;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::hub::Client;
use crate::resp::parse::{int, is};
use crate::resp::permission::Rights;
use crate::resp::session::{Replies, Session, Then};
use crate::resp::spec::*;
use broker::access::Verbs;

const QUICK: Flags = NOSCRIPT.and(LOADING).and(STALE).and(FAST);
const SUB: Flags = NOSCRIPT.and(LOADING).and(STALE);

pub(crate) const COMMANDS: &[Spec] = &[
    on_session(
        "ping",
        -1,
        FAST,
        ping,
        "1.0.0",
        "Answers PONG or the given text.",
    ),
    on_session(
        "echo",
        2,
        LOADING.and(STALE).and(FAST),
        echo,
        "1.0.0",
        "Answers the given text.",
    ),
    on_session(
        "select",
        2,
        LOADING.and(STALE).and(FAST),
        select,
        "1.0.0",
        "Chooses the database.",
    ),
    on_session(
        "auth",
        -2,
        QUICK.and(NO_AUTH).and(ALLOW_BUSY),
        auth,
        "1.0.0",
        "Logs in.",
    ),
    on_session(
        "hello",
        -1,
        QUICK.and(NO_AUTH).and(ALLOW_BUSY),
        hello,
        "6.0.0",
        "Chooses the protocol version and logs in.",
    ),
    on_session(
        "quit",
        -1,
        QUICK.and(NO_AUTH).and(ALLOW_BUSY),
        quit,
        "1.0.0",
        "Closes the connection.",
    ),
    on_session(
        "reset",
        1,
        QUICK.and(NO_AUTH).and(ALLOW_BUSY),
        reset,
        "6.2.0",
        "Makes the connection as new.",
    ),
    container(
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
            on_session(
                "client|help",
                2,
                LOADING.and(STALE),
                help,
                "5.0.0",
                "Explains the subcommands.",
            ),
        ],
    ),
];

fn ping(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if args.len() > 2 {
        return Err(crate::resp::fail::wrong_arity("ping"));
    }
    let mut out = Encoder::new(out, session.version);
    if session.version == Version::Resp2 && session.subscriptions() > 0 {
        out.array(2);
        out.bulk(b"pong");
        out.bulk(args.at(1));
        return Ok(());
    }
    match args.get(1) {
        Some(text) => out.bulk(text),
        None => out.raw(b"+PONG\r\n"),
    }
    Ok(())
}

fn echo(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version).bulk(args.at(1));
    Ok(())
}

fn ok(session: &Session, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version).ok();
    Ok(())
}

fn select(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.db = database(args.at(1), usize::from(session.node.config.resp_databases))?;
    ok(session, out)
}

fn auth(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    match args.len() {
        2 if !session.node.auth.required() => Err(Fail::Text(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        )),
        2 => session.login(b"default", args.at(1), Then::Auth, out),
        3 => session.login(args.at(1), args.at(2), Then::Auth, out),
        _ => Err(Fail::Syntax),
    }
}

fn hello(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let version = match args.get(1).map(number::parse_i64) {
        None => session.version,
        Some(None) => {
            return Err(Fail::Text(
                "ERR Protocol version is not an integer or out of range",
            ));
        }
        Some(Some(2)) => Version::Resp2,
        Some(Some(3)) => Version::Resp3,
        Some(Some(_)) => return Err(Fail::Text("NOPROTO unsupported protocol version")),
    };
    let (mut login_as, mut name) = (None, None);
    let mut at = 2;
    while let Some(word) = args.get(at) {
        if is(word, "AUTH") && args.len() > at + 2 {
            login_as = Some((args.at(at + 1), args.at(at + 2)));
            at += 3;
        } else if is(word, "SETNAME") && args.len() > at + 1 {
            name = Some(client_name(args.at(at + 1))?);
            at += 2;
        } else {
            return Err(Fail::Owned(format!(
                "ERR Syntax error in HELLO option '{}'",
                lossy(word, 128)
            )));
        }
    }
    if let Some((user, password)) = login_as {
        return session.login(user, password, Then::Hello { version, name }, out);
    }
    if !session.authenticated {
        return Err(Fail::Text(
            "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO <proto> AUTH <user> <pass> option can be used to authenticate the client and select the RESP protocol version at the same time",
        ));
    }
    welcome(session, version, name, out);
    Ok(())
}

/// The answer to HELLO.
pub(in crate::resp) fn welcome(
    session: &mut Session,
    version: Version,
    name: Option<String>,
    out: &mut Vec<u8>,
) {
    if let Some(name) = name {
        session.client.facts.lock().name = name;
    }
    session.version = version;
    let mut out = Encoder::new(out, version);
    out.map(7);
    for (field, value) in [
        ("server", "redis"),
        ("version", super::server::REDIS_VERSION),
    ] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"proto");
    out.integer(if version == Version::Resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    for (field, value) in [("mode", "standalone"), ("role", "master")] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"modules");
    out.array(0);
}

fn quit(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.closing = true;
    ok(session, out)
}

fn reset(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.reset();
    Encoder::new(out, session.version).simple("RESET");
    Ok(())
}

fn id(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version)
        .integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    Ok(())
}

fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

fn client_name(text: &[u8]) -> Result<String, Fail> {
    if !is_plain(text) {
        return Err(Fail::Text(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(lossy(text, usize::MAX))
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

/// The line that `CLIENT LIST` shows.
fn line(client: &Client, now_ms: u64) -> String {
    let facts = client.facts.lock().clone();
    let mut flags = String::new();
    if facts.channels + facts.patterns + facts.shard_channels > 0 {
        flags.push('P');
    }
    if facts.multi >= 0 {
        flags.push('x');
    }
    if facts.blocked {
        flags.push('b');
    }
    if facts.no_evict {
        flags.push('e');
    }
    if facts.no_touch {
        flags.push('T');
    }
    if client.unix.is_some() {
        flags.push('U');
    }
    if flags.is_empty() {
        flags.push('N');
    }
    let seconds = |since: u64| now_ms.saturating_sub(since) / 1000;
    let mut text = String::new();
    // Writing to a String cannot fail.
    let _ = write!(
        text,
        "id={} addr={} laddr={} fd=-1 name={} age={} idle={} flags={flags} db={} sub={} psub={} ssub={} multi={} watch={} qbuf=0 qbuf-free=0 \
         argv-mem=0 multi-mem=0 rbs=0 rbp=0 obl=0 oll=0 omem=0 tot-mem=0 events=r cmd={} user={} redir=-1 resp={} lib-name={} lib-ver={}",
        client.id,
        client.peer_name(),
        client.local_name(),
        facts.name,
        seconds(client.since_ms),
        seconds(client.used_ms.load(Ordering::Relaxed)),
        facts.db,
        facts.channels,
        facts.patterns,
        facts.shard_channels,
        facts.multi,
        facts.watches,
        if facts.command.is_empty() {
            "NULL"
        } else {
            facts.command
        },
        if facts.user.is_empty() {
            "default"
        } else {
            &facts.user
        },
        if facts.resp3 { 3 } else { 2 },
        facts.lib_name,
        facts.lib_ver,
    );
    text
}

/// Is a client of the type that `TYPE` names? There are no replicas.
fn of_type(word: &[u8], client: &Client) -> Result<bool, Fail> {
    let facts = client.facts.lock();
    let subscriber = facts.channels + facts.patterns + facts.shard_channels > 0;
    match word.to_ascii_lowercase().as_slice() {
        b"normal" => Ok(!subscriber),
        b"pubsub" => Ok(subscriber),
        b"master" | b"replica" | b"slave" => Ok(false),
        _ => Err(Fail::Owned(format!(
            "ERR Unknown client type '{}'",
            lossy(word, 128)
        ))),
    }
}

fn list(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.show("client|list");
    let mut clients = session.hub.clients();
    match (args.get(2), args.get(3)) {
        (None, _) => {}
        (Some(word), Some(kind)) if is(word, "TYPE") && args.len() == 4 => {
            let mut kept = Vec::new();
            for client in clients {
                if of_type(kind, &client)? {
                    kept.push(client);
                }
            }
            clients = kept;
        }
        (Some(word), Some(_)) if is(word, "ID") => {
            let mut wanted = Vec::new();
            for id in args.iter().skip(3) {
                wanted.push(
                    number::parse_i64(id)
                        .and_then(|id| u64::try_from(id).ok())
                        .ok_or(Fail::Syntax)?,
                );
            }
            clients.retain(|client| wanted.contains(&client.id));
        }
        _ => return Err(Fail::Syntax),
    }
    let mut text = String::new();
    for client in clients {
        text.push_str(&line(&client, session.ctx.now.0));
        text.push('\n');
    }
    Encoder::new(out, session.version).verbatim("txt", text.as_bytes());
    Ok(())
}

fn info(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.show("client|info");
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
    if !args.len().is_multiple_of(2) {
        return Err(Fail::Syntax);
    }
    let mut chosen: Vec<Arc<Client>> = clients;
    let mut skip_me = true;
    let values = args.from(3);
    for (option, value) in args.from(2).iter().step_by(2).zip(values.iter().step_by(2)) {
        let value_text = lossy(value, 256);
        if is(option, "ID") {
            let id = number::parse_i64(value)
                .filter(|id| *id > 0)
                .ok_or(Fail::Text("ERR client-id should be greater than 0"));
            let id = if number::parse_i64(value).is_none() {
                Err(Fail::Syntax)
            } else {
                id
            }?;
            chosen.retain(|client| i64::try_from(client.id) == Ok(id));
        } else if is(option, "TYPE") {
            let mut kept = Vec::new();
            // An unknown type is an error even when nobody is left to compare with.
            of_type(value, &session.client)?;
            for client in chosen {
                if of_type(value, &client)? {
                    kept.push(client);
                }
            }
            chosen = kept;
        } else if is(option, "ADDR") {
            chosen.retain(|client| client.peer_name() == value_text);
        } else if is(option, "LADDR") {
            chosen.retain(|client| client.local_name() == value_text);
        } else if is(option, "USER") {
            let auth = &session.node.auth;
            let known = value_text == "default"
                || auth.user() == Some(&value_text)
                || auth.access().principal(&value_text).is_some();
            if !known {
                return Err(Fail::Owned(format!("ERR No such user '{value_text}'")));
            }
            chosen.retain(|client| {
                let facts = client.facts.lock();
                facts.user == value_text || (facts.user.is_empty() && value_text == "default")
            });
        } else if is(option, "SKIPME") {
            skip_me = if is(value, "yes") {
                true
            } else if is(value, "no") {
                false
            } else {
                return Err(Fail::Syntax);
            };
        } else if is(option, "MAXAGE") {
            let age = int(value)?;
            let now = session.ctx.now.0;
            chosen.retain(|client| {
                i64::try_from(now.saturating_sub(client.since_ms) / 1000)
                    .is_ok_and(|old| old >= age)
            });
        } else {
            return Err(Fail::Syntax);
        }
    }
    let own = session.client.id;
    chosen.retain(|client| !(skip_me && client.id == own));
    for client in &chosen {
        end(session, client);
    }
    Encoder::new(out, session.version).count(chosen.len());
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
    let id = number::parse_i64(args.at(2)).ok_or(Fail::NotInteger)?;
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
    let found = session
        .hub
        .clients()
        .into_iter()
        .find(|client| i64::try_from(client.id) == Ok(id));
    let unblocked = found.is_some_and(|client| client.unblock(error));
    Encoder::new(out, session.version).integer(i64::from(unblocked));
    Ok(())
}

fn help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    super::server::help(
        &mut Encoder::new(out, session.version),
        "CLIENT",
        &[
            ("GETNAME", "Return the name of the current connection."),
            ("ID", "Return the ID of the current connection."),
            (
                "INFO",
                "Return information about the current client connection.",
            ),
            ("KILL <ip:port>", "Kill connection made from <ip:port>."),
            (
                "KILL <option> <value> [<option> <value> [...]]",
                "Kill connections by ID, TYPE, ADDR, LADDR, USER, MAXAGE; SKIPME (yes|no).",
            ),
            (
                "LIST [ID <id> ... | TYPE (NORMAL|PUBSUB)]",
                "Return information about client connections.",
            ),
            (
                "NO-EVICT (ON|OFF)",
                "Protect current client connection from eviction.",
            ),
            (
                "NO-TOUCH (ON|OFF)",
                "Will not touch LRU stats when this mode is on.",
            ),
            (
                "REPLY (ON|OFF|SKIP)",
                "Control the replies sent to the current connection.",
            ),
            (
                "SETINFO <option> <value>",
                "Set client meta attr: LIB-NAME, LIB-VER.",
            ),
            (
                "SETNAME <name>",
                "Assign the name <name> to the current connection.",
            ),
            (
                "UNBLOCK <clientid> [TIMEOUT|ERROR]",
                "Unblock the specified blocked client.",
            ),
        ],
    );
    Ok(())
}
