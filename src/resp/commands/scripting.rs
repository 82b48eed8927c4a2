//! Lua scripts.

use broker::access::Verbs;
use protocol_resp::{Args, Encoder};

use crate::resp::fail::{Done, Fail};
use crate::resp::parse::is;
use crate::resp::permission::Rights;
use crate::resp::script::parse_digest;
use crate::resp::session::Session;
use crate::resp::session::runner::busy;
use crate::resp::spec::*;
use crate::script_watch::Unkilled;

const SUB: Flags = NOSCRIPT.and(STALE);

/// What a script does to its keys is asked when it does it.
const ASKED_INSIDE: Rights = Rights::With(|_, _| Ok(()));

const fn evaluating(
    name: &'static str,
    flags: Flags,
    how: Evaluate,
    since: &'static str,
    summary: &'static str,
) -> Spec {
    Spec {
        run: Run::Script(how),
        keys: Keys::Counted(2, 0),
        ..container(name, since, summary, &[])
    }
    .with_arity(-3)
    .with_flags(flags.and(SUB).and(MOVABLE))
    .needing(ASKED_INSIDE)
    .locking(Locks::All)
}

const fn how(named: Named, read_only: bool) -> Evaluate {
    Evaluate { named, read_only }
}

pub(crate) const COMMANDS: &[Spec] = &[
    evaluating(
        "eval",
        Flags::NONE,
        how(Named::Text, false),
        "2.6.0",
        "Runs a Lua script.",
    ),
    evaluating(
        "evalsha",
        Flags::NONE,
        how(Named::Digest, false),
        "2.6.0",
        "Runs a Lua script by its SHA-1.",
    ),
    evaluating(
        "eval_ro",
        READ,
        how(Named::Text, true),
        "7.0.0",
        "Runs a Lua script that does not write.",
    ),
    evaluating(
        "evalsha_ro",
        READ,
        how(Named::Digest, true),
        "7.0.0",
        "Runs a Lua script that does not write by its SHA-1.",
    ),
    evaluating(
        "fcall",
        Flags::NONE,
        how(Named::Function, false),
        "7.0.0",
        "Calls a function of a library.",
    ),
    evaluating(
        "fcall_ro",
        READ,
        how(Named::Function, true),
        "7.0.0",
        "Calls a function of a library that does not write.",
    ),
    container(
        "script",
        "2.6.0",
        "Looks at scripts and changes what is known.",
        &[
            on_session(
                "script|load",
                3,
                SUB,
                load,
                "2.6.0",
                "Remembers a script without running it.",
            )
            .needing(ASKED_INSIDE),
            on_session(
                "script|exists",
                -3,
                SUB,
                exists,
                "2.6.0",
                "Tells which scripts are known.",
            )
            .needing(ASKED_INSIDE),
            on_session(
                "script|show",
                3,
                SUB,
                show,
                "8.0.0",
                "Returns the text of a script.",
            )
            .needing(ASKED_INSIDE),
            on_session(
                "script|flush",
                -2,
                SUB,
                flush,
                "2.6.0",
                "Forgets all scripts.",
            )
            .needing(Rights::Admin("script", Verbs::CONFIGURE)),
            on_session(
                "script|kill",
                2,
                NOSCRIPT.and(ALLOW_BUSY),
                kill,
                "2.6.0",
                "Ends the script that runs.",
            )
            .needing(Rights::Admin("script", Verbs::CONFIGURE)),
            on_session(
                "script|debug",
                3,
                NOSCRIPT,
                debug,
                "3.2.0",
                "Sets the debug mode of scripts, which there is not.",
            )
            .needing(ASKED_INSIDE),
            on_session(
                "script|help",
                2,
                LOADING.and(STALE),
                help,
                "5.0.0",
                "Lists the subcommands.",
            ),
        ],
    ),
];

fn load(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let hex = session.load_script(args.at(2))?;
    Encoder::new(out, session.version).bulk(hex.as_bytes());
    Ok(())
}

fn exists(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut out = Encoder::new(out, session.version);
    out.array(args.len() - 2);
    for digest in args.iter().skip(2) {
        let known = parse_digest(digest).and_then(|digest| session.hub.scripts.get(&digest));
        out.integer(i64::from(known.is_some()));
    }
    Ok(())
}

fn show(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let known = parse_digest(args.at(2)).and_then(|digest| session.hub.scripts.get(&digest));
    let Some(script) = known else {
        return Err(Fail::Text("NOSCRIPT No matching script. Please use EVAL."));
    };
    Encoder::new(out, session.version).bulk(&script.body);
    Ok(())
}

fn flush(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let known = match args.len() {
        2 => true,
        3 => is(args.at(2), "SYNC") || is(args.at(2), "ASYNC"),
        _ => false,
    };
    if !known {
        return Err(Fail::Text(
            "ERR SCRIPT FLUSH only support SYNC|ASYNC option",
        ));
    }
    session.hub.scripts.flush();
    Encoder::new(out, session.version).ok();
    Ok(())
}

fn kill(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    end(session, false, out)
}

/// Ends the script that runs, or the function.
pub(super) fn end(session: &mut Session, function: bool, out: &mut Vec<u8>) -> Done {
    session.node.scripts.kill(function).map_err(|why| {
        Fail::Text(match why {
            Unkilled::Other => return busy(&session.node),
            Unkilled::Idle => "NOTBUSY No scripts in execution right now.",
            Unkilled::Wrote => {
                "UNKILLABLE Sorry the script already executed write commands against the dataset. You can either wait the script termination or kill the server in a hard way using the SHUTDOWN NOSAVE command."
            }
        })
    })?;
    Encoder::new(out, session.version).ok();
    Ok(())
}

fn debug(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if is(args.at(2), "NO") {
        Encoder::new(out, session.version).ok();
        return Ok(());
    }
    Err(if is(args.at(2), "YES") || is(args.at(2), "SYNC") {
        Fail::Text("ERR the debugger of Lua scripts is not supported")
    } else {
        Fail::Text("ERR Use SCRIPT DEBUG YES/SYNC/NO")
    })
}

fn help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    super::server::help(
        &mut Encoder::new(out, session.version),
        "SCRIPT",
        &[
            (
                "DEBUG (YES|SYNC|NO)",
                "Set the debug mode for subsequent scripts executed: only NO is supported.",
            ),
            (
                "EXISTS <sha1> [<sha1> ...]",
                "Return information about the existence of the scripts in the script cache.",
            ),
            ("FLUSH [ASYNC|SYNC]", "Flush the Lua scripts cache."),
            ("KILL", "Kill the currently executing Lua script."),
            (
                "LOAD <script>",
                "Load a script into the scripts cache without executing it.",
            ),
            ("SHOW <sha1>", "Show a script from the scripts cache."),
        ],
    );
    Ok(())
}
