//! The table of commands, from its families.

pub(crate) mod connection;
pub(crate) mod dump;
pub(crate) mod fm;
pub(crate) mod generic;
pub(crate) mod geo;
pub(crate) mod hash;
pub(crate) mod hyperloglog;
pub(crate) mod list;
pub(crate) mod pubsub;
pub(crate) mod scripting;
pub(crate) mod server;
pub(crate) mod set;
pub(crate) mod sort;
pub(crate) mod stream;
pub(crate) mod string;
pub(crate) mod transaction;
pub(crate) mod zset;

use std::sync::LazyLock;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use protocol_resp::Args;

use super::spec::Spec;

/// Every family with the group that `COMMAND DOCS` gives it.
const FAMILIES: &[(&str, &[Spec])] = &[
    ("connection", connection::COMMANDS),
    ("generic", generic::COMMANDS),
    ("generic", sort::COMMANDS),
    ("generic", dump::COMMANDS),
    ("string", string::COMMANDS),
    ("bitmap", string::bits::COMMANDS),
    ("bitmap", string::bitfield::COMMANDS),
    ("hash", hash::COMMANDS),
    ("hash", hash::lasting::COMMANDS),
    ("list", list::COMMANDS),
    ("set", set::COMMANDS),
    ("sorted-set", zset::COMMANDS),
    ("sorted-set", zset::ranges::COMMANDS),
    ("sorted-set", zset::algebra::COMMANDS),
    ("hyperloglog", hyperloglog::COMMANDS),
    ("geo", geo::COMMANDS),
    ("stream", stream::add::COMMANDS),
    ("stream", stream::range::COMMANDS),
    ("stream", stream::read::COMMANDS),
    ("stream", stream::group::COMMANDS),
    ("stream", stream::pending::COMMANDS),
    ("stream", stream::info::COMMANDS),
    ("pubsub", pubsub::COMMANDS),
    ("transactions", transaction::COMMANDS),
    ("scripting", scripting::COMMANDS),
    ("server", server::COMMANDS),
    ("flowmesh", fm::COMMANDS),
];

/// No command's name is longer.
const NAME_MAX: usize = 24;

static TABLE: LazyLock<HashMap<&'static [u8], &'static Spec, FixedState>> = LazyLock::new(|| {
    FAMILIES
        .iter()
        .flat_map(|(_, family)| *family)
        .map(|spec| (spec.name.as_bytes(), spec))
        .collect()
});

/// Every command with its group.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static Spec)> {
    FAMILIES
        .iter()
        .flat_map(|(group, family)| family.iter().map(move |spec| (*group, spec)))
}

/// A command by its first word, in any case.
#[inline]
pub(crate) fn lookup_name(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; NAME_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    TABLE.get(&*lower).copied()
}

/// A command, or the subcommand that the second word names. A container alone is found only when it can run.
#[inline]
pub(crate) fn lookup(args: &Args<'_>) -> Option<&'static Spec> {
    let spec = lookup_name(args.at(0))?;
    if spec.sub.is_empty() {
        return Some(spec);
    }
    let word = args.get(1)?;
    let found = spec.sub.iter().find(|sub| {
        sub.name
            .split_once('|')
            .is_some_and(|(_, name)| word.eq_ignore_ascii_case(name.as_bytes()))
    });
    // COMMAND alone is a command of its own.
    found.or(None)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_short() {
        let names: Vec<_> = all().map(|(_, spec)| spec.name).collect();
        assert_eq!(TABLE.len(), names.len(), "a name twice");
        for (_, spec) in all() {
            assert!(
                spec.name.len() <= NAME_MAX && spec.name == spec.name.to_ascii_lowercase(),
                "{}",
                spec.name
            );
            assert!(spec.summary.ends_with('.'), "{}", spec.name);
            for sub in spec.sub {
                assert!(
                    sub.name.starts_with(&format!("{}|", spec.name)),
                    "{}",
                    sub.name
                );
            }
        }
    }
}
