//! Time and chance, the only two things a command may take from outside its shards.

use std::cell::Cell;

/// Milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Millis(pub u64);

/// What one command sees of the world: the time is the same for its whole execution.
#[derive(Debug)]
pub struct Ctx {
    pub now: Millis,
    state: Cell<u64>,
}

impl Ctx {
    /// `seed` decides every later [`Ctx::random`].
    #[must_use]
    pub fn new(now: Millis, seed: u64) -> Self {
        Self {
            now,
            state: Cell::new(seed),
        }
    }

    /// The next pseudo-random number (splitmix64).
    pub fn random(&self) -> u64 {
        let state = self.state.get().wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.state.set(state);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..bound`; 0 when `bound` is 0.
    pub fn random_below(&self, bound: u64) -> u64 {
        // Multiply-shift: the bias is below 2^-32 for every bound that fits memory.
        ((u128::from(self.random()) * u128::from(bound)) >> 64) as u64
    }
}
