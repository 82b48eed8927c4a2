//! `DEBUG`: what tools that test servers need. Refused unless `resp-debug-command` allows it.

use std::time::{Duration, Instant};

use broker::ShardSet;
use broker::cache::{Expire, Name};
use protocol_resp::{Args, Encoder, Version, number};

use super::{config, help, persistence};
use crate::config::DebugCommand;
use crate::resp::commands::connection::ok;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::int;
use crate::resp::session::Session;

/// Is it allowed from there?
fn may(session: &Session) -> Done {
    let allowed = match session.node.config.resp_debug_command {
        DebugCommand::Yes => true,
        DebugCommand::Local => session.client.peer.ip().is_loopback(),
        DebugCommand::No => false,
    };
    if allowed {
        return Ok(());
    }
    Err(Fail::Text(
        "ERR DEBUG command not allowed. If the enable-debug-command option is set to \"local\", you can run it from a local connection, otherwise you need to set this option in the configuration file, and then restart the server.",
    ))
}

fn unknown(word: &[u8]) -> Fail {
    Fail::Owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try DEBUG HELP.",
        lossy(word, 128)
    ))
}

/// The subcommands about the connection and the server.
pub(super) fn debug(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    may(session)?;
    let word = args.at(1);
    match (word.to_ascii_lowercase().as_slice(), args.len()) {
        (b"help", 2) => {
            debug_help(session, out);
            Ok(())
        }
        (b"sleep", 3) => {
            if session.nested {
                return Err(Fail::Text(
                    "ERR DEBUG SLEEP cannot wait within a transaction or script",
                ));
            }
            // As C's strtod: what is no number is 0.
            let seconds = number::parse_f64(args.at(2)).unwrap_or(0.0);
            let time = Duration::try_from_secs_f64(seconds.max(0.0)).unwrap_or_default();
            let until = Instant::now().checked_add(time);
            session.sleep(until.unwrap_or_else(Instant::now));
            Ok(())
        }
        (b"set-active-expire", 3) => {
            let on = number::parse_i64(args.at(2)).unwrap_or(0) != 0;
            session.node.set_active_expire(on);
            ok(session, out)
        }
        (b"quicklist-packed-threshold", 3) => {
            // Lists are not kept in such nodes; what it says is checked as Redis does.
            match config::memory(args.at(2)) {
                Some(bytes) if bytes <= 4 << 30 => ok(session, out),
                _ => Err(Fail::Text(
                    "ERR argument must be a memory value bigger than 1 and smaller than 4gb",
                )),
            }
        }
        (b"log", 3) => {
            tracing::warn!(text = %lossy(args.at(2), 1024), "DEBUG LOG");
            ok(session, out)
        }
        (b"error", 3) => {
            let text = lossy(args.at(2), 1024).replace(['\r', '\n'], " ");
            Err(Fail::Owned(text))
        }
        (b"change-repl-id", 2) => ok(session, out),
        (b"structsize", 2) => {
            let text = format!(
                "bits:{} client:{} session:{}",
                usize::BITS,
                size_of::<crate::resp::client::Client>(),
                size_of::<Session>()
            );
            Encoder::new(out, session.version).bulk(text.as_bytes());
            Ok(())
        }
        (b"object", 3 | 4) => object(session, args.at(2), out),
        (b"populate", 3..=5) => populate(session, args, out),
        // Nothing has to be read back: what is in memory is only what was used lately.
        (b"reload" | b"loadaof", 2) => persistence::save(session, args, out),
        (b"protocol", 3) => protocol(session, args.at(2), out),
        _ => Err(unknown(word)),
    }
}

