//! Topic bindings as a trie of words, matched as a nondeterministic automaton: all places that the words so far can have
//! led to are kept together, so patterns with many `#` cost words × places, never an exponent.

use hashbrown::HashMap;

use super::exchange::{Destination, Targets};

type Place = u32;

const ROOT: Place = 0;

#[derive(Debug, Default)]
struct Node {
    words: HashMap<Box<[u8]>, Place, foldhash::fast::RandomState>,
    /// `*`: exactly one word.
    star: Option<Place>,
    /// `#`: any number of words.
    hash: Option<Place>,
    /// This node was reached by `#` and stays, whatever word comes.
    is_hash: bool,
    targets: Targets,
    /// Bindings that end here or below: at 0 the node can be used again.
    uses: u32,
}

/// The bindings of one topic exchange.
#[derive(Debug)]
pub(super) struct Trie {
    nodes: Vec<Node>,
    free: Vec<Place>,
}

impl Default for Trie {
    fn default() -> Self {
        Self {
            nodes: vec![Node::default()],
            free: Vec::new(),
        }
    }
}

impl Trie {
    pub(super) fn add(&mut self, pattern: &[u8], destination: &Destination) {
        let mut place = ROOT;
        for word in words(pattern) {
            place = match self.step(place, word) {
                Some(next) => next,
                None => self.grow(place, word),
            };
            self.node_mut(place).uses += 1;
        }
        self.node_mut(place).targets.add(destination);
    }

    pub(super) fn remove(&mut self, pattern: &[u8], destination: &Destination) {
        let mut path = vec![(ROOT, &[][..])];
        let mut place = ROOT;
        for word in words(pattern) {
            let Some(next) = self.step(place, word) else {
                return;
            };
            path.push((next, word));
            place = next;
        }
        if !self.node_mut(place).targets.remove(destination) {
            return;
        }
        while let Some((place, word)) = path.pop() {
            let Some((parent, _)) = path.last().copied() else {
                return;
            };
            let node = self.node_mut(place);
            node.uses -= 1;
            if node.uses == 0 {
                *node = Node::default();
                self.free.push(place);
                let parent = self.node_mut(parent);
                match word {
                    b"*" => parent.star = None,
                    b"#" => parent.hash = None,
                    word => drop(parent.words.remove(word)),
                }
            }
        }
    }

    /// Calls `found` for the targets of every matching pattern; a destination can come more than once.
    pub(super) fn visit(&self, key: &[u8], found: &mut dyn FnMut(&Targets)) {
        let mut here = smallvec::SmallVec::<[Place; 16]>::new();
        let mut next = smallvec::SmallVec::<[Place; 16]>::new();
        self.enter(ROOT, &mut here);
        for word in words(key) {
            next.clear();
            for &place in &here {
                let Some(node) = self.node(place) else {
                    continue;
                };
                if node.is_hash {
                    self.enter(place, &mut next);
                }
                if let Some(place) = node.star {
                    self.enter(place, &mut next);
                }
                if let Some(&place) = node.words.get(word) {
                    self.enter(place, &mut next);
                }
            }
            std::mem::swap(&mut here, &mut next);
        }
        for &place in &here {
            if let Some(node) = self.node(place) {
                found(&node.targets);
            }
        }
    }

    /// Adds a place, and what `#` lets one reach from it without a word.
    fn enter(&self, place: Place, into: &mut smallvec::SmallVec<[Place; 16]>) {
        let mut at = Some(place);
        while let Some(place) = at {
            if into.contains(&place) {
                return;
            }
            into.push(place);
            at = self.node(place).and_then(|node| node.hash);
        }
    }

    fn step(&self, place: Place, word: &[u8]) -> Option<Place> {
        let node = self.node(place)?;
        match word {
            b"*" => node.star,
            b"#" => node.hash,
            word => node.words.get(word).copied(),
        }
    }

    fn grow(&mut self, place: Place, word: &[u8]) -> Place {
        let next = self.free.pop().unwrap_or_else(|| {
            self.nodes.push(Node::default());
            u32::try_from(self.nodes.len() - 1).unwrap_or(u32::MAX)
        });
        self.node_mut(next).is_hash = word == b"#";
        let node = self.node_mut(place);
        match word {
            b"*" => node.star = Some(next),
            b"#" => node.hash = Some(next),
            word => drop(node.words.insert(word.into(), next)),
        }
        next
    }

    fn node(&self, place: Place) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    #[expect(
        clippy::expect_used,
        reason = "places are indices that this trie gave out"
    )]
    fn node_mut(&mut self, place: Place) -> &mut Node {
        self.nodes
            .get_mut(place as usize)
            .expect("a place of this trie")
    }
}

/// The empty key is no words at all, as in RabbitMQ.
fn words(key: &[u8]) -> impl Iterator<Item = &[u8]> {
    let count = if key.is_empty() { 0 } else { usize::MAX };
    key.split(|&octet| octet == b'.').take(count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn name(pattern: &str) -> Destination {
        Destination::Exchange(pattern.into())
    }

    fn matches(trie: &Trie, key: &str) -> Vec<String> {
        let mut found = Vec::new();
        trie.visit(key.as_bytes(), &mut |targets| {
            for target in targets.iter() {
                if let Destination::Exchange(name) = target {
                    found.push(name.to_string());
                }
            }
        });
        found.sort();
        found.dedup();
        found
    }

    /// The definition, word by word, slow.
    fn means(pattern: &[&str], key: &[&str]) -> bool {
        match (pattern.split_first(), key.split_first()) {
            (None, None) => true,
            (Some((&"#", rest)), _) => {
                means(rest, key)
                    || key
                        .split_first()
                        .is_some_and(|(_, tail)| means(pattern, tail))
            }
            (Some((&"*", rest)), Some((_, tail))) => means(rest, tail),
            (Some((word, rest)), Some((head, tail))) => word == head && means(rest, tail),
            _ => false,
        }
    }

    fn split(text: &str) -> Vec<&str> {
        if text.is_empty() {
            Vec::new()
        } else {
            text.split('.').collect()
        }
    }

    #[test]
    fn many_hashes_end() {
        let mut trie = Trie::default();
        trie.add(vec!["#"; 120].join(".").as_bytes(), &name("all"));
        assert_eq!(matches(&trie, &vec!["w"; 120].join(".")), ["all"]);
    }

    proptest! {
        #[test]
        fn as_the_definition(
            patterns in prop::collection::vec("([ab*#](\\.[ab*#]){0,4})?", 0..8),
            removed in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
            key in "([abc](\\.[abc]){0,5})?",
        ) {
            let mut trie = Trie::default();
            let mut patterns = patterns;
            patterns.sort();
            patterns.dedup();
            for pattern in &patterns {
                trie.add(pattern.as_bytes(), &name(pattern));
            }
            for index in removed {
                if !patterns.is_empty() {
                    let gone = patterns.remove(index.index(patterns.len()));
                    trie.remove(gone.as_bytes(), &name(&gone));
                }
            }
            let expected: Vec<String> =
                patterns.iter().filter(|p| means(&split(p), &split(&key))).cloned().collect();
            prop_assert_eq!(matches(&trie, &key), expected);
            for pattern in &patterns {
                trie.remove(pattern.as_bytes(), &name(pattern));
            }
            prop_assert!(matches(&trie, &key).is_empty());
            prop_assert_eq!(trie.free.len() + 1, trie.nodes.len());
        }
    }
}
