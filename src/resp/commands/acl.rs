//! `ACL`: users and what they may do, as Redis says it. See [`crate::resp::acl`].

use std::sync::Arc;
use std::sync::atomic::Ordering;

use broker::access::{DEFAULT, Verbs};
use broker::{Durability, Lsn, Need};
use protocol_resp::{Args, Encoder, Version};

use super::connection::ok;
use super::server::help as lines;
use crate::config::Face;
use crate::node::Node;
use crate::resp::acl::draft::{Selector, is_space};
use crate::resp::acl::edit::{self, By};
use crate::resp::acl::log::Entry;
use crate::resp::acl::view;
use crate::resp::categories::Categories;
use crate::resp::commands;
use crate::resp::fail::{Done, Fail, lossy, wrong_arity};
use crate::resp::parse::{int, is};
use crate::resp::permission::{self, Asking, Rights};
use crate::resp::session::{NESTED, Session};
use crate::resp::spec::*;

const SUB: Flags = NOSCRIPT.and(LOADING).and(STALE);
const ADMINISTER: Flags = SUB.and(ADMIN);
/// Users that are described on the connection's own thread, and grants of them.
const FEW: (usize, usize) = (256, 1024);

const SEES: Rights = Rights::Redis("acl", Verbs::DESCRIBE);
const CHANGES: Rights = Rights::Redis("acl", Verbs::ADMIN);

pub(crate) const COMMANDS: &[Spec] = &[container(
    "acl",
    "6.0.0",
    "Users and what they may do.",
    &[
        on_session(
            "acl|cat",
            -2,
            SUB,
            cat,
            "6.0.0",
            "Lists the categories, or the commands of one.",
        ),
        on_session(
            "acl|deluser",
            -3,
            ADMINISTER,
            deluser,
            "6.0.0",
            "Removes users and closes their connections.",
        )
        .needing(CHANGES),
        on_session(
            "acl|dryrun",
            -4,
            ADMINISTER,
            dryrun,
            "7.0.0",
            "Tells whether a user may run a command, without running it.",
        )
        .needing(SEES),
        on_session(
            "acl|genpass",
            -2,
            SUB,
            genpass,
            "6.0.0",
            "Makes a password of random numbers.",
        ),
        on_session(
            "acl|getuser",
            3,
            ADMINISTER,
            getuser,
            "6.0.0",
            "Shows a user.",
        )
        .needing(SEES),
        on_session(
            "acl|help",
            2,
            LOADING.and(STALE),
            help,
            "6.0.0",
            "Lists the subcommands.",
        ),
        on_session(
            "acl|list",
            2,
            ADMINISTER,
            list,
            "6.0.0",
            "Shows all users as rules that would make them.",
        )
        .needing(SEES),
        on_session(
            "acl|load",
            2,
            ADMINISTER,
            no_file,
            "6.0.0",
            "Would read the users from a file, which there is not.",
        )
        .needing(CHANGES),
        on_session(
            "acl|log",
            -2,
            ADMINISTER,
            log,
            "6.0.0",
            "Shows what was refused last, or forgets it.",
        )
        .needing(SEES),
        on_session(
            "acl|save",
            2,
            ADMINISTER,
            no_file,
            "6.0.0",
            "Would write the users to a file, which there is not.",
        )
        .needing(CHANGES),
        on_session(
            "acl|setuser",
            -3,
            ADMINISTER,
            setuser,
            "6.0.0",
            "Makes or changes a user by rules.",
        )
        .needing(CHANGES),
        on_session(
            "acl|users",
            2,
            ADMINISTER,
            users,
            "6.0.0",
            "Lists the names of all users.",
        )
        .needing(SEES),
        on_session(
            "acl|whoami",
            2,
            SUB,
            whoami,
            "6.0.0",
            "Returns the name of the connection's user.",
        ),
    ],
)];

/// Too many arguments, in the words of the only commands that look for themselves.
fn at_most(args: &Args<'_>, count: usize) -> Done {
    if args.len() <= count {
        return Ok(());
    }
    Err(Fail::Owned(format!(
        "ERR unknown subcommand or wrong number of arguments for '{}'. Try ACL HELP.",
        lossy(args.at(1), 128)
    )))
}

fn cat(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    at_most(args, 3)?;
    let mut out = Encoder::new(out, session.version);
    let Some(name) = args.get(2) else {
        out.array(Categories::NAMES.len());
        for (_, name) in Categories::NAMES {
            out.bulk(name.as_bytes());
        }
        return Ok(());
    };
    let category = Categories::parse(name)
        .ok_or_else(|| Fail::Owned(format!("ERR Unknown category '{}'", lossy(name, 128))))?;
    let of_it: Vec<&str> = commands::all()
        .flat_map(|(_, spec)| std::iter::once(spec).chain(spec.sub))
        .filter(|spec| spec.categories.meets(category))
        .map(|spec| spec.name)
        .collect();
    out.array(of_it.len());
    of_it.iter().for_each(|name| out.bulk(name.as_bytes()));
    Ok(())
}

