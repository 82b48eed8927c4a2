//! Exchanges: what a routing key leads to.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::{HashMap, HashSet};

use super::definition::Definition;
use super::headers::{HeaderMatch, Headers, Property};
use super::history::{self, History};
use super::spread::Spread;
use super::topic::Trie;

/// How an exchange compares keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExchangeKind {
    Direct,
    Fanout,
    Topic,
    Headers,
    /// One destination by a hash, in shares that are the bindings' keys.
    ConsistentHash,
    /// One destination by a hash of the key.
    ModulusHash,
    /// One destination, whichever.
    Random,
    /// The same: all destinations are on this node.
    LocalRandom,
    /// All destinations; who binds gets the last messages.
    RecentHistory,
}

/// Kinds with their name on the wire and their letter in rows.
const KINDS: [(ExchangeKind, &str, u8); 9] = [
    (ExchangeKind::Direct, "direct", b'd'),
    (ExchangeKind::Fanout, "fanout", b'f'),
    (ExchangeKind::Topic, "topic", b't'),
    (ExchangeKind::Headers, "headers", b'h'),
    (ExchangeKind::ConsistentHash, "x-consistent-hash", b'c'),
    (ExchangeKind::ModulusHash, "x-modulus-hash", b'm'),
    (ExchangeKind::Random, "x-random", b'r'),
    (ExchangeKind::LocalRandom, "x-local-random", b'l'),
    (ExchangeKind::RecentHistory, "x-recent-history", b'y'),
];

impl ExchangeKind {
    /// The name on the wire.
    #[must_use]
    pub fn name(self) -> &'static str {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self);
        known.map_or("", |(_, name, _)| name)
    }

    /// `None`: no such type.
    #[must_use]
    pub fn from_name(name: &[u8]) -> Option<Self> {
        let known = KINDS.iter().find(|(_, known, _)| known.as_bytes() == name);
        known.map(|(kind, ..)| *kind)
    }

    pub(super) fn letter(self) -> u8 {
        let known = KINDS.iter().find(|(kind, ..)| *kind == self);
        known.map_or(0, |(.., letter)| *letter)
    }

    pub(super) fn from_letter(letter: u8) -> Option<Self> {
        let known = KINDS.iter().find(|(.., known)| *known == letter);
        known.map(|(kind, ..)| *kind)
    }
}

/// What the hash of an exchange is made of.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum HashOn {
    #[default]
    RoutingKey,
    Header(Bytes),
    Property(Property),
}

/// An exchange as it was declared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeDefinition {
    pub name: Arc<str>,
    pub kind: ExchangeKind,
    /// Declared as `x-delayed-message`, which then compares keys as `kind` does.
    pub delays: bool,
    pub durable: bool,
    pub auto_delete: bool,
    /// Only other exchanges may publish to it.
    pub internal: bool,
    /// Takes what this one cannot route.
    pub alternate: Option<Arc<str>>,
    pub hash_on: HashOn,
    /// Messages that [`ExchangeKind::RecentHistory`] keeps.
    pub history: Option<u32>,
    /// As the client sent them; compared when declared again.
    pub arguments: Bytes,
}

impl ExchangeDefinition {
    /// Its type on the wire.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        if self.delays {
            "x-delayed-message"
        } else {
            self.kind.name()
        }
    }

    /// A durable exchange of a kind, without anything else.
    #[must_use]
    pub fn plain(name: &str, kind: ExchangeKind) -> Self {
        Self {
            name: name.into(),
            kind,
            delays: false,
            durable: true,
            auto_delete: false,
            internal: false,
            alternate: None,
            hash_on: HashOn::RoutingKey,
            history: None,
            arguments: Bytes::new(),
        }
    }
}

/// Where a binding leads.
#[derive(Debug, Clone)]
pub enum Destination {
    Queue(Arc<Definition>),
    Exchange(Arc<str>),
}

impl Destination {
    /// Name of the queue or exchange.
    #[must_use]
    pub fn name(&self) -> &Arc<str> {
        match self {
            Self::Queue(queue) => &queue.name,
            Self::Exchange(name) => name,
        }
    }

    #[must_use]
    pub const fn is_queue(&self) -> bool {
        matches!(self, Self::Queue(_))
    }
}

