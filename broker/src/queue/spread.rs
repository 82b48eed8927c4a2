//! Exchanges that give a message to one of their destinations: by a hash of something in it, or by turns that look like
//! chance.
//!
//! The hash is rendezvous hashing: each destination draws a number from the value and its own name, and the highest one
//! wins. So the choice does not depend on the order of bindings, which a restart does not keep, and when a destination
//! comes or goes only what it wins or had moves.

use std::sync::atomic::{AtomicU64, Ordering};

use super::exchange::{Binding, Destination};

/// One destination, and its share.
#[derive(Debug)]
struct Share {
    destination: Destination,
    name_hash: u64,
    /// The weights of its bindings together.
    weight: u128,
    bindings: u32,
}

/// Destinations, of which each message gets one.
#[derive(Debug, Default)]
pub(super) struct Spread {
    /// By name, so that their order is the same after a restart.
    shares: Vec<Share>,
    turn: AtomicU64,
}

impl Spread {
    /// `weight`: of a binding with that key.
    pub(super) fn add(&mut self, binding: &Binding, weight: u64) {
        let destination = &binding.destination;
        match self.place(destination) {
            Ok(at) => {
                if let Some(share) = self.shares.get_mut(at) {
                    share.weight += u128::from(weight);
                    share.bindings += 1;
                }
            }
            Err(at) => self.shares.insert(
                at,
                Share {
                    destination: destination.clone(),
                    name_hash: hash(destination.name().as_bytes(), destination.is_queue().into()),
                    weight: weight.into(),
                    bindings: 1,
                },
            ),
        }
    }

    pub(super) fn remove(&mut self, binding: &Binding, weight: u64) {
        let Ok(at) = self.place(&binding.destination) else {
            return;
        };
        if let Some(share) = self.shares.get_mut(at) {
            share.weight = share.weight.saturating_sub(weight.into());
            share.bindings -= 1;
            if share.bindings == 0 {
                self.shares.remove(at);
            }
        }
    }

    fn place(&self, destination: &Destination) -> Result<usize, usize> {
        let key = |destination: &Destination| (destination.is_queue(), destination.name().clone());
        let wanted = key(destination);
        self.shares
            .binary_search_by(|share| key(&share.destination).cmp(&wanted))
    }

    /// Always the same one for the same value, each as often as its weight says.
    pub(super) fn by_weight(&self, value: &[u8]) -> Option<&Destination> {
        let value = hash(value, 0);
        let mut best: Option<(f64, &Destination)> = None;
        for share in &self.shares {
            // In (0, 1), of 53 bits.
            let drawn = ((mix(value ^ share.name_hash) >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
            let score = share.weight as f64 / -drawn.ln();
            if best.is_none_or(|(highest, _)| score > highest) {
                best = Some((score, &share.destination));
            }
        }
        best.map(|(_, destination)| destination)
    }

    /// Always the same one for the same value, while the destinations are the same.
    pub(super) fn by_remainder(&self, value: &[u8]) -> Option<&Destination> {
        self.at(hash(value, 0))
    }

    /// One after the other in an order without a pattern.
    pub(super) fn by_chance(&self) -> Option<&Destination> {
        self.at(mix(self.turn.fetch_add(1, Ordering::Relaxed)))
    }

    fn at(&self, number: u64) -> Option<&Destination> {
        let place = number.checked_rem(self.shares.len() as u64)?;
        let share = self.shares.get(usize::try_from(place).ok()?)?;
        Some(&share.destination)
    }
}

/// FNV-1a, and its bits mixed. Where a value leads must not change with a new version: consumers rely on it.
fn hash(octets: &[u8], seed: u64) -> u64 {
    mix(octets
        .iter()
        .fold(0xcbf2_9ce4_8422_2325 ^ seed, |hash, octet| {
            (hash ^ u64::from(*octet)).wrapping_mul(0x0100_0000_01b3)
        }))
}

/// The finalizer of SplitMix64.
fn mix(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn binding(to: &str) -> Binding {
        Binding {
            source: "x".into(),
            destination: Destination::Exchange(to.into()),
            key: Bytes::new(),
            arguments: Bytes::new(),
            matching: None,
        }
    }

    fn name(found: Option<&Destination>) -> String {
        found.map_or_else(String::new, |found| found.name().to_string())
    }

    #[test]
    fn shares_follow_weights_and_move_little() {
        let mut spread = Spread::default();
        for (to, weight) in [("a", 1), ("b", 1), ("c", 2)] {
            spread.add(&binding(to), weight);
        }
        let keys: Vec<String> = (0..4000).map(|key| format!("key {key}")).collect();
        let before: Vec<String> = keys
            .iter()
            .map(|key| name(spread.by_weight(key.as_bytes())))
            .collect();
        let count = |wanted: &str| before.iter().filter(|found| *found == wanted).count();
        for (to, share) in [("a", 1000), ("b", 1000), ("c", 2000)] {
            assert!(count(to).abs_diff(share) < 150, "{to}: {}", count(to));
        }
        let mut other = Spread::default();
        for (to, weight) in [("c", 2), ("b", 1)] {
            other.add(&binding(to), weight);
        }
        for (key, was) in keys.iter().zip(&before) {
            let is = name(other.by_weight(key.as_bytes()));
            assert!(*was == "a" || is == *was, "{key} moved from {was} to {is}");
        }
        spread.remove(&binding("a"), 1);
        spread.remove(&binding("b"), 1);
        spread.remove(&binding("c"), 2);
        assert_eq!(name(spread.by_weight(b"k")), "");
        assert_eq!(name(spread.by_chance()), "");
    }
}
