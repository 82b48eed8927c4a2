//! What a command is: the row of the table from which arity errors, key positions, `COMMAND` and locking are read.

use broker::{Ctx, Locked, ShardId, ShardSet, Slot};
use protocol_resp::Args;

use super::categories::Categories;
use super::commands::fm::Plan;
use super::commands::function::Allowance;
use super::exec::Exec;
use super::fail::{Done, Fail};
use super::parse::is;
use super::permission::Rights;
use super::session::Session;
use crate::node::Node;

/// Properties of a command, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Flags(u32);

macro_rules! flags {
    ($( $name:ident = $bit:literal, $text:literal; )*) => {
        impl Flags {
            $( pub(crate) const $name: Self = Self(1 << $bit); )*
            /// Every flag with the name that `COMMAND` gives it, in its order.
            pub(crate) const NAMES: &[(Self, &'static str)] = &[$( (Self::$name, $text) ),*];
        }
        $( #[allow(dead_code)] pub(crate) const $name: Flags = Flags::$name; )*
    };
}

flags! {
    WRITE = 0, "write";
    READ = 1, "readonly";
    DENYOOM = 2, "denyoom";
    ADMIN = 3, "admin";
    PUBSUB = 4, "pubsub";
    NOSCRIPT = 5, "noscript";
    BLOCKING = 6, "blocking";
    LOADING = 7, "loading";
    STALE = 8, "stale";
    FAST = 9, "fast";
    NO_AUTH = 10, "no_auth";
    NO_MULTI = 11, "no_multi";
    MOVABLE = 12, "movablekeys";
    ALLOW_BUSY = 13, "allow_busy";
}

impl Flags {
    pub(crate) const NONE: Self = Self(0);

    #[inline]
    pub(crate) const fn has(self, flag: Self) -> bool {
        self.0 & flag.0 != 0
    }

    pub(crate) const fn and(self, flag: Self) -> Self {
        Self(self.0 | flag.0)
    }
}

impl std::ops::BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Which arguments are keys.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    None,
    /// First, last (negative: from the end), step.
    Range(i16, i16, i16),
    /// The count of keys stands at this argument, the keys behind it; also the argument given second, if not 0.
    Counted(usize, usize),
    /// The count of keys stands at this argument, the keys behind it, each with its value.
    Pairs(usize),
    /// The first half of what stands behind `STREAMS`, in `XREAD` and `XREADGROUP`.
    Streams,
    /// What visits the places; and the first key's, if it is always the same, else 0.
    With(fn(&Args<'_>, &mut dyn FnMut(usize)), i16),
}

/// The first one, and each how manieth of those behind it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ElementArgs {
    first: usize,
    step: usize,
}

/// Which shards a command must lock.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Locks {
    Keys,
    All,
    With(fn(&Args<'_>) -> ShardSet),
}

/// How a command runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Run {
    /// Under the locks of its keys.
    Keys(fn(&mut Exec<'_, '_>, &Args<'_>) -> Done),
    /// On the connection itself, without any lock.
    Session(fn(&mut Session, &Args<'_>, &mut Vec<u8>) -> Done),
    /// On the connection, which takes what locks it needs itself; within a transaction or script it is given those that its row names.
    Held(Held),
    /// Plans what it needs before the locks: see [`super::commands::fm`].
    Planned(fn(&Node, &Ctx, &Args<'_>, bool) -> Result<Plan, Fail>),
    /// The same where the plan runs Lua: not on the connection's thread, but within a transaction.
    Loading(fn(&Node, &Args<'_>, bool, &mut Allowance) -> Plan),
    /// A Lua script under all data shards' locks: see [`super::script`].
    Script(Evaluate),
    /// Has subcommands only.
    Container,
}

/// See [`Run::Held`].
pub(crate) type Held = fn(&mut Session, &Args<'_>, Option<&mut Locked<'_>>, &mut Vec<u8>) -> Done;

/// Which of the commands that run scripts and functions.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Evaluate {
    pub(crate) named: Named,
    pub(crate) read_only: bool,
}

/// How a script is named.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Named {
    /// By itself.
    Text,
    /// By its SHA-1.
    Digest,
    /// It is a function of a library.
    Function,
}

/// One command.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Spec {
    pub(crate) name: &'static str,
    /// Its place among all commands and subcommands; given by [`super::commands`] when the table is made.
    pub(crate) number: u16,
    /// Given with the number.
    pub(crate) categories: Categories,
    /// As Redis counts: the name included, negative means at least.
    pub(crate) arity: i16,
    pub(crate) flags: Flags,
    pub(crate) keys: Keys,
    /// Which arguments name elements of the hashes or sets at the keys.
    pub(crate) elements: Option<ElementArgs>,
    pub(crate) locks: Locks,
    /// What its client must be allowed.
    pub(crate) rights: Rights,
    pub(crate) run: Run,
    pub(crate) since: &'static str,
    pub(crate) summary: &'static str,
    pub(crate) sub: &'static [Self],
}

/// A command on keys.
pub(crate) const fn on_keys(
    name: &'static str,
    arity: i16,
    flags: Flags,
    keys: Keys,
    run: fn(&mut Exec<'_, '_>, &Args<'_>) -> Done,
    since: &'static str,
    summary: &'static str,
) -> Spec {
    let flags = match keys {
        Keys::Counted(..) | Keys::Pairs(_) | Keys::Streams | Keys::With(..) => {
            flags.and(Flags::MOVABLE)
        }
        _ => flags,
    };
    Spec {
        name,
        number: 0,
        categories: Categories::NONE,
        arity,
        flags,
        keys,
        elements: None,
        locks: Locks::Keys,
        rights: Rights::Flags,
        run: Run::Keys(run),
        since,
        summary,
        sub: &[],
    }
}

/// A command on the connection.
pub(crate) const fn on_session(
    name: &'static str,
    arity: i16,
    flags: Flags,
    run: fn(&mut Session, &Args<'_>, &mut Vec<u8>) -> Done,
    since: &'static str,
    summary: &'static str,
) -> Spec {
    Spec {
        name,
        number: 0,
        categories: Categories::NONE,
        arity,
        flags,
        keys: Keys::None,
        elements: None,
        locks: Locks::Keys,
        rights: Rights::Flags,
        run: Run::Session(run),
        since,
        summary,
        sub: &[],
    }
}

/// A command on the connection that needs locks, not those of keys it names.
pub(crate) const fn on_session_held(
    name: &'static str,
    arity: i16,
    flags: Flags,
    run: Held,
    since: &'static str,
    summary: &'static str,
) -> Spec {
    const fn nothing(_: &mut Session, _: &Args<'_>, _: &mut Vec<u8>) -> Done {
        Ok(())
    }
    Spec {
        run: Run::Held(run),
        ..on_session(name, arity, flags, nothing, since, summary)
    }
}

/// A command that is only the first word of its subcommands.
pub(crate) const fn container(
    name: &'static str,
    since: &'static str,
    summary: &'static str,
    sub: &'static [Spec],
) -> Spec {
    Spec {
        name,
        number: 0,
        categories: Categories::NONE,
        arity: -2,
        flags: Flags::NONE,
        keys: Keys::None,
        elements: None,
        locks: Locks::Keys,
        rights: Rights::Flags,
        run: Run::Container,
        since,
        summary,
        sub,
    }
}

impl Spec {
    pub(crate) const fn with_arity(mut self, arity: i16) -> Self {
        self.arity = arity;
        self
    }

    /// Elements stand at argument `first` and at every `step`th behind it.
    pub(crate) const fn naming(mut self, first: usize, step: usize) -> Self {
        self.elements = Some(ElementArgs { first, step });
        self
    }

    /// The arguments that name elements.
    pub(crate) fn element_args<'a>(&self, args: &Args<'a>) -> impl Iterator<Item = &'a [u8]> {
        let args = *args;
        let elements = self.elements.into_iter();
        elements.flat_map(move |ElementArgs { first, step }| {
            (first..args.len())
                .step_by(step.max(1))
                .map(move |place| args.at(place))
        })
    }

    pub(crate) const fn with_flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    pub(crate) const fn needing(mut self, rights: Rights) -> Self {
        self.rights = rights;
        self
    }

    pub(crate) const fn locking(mut self, locks: Locks) -> Self {
        self.locks = locks;
        self
    }

    #[inline]
    pub(crate) fn takes(&self, args: usize) -> bool {
        let wanted = usize::from(self.arity.unsigned_abs());
        if self.arity < 0 {
            args >= wanted
        } else {
            args == wanted
        }
    }

    /// Places of the keys among the arguments.
    pub(crate) fn key_places(&self, args: &Args<'_>) -> Vec<usize> {
        let mut places = Vec::new();
        self.each_key(args, &mut |place| places.push(place));
        places
    }

    /// Visits the places of the keys; arguments that do not fit the pattern are left to the handler to refuse.
    pub(crate) fn each_key(&self, args: &Args<'_>, visit: &mut dyn FnMut(usize)) {
        match self.keys {
            Keys::None => {}
            Keys::Range(first, last, step) => {
                let len = i64::try_from(args.len()).unwrap_or(0);
                let last = if last < 0 {
                    len + i64::from(last)
                } else {
                    i64::from(last)
                };
                let mut place = i64::from(first);
                while place <= last && place < len {
                    visit(usize::try_from(place).unwrap_or(0));
                    place += i64::from(step);
                }
            }
            Keys::Counted(count, also) => {
                if also != 0 {
                    visit(also);
                }
                let keys = protocol_resp::number::parse_i64(args.at(count))
                    .and_then(|keys| usize::try_from(keys).ok());
                let keys = keys.unwrap_or(0).min(args.len().saturating_sub(count + 1));
                (count + 1..count + 1 + keys).for_each(visit);
            }
            Keys::Pairs(count) => {
                let keys = protocol_resp::number::parse_i64(args.at(count))
                    .and_then(|keys| usize::try_from(keys).ok());
                let behind = count + 1..args.len();
                behind.step_by(2).take(keys.unwrap_or(0)).for_each(visit);
            }
            Keys::With(each, _) => each(args, visit),
            Keys::Streams => {
                let is = |place: usize, word: &str| is(args.at(place), word);
                let mut place = 1;
                // As the handler reads them: what it refuses does not matter.
                while place < args.len() && !is(place, "STREAMS") {
                    place += if is(place, "GROUP") {
                        3
                    } else if is(place, "BLOCK") || is(place, "COUNT") {
                        2
                    } else {
                        1
                    };
                }
                let keys = args.len().saturating_sub(place + 1) / 2;
                (place + 1..place + 1 + keys).for_each(visit);
            }
        }
    }

    /// What must be locked, and the slot of the first key.
    #[inline]
    pub(crate) fn shards(&self, args: &Args<'_>) -> (ShardSet, Option<Slot>) {
        match (self.locks, self.keys) {
            (Locks::Keys, Keys::Range(1, 1, _)) => {
                let slot = Slot::of(args.at(1));
                (ShardSet::of(slot.shard()), Some(slot))
            }
            (Locks::Keys, _) => {
                let mut set = ShardSet::EMPTY;
                let mut first = None;
                self.each_key(args, &mut |place| {
                    let slot = Slot::of(args.at(place));
                    first = first.or(Some(slot));
                    set = set.with(slot.shard());
                });
                (set, None)
            }
            (Locks::All, _) => (ShardSet::DATA, None),
            (Locks::With(choose), _) => (choose(args), None),
        }
    }
}

/// The first shard, for commands that need time and chance but no key.
pub(crate) fn any_shard(_: &Args<'_>) -> ShardSet {
    ShardSet::of(ShardId(0))
}

/// For rows whose subcommand must be given.
pub(crate) fn unknown_subcommand(spec: &Spec, sub: &[u8]) -> Fail {
    Fail::Owned(format!(
        "ERR unknown subcommand '{}'. Try {} HELP.",
        super::fail::lossy(sub, 128),
        spec.name.to_ascii_uppercase()
    ))
}
