//! How many connections each address has, and how fast it makes new ones.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

use super::Limits;

/// Rates are counted in windows of this length.
const WINDOW: Duration = Duration::from_secs(1);
/// Addresses without a connection that are remembered for their rate; beyond it those of past windows are forgotten.
const REMEMBERED: usize = 4096;

/// See the module. Locked when a connection comes and when it goes, and only where there is a limit.
#[derive(Debug)]
pub(super) struct Crowd {
    /// Connections of one address; 0: no limit.
    open_max: usize,
    /// New ones of one address in a [`WINDOW`]; 0: no limit.
    new_max: usize,
    addresses: Mutex<HashMap<IpAddr, Address, RandomState>>,
}

#[derive(Debug, Clone, Copy)]
struct Address {
    open: usize,
    /// Start of the window that `new` counts in.
    since: Instant,
    new: usize,
}

/// A connection's place among those of its address, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    crowd: Arc<Crowd>,
    address: IpAddr,
}

/// The address has as many as it may, or makes them too fast.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Full;

impl Crowd {
    pub(super) fn new(limits: &Limits) -> Arc<Self> {
        Arc::new(Self {
            open_max: limits.connections_per_address,
            new_max: limits.accept_rate_per_address,
            addresses: Mutex::default(),
        })
    }

    /// A place for one more; `None` where there are no limits.
    pub(super) fn enter(
        self: &Arc<Self>,
        peer: IpAddr,
        now: Instant,
    ) -> Result<Option<Place>, Full> {
        if self.open_max == 0 && self.new_max == 0 {
            return Ok(None);
        }
        let address = key(peer);
        let mut addresses = self.addresses.lock();
        if addresses.len() >= REMEMBERED && !addresses.contains_key(&address) {
            addresses.retain(|_, known| known.open > 0 || !known.is_past(now));
        }
        let known = addresses.entry(address).or_insert(Address {
            open: 0,
            since: now,
            new: 0,
        });
        if known.is_past(now) {
            (known.since, known.new) = (now, 0);
        }
        let full = self.open_max > 0 && known.open >= self.open_max
            || self.new_max > 0 && known.new >= self.new_max;
        if full {
            return Err(Full);
        }
        known.open += 1;
        known.new += 1;
        Ok(Some(Place {
            crowd: Arc::clone(self),
            address,
        }))
    }
}

impl Address {
    fn is_past(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.since) >= WINDOW
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut addresses = self.crowd.addresses.lock();
        if let Some(known) = addresses.get_mut(&self.address) {
            known.open = known.open.saturating_sub(1);
            // With a rate it is forgotten later.
            if known.open == 0 && self.crowd.new_max == 0 {
                addresses.remove(&self.address);
            }
        }
    }
}

/// IPv4 as such, also when it comes in an IPv6 socket. Of IPv6 the first half: a customer has a /64 of addresses.
fn key(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) if !address.is_loopback() => {
            Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into()
        }
        other => other,
    }
}

/// New connections of all addresses together: so many a second, the first second's at once.
#[derive(Debug)]
pub(super) struct Rate {
    /// Between two; zero: no limit.
    each: Duration,
    /// The time of all that came so far, one [`Rate::each`] for each.
    due: Instant,
}

impl Rate {
    /// `per_second` 0: no limit.
    pub(super) fn new(per_second: u32, now: Instant) -> Self {
        Self {
            each: WINDOW.checked_div(per_second).unwrap_or_default(),
            due: now,
        }
    }

    /// How long the next one waits; zero: it may come.
    pub(super) fn wait(&self, now: Instant) -> Duration {
        if self.each.is_zero() {
            return Duration::ZERO;
        }
        self.next(now).saturating_duration_since(now)
    }

    /// One came.
    pub(super) fn charge(&mut self, now: Instant) {
        if !self.each.is_zero() {
            self.due = self.next(now);
        }
    }

    fn next(&self, now: Instant) -> Instant {
        // What was not used is not saved up for longer than a second.
        let earliest = now.checked_sub(WINDOW).unwrap_or(now);
        self.due.max(earliest) + self.each
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn crowd(open_max: usize, new_max: usize) -> Arc<Crowd> {
        Crowd::new(&Limits {
            connections_per_address: open_max,
            accept_rate_per_address: new_max,
            ..Limits::default()
        })
    }

    #[test]
    fn an_address_has_so_many_places_and_others_have_theirs() {
        let crowd = crowd(2, 0);
        let now = Instant::now();
        let enter = |peer: &str| crowd.enter(peer.parse().unwrap(), now).map(Option::unwrap);
        let (first, _second) = (
            enter("10.0.0.1").unwrap(),
            enter("::ffff:10.0.0.1").unwrap(),
        );
        assert!(enter("10.0.0.1").is_err());
        assert!(enter("10.0.0.2").is_ok());
        drop(first);
        assert!(enter("10.0.0.1").is_ok());
        let _held = (enter("2001:db8::1").unwrap(), enter("2001:db8::2").unwrap());
        assert!(enter("2001:db8::3").is_err(), "a /64 is one customer");
        assert!(enter("2001:db8:0:1::3").is_ok());
        assert_eq!(crowd.addresses.lock().len(), 2, "who has gone is forgotten");
    }

    #[test]
    fn new_connections_of_an_address_have_a_rate() {
        let crowd = crowd(0, 2);
        let now = Instant::now();
        let peer = "10.0.0.1".parse().unwrap();
        for later in [now, now + WINDOW] {
            assert!(crowd.enter(peer, later).is_ok());
            assert!(crowd.enter(peer, later).is_ok());
            assert_eq!(crowd.enter(peer, later).unwrap_err(), Full);
        }
        for number in 0..3 * REMEMBERED {
            let peer = IpAddr::from([11, 0, (number >> 8) as u8, number as u8]);
            let later = now + 3 * WINDOW + WINDOW * u32::try_from(number / 1000).unwrap();
            assert!(crowd.enter(peer, later).is_ok());
        }
        assert!(crowd.addresses.lock().len() <= REMEMBERED);
    }

    #[test]
    fn all_together_have_a_rate() {
        let now = Instant::now();
        let none = Rate::new(0, now);
        assert!((0..1000).all(|_| none.wait(now).is_zero()));
        let mut rate = Rate::new(10, now);
        assert_eq!(rate.wait(now), Duration::from_millis(100));
        let later = now + Duration::from_secs(60);
        for _ in 0..10 {
            // To look costs nothing.
            assert!((0..20).all(|_| rate.wait(later).is_zero()));
            rate.charge(later);
        }
        assert_eq!(rate.wait(later), Duration::from_millis(100));
        assert_eq!(
            rate.wait(later + Duration::from_millis(100)),
            Duration::ZERO
        );
    }
}
