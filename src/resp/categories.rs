//! Redis' ACL categories: which commands belong together.

use super::spec::{Flags, Run, Spec};

/// A set of categories.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Categories(u32);

macro_rules! categories {
    ($( $name:ident = $bit:literal, $text:literal; )*) => {
        impl Categories {
            $( const $name: Self = Self(1 << $bit); )*
            /// Every category with its name, in the order of `ACL CAT`.
            pub(crate) const NAMES: &[(Self, &'static str)] = &[$( (Self::$name, $text) ),*];
        }
    };
}

categories! {
    KEYSPACE = 0, "keyspace";
    READ = 1, "read";
    WRITE = 2, "write";
    SET = 3, "set";
    SORTEDSET = 4, "sortedset";
    LIST = 5, "list";
    HASH = 6, "hash";
    STRING = 7, "string";
    BITMAP = 8, "bitmap";
    HYPERLOGLOG = 9, "hyperloglog";
    GEO = 10, "geo";
    STREAM = 11, "stream";
    PUBSUB = 12, "pubsub";
    ADMIN = 13, "admin";
    FAST = 14, "fast";
    SLOW = 15, "slow";
    BLOCKING = 16, "blocking";
    DANGEROUS = 17, "dangerous";
    CONNECTION = 18, "connection";
    TRANSACTION = 19, "transaction";
    SCRIPTING = 20, "scripting";
}

impl Categories {
    pub(crate) const NONE: Self = Self(0);

    /// Any of `other`?
    pub(crate) const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The category of this name, in any case.
    pub(crate) fn parse(name: &[u8]) -> Option<Self> {
        let mut known = Self::NAMES.iter();
        let found = known.find(|(_, known)| name.eq_ignore_ascii_case(known.as_bytes()));
        found.map(|(category, _)| *category)
    }

    /// The names of those in it.
    pub(crate) fn names(self) -> impl Iterator<Item = &'static str> {
        let all = Self::NAMES.iter();
        all.filter(move |(category, _)| self.meets(*category))
            .map(|(_, name)| *name)
    }

    /// What follows from a command's family and flags, and what does not.
    pub(crate) fn of(group: &str, spec: &Spec) -> Self {
        let mut all = if spec.flags.has(Flags::FAST) {
            Self::FAST
        } else {
            Self::SLOW
        };
        // A command that is only the first word of others.
        if matches!(spec.run, Run::Container) {
            return all;
        }
        all = all.and(Self::of_group(group));
        for (flag, category) in [
            (Flags::WRITE, Self::WRITE),
            (Flags::READ, Self::READ),
            (Flags::ADMIN, Self::ADMIN.and(Self::DANGEROUS)),
            (Flags::BLOCKING, Self::BLOCKING),
        ] {
            if spec.flags.has(flag) {
                all = all.and(category);
            }
        }
        let (more, less) = Self::exceptions(spec.name);
        all.and(more).without(less)
    }

    const fn of_group(group: &str) -> Self {
        match group.as_bytes() {
            b"generic" => Self::KEYSPACE,
            b"string" => Self::STRING,
            b"bitmap" => Self::BITMAP,
            b"hash" => Self::HASH,
            b"list" => Self::LIST,
            b"set" => Self::SET,
            b"sorted-set" => Self::SORTEDSET,
            b"hyperloglog" => Self::HYPERLOGLOG,
            b"geo" => Self::GEO,
            b"stream" => Self::STREAM,
            b"pubsub" => Self::PUBSUB,
            b"transactions" => Self::TRANSACTION,
            b"connection" => Self::CONNECTION,
            b"scripting" => Self::SCRIPTING,
            _ => Self::NONE,
        }
    }

    /// Categories that a command has besides, and those that it has not.
    fn exceptions(name: &str) -> (Self, Self) {
        match name {
            "sort" | "sort_ro" => (
                Self::DANGEROUS
                    .and(Self::LIST)
                    .and(Self::SET)
                    .and(Self::SORTEDSET),
                Self::KEYSPACE,
            ),
            "restore" | "keys" | "info" => (Self::DANGEROUS, Self::NONE),
            "flushdb" | "flushall" | "swapdb" => (Self::DANGEROUS.and(Self::KEYSPACE), Self::NONE),
            "dbsize" => (Self::KEYSPACE, Self::NONE),
            "role" | "lastsave" => (Self::ADMIN.and(Self::DANGEROUS), Self::NONE),
            // They may not change anything, and may not read without being allowed to run scripts.
            "eval_ro" | "evalsha_ro" | "fcall_ro" => (Self::NONE, Self::READ),
            "wait" | "waitaof" | "command" => (Self::CONNECTION, Self::NONE),
            "pubsub|help" => (Self::NONE, Self::PUBSUB),
            _ if name.starts_with("command|") => (Self::CONNECTION, Self::NONE),
            _ => (Self::NONE, Self::NONE),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        assert_eq!(Categories::parse(b"SortedSet"), Some(Categories::SORTEDSET));
        assert_eq!(Categories::parse(b"all"), None);
        let both = Categories::FAST.and(Categories::KEYSPACE);
        assert_eq!(both.names().collect::<Vec<_>>(), ["keyspace", "fast"]);
    }
}
