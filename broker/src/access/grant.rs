//! One grant, and how it lies on disk.
//!
//! ```text
//! Grant  principal len u8 | principal | namespace len u8 | namespace (`*` = every one) | kind u8 | pattern u8 | deny u8 | text
//!        → version u8 | verbs u16 LE
//! ```
//! The version is 1 where that build could have written the row; of kind `redis` it is 2, so that such a build says why it stops.

use std::fmt;
use std::sync::Arc;

use storage::ShardId;

use super::pattern::Pattern;
use crate::rows::{self, Tag};
use crate::{Effects, Slot};

pub(super) const VERSION: u8 = 2;

/// What a name is the name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Kind {
    Key = b'k',
    Channel = b'c',
    Queue = b'q',
    Exchange = b'e',
    Topic = b't',
    Group = b'g',
    TransactionalId = b'x',
    Schema = b's',
    /// The server itself: the names are areas such as `config`, `clients`, `cluster`.
    Admin = b'a',
    /// The same as Redis clients see it, and no other face: what Redis' command rules give of the server. `acl` is an area of it.
    Redis = b'r',
}

impl Kind {
    /// All of them with their words, in an order that stays.
    pub const ALL: [(Self, &'static str); 10] = [
        (Self::Key, "key"),
        (Self::Channel, "channel"),
        (Self::Queue, "queue"),
        (Self::Exchange, "exchange"),
        (Self::Topic, "topic"),
        (Self::Group, "group"),
        (Self::TransactionalId, "transactional-id"),
        (Self::Schema, "schema"),
        (Self::Admin, "admin"),
        (Self::Redis, "redis"),
    ];

    /// Its place in [`Kind::ALL`].
    #[inline]
    pub(super) const fn index(self) -> usize {
        match self {
            Self::Key => 0,
            Self::Channel => 1,
            Self::Queue => 2,
            Self::Exchange => 3,
            Self::Topic => 4,
            Self::Group => 5,
            Self::TransactionalId => 6,
            Self::Schema => 7,
            Self::Admin => 8,
            Self::Redis => 9,
        }
    }

    /// The word for it.
    #[must_use]
    pub fn word(self) -> &'static str {
        Self::ALL.get(self.index()).map_or("", |(_, word)| word)
    }

    /// The kind with this word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(kind, _)| *kind)
    }

    pub(super) fn from_byte(byte: u8) -> Option<Self> {
        Self::ALL
            .iter()
            .map(|(kind, _)| *kind)
            .find(|kind| *kind as u8 == byte)
    }
}

/// What may be done, as bits; they are part of the on-disk format.
#[derive(Clone, Copy, PartialEq, Eq, Default, Hash)]
pub struct Verbs(u16);

impl Verbs {
    pub const NONE: Self = Self(0);
    pub const READ: Self = Self(1);
    pub const WRITE: Self = Self(1 << 1);
    /// Make it or change what it is: queue.declare, CreateTopics, AlterConfigs.
    pub const CONFIGURE: Self = Self(1 << 2);
    pub const DELETE: Self = Self(1 << 3);
    /// See that it exists and what it is; whoever may do anything else to an object may do this.
    pub const DESCRIBE: Self = Self(1 << 4);
    pub const ADMIN: Self = Self(1 << 5);
    pub const ALL: Self = Self(0b11_1111);

    const WORDS: [(Self, &'static str); 6] = [
        (Self::READ, "read"),
        (Self::WRITE, "write"),
        (Self::CONFIGURE, "configure"),
        (Self::DELETE, "delete"),
        (Self::DESCRIBE, "describe"),
        (Self::ADMIN, "admin"),
    ];

    pub(super) const fn bits(self) -> u16 {
        self.0
    }

    /// `None`: a verb of a later build is among them, and would be lost when the row is written again.
    pub(super) const fn from_bits(bits: u16) -> Option<Self> {
        if Self::ALL.has(Self(bits)) {
            Some(Self(bits))
        } else {
            None
        }
    }

    /// All of `other`?
    #[inline]
    #[must_use]
    pub const fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Any of `other`?
    #[inline]
    #[must_use]
    pub const fn meets(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }

    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// The verb, or `all`.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        if word == "all" {
            return Some(Self::ALL);
        }
        Self::WORDS
            .iter()
            .find(|(_, known)| *known == word)
            .map(|(verb, _)| *verb)
    }

    /// The words for them.
    pub fn words(self) -> impl Iterator<Item = &'static str> {
        Self::WORDS
            .iter()
            .filter(move |(verb, _)| self.has(*verb))
            .map(|(_, word)| *word)
    }

    /// What an allowing grant gives: more than it says, see [`Verbs::DESCRIBE`].
    pub(super) const fn implied(self) -> Self {
        if self.is_empty() {
            self
        } else {
            self.and(Self::DESCRIBE)
        }
    }
}

