//! The table of commands, from its families.

pub(crate) mod acl;
pub(crate) mod client;
pub(crate) mod cluster;
pub(crate) mod connection;
pub(crate) mod dump;
pub(crate) mod fm;
pub(crate) mod function;
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
mod until;
pub(crate) mod zset;

use std::sync::LazyLock;

use foldhash::fast::FixedState;
use hashbrown::HashMap;
use protocol_resp::Args;

use super::categories::Categories;
use super::spec::{Run, Spec};

/// Every family with the group that `COMMAND DOCS` gives it.
const FAMILIES: &[(&str, &[Spec])] = &[
    ("connection", connection::COMMANDS),
    ("connection", client::COMMANDS),
    ("generic", generic::COMMANDS),
    ("generic", sort::COMMANDS),
    ("generic", dump::COMMANDS),
    ("string", string::COMMANDS),
    ("string", string::compare::COMMANDS),
    ("string", string::bounded::COMMANDS),
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
    ("stream", stream::refs::COMMANDS),
    ("stream", stream::range::COMMANDS),
    ("stream", stream::read::COMMANDS),
    ("stream", stream::group::COMMANDS),
    ("stream", stream::pending::COMMANDS),
    ("stream", stream::release::COMMANDS),
    ("stream", stream::idempotence::COMMANDS),
    ("stream", stream::info::COMMANDS),
    ("pubsub", pubsub::COMMANDS),
    ("transactions", transaction::COMMANDS),
    ("scripting", scripting::COMMANDS),
    ("scripting", function::COMMANDS),
    ("server", server::COMMANDS),
    ("server", server::admin::COMMANDS),
    ("cluster", cluster::COMMANDS),
    ("server", acl::COMMANDS),
    ("flowmesh", fm::COMMANDS),
];

/// No command's name is longer.
const NAME_MAX: usize = 24;

static TABLE: LazyLock<Table> = LazyLock::new(Table::new);

struct Table {
    by_name: HashMap<&'static [u8], &'static Spec, FixedState>,
    /// In the families' order.
    all: Vec<(&'static str, &'static Spec)>,
    /// Subcommands included.
    by_number: Vec<&'static Spec>,
}

impl Table {
    /// Copies of the families' rows, each with its number. They live as long as the process.
    fn new() -> Self {
        let mut number = 0..;
        let mut numbered = |group: &str, spec: &Spec| Spec {
            number: number.next().unwrap_or(u16::MAX),
            categories: Categories::of(group, spec),
            ..*spec
        };
        let mut table = Self {
            by_name: HashMap::default(),
            all: Vec::new(),
            by_number: Vec::new(),
        };
        for (group, spec) in FAMILIES
            .iter()
            .flat_map(|(group, family)| family.iter().map(move |spec| (*group, spec)))
        {
            let mut own = numbered(group, spec);
            let sub: Vec<Spec> = spec.sub.iter().map(|sub| numbered(group, sub)).collect();
            own.sub = Vec::leak(sub);
            let own: &'static Spec = Box::leak(Box::new(own));
            table.by_name.insert(own.name.as_bytes(), own);
            table.all.push((group, own));
            table.by_number.push(own);
            table.by_number.extend(own.sub);
        }
        table
    }
}

/// Every command with its group.
pub(crate) fn all() -> impl Iterator<Item = (&'static str, &'static Spec)> {
    TABLE.all.iter().copied()
}

/// The command or subcommand with this [`Spec::number`].
pub(crate) fn by_number(number: u16) -> Option<&'static Spec> {
    TABLE.by_number.get(usize::from(number)).copied()
}

/// A command, or a subcommand as `container|subcommand`, in any case.
pub(crate) fn by_full_name(name: &[u8]) -> Option<&'static Spec> {
    let Some(bar) = name.iter().position(|byte| *byte == b'|') else {
        return lookup_name(name);
    };
    let subs = lookup_name(name.get(..bar)?)?.sub;
    subs.iter()
        .find(|sub| name.eq_ignore_ascii_case(sub.name.as_bytes()))
}

/// How many commands and subcommands there are.
pub(crate) fn count() -> usize {
    TABLE.by_number.len()
}

/// A command by its first word, in any case.
#[inline]
pub(crate) fn lookup_name(name: &[u8]) -> Option<&'static Spec> {
    let mut lower = [0; NAME_MAX];
    let lower = lower.get_mut(..name.len())?;
    lower.copy_from_slice(name);
    lower.make_ascii_lowercase();
    TABLE.by_name.get(&*lower).copied()
}

/// A command, or the subcommand that the second word names. A container alone is found only when it can run.
#[inline]
pub(crate) fn lookup(args: &Args<'_>) -> Option<&'static Spec> {
    let spec = lookup_name(args.at(0))?;
    if spec.sub.is_empty() {
        return Some(spec);
    }
    let Some(word) = args.get(1) else {
        // COMMAND alone is a command of its own.
        return (!matches!(spec.run, Run::Container)).then_some(spec);
    };
    spec.sub.iter().find(|sub| {
        sub.name
            .split_once('|')
            .is_some_and(|(_, name)| word.eq_ignore_ascii_case(name.as_bytes()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_container_alone_is_a_command_only_if_it_can_run() {
        let name_of = |word: &[u8]| {
            let ranges = [(0, word.len() as u32)];
            lookup(&Args::new(word, &ranges)).map(|spec| spec.name)
        };
        assert_eq!(name_of(b"COMMAND"), Some("command"));
        assert_eq!(name_of(b"CONFIG"), None);
    }

    #[test]
    fn names_are_unique_and_short() {
        let names: Vec<_> = all().map(|(_, spec)| spec.name).collect();
        assert_eq!(TABLE.by_name.len(), names.len(), "a name twice");
        for number in 0..count() as u16 {
            assert_eq!(by_number(number).map(|spec| spec.number), Some(number));
        }
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
