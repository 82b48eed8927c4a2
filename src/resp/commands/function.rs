//! `FUNCTION`: libraries of functions, which are kept.

use std::sync::Arc;
use std::time::{Duration, Instant};

use broker::access::Verbs;
use broker::cache::matches;
use broker::functions::{self, FunctionsError, Libraries, Library, Policy};
use broker::{Effects, Locked, ShardSet};
use protocol_resp::rdb::{LibrariesError, dump_libraries, restore_libraries};
use protocol_resp::{Args, Encoder};

use super::fm::Plan;
use crate::node::Node;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, lossy};
use crate::resp::parse::is;
use crate::resp::permission::Rights;
use crate::resp::script::sandbox::LOAD_MAX;
use crate::resp::script::{FLAGS, library};
use crate::resp::session::Session;
use crate::resp::session::runner::busy;
use crate::resp::spec::*;

/// Of what everybody's functions are.
const CHANGING: Rights = Rights::Admin("script", Verbs::CONFIGURE);
const LOOKING: Rights = Rights::Admin("script", Verbs::DESCRIBE);

const fn loading(
    name: &'static str,
    plan: fn(&Node, &Args<'_>, bool, &mut Allowance) -> Plan,
    summary: &'static str,
) -> Spec {
    Spec {
        run: Run::Loading(plan),
        ..container(name, SINCE, summary, &[])
    }
    .with_arity(-3)
    .with_flags(WRITE.and(DENYOOM).and(NOSCRIPT))
    .needing(CHANGING)
}

const fn changing(
    name: &'static str,
    arity: i16,
    run: fn(&mut Exec<'_, '_>, &Args<'_>) -> Done,
    summary: &'static str,
) -> Spec {
    on_keys(
        name,
        arity,
        WRITE.and(NOSCRIPT),
        Keys::None,
        run,
        SINCE,
        summary,
    )
    .locking(Locks::With(|_| ShardSet::CATALOG))
    .needing(CHANGING)
}

const SINCE: &str = "7.0.0";

pub(crate) const COMMANDS: &[Spec] = &[container(
    "function",
    SINCE,
    "Looks at libraries of functions and changes them.",
    &[
        loading(
            "function|load",
            plan_load,
            "Takes a library and keeps its functions.",
        ),
        loading(
            "function|restore",
            plan_restore,
            "Takes the libraries of a dump.",
        ),
        changing("function|delete", 3, delete, "Forgets a library."),
        changing("function|flush", -2, flush, "Forgets all libraries."),
        on_session(
            "function|list",
            -2,
            NOSCRIPT,
            list,
            SINCE,
            "Lists libraries with their functions.",
        )
        .needing(LOOKING),
        on_session(
            "function|dump",
            2,
            NOSCRIPT,
            dump,
            SINCE,
            "Returns all libraries as one value for FUNCTION RESTORE.",
        )
        .needing(LOOKING),
        on_session(
            "function|stats",
            2,
            NOSCRIPT.and(ALLOW_BUSY),
            stats,
            SINCE,
            "Tells which function runs, and how many there are.",
        )
        .needing(LOOKING),
        on_session(
            "function|kill",
            2,
            NOSCRIPT.and(ALLOW_BUSY),
            kill,
            SINCE,
            "Ends the function that runs.",
        )
        .needing(CHANGING),
        on_session(
            "function|help",
            2,
            LOADING.and(STALE),
            help,
            SINCE,
            "Lists the subcommands.",
        ),
    ],
)];

/// What reading and running libraries may take until they are kept: those of one command, or of all of a transaction.
#[derive(Debug)]
pub(crate) struct Allowance {
    until: Instant,
    /// Octets that they may still take.
    bytes: usize,
}

impl Allowance {
    pub(crate) fn new(time: Duration) -> Self {
        Self {
            until: Instant::now() + time,
            bytes: functions::BYTES_MAX,
        }
    }

    /// What is left of the time, for one library.
    pub(crate) fn time(&self) -> Duration {
        let left = self.until.saturating_duration_since(Instant::now());
        left.min(LOAD_MAX)
    }

    fn take(&mut self, library: &Library) -> Done {
        let left = self.bytes.checked_sub(library.size());
        self.bytes = left.ok_or_else(library::limits)?;
        Ok(())
    }
}

/// Libraries that were read and run, and now wait for the catalog.
#[derive(Debug)]
pub(crate) struct Loads {
    /// What they failed with: told when their turn comes, since in a transaction the others go on.
    read: Result<Vec<Arc<Library>>, Fail>,
    policy: Policy,
    /// The reply is their name, and errors are those of `FUNCTION LOAD`.
    one: bool,
}

impl Loads {
    pub(super) fn run(
        self,
        locked: &mut Locked<'_>,
        fx: &mut Effects,
        out: &mut Encoder<'_>,
    ) -> Done {
        let new = self.read?;
        functions::put(locked, &new, self.policy, fx).map_err(|error| match error {
            FunctionsError::Library(name) if self.one => taken(&name),
            FunctionsError::Library(name) => {
                Fail::Owned(format!("ERR Library {name} already exists"))
            }
            FunctionsError::Function(name) => {
                Fail::Owned(format!("ERR Function {name} already exists"))
            }
            FunctionsError::Limits => library::limits(),
        })?;
        match new.first() {
            Some(library) if self.one => out.bulk(library.name.as_bytes()),
            _ => out.ok(),
        }
        Ok(())
    }
}

fn taken(name: &str) -> Fail {
    Fail::Owned(format!("ERR Library '{name}' already exists"))
}

/// `FUNCTION LOAD [REPLACE] text`.
fn plan_load(
    node: &Node,
    args: &Args<'_>,
    in_transaction: bool,
    allowance: &mut Allowance,
) -> Plan {
    let mut policy = Policy::Append;
    for word in args.from(2).iter().take(args.len().saturating_sub(3)) {
        if !is(word, "REPLACE") {
            return load(Policy::Append, Err(unknown_option(word)), true);
        }
        policy = Policy::Replace;
    }
    let text = args.at(args.len().saturating_sub(1));
    // What a transaction does before may make room for the name.
    let known = (policy == Policy::Append && !in_transaction).then(|| node.broker.functions.now());
    let read = read(node, text, known.as_deref(), allowance);
    load(policy, read.map(|library| vec![library]), true)
}

fn load(policy: Policy, read: Result<Vec<Arc<Library>>, Fail>, one: bool) -> Plan {
    Plan::Load(Loads { read, policy, one })
}

fn unknown_option(word: &[u8]) -> Fail {
    Fail::Owned(format!("ERR Unknown option given: {}", lossy(word, 128)))
}

/// A library, run. One whose name is among those that are `known` is not: it could not be taken.
fn read(
    node: &Node,
    text: &[u8],
    known: Option<&Libraries>,
    allowance: &mut Allowance,
) -> Result<Arc<Library>, Fail> {
    if let Some(known) = known {
        let name = library::name(text)?;
        if known.get(&name).is_some() {
            return Err(taken(&name));
        }
    }
    let memory = node.config.resp_script_memory.as_usize();
    if allowance.time().is_zero() {
        return Err(Fail::Text(
            "ERR Error registering functions: ERR FUNCTION LOAD timeout",
        ));
    }
    if text.len() > allowance.bytes {
        return Err(library::limits());
    }
    let library = library::load(text, memory, allowance.time())?;
    allowance.take(&library)?;
    Ok(Arc::new(library))
}

/// `FUNCTION RESTORE payload [FLUSH|APPEND|REPLACE]`.
fn plan_restore(node: &Node, args: &Args<'_>, _: bool, allowance: &mut Allowance) -> Plan {
    let policy = match args.get(3) {
        _ if args.len() > 4 => Err(wrong_arguments("RESTORE")),
        None => Ok(Policy::Append),
        Some(word) if is(word, "APPEND") => Ok(Policy::Append),
        Some(word) if is(word, "REPLACE") => Ok(Policy::Replace),
        Some(word) if is(word, "FLUSH") => Ok(Policy::Flush),
        Some(_) => Err(Fail::Text(
            "ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.",
        )),
    };
    match policy {
        Ok(policy) => load(policy, restored(node, args.at(2), allowance), false),
        Err(fail) => load(Policy::Append, Err(fail), false),
    }
}

/// How long all libraries of a dump may take together.
pub(crate) const RESTORE_MAX: Duration = Duration::from_secs(5);
/// How long all libraries of a transaction may: it runs on the thread of its connection.
pub(crate) const TRANSACTION_MAX: Duration = Duration::from_secs(1);

fn restored(
    node: &Node,
    payload: &[u8],
    allowance: &mut Allowance,
) -> Result<Vec<Arc<Library>>, Fail> {
    let (most, room) = (functions::LIBRARIES_MAX, allowance.bytes);
    let texts = restore_libraries(payload, most, room).map_err(|error| {
        Fail::Text(match error {
            LibrariesError::Limits => return library::limits(),
            LibrariesError::Footer => "ERR DUMP payload version or checksum are wrong",
            LibrariesError::Unreleased => "ERR Pre-GA function format not supported",
            LibrariesError::Other => "ERR given type is not a function",
            LibrariesError::Text => "ERR Failed loading library payload",
        })
    })?;
    let mut libraries = Libraries::default();
    for text in &texts {
        if allowance.time().is_zero() {
            return Err(Fail::Text("ERR FUNCTION RESTORE timeout"));
        }
        let library = read(node, text, Some(&libraries), allowance)?;
        // Among themselves they are refused as by FUNCTION LOAD.
        libraries.add(library).map_err(|error| match error {
            FunctionsError::Library(name) => taken(&name),
            FunctionsError::Function(name) => {
                Fail::Owned(format!("ERR Function {name} already exists"))
            }
            FunctionsError::Limits => library::limits(),
        })?;
    }
    Ok(libraries.iter().cloned().collect())
}

fn wrong_arguments(name: &str) -> Fail {
    Fail::Owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{name}'. Try FUNCTION HELP."
    ))
}