impl fmt::Debug for Verbs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.words()).finish()
    }
}

/// Where an object lives. RESP database 0, AMQP's vhost `/` and all of Kafka are one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Namespace(u32);

impl Namespace {
    pub const DEFAULT: Self = Self(0);

    /// Of a RESP database.
    #[inline]
    #[must_use]
    pub fn of_database(db: usize) -> Self {
        Self(u32::try_from(db).unwrap_or(u32::MAX))
    }
}

impl fmt::Display for Namespace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("default"),
            db => write!(f, "db{db}"),
        }
    }
}

/// Where a grant holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// In every namespace.
    Every,
    In(Namespace),
}

impl Scope {
    #[inline]
    pub(super) fn holds_in(self, namespace: Namespace) -> bool {
        match self {
            Self::Every => true,
            Self::In(one) => one == namespace,
        }
    }

    /// `*`, `default` or `db<N>`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "*" => Some(Self::Every),
            "default" => Some(Self::In(Namespace::DEFAULT)),
            _ => {
                let digits = text.strip_prefix("db")?;
                let db: u32 = digits.parse().ok()?;
                // One text for one namespace, or a deny could be written beside its object.
                (db > 0 && db.to_string() == digits).then_some(Self::In(Namespace(db)))
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Every => f.write_str("*"),
            Self::In(namespace) => namespace.fmt(f),
        }
    }
}

/// Some verbs on some names, allowed or denied to one principal. There is one row for all verbs of the same names and effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    pub principal: Arc<str>,
    pub scope: Scope,
    pub kind: Kind,
    pub pattern: Pattern,
    pub verbs: Verbs,
    pub deny: bool,
}

impl Grant {
    /// The same names and effect; only the verbs may differ.
    pub(super) fn is_about(&self, other: &Self) -> bool {
        self.principal == other.principal
            && self.scope == other.scope
            && self.kind == other.kind
            && self.deny == other.deny
            && self.pattern == other.pattern
    }

    fn key(&self) -> Vec<u8> {
        let mut key = rows::prefix(Slot::CATALOG, Tag::Grant).to_vec();
        for part in [&*self.principal, &self.scope.to_string()] {
            // Names have at most 255 octets, scopes at most 12.
            key.push(u8::try_from(part.len()).unwrap_or(u8::MAX));
            key.extend_from_slice(part.as_bytes());
        }
        key.extend([self.kind as u8, self.pattern.byte(), u8::from(self.deny)]);
        key.extend_from_slice(self.pattern.text());
        key
    }

    pub(super) fn put(&self, fx: &mut Effects) {
        let [low, high] = self.verbs.0.to_le_bytes();
        let version = if self.kind == Kind::Redis { VERSION } else { 1 };
        fx.put(ShardId::CATALOG, &self.key(), &[version, low, high]);
    }

    pub(super) fn delete(&self, fx: &mut Effects) {
        fx.del(ShardId::CATALOG, &self.key());
    }

    /// Of a whole key and value; `None` when it does not read.
    pub(super) fn read(key: &[u8], value: &[u8]) -> Option<Self> {
        let (principal, rest) = part(key.get(3..)?)?;
        let (scope, rest) = part(rest)?;
        let (&[kind, pattern, deny], text) = rest.split_first_chunk::<3>()?;
        let &[version, low, high] = value else {
            return None;
        };
        let verbs = Verbs::from_bits(u16::from_le_bytes([low, high]))?;
        if !(1..=VERSION).contains(&version) || deny > 1 {
            return None;
        }
        Some(Self {
            principal: principal.into(),
            scope: Scope::parse(scope)?,
            kind: Kind::from_byte(kind)?,
            pattern: Pattern::read(pattern, text)?,
            verbs,
            deny: deny == 1,
        })
    }
}

fn part(bytes: &[u8]) -> Option<(&str, &[u8])> {
    let (length, rest) = bytes.split_first()?;
    let (part, rest) = rest.split_at_checked(usize::from(*length))?;
    Some((std::str::from_utf8(part).ok()?, rest))
}

/// The name of the principal in a grant's key behind the tag.
pub(crate) fn principal_of(key: &[u8]) -> Option<&str> {
    part(key).map(|(name, _)| name)
}
