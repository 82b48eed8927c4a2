//! `COMMAND`: the table of commands, for clients.

use broker::cache::matches;
use protocol_resp::{Args, Encoder};

use super::help;
use crate::resp::categories::Categories;
use crate::resp::commands;
use crate::resp::docs;
use crate::resp::fail::{Done, Fail};
use crate::resp::parse::is;
use crate::resp::session::Session;
use crate::resp::spec::*;

pub(super) fn command_all(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut out = Encoder::new(out, session.version);
    out.array(commands::all().count());
    for (_, spec) in commands::all() {
        describe(&mut out, spec);
    }
    Ok(())
}

pub(super) fn command_count(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    Encoder::new(out, session.version).count(commands::all().count());
    Ok(())
}

/// A command or `container|subcommand`.
pub(super) fn find(name: &[u8]) -> Option<(&'static str, &'static Spec)> {
    let lower = name.to_ascii_lowercase();
    commands::all()
        .flat_map(|(group, spec)| {
            std::iter::once((group, spec)).chain(spec.sub.iter().map(move |sub| (group, sub)))
        })
        .find(|(_, spec)| spec.name.as_bytes() == lower)
}

pub(super) fn command_info(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    if args.len() == 2 {
        return command_all(session, args, out);
    }
    let mut out = Encoder::new(out, session.version);
    out.array(args.len() - 2);
    for name in args.iter().skip(2) {
        match find(name) {
            Some((_, spec)) => describe(&mut out, spec),
            None => out.null(),
        }
    }
    Ok(())
}

/// The ten fields that clients know.
fn describe(out: &mut Encoder<'_>, spec: &Spec) {
    out.array(10);
    out.bulk(spec.name.as_bytes());
    out.integer(i64::from(spec.arity));
    let flags: Vec<_> = Flags::NAMES
        .iter()
        .filter(|(flag, _)| spec.flags.has(*flag))
        .collect();
    out.set(flags.len());
    flags.iter().for_each(|(_, name)| out.simple(name));
    let (first, last, step) = match shown_keys(spec) {
        Keys::None | Keys::Counted(_, 0) | Keys::Pairs(_) | Keys::Streams | Keys::With(_, 0) => {
            (0, 0, 0)
        }
        Keys::With(_, first) => (first, first, 1),
        Keys::Range(first, last, step) => (first, last, step),
        Keys::Counted(_, also) => (
            i16::try_from(also).unwrap_or(0),
            i16::try_from(also).unwrap_or(0),
            1,
        ),
    };
    for value in [first, last, step] {
        out.integer(i64::from(value));
    }
    out.set(spec.categories.names().count());
    for name in spec.categories.names() {
        out.simple(&format!("@{name}"));
    }
    let tips = docs::of(spec.name).map_or(&[][..], |docs| &docs.tips);
    out.set(tips.len());
    tips.iter().for_each(|tip| out.bulk(tip.as_bytes()));
    key_specs(out, spec);
    out.array(spec.sub.len());
    for sub in spec.sub {
        describe(out, sub);
    }
}

/// How many patterns of keys [`key_specs`] tells.
fn key_spec_count(spec: &Spec) -> usize {
    match spec.keys {
        Keys::None => 0,
        Keys::Counted(_, also) => 1 + usize::from(also != 0),
        _ => key_flags(spec).len().max(1),
    }
}

/// Channels of shards stand where keys would, for clients that look there for a slot.
fn shown_keys(spec: &Spec) -> Keys {
    match spec.name {
        "spublish" => Keys::Range(1, 1, 1),
        "ssubscribe" | "sunsubscribe" => Keys::Range(1, -1, 1),
        _ => spec.keys,
    }
}

fn key_flags(spec: &Spec) -> &'static [Vec<&'static str>] {
    docs::of(spec.name).map_or(&[], |docs| &docs.key_flags)
}

