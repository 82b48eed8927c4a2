//! Transactions.

use protocol_resp::Args;

use crate::resp::fail::Done;
use crate::resp::session::Session;
use crate::resp::spec::*;

pub(crate) const COMMANDS: &[Spec] = &[
    on_session(
        "multi",
        1,
        NOSCRIPT.and(LOADING).and(STALE).and(FAST).and(ALLOW_BUSY),
        multi,
        "1.2.0",
        "Starts a transaction.",
    ),
    on_session(
        "exec",
        1,
        NOSCRIPT.and(LOADING).and(STALE),
        exec,
        "1.2.0",
        "Runs the queued commands as one.",
    ),
    on_session(
        "discard",
        1,
        NOSCRIPT.and(LOADING).and(STALE).and(FAST).and(ALLOW_BUSY),
        discard,
        "2.0.0",
        "Forgets the queued commands.",
    ),
    Spec {
        keys: Keys::Range(1, -1, 1),
        ..on_session(
            "watch",
            -2,
            NOSCRIPT
                .and(LOADING)
                .and(STALE)
                .and(FAST)
                .and(ALLOW_BUSY)
                .and(NO_MULTI),
            watch,
            "2.2.0",
            "Lets EXEC fail if one of the keys changes.",
        )
    },
    on_session(
        "unwatch",
        1,
        NOSCRIPT.and(LOADING).and(STALE).and(FAST).and(ALLOW_BUSY),
        unwatch,
        "2.2.0",
        "Forgets the watched keys.",
    ),
];

fn multi(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.multi_begin()?;
    out.extend_from_slice(b"+OK\r\n");
    Ok(())
}

fn exec(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.exec(out)
}

fn discard(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.multi_discard()?;
    out.extend_from_slice(b"+OK\r\n");
    Ok(())
}

fn watch(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.watch(args)?;
    out.extend_from_slice(b"+OK\r\n");
    Ok(())
}

fn unwatch(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    session.unwatch_all();
    out.extend_from_slice(b"+OK\r\n");
    Ok(())
}