impl PartialEq for Destination {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Queue(a), Self::Queue(b)) => a.id == b.id,
            (Self::Exchange(a), Self::Exchange(b)) => a == b,
            _ => false,
        }
    }
}

impl Eq for Destination {}

impl std::hash::Hash for Destination {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        (self.is_queue(), self.name()).hash(state);
    }
}

/// One arrow from an exchange.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Binding {
    pub source: Arc<str>,
    pub destination: Destination,
    pub key: Bytes,
    pub arguments: Bytes,
    /// What a headers exchange compares; read from the arguments by the face that binds.
    pub matching: Option<HeaderMatch>,
}

/// Destinations with the number of bindings that lead there.
#[derive(Debug, Default)]
pub(super) struct Targets(Vec<(Destination, u32)>);

impl Targets {
    pub(super) fn add(&mut self, destination: &Destination) {
        match self.0.iter_mut().find(|(known, _)| known == destination) {
            Some((_, count)) => *count += 1,
            None => self.0.push((destination.clone(), 1)),
        }
    }

    /// Whether there was one.
    pub(super) fn remove(&mut self, destination: &Destination) -> bool {
        let Some(index) = self.0.iter().position(|(known, _)| known == destination) else {
            return false;
        };
        if let Some((_, count)) = self.0.get_mut(index) {
            *count -= 1;
            if *count == 0 {
                self.0.swap_remove(index);
            }
        }
        true
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Destination> {
        self.0.iter().map(|(destination, _)| destination)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[derive(Debug)]
enum Matcher {
    Direct(HashMap<Bytes, Targets, foldhash::fast::RandomState>),
    Fanout(Targets),
    Topic(Trie),
    Headers(Vec<(HeaderMatch, Destination)>),
    ByWeight(Spread),
    ByRemainder(Spread),
    ByChance(Spread),
    Recent(Targets, Arc<History>),
}

/// Of a binding to a consistent hash exchange: its key as a number.
fn weight(binding: &Binding) -> u64 {
    let key = std::str::from_utf8(&binding.key).ok();
    let weight = key.and_then(|key| key.parse::<u128>().ok()).unwrap_or(1);
    u64::try_from(weight).unwrap_or(u64::MAX)
}

/// An exchange and its bindings.
#[derive(Debug)]
pub(super) struct Exchange {
    pub(super) definition: ExchangeDefinition,
    matcher: Matcher,
    bindings: HashSet<Arc<Binding>, foldhash::fast::RandomState>,
    /// Has had a binding: an auto-delete exchange goes with its last one, not before its first.
    pub(super) was_bound: bool,
}

impl Exchange {
    pub(super) fn new(definition: ExchangeDefinition) -> Self {
        let matcher = match definition.kind {
            ExchangeKind::Direct => Matcher::Direct(HashMap::default()),
            ExchangeKind::Fanout => Matcher::Fanout(Targets::default()),
            ExchangeKind::Topic => Matcher::Topic(Trie::default()),
            ExchangeKind::Headers => Matcher::Headers(Vec::new()),
            ExchangeKind::ConsistentHash => Matcher::ByWeight(Spread::default()),
            ExchangeKind::ModulusHash => Matcher::ByRemainder(Spread::default()),
            ExchangeKind::Random | ExchangeKind::LocalRandom => {
                Matcher::ByChance(Spread::default())
            }
            ExchangeKind::RecentHistory => {
                let length = definition
                    .history
                    .and_then(|length| usize::try_from(length).ok());
                let history = History::new(length.unwrap_or(history::LENGTH));
                Matcher::Recent(Targets::default(), Arc::new(history))
            }
        };
        Self {
            definition,
            matcher,
            bindings: HashSet::default(),
            was_bound: false,
        }
    }

    pub(super) fn bindings(&self) -> impl Iterator<Item = &Arc<Binding>> {
        self.bindings.iter()
    }

    pub(super) fn is_unused(&self) -> bool {
        self.bindings.is_empty()
    }

    /// False when it exists already.
    pub(super) fn bind(&mut self, binding: &Arc<Binding>) -> bool {
        if !self.bindings.insert(Arc::clone(binding)) {
            return false;
        }
        self.was_bound = true;
        match &mut self.matcher {
            Matcher::Direct(keys) => keys
                .entry(binding.key.clone())
                .or_default()
                .add(&binding.destination),
            Matcher::Fanout(targets) | Matcher::Recent(targets, _) => {
                targets.add(&binding.destination);
            }
            Matcher::ByWeight(spread)
            | Matcher::ByRemainder(spread)
            | Matcher::ByChance(spread) => spread.add(binding, weight(binding)),
            Matcher::Topic(trie) => trie.add(&binding.key, &binding.destination),
            Matcher::Headers(rules) => {
                rules.push((
                    binding.matching.clone().unwrap_or_default(),
                    binding.destination.clone(),
                ));
            }
        }
        true
    }

    /// False when there is none.
    pub(super) fn unbind(&mut self, binding: &Binding) -> bool {
        if !self.bindings.remove(binding) {
            return false;
        }
        match &mut self.matcher {
            Matcher::Direct(keys) => {
                if let Some(targets) = keys.get_mut(&binding.key) {
                    targets.remove(&binding.destination);
                    if targets.is_empty() {
                        keys.remove(&binding.key);
                    }
                }
            }
            Matcher::Fanout(targets) | Matcher::Recent(targets, _) => {
                targets.remove(&binding.destination);
            }
            Matcher::ByWeight(spread)
            | Matcher::ByRemainder(spread)
            | Matcher::ByChance(spread) => spread.remove(binding, weight(binding)),
            Matcher::Topic(trie) => trie.remove(&binding.key, &binding.destination),
            Matcher::Headers(rules) => {
                let matching = binding.matching.clone().unwrap_or_default();
                if let Some(at) = rules
                    .iter()
                    .position(|rule| rule.0 == matching && rule.1 == binding.destination)
                {
                    rules.swap_remove(at);
                }
            }
        }
        true
    }

    /// Calls `found` for each destination; one can come more than once.
    pub(super) fn route(
        &self,
        key: &[u8],
        headers: &dyn Headers,
        found: &mut dyn FnMut(&Destination),
    ) {
        match &self.matcher {
            Matcher::Direct(keys) => {
                for destination in keys.get(key).into_iter().flat_map(Targets::iter) {
                    found(destination);
                }
            }
            Matcher::Fanout(targets) | Matcher::Recent(targets, _) => {
                targets.iter().for_each(found);
            }
            Matcher::ByWeight(spread) => {
                let value = match &self.definition.hash_on {
                    HashOn::RoutingKey => None,
                    HashOn::Header(name) => Some(headers.value(name).unwrap_or_default()),
                    HashOn::Property(which) => Some(headers.property(*which).unwrap_or_default()),
                };
                if let Some(one) = spread.by_weight(value.as_deref().unwrap_or(key)) {
                    found(one);
                }
            }
            Matcher::ByRemainder(spread) => {
                if let Some(one) = spread.by_remainder(key) {
                    found(one);
                }
            }
            Matcher::ByChance(spread) => {
                if let Some(one) = spread.by_chance() {
                    found(one);
                }
            }
            Matcher::Topic(trie) => {
                trie.visit(key, &mut |targets| targets.iter().for_each(&mut *found))
            }
            Matcher::Headers(rules) => {
                for (_, destination) in rules.iter().filter(|(rule, _)| rule.accepts(headers)) {
                    found(destination);
                }
            }
        }
    }

    /// Does the route depend on more than the key?
    pub(super) fn is_fickle(&self) -> bool {
        match &self.matcher {
            Matcher::Headers(_) | Matcher::ByChance(_) => true,
            Matcher::ByWeight(_) => self.definition.hash_on != HashOn::RoutingKey,
            // Some messages do not want to be kept.
            Matcher::Recent(..) => true,
            Matcher::Direct(_)
            | Matcher::Fanout(_)
            | Matcher::Topic(_)
            | Matcher::ByRemainder(_) => false,
        }
    }

    /// Where its last messages are, if it keeps them.
    pub(super) fn history(&self) -> Option<&Arc<History>> {
        match &self.matcher {
            Matcher::Recent(_, history) => Some(history),
            _ => None,
        }
    }
}