fn name_of<'a>(args: &Args<'a>) -> Result<&'a str, Fail> {
    let name = args.at(2);
    if name.iter().any(|byte| is_space(*byte)) {
        return Err(Fail::Text(
            "ERR Usernames can't contain spaces or null characters",
        ));
    }
    std::str::from_utf8(name).map_err(|_| Fail::Text("ERR Usernames must be UTF-8"))
}

/// Answers when the disk has it: who has lost a right must not get it back from a crash.
pub(super) fn durable(session: &mut Session, lsn: Lsn) {
    session.wait_for(Need::of(lsn, Durability::Sync));
}

pub(super) fn by(session: &Session) -> By<'_> {
    By {
        who: session.identity(),
        from: session.client.peer.ip(),
        face: Face::Resp,
        now: session.ctx.now,
        all_channels: session.hub.acl_all_channels.load(Ordering::Relaxed),
    }
}

fn setuser(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if session.nested {
        return Err(NESTED);
    }
    let name = name_of(args)?;
    let rules: Vec<&[u8]> = args.iter().skip(3).collect();
    let lsn = edit::set(&session.node, &by(session), name, &rules)?;
    durable(session, lsn);
    ok(session, out)
}

fn deluser(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if session.nested {
        return Err(NESTED);
    }
    let (deleted, lsn) = edit::delete(&session.node, &by(session), args.iter().skip(2))?;
    durable(session, lsn);
    Encoder::new(out, session.version).count(deleted);
    Ok(())
}

fn show_selector(out: &mut Encoder<'_>, selector: &Selector) {
    for (field, value) in [
        ("commands", selector.commands.to_string().into_bytes()),
        ("keys", selector.keys_text()),
        ("channels", selector.channels_text()),
        ("databases", selector.databases_text().into_bytes()),
    ] {
        out.bulk(field.as_bytes());
        out.bulk(&value);
    }
}

fn getuser(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let found = std::str::from_utf8(args.at(2)).ok();
    let found = found.and_then(|name| view::somebody(&session.node, name));
    let mut out = Encoder::new(out, session.version);
    let Some(draft) = found else {
        out.null();
        return Ok(());
    };
    out.map(7);
    out.bulk(b"flags");
    let flags = draft.flags();
    out.set(flags.len());
    flags.iter().for_each(|flag| out.bulk(flag.as_bytes()));
    out.bulk(b"passwords");
    out.array(draft.passwords.len());
    for password in &draft.passwords {
        out.bulk(password.as_bytes());
    }
    show_selector(&mut out, &draft.root);
    out.bulk(b"selectors");
    out.array(draft.others.len());
    for selector in &draft.others {
        out.map(4);
        show_selector(&mut out, selector);
    }
    Ok(())
}

/// Everybody as rules.
fn lines_of_everybody(node: &Node, version: Version) -> Vec<u8> {
    let (mut bytes, all) = (Vec::new(), view::everybody(node));
    let mut out = Encoder::new(&mut bytes, version);
    out.array(all.len());
    for (name, draft) in all {
        out.bulk(&draft.line(&name));
    }
    bytes
}

/// Of many on a thread of its own, and not under the locks of a transaction.
fn list(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let version = session.version;
    if session.node.broker.access.are_few(FEW.0, FEW.1) {
        out.extend_from_slice(&lines_of_everybody(&session.node, version));
        return Ok(());
    }
    if session.nested {
        return Err(NESTED);
    }
    let node = Arc::clone(&session.node);
    session.away("acl", move || Ok(lines_of_everybody(&node, version)))
}

fn users(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let names = view::names(&session.node);
    let mut out = Encoder::new(out, session.version);
    out.array(names.len());
    names.iter().for_each(|name| out.bulk(name.as_bytes()));
    Ok(())
}

fn whoami(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let name = session.identity().name().unwrap_or(DEFAULT);
    Encoder::new(out, session.version).bulk(name.as_bytes());
    Ok(())
}

fn genpass(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    const BITS_MAX: usize = 4096;
    at_most(args, 3)?;
    let bits = args.get(2).map_or(Ok(256), int)?;
    let bits = usize::try_from(bits)
        .ok()
        .filter(|bits| (1..=BITS_MAX).contains(bits))
        .ok_or(Fail::Text(
            "ERR ACL GENPASS argument must be the number of bits for the output password, a positive number up to 4096",
        ))?;
    let mut chance = [0; BITS_MAX / 8];
    getrandom::fill(&mut chance).map_err(|_| Fail::Text("ERR the system has no random numbers"))?;
    let mut digits: String = chance.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.truncate(bits.div_ceil(4));
    Encoder::new(out, session.version).bulk(digits.as_bytes());
    Ok(())
}