fn key_specs(out: &mut Encoder<'_>, spec: &Spec) {
    let said = key_flags(spec);
    let mut places = said.iter().map(Vec::as_slice);
    let mut begin = |out: &mut Encoder<'_>, search: &str| {
        let access = places.next().unwrap_or(match spec.flags.has(WRITE) {
            true => &["RW", "update"],
            false => &["RO", "access"],
        });
        out.map(3);
        out.bulk(b"flags");
        out.set(access.len());
        access.iter().for_each(|name| out.simple(name));
        out.bulk(b"begin_search");
        out.map(2);
        out.bulk(b"type");
        out.bulk(search.as_bytes());
        out.bulk(b"spec");
    };
    let find = |out: &mut Encoder<'_>, kind: &str, fields: &[(&str, i64)]| {
        out.bulk(b"find_keys");
        out.map(2);
        out.bulk(b"type");
        out.bulk(kind.as_bytes());
        out.bulk(b"spec");
        out.map(fields.len());
        for (name, value) in fields {
            out.bulk(name.as_bytes());
            out.integer(*value);
        }
    };
    let entry = |out: &mut Encoder<'_>,
                 begin: &mut dyn FnMut(&mut Encoder<'_>, &str),
                 index: i64,
                 kind: &str,
                 fields: &[(&str, i64)]| {
        begin(out, "index");
        out.map(1);
        out.bulk(b"index");
        out.integer(index);
        find(out, kind, fields);
    };
    let range = |last: i16, step: i16| {
        [
            ("lastkey", i64::from(last)),
            ("keystep", i64::from(step)),
            ("limit", 0),
        ]
    };
    match shown_keys(spec) {
        Keys::None => out.set(0),
        Keys::Range(first, last, step) if first != last || said.len() < 2 => {
            // Where the first key is another thing than those behind it.
            let (one, first) = if said.len() > 1 {
                (Some(first), first + 1)
            } else {
                (None, first)
            };
            out.set(said.len().max(1));
            if let Some(one) = one {
                entry(out, &mut begin, i64::from(one), "range", &range(0, 1));
            }
            // The last key is told from the first one on.
            let last = if last < 0 { last } else { last - first };
            entry(
                out,
                &mut begin,
                i64::from(first),
                "range",
                &range(last, step),
            );
        }
        Keys::Range(first, ..) | Keys::With(_, first) => {
            out.set(said.len().max(1));
            entry(out, &mut begin, i64::from(first), "range", &range(0, 1));
            // Words may stand anywhere behind what a command must have; what SORT looks at is nowhere among its arguments.
            let words: &[&str] = match spec.name {
                "georadius" | "georadiusbymember" => &["STORE", "STOREDIST"],
                _ => &["", ""],
            };
            for word in words.iter().take(said.len().saturating_sub(1)) {
                if word.is_empty() {
                    begin(out, "unknown");
                    out.map(0);
                    find(out, "unknown", &[]);
                    continue;
                }
                begin(out, "keyword");
                out.map(2);
                out.bulk(b"keyword");
                out.bulk(word.as_bytes());
                out.bulk(b"startfrom");
                out.integer(i64::from(spec.arity.unsigned_abs()));
                find(out, "range", &range(0, 1));
            }
        }
        Keys::Pairs(count) => {
            out.set(1);
            entry(
                out,
                &mut begin,
                count as i64,
                "keynum",
                &[("keynumidx", 0), ("firstkey", 1), ("keystep", 2)],
            );
        }
        Keys::Streams => {
            out.set(1);
            begin(out, "keyword");
            out.map(2);
            out.bulk(b"keyword");
            out.bulk(b"STREAMS");
            out.bulk(b"startfrom");
            // Behind the command and what it must have.
            out.integer(if spec.flags.has(WRITE) { 4 } else { 1 });
            find(
                out,
                "range",
                &[("lastkey", -1), ("keystep", 1), ("limit", 2)],
            );
        }
        Keys::Counted(count, also) => {
            out.set(key_spec_count(spec));
            if also != 0 {
                entry(out, &mut begin, also as i64, "range", &range(0, 1));
            }
            entry(
                out,
                &mut begin,
                count as i64,
                "keynum",
                &[("keynumidx", 0), ("firstkey", 1), ("keystep", 1)],
            );
        }
    }
}

pub(super) fn command_docs(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let chosen: Vec<_> = if args.len() == 2 {
        commands::all().collect()
    } else {
        args.iter().skip(2).filter_map(find).collect()
    };
    let mut out = Encoder::new(out, session.version);
    out.map(chosen.len());
    for (group, spec) in chosen {
        document(&mut out, group, spec);
    }
    Ok(())
}

