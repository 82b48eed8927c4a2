//! Failed logins by principal and address, in a table of fixed size.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// Failures further apart than this are not counted together.
const WINDOW: Duration = Duration::from_secs(60);
/// How long all logins of a principal from an address are refused after too many failures.
pub const LOCKED_FOR: Duration = Duration::from_secs(60);
/// Places in the table, 32 octets each. Another pair on the same place replaces one that is not locked out.
const PLACES: usize = 8192;

/// See the module.
#[derive(Debug)]
pub(super) struct Attempts {
    /// Failures within [`WINDOW`] that lock out; 0: none does.
    limit: u32,
    hasher: foldhash::quality::RandomState,
    places: Mutex<Box<[Option<Place>]>>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    pair: u64,
    since: Instant,
    failures: u32,
}

impl Place {
    fn ends(&self, limit: u32) -> Instant {
        let lasts = if self.failures >= limit {
            LOCKED_FOR
        } else {
            WINDOW
        };
        self.since + lasts
    }
}

impl Attempts {
    pub(super) fn new(limit: u32) -> Self {
        Self {
            limit,
            hasher: foldhash::quality::RandomState::default(),
            places: Mutex::new(vec![None; PLACES].into()),
        }
    }

    fn pair(&self, user: &[u8], peer: IpAddr) -> u64 {
        let mut hasher = self.hasher.build_hasher();
        hasher.write(user);
        match peer.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            // A customer has a /64 of them.
            IpAddr::V6(address) => hasher.write(address.octets().get(..8).unwrap_or_default()),
        }
        hasher.finish()
    }

    /// Is the pair locked out?
    pub(super) fn is_locked(&self, user: &[u8], peer: IpAddr, now: Instant) -> bool {
        let pair = self.pair(user, peer);
        self.places
            .lock()
            .get(pair as usize % PLACES)
            .copied()
            .flatten()
            .is_some_and(|place| {
                self.limit > 0
                    && place.pair == pair
                    && place.failures >= self.limit
                    && now < place.ends(self.limit)
            })
    }

    /// One more failure. True when this one locks the pair out.
    pub(super) fn failed(&self, user: &[u8], peer: IpAddr, now: Instant) -> bool {
        if self.limit == 0 {
            return false;
        }
        let pair = self.pair(user, peer);
        let mut places = self.places.lock();
        let Some(place) = places.get_mut(pair as usize % PLACES) else {
            return false;
        };
        match place {
            Some(known) if known.pair == pair && now < known.ends(self.limit) => {
                known.failures = known.failures.saturating_add(1);
                if known.failures == self.limit {
                    known.since = now;
                    return true;
                }
            }
            // Who is locked out stays so, or a flood of other names would let it in again.
            Some(other) if other.failures >= self.limit && now < other.ends(self.limit) => {}
            _ => {
                *place = Some(Place {
                    pair,
                    since: now,
                    failures: 1,
                });
                return self.limit == 1;
            }
        }
        false
    }

    /// It knew the password after all.
    pub(super) fn succeeded(&self, user: &[u8], peer: IpAddr) {
        let pair = self.pair(user, peer);
        if let Some(place) = self.places.lock().get_mut(pair as usize % PLACES)
            && place.is_some_and(|known| known.pair == pair)
        {
            *place = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_failures_lock_out_for_a_while() {
        let attempts = Attempts::new(3);
        let (near, far): (IpAddr, IpAddr) =
            ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let now = Instant::now();
        assert!(!attempts.failed(b"a", near, now));
        assert!(!attempts.failed(b"a", near, now));
        assert!(!attempts.is_locked(b"a", near, now));
        assert!(attempts.failed(b"a", near, now));
        assert!(attempts.is_locked(b"a", near, now + LOCKED_FOR / 2));
        assert!(!attempts.is_locked(b"a", near, now + LOCKED_FOR));
        assert!(!attempts.is_locked(b"a", far, now) && !attempts.is_locked(b"b", near, now));
        // Slow failures are forgotten.
        assert!(!attempts.failed(b"c", near, now));
        assert!(!attempts.failed(b"c", near, now));
        assert!(!attempts.failed(b"c", near, now + WINDOW));
        attempts.succeeded(b"a", near);
        assert!(!attempts.is_locked(b"a", near, now));
    }
}