/// A value of each type of the protocol.
fn protocol(session: &Session, kind: &[u8], out: &mut Vec<u8>) -> Done {
    let resp3 = session.version == Version::Resp3;
    let mut out = Encoder::new(out, session.version);
    match kind.to_ascii_lowercase().as_slice() {
        b"string" => out.bulk(b"Hello World"),
        b"integer" => out.integer(12_345),
        // As Redis: not quite pi.
        b"double" => out.double(3141.0 / 1000.0),
        b"null" => out.null(),
        b"array" => {
            out.array(3);
            (0..3).for_each(|n| out.integer(n));
        }
        b"set" => {
            out.set(3);
            (0..3).for_each(|n| out.integer(n));
        }
        b"map" => {
            out.map(3);
            for n in 0..3 {
                out.integer(n);
                out.boolean(n == 1);
            }
        }
        b"attrib" => {
            if resp3 {
                out.raw(b"|1\r\n$14\r\nkey-popularity\r\n*2\r\n$7\r\nkey:123\r\n:90\r\n");
            }
            // Attributes are not real replies, so a well formed reply should also follow.
            out.bulk(b"Some real reply following the attribute");
        }
        b"push" => {
            if !resp3 {
                return Err(Fail::Text("ERR RESP2 is not supported by this command"));
            }
            out.push(2);
            out.bulk(b"server-cpu-usage");
            out.integer(42);
        }
        b"bignum" => out.big_number("1234567999999999999999999999999999999"),
        b"true" => out.boolean(true),
        b"false" => out.boolean(false),
        b"verbatim" => out.verbatim("txt", b"This is a verbatim\nstring"),
        _ => {
            return Err(Fail::Text(
                "ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|set|map|attrib|push|verbatim|true|false",
            ));
        }
    }
    Ok(())
}

fn debug_help(session: &Session, out: &mut Vec<u8>) {
    help(
        &mut Encoder::new(out, session.version),
        "DEBUG",
        &[
            ("CHANGE-REPL-ID", "Does nothing: there is no replication."),
            (
                "ERROR <string>",
                "Return a protocol error with <string> as message.",
            ),
            ("LOG <message>", "Write <message> to the server log."),
            (
                "OBJECT <key>",
                "Show low level info about <key> and its value.",
            ),
            (
                "POPULATE <count> [<prefix>] [<size>]",
                "Create <count> string keys named key:<num>.",
            ),
            (
                "RELOAD",
                "Save; memory holds only what was used lately, so nothing is read back.",
            ),
            (
                "PROTOCOL <type>",
                "Reply with a test value of the specified type.",
            ),
            (
                "QUICKLIST-PACKED-THRESHOLD <size>",
                "Checks the size; lists have no such nodes here.",
            ),
            (
                "SET-ACTIVE-EXPIRE <0|1>",
                "Turns the expiry of keys that nobody uses off and on.",
            ),
            (
                "SLEEP <seconds>",
                "Answer after so many seconds; other connections go on.",
            ),
            ("STRUCTSIZE", "Return the sizes of some structures."),
        ],
    );
}

/// `DEBUG OBJECT key`.
fn object(session: &mut Session, key: &[u8], out: &mut Vec<u8>) -> Done {
    let name = Name::new(key);
    let shard = name.slot.shard();
    let db = session.db;
    let text = session.with_keys(ShardSet::of(shard), |locked, now, fx| {
        let mut view = locked.shard(shard).keys(db, now, fx);
        let idle = view.idle_seconds(&name)?.ok_or(Fail::NoKey)?;
        let length = view.memory_of(&name)?.unwrap_or(0);
        let encoding = view.value(&name)?.ok_or(Fail::NoKey)?.encoding();
        let lru = (now.0 / 1000).saturating_sub(idle) & 0xff_ffff;
        Ok(format!(
            "Value at:0x0 refcount:1 encoding:{encoding} serializedlength:{length} lru:{lru} lru_seconds_idle:{idle}"
        ))
    })?;
    Encoder::new(out, session.version).simple(&text);
    Ok(())
}

/// `DEBUG POPULATE count [prefix] [size]`.
fn populate(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    /// What one record of the log may hold.
    const KEYS_MAX: i64 = 1_000_000;
    let count = int(args.at(2))?;
    if !(0..=KEYS_MAX).contains(&count) {
        return Err(Fail::Text("ERR value is out of range, must be positive"));
    }
    let prefix = args.get(3).unwrap_or(b"key");
    let size = args.get(4).map(int).transpose()?.unwrap_or(0);
    let size = usize::try_from(size).unwrap_or(0).min(1 << 10);
    let db = session.db;
    session.with_keys(ShardSet::DATA, |locked, now, fx| {
        for n in 0..count {
            let key = [prefix, format!(":{n}").as_bytes()].concat();
            let mut value = format!("value:{n}").into_bytes();
            if size > 0 {
                value.resize(size, 0);
            }
            let name = Name::new(&key);
            let mut view = locked.shard(name.slot.shard()).keys(db, now, fx);
            if !view.exists(&name)? {
                view.set_string(&name, &value, Expire::Never)?;
            }
        }
        Ok(())
    })?;
    Encoder::new(out, session.version).ok();
    Ok(())
}
