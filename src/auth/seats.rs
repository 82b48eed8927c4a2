//! How many connections each user has.

use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::Mutex;

/// See the module. Locked at a login and at the end of a connection, and only where there is a limit.
#[derive(Debug)]
pub(super) struct Seats {
    /// Connections of one user; 0: no limit.
    limit: usize,
    taken: Mutex<HashMap<Arc<str>, usize, RandomState>>,
}

/// A connection's place, until it is dropped.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    user: Arc<str>,
}

/// The user has as many connections as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SeatsFull {
    /// How many that is.
    pub limit: usize,
}

impl Seats {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit,
            taken: Mutex::default(),
        }
    }

    /// One more connection of a user.
    pub(super) fn take(self: &Arc<Self>, user: &str) -> Result<Option<Seat>, SeatsFull> {
        let limit = self.limit;
        if limit == 0 {
            return Ok(None);
        }
        let user: Arc<str> = user.into();
        let mut taken = self.taken.lock();
        let count = taken.entry(Arc::clone(&user)).or_default();
        if *count >= limit {
            return Err(SeatsFull { limit });
        }
        *count += 1;
        drop(taken);
        Ok(Some(Seat {
            seats: Arc::clone(self),
            user,
        }))
    }
}

impl Seat {
    /// Whose it is.
    pub fn user(&self) -> &str {
        &self.user
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut taken = self.seats.taken.lock();
        if let Some(count) = taken.get_mut(&self.user) {
            *count -= 1;
            if *count == 0 {
                taken.remove(&self.user);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_so_many_and_others_have_theirs() {
        let seats = Arc::new(Seats::new(2));
        let (first, _second) = (seats.take("a").unwrap(), seats.take("a").unwrap());
        assert_eq!(seats.take("a").unwrap_err(), SeatsFull { limit: 2 });
        assert!(seats.take("b").is_ok());
        assert_eq!(seats.taken.lock().len(), 1, "who has gone is forgotten");
        drop(first);
        assert!(seats.take("a").is_ok());
        assert!(Arc::new(Seats::new(0)).take("a").unwrap().is_none());
    }
}
