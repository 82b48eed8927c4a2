//! `CLIENT TRACKING`: what a client asked for, and how it hears that keys have changed.

use std::sync::{Arc, Weak};

use broker::cache::Track;
use bytes::Bytes;
use parking_lot::Mutex;

use super::client::Client;
use super::hub::Event;

/// Which keys a client hears of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Those it reads.
    #[default]
    Read,
    /// Those it reads by a command behind `CLIENT CACHING yes`.
    OptIn,
    /// Those it reads by a command that is not behind `CLIENT CACHING no`.
    OptOut,
    /// Those that begin with one of its prefixes, read or not.
    Prefixes,
}

/// What the client asked for.
#[derive(Debug, Clone, Default)]
pub(crate) struct Asked {
    pub(crate) choice: Choice,
    /// It does not hear of its own changes.
    pub(crate) no_loop: bool,
    /// Who hears in its place.
    pub(crate) redirect: Option<(u64, Weak<Client>)>,
    /// Of [`Choice::Prefixes`].
    pub(crate) prefixes: Vec<Bytes>,
}

/// A connection's side of it that others see.
#[derive(Debug, Default)]
pub(crate) struct Tracking(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    asked: Option<Asked>,
    /// Who should hear in its place is gone.
    broken: bool,
}

impl Tracking {
    pub(crate) fn asked(&self) -> Option<Asked> {
        self.0.lock().asked.clone()
    }

    pub(crate) fn is_broken(&self) -> bool {
        self.0.lock().broken
    }

    pub(crate) fn set(&self, asked: Option<Asked>) {
        *self.0.lock() = State {
            asked,
            broken: false,
        };
    }
}

impl Track for Client {
    fn id(&self) -> u64 {
        self.id
    }

    /// Runs under shard locks: only mailboxes are touched.
    fn changed(&self, keys: Option<&[Bytes]>, by: u64) {
        let mut state = self.tracking.0.lock();
        let Some(asked) = &state.asked else {
            return;
        };
        if asked.no_loop && by == self.id && keys.is_some() {
            return;
        }
        let keys: Option<Arc<[Bytes]>> = keys.map(Arc::from);
        let Some((id, other)) = &asked.redirect else {
            drop(state);
            return self.mailbox.push(Event::Changed {
                keys,
                redirected: false,
                own: by == self.id,
            });
        };
        match other.upgrade().filter(|other| !other.is_gone()) {
            Some(other) => {
                drop(state);
                other.mailbox.push(Event::Changed {
                    keys,
                    redirected: true,
                    own: by == other.id,
                });
            }
            None => {
                let id = *id;
                state.broken = true;
                drop(state);
                self.mailbox.push(Event::RedirectBroken(id));
            }
        }
    }
}