fn document(out: &mut Encoder<'_>, group: &str, spec: &Spec) {
    out.bulk(spec.name.as_bytes());
    // Redis has these two among those on keys.
    let group = match spec.name {
        "wait" | "waitaof" => "generic",
        _ => group,
    };
    let docs = docs::of(spec.name);
    let arguments = docs.map_or(&[][..], |docs| &docs.arguments);
    let (has_sub, has_arguments) = (!spec.sub.is_empty(), !arguments.is_empty());
    let history = docs.map_or(&[][..], |docs| docs.history);
    let more = [has_sub, has_arguments, !history.is_empty()];
    out.map(4 + more.iter().filter(|has| **has).count());
    for (field, value) in [
        ("summary", spec.summary),
        ("since", spec.since),
        ("group", group),
        ("complexity", docs.map_or("O(1)", |docs| docs.complexity)),
    ] {
        out.bulk(field.as_bytes());
        out.bulk(value.as_bytes());
    }
    if !history.is_empty() {
        out.bulk(b"history");
        out.set(history.len());
        for (version, change) in history {
            out.array(2);
            out.bulk(version.as_bytes());
            out.bulk(change.as_bytes());
        }
    }
    if has_arguments {
        out.bulk(b"arguments");
        docs::write(out, arguments, key_spec_count(spec));
    }
    if !spec.sub.is_empty() {
        out.bulk(b"subcommands");
        out.map(spec.sub.len());
        spec.sub.iter().for_each(|sub| document(out, group, sub));
    }
}

pub(super) fn command_list(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let mut found: Vec<&Spec> = Vec::new();
    let all = commands::all().flat_map(|(group, spec)| {
        std::iter::once((group, spec)).chain(spec.sub.iter().map(move |sub| (group, sub)))
    });
    match (args.get(2), args.get(3), args.get(4)) {
        (None, ..) => found.extend(commands::all().map(|(_, spec)| spec)),
        (Some(word), Some(by), Some(value)) if is(word, "FILTERBY") && args.len() == 5 => {
            if is(by, "PATTERN") {
                let pattern = value.to_ascii_lowercase();
                found.extend(
                    all.filter(|(_, spec)| matches(&pattern, spec.name.as_bytes()))
                        .map(|(_, spec)| spec),
                );
            } else if is(by, "ACLCAT") {
                let wanted = Categories::parse(value).unwrap_or(Categories::NONE);
                found.extend(
                    all.filter(|(_, spec)| spec.categories.meets(wanted))
                        .map(|(_, spec)| spec),
                );
            } else if is(by, "MODULE") {
                // There are none.
            } else {
                return Err(Fail::Syntax);
            }
        }
        _ => return Err(Fail::Syntax),
    }
    let mut out = Encoder::new(out, session.version);
    out.array(found.len());
    found.iter().for_each(|spec| out.bulk(spec.name.as_bytes()));
    Ok(())
}

pub(super) fn command_getkeys(session: &mut Session, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
    let inner = args.from(2);
    let spec = commands::lookup(&inner).ok_or(Fail::Text("ERR Invalid command specified"))?;
    if matches!(spec.keys, Keys::None) {
        return Err(Fail::Text("ERR The command has no key arguments"));
    }
    if !spec.takes(inner.len()) {
        return Err(Fail::Text(
            "ERR Invalid number of arguments specified for command",
        ));
    }
    let places = spec.key_places(&inner);
    if places.is_empty() {
        return Err(Fail::Text("ERR Invalid arguments specified for command"));
    }
    let mut out = Encoder::new(out, session.version);
    out.array(places.len());
    places
        .into_iter()
        .for_each(|place| out.bulk(inner.at(place)));
    Ok(())
}

pub(super) fn command_help(session: &mut Session, _: &Args<'_>, out: &mut Vec<u8>) -> Done {
    help(
        &mut Encoder::new(out, session.version),
        "COMMAND",
        &[
            ("(no subcommand)", "Return details about all commands."),
            (
                "COUNT",
                "Return the total number of commands in this server.",
            ),
            (
                "DOCS [<command-name> [<command-name> ...]]",
                "Return documentation details about multiple commands.",
            ),
            (
                "GETKEYS <full-command>",
                "Return the keys from a full command.",
            ),
            (
                "INFO [<command-name> ...]",
                "Return details about multiple commands.",
            ),
            (
                "LIST [FILTERBY (ACLCAT <cat>|PATTERN <pattern>)]",
                "Return a list of all commands in this server.",
            ),
        ],
    );
    Ok(())
}
