//! Rows of commands for those who look after the server.

use protocol_resp::{Args, Encoder};

use super::{debug, memory, persistence, slowlog};
use crate::resp::fail::{Done, Fail};
use crate::resp::permission::Rights;
use crate::resp::session::Session;
use crate::resp::spec::*;
use broker::access::Verbs;

pub(crate) const COMMANDS: &[Spec] = &[
    container(
        "module",
        "4.0.0",
        "Lists modules.",
        &[
            on_session(
                "module|list",
                2,
                ADMIN.and(NOSCRIPT),
                module_list,
                "4.0.0",
                "Lists the modules: there are none.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "module|help",
                2,
                LOADING.and(STALE),
                module_help,
                "5.0.0",
                "Lists the subcommands.",
            ),
        ],
    ),
    on_session(
        "lastsave",
        1,
        LOADING.and(STALE).and(FAST),
        persistence::lastsave,
        "1.0.0",
        "Returns when clients last had everything saved.",
    ),
    on_session(
        "save",
        1,
        ADMIN.and(NOSCRIPT).and(NO_MULTI),
        persistence::save,
        "1.0.0",
        "Brings everything from the log into the tables.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "bgsave",
        -1,
        ADMIN.and(NOSCRIPT),
        persistence::bgsave,
        "1.0.0",
        "Brings everything from the log into the tables, without waiting for it.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "bgrewriteaof",
        1,
        ADMIN.and(NOSCRIPT),
        persistence::bgrewriteaof,
        "1.0.0",
        "As BGSAVE: the log is not needed any more where the tables have it.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "wait",
        3,
        BLOCKING,
        persistence::wait,
        "3.0.0",
        "Counts the replicas that have all writes.",
    ),
    on_session(
        "waitaof",
        4,
        BLOCKING,
        persistence::waitaof,
        "7.2.0",
        "Waits until all writes are on the disk.",
    ),
    on_session(
        "shutdown",
        -1,
        ADMIN
            .and(NOSCRIPT)
            .and(LOADING)
            .and(STALE)
            .and(NO_MULTI)
            .and(ALLOW_BUSY),
        persistence::shutdown,
        "1.0.0",
        "Stops the server.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "replicaof",
        3,
        ADMIN.and(NOSCRIPT).and(STALE),
        persistence::replicaof,
        "5.0.0",
        "NO ONE: the server stays a master.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "slaveof",
        3,
        ADMIN.and(NOSCRIPT).and(STALE),
        persistence::replicaof,
        "1.0.0",
        "NO ONE: the server stays a master.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "monitor",
        1,
        ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
        monitor,
        "1.0.0",
        "Shows every command that is run.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "debug",
        -2,
        ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
        debug::debug,
        "1.0.0",
        "For tests; refused unless the configuration allows it.",
    )
    .needing(Rights::Admin("server", Verbs::ADMIN)),
    on_session(
        "lolwut",
        -1,
        READ.and(FAST),
        memory::lolwut,
        "5.0.0",
        "Shows the version.",
    ),
    container(
        "slowlog",
        "2.2.12",
        "Commands that took long.",
        &[
            on_session(
                "slowlog|get",
                -2,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::slowlog_get,
                "2.2.12",
                "Returns the newest slow commands.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "slowlog|len",
                2,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::slowlog_len,
                "2.2.12",
                "Counts the slow commands that are kept.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "slowlog|reset",
                2,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::slowlog_reset,
                "2.2.12",
                "Forgets the slow commands.",
            )
            .needing(Rights::Admin("server", Verbs::ADMIN)),
            on_session(
                "slowlog|help",
                2,
                LOADING.and(STALE),
                slowlog::slowlog_help,
                "6.2.0",
                "Explains the subcommands.",
            ),
        ],
    ),
    container(
        "latency",
        "2.8.13",
        "Times that were long.",
        &[
            on_session(
                "latency|doctor",
                2,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::doctor,
                "2.8.13",
                "Says in words what took long.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "latency|graph",
                3,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::graph,
                "2.8.13",
                "Draws the samples of an event.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "latency|histogram",
                -2,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::histogram,
                "7.0.0",
                "Returns how long commands took.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "latency|history",
                3,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::history,
                "2.8.13",
                "Returns the samples of an event.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "latency|latest",
                2,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::latest,
                "2.8.13",
                "Returns the last sample of each event.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "latency|reset",
                -2,
                ADMIN.and(NOSCRIPT).and(LOADING).and(STALE),
                slowlog::latency_reset,
                "2.8.13",
                "Forgets the samples of events.",
            )
            .needing(Rights::Admin("server", Verbs::ADMIN)),
            on_session(
                "latency|help",
                2,
                LOADING.and(STALE),
                slowlog::latency_help,
                "2.8.13",
                "Explains the subcommands.",
            ),
        ],
    ),
    container(
        "memory",
        "4.0.0",
        "Looks at memory.",
        &[
            on_keys(
                "memory|usage",
                -3,
                READ,
                Keys::Range(2, 2, 1),
                memory::usage,
                "4.0.0",
                "Returns how much memory a key takes.",
            ),
            on_keys(
                "memory|stats",
                2,
                Flags::NONE,
                Keys::None,
                memory::stats,
                "4.0.0",
                "Returns what memory is used for.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE))
            .locking(Locks::All),
            on_keys(
                "memory|doctor",
                2,
                Flags::NONE,
                Keys::None,
                memory::doctor,
                "4.0.0",
                "Says in words what is wrong with memory.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "memory|purge",
                2,
                Flags::NONE,
                memory::purge,
                "4.0.0",
                "Gives unused memory back to the system.",
            )
            .needing(Rights::Admin("server", Verbs::ADMIN)),
            on_session(
                "memory|malloc-stats",
                2,
                Flags::NONE,
                memory::malloc_stats,
                "4.0.0",
                "Returns the allocator's own report.",
            )
            .needing(Rights::Admin("server", Verbs::DESCRIBE)),
            on_session(
                "memory|help",
                2,
                LOADING.and(STALE),
                memory::memory_help,
                "4.0.0",
                "Explains the subcommands.",
            ),
        ],
    ),
];

fn monitor(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if session.nested {
        return Err(Fail::Text(
            "ERR MONITOR isn't allowed for DENY BLOCKING client",
        ));
    }
    // As Redis: who monitors already hears nothing.
    if session.begin_monitoring() {
        Encoder::new(out, session.version).ok();
    }
    Ok(())
}

/// Tools ask for it when they connect; nothing can be loaded into this server.
fn module_list(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version).array(0);
    Ok(())
}

fn module_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let lines = [("LIST", "Return the modules: there are none.")];
    super::help(&mut Encoder::new(out, session.version), "MODULE", &lines);
    Ok(())
}