fn delete(exec: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    let name = std::str::from_utf8(args.at(2)).unwrap_or_default();
    if !functions::delete(exec.locked, name, exec.fx) {
        return Err(Fail::Text("ERR Library not found"));
    }
    exec.out.ok();
    Ok(())
}

/// `FUNCTION FLUSH [ASYNC|SYNC]`.
fn flush(exec: &mut Exec<'_, '_>, args: &Args<'_>) -> Done {
    if args.len() > 3 {
        return Err(wrong_arguments("FLUSH"));
    }
    if args
        .get(2)
        .is_some_and(|word| !is(word, "SYNC") && !is(word, "ASYNC"))
    {
        return Err(Fail::Text(
            "ERR FUNCTION FLUSH only supports SYNC|ASYNC option",
        ));
    }
    functions::put(exec.locked, &[], Policy::Flush, exec.fx).map_err(|_| library::limits())?;
    exec.out.ok();
    Ok(())
}

/// `FUNCTION LIST [LIBRARYNAME glob] [WITHCODE]`.
fn list(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let (mut glob, mut with_text) = (None, false);
    let mut words = args.iter().skip(2);
    while let Some(word) = words.next() {
        if !with_text && is(word, "WITHCODE") {
            with_text = true;
        } else if glob.is_none() && is(word, "LIBRARYNAME") {
            let given = words.next();
            glob = Some(given.ok_or(Fail::Text("ERR library name argument was not given"))?);
        } else {
            return Err(Fail::Owned(format!(
                "ERR Unknown argument {}",
                lossy(word, 128)
            )));
        }
    }
    let now = session.libraries();
    let glob = glob.map(<[u8]>::to_ascii_lowercase);
    let named = |library: &&Arc<Library>| {
        let name = || library.name.as_bytes().to_ascii_lowercase();
        glob.as_ref().is_none_or(|glob| matches(glob, &name()))
    };
    let chosen: Vec<_> = now.iter().filter(named).collect();
    let mut out = Encoder::new(out, session.version);
    out.array(chosen.len());
    for library in chosen {
        describe(&mut out, library, with_text);
    }
    Ok(())
}

