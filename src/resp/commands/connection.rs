//! Commands on the connection itself.

use protocol_resp::{Args, Encoder, Version, number};

use super::cluster::{is_on, refuse_databases};
use super::generic::database;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::is;
use crate::resp::session::{Session, Then};
use crate::resp::spec::*;

const QUICK: Flags = NOSCRIPT.and(LOADING).and(STALE).and(FAST);

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

pub(in crate::resp) fn ok(session: &Session, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version).ok();
    Ok(())
}

fn select(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let db = database(args.at(1), usize::from(session.node.config.resp_databases))?;
    if db != 0 {
        refuse_databases(&session.node, "ERR SELECT is not allowed in cluster mode")?;
    }
    session.db = db;
    ok(session, out)
}

fn auth(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    match args.len() {
        2 if !session.node.auth.required() => Err(Fail::Text(
            "ERR AUTH <password> called without any password configured for the default user. Are you sure your configuration is correct?",
        )),
        2 => session.login((b"default", args.at(1)), Then::Auth, args.at(0), out),
        3 => session.login((args.at(1), args.at(2)), Then::Auth, args.at(0), out),
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
    if let Some(login) = login_as {
        return session.login(login, Then::Hello { version, name }, args.at(0), out);
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
    let mode = if is_on(&session.node) {
        "cluster"
    } else {
        "standalone"
    };
    let mut out = Encoder::new(out, version);
    out.map(7);
    for (field, value) in [
        ("server", "redis"),
        ("version", session.node.redis_version()),
    ] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    out.bulk(b"proto");
    out.integer(if version == Version::Resp3 { 3 } else { 2 });
    out.bulk(b"id");
    out.integer(i64::try_from(session.client.id).unwrap_or(i64::MAX));
    for (field, value) in [("mode", mode), ("role", "master")] {
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

pub(super) fn is_plain(text: &[u8]) -> bool {
    text.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

pub(super) fn client_name(text: &[u8]) -> Result<String, Fail> {
    if !is_plain(text) {
        return Err(Fail::Text(
            "ERR Client names cannot contain spaces, newlines or special characters.",
        ));
    }
    Ok(lossy(text, usize::MAX))
}