fn log(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    at_most(args, 3)?;
    if args.get(2).is_some_and(|word| is(word, "RESET")) {
        session.hub.acl_log.reset();
        return ok(session, out);
    }
    let count = args.get(2).map_or(Ok(10), int)?;
    let entries = session
        .hub
        .acl_log
        .newest(usize::try_from(count).unwrap_or(0));
    let mut out = Encoder::new(out, session.version);
    out.array(entries.len());
    for entry in &entries {
        show_entry(&mut out, entry, session.ctx.now.0);
    }
    Ok(())
}

fn show_entry(out: &mut Encoder<'_>, entry: &Entry, now_ms: u64) {
    let count = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    out.map(10);
    out.bulk(b"count");
    out.integer(count(entry.count));
    for (field, value) in [
        ("reason", entry.reason.word().as_bytes()),
        ("context", entry.context.word().as_bytes()),
        ("object", &entry.object),
        ("username", &entry.user),
    ] {
        out.bulk(field.as_bytes());
        out.bulk(value);
    }
    out.bulk(b"age-seconds");
    out.double(now_ms.saturating_sub(entry.updated_ms) as f64 / 1000.0);
    out.bulk(b"client-info");
    out.bulk(entry.client.as_bytes());
    for (field, value) in [
        ("entry-id", entry.id),
        ("timestamp-created", entry.created_ms),
        ("timestamp-last-updated", entry.updated_ms),
    ] {
        out.bulk(field.as_bytes());
        out.integer(count(value));
    }
}

fn dryrun(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let (node, user) = (&session.node, lossy(args.at(2), usize::MAX));
    let implied = view::implied(node, &user);
    let identity = node.broker.access.as_if_enabled(&user);
    if implied.is_none() && identity.is_none() {
        return Err(Fail::Owned(format!("ERR User '{user}' not found")));
    }
    let inner = args.from(3);
    let spec =
        commands::lookup(&inner).ok_or_else(|| match commands::lookup_name(inner.at(0)) {
            Some(container) if inner.len() == 1 => wrong_arity(container.name),
            _ => {
                let name = lossy(inner.at(0), usize::MAX);
                Fail::Owned(format!("ERR Command '{name}' not found"))
            }
        })?;
    if !spec.takes(inner.len()) {
        return Err(wrong_arity(spec.name));
    }
    let done = match (&implied, &identity) {
        // All or nothing.
        (Some(implied), _) if implied.on || spec.flags.has(NO_AUTH) => Ok(()),
        (Some(_), _) => Err(permission::Denied::Command),
        (None, Some(who)) if who.is_superuser() => Ok(()),
        (None, Some(who)) => permission::check(&Asking::new(who, node, session.db), spec, &inner),
        (None, None) => Ok(()),
    };
    let mut out = Encoder::new(out, session.version);
    match done {
        Ok(()) => out.ok(),
        Err(denied) => out.bulk(denied.tell(&user, spec, &inner).as_bytes()),
    }
    Ok(())
}

/// Each change of users is on the disk before it is answered.
fn no_file(_: &mut Session, _: &Args<'_>, _: &mut Vec<u8>) -> Done {
    Err(Fail::Text(
        "ERR This instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER command and then issue a CONFIG REWRITE (assuming you have a configuration file set) in order to store users in the configuration.",
    ))
}

fn help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    lines(
        &mut Encoder::new(out, session.version),
        "ACL",
        &[
            (
                "CAT [<category>]",
                "List all commands that belong to <category>, or all command categories\nwhen no category is specified.",
            ),
            (
                "DELUSER <username> [<username> ...]",
                "Delete a list of users.",
            ),
            (
                "DRYRUN <username> <command> [<arg> ...]",
                "Returns whether the user can execute the given command without executing the command.",
            ),
            ("GETUSER <username>", "Get the user's details."),
            (
                "GENPASS [<bits>]",
                "Generate a secure 256-bit user password. The optional `bits` argument can\nbe used to specify a different size.",
            ),
            ("LIST", "Show users details in config file format."),
            ("LOAD", "Reload users from the ACL file."),
            ("LOG [<count> | RESET]", "Show the ACL log entries."),
            ("SAVE", "Save the current config to the ACL file."),
            (
                "SETUSER <username> <rule> [<rule> ...]",
                "Create or modify a user with the specified rules.",
            ),
            ("USERS", "List all the registered usernames."),
            ("WHOAMI", "Return the current connection username."),
        ],
    );
    Ok(())
}