fn describe(out: &mut Encoder<'_>, library: &Library, with_text: bool) {
    out.map(if with_text { 4 } else { 3 });
    out.bulk(b"library_name");
    out.bulk(library.name.as_bytes());
    out.bulk(b"engine");
    out.bulk(ENGINE);
    out.bulk(b"functions");
    out.array(library.functions.len());
    for function in &library.functions {
        out.map(3);
        out.bulk(b"name");
        out.bulk(function.name.as_bytes());
        out.bulk(b"description");
        match &function.description {
            Some(text) => out.bulk(text),
            None => out.null(),
        }
        out.bulk(b"flags");
        let flags = FLAGS.iter().filter(|(flag, _)| function.flags.has(*flag));
        out.set(flags.clone().count());
        flags.for_each(|(_, name)| out.simple(name));
    }
    if with_text {
        out.bulk(b"library_code");
        out.bulk(&library.text);
    }
}

const ENGINE: &[u8] = b"LUA";

fn dump(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let now = session.libraries();
    let texts = now.iter().map(|library| &*library.text);
    Encoder::new(out, session.version).bulk(&dump_libraries(texts));
    Ok(())
}

fn stats(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let scripts = &session.node.scripts;
    if scripts.is_busy() && !scripts.is_function() {
        return Err(busy(&session.node));
    }
    let running = scripts.function();
    let now = session.libraries();
    let mut out = Encoder::new(out, session.version);
    out.map(2);
    out.bulk(b"running_script");
    match running {
        None => out.null(),
        Some((running, took_ms)) => {
            out.map(3);
            out.bulk(b"name");
            out.bulk(running.name.as_bytes());
            out.bulk(b"command");
            out.array(running.command.len());
            running.command.iter().for_each(|word| out.bulk(word));
            out.bulk(b"duration_ms");
            out.integer(i64::try_from(took_ms).unwrap_or(i64::MAX));
        }
    }
    out.bulk(b"engines");
    out.map(1);
    out.bulk(ENGINE);
    out.map(2);
    out.bulk(b"libraries_count");
    out.count(now.iter().len());
    out.bulk(b"functions_count");
    out.count(now.functions());
    Ok(())
}

fn kill(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    super::scripting::end(session, true, out)
}

fn help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    super::server::help(
        &mut Encoder::new(out, session.version),
        "FUNCTION",
        &[
            (
                "DELETE <library-name>",
                "Forget a library and its functions.",
            ),
            ("DUMP", "Return all libraries as one value."),
            ("FLUSH [ASYNC|SYNC]", "Forget all libraries."),
            ("KILL", "End the function that runs, unless it has written."),
            (
                "LIST [LIBRARYNAME <pattern>] [WITHCODE]",
                "Return the libraries, with their functions and, if wished, their code.",
            ),
            (
                "LOAD [REPLACE] <code>",
                "Take a library; its first line is '#!lua name=<library-name>'.",
            ),
            (
                "RESTORE <payload> [FLUSH|APPEND|REPLACE]",
                "Take the libraries of a FUNCTION DUMP; those there are go, stay, or go if they have the same name.",
            ),
            (
                "STATS",
                "Return the function that runs, and how many libraries and functions there are.",
            ),
        ],
    );
    Ok(())
}
