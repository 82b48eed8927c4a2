//! One connection, as others see it: what `CLIENT LIST` shows, and how to reach it.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU16, AtomicU64, AtomicUsize, Ordering};

use broker::cache::{Receive, Served};
use broker::{Lsn, Mailbox};
use parking_lot::Mutex;

use super::commands;
use super::hub::Event;
use super::tracking::Tracking;
use crate::net::ConnHandle;

/// See the module.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) id: u64,
    pub(crate) peer: SocketAddr,
    pub(crate) local: SocketAddr,
    pub(crate) unix: Option<Arc<Path>>,
    /// It came in by TLS.
    pub(crate) tls: bool,
    pub(crate) handle: ConnHandle,
    pub(crate) mailbox: Mailbox<Event>,
    pub(crate) since_ms: u64,
    pub(crate) facts: Mutex<Facts>,
    pub(crate) seen: Seen,
    pub(crate) tracking: Tracking,
    /// Last command, in ms since the epoch.
    pub(crate) used_ms: AtomicU64,
    pub(crate) killed: AtomicBool,
    /// It is closed: nothing that it is told arrives.
    pub(crate) gone: AtomicBool,
}

/// What changes seldom; only the connection itself changes it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Facts {
    pub(crate) name: String,
    /// Who it logged in as.
    pub(crate) user: String,
    pub(crate) lib_name: String,
    pub(crate) lib_ver: String,
    pub(crate) blocked: bool,
    /// It waits for the end of `CLIENT PAUSE`, a sleep, or work on another thread.
    pub(crate) held: bool,
    pub(crate) monitors: bool,
    pub(crate) no_evict: bool,
    pub(crate) no_touch: bool,
}

/// How the connection was after its last turn. Written by the connection alone, without order: each number is true on its own.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) db: AtomicUsize,
    pub(crate) resp3: AtomicBool,
    pub(crate) channels: AtomicUsize,
    pub(crate) patterns: AtomicUsize,
    pub(crate) shard_channels: AtomicUsize,
    /// Queued commands; -1 outside of `MULTI`.
    pub(crate) multi: AtomicI64,
    pub(crate) multi_bytes: AtomicUsize,
    pub(crate) watches: AtomicUsize,
    pub(crate) touched: AtomicBool,
    pub(crate) closing: AtomicBool,
    /// [`super::spec::Spec::number`] of the last command, plus one; 0: none yet.
    pub(crate) command: AtomicU16,
    /// Bytes of a command whose end has not come.
    pub(crate) input: AtomicUsize,
    /// Bytes that are not sent yet.
    pub(crate) output: AtomicUsize,
    pub(crate) bytes_in: AtomicU64,
    pub(crate) bytes_out: AtomicU64,
    pub(crate) commands: AtomicU64,
}

impl Seen {
    pub(crate) fn subscriptions(&self) -> usize {
        let of = |count: &AtomicUsize| count.load(Ordering::Relaxed);
        of(&self.channels) + of(&self.patterns) + of(&self.shard_channels)
    }

    /// Name of the last command.
    pub(crate) fn command_name(&self) -> &'static str {
        let number = self.command.load(Ordering::Relaxed);
        let spec = number.checked_sub(1).and_then(commands::by_number);
        spec.map_or("NULL", |spec| spec.name)
    }
}

impl Client {
    /// As `CLIENT LIST` shows where it comes from.
    pub(crate) fn peer_name(&self) -> String {
        self.unix_name().unwrap_or_else(|| self.peer.to_string())
    }

    /// As `CLIENT LIST` shows where it came to.
    pub(crate) fn local_name(&self) -> String {
        self.unix_name().unwrap_or_else(|| self.local.to_string())
    }

    /// Redis has the path for both addresses, and a port of 0.
    fn unix_name(&self) -> Option<String> {
        Some(format!("{}:0", self.unix.as_ref()?.display()))
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Relaxed)
    }

    /// Ends its blocked command. False: it is not blocked.
    pub(crate) fn unblock(&self, error: bool) -> bool {
        let blocked = self.facts.lock().blocked;
        if blocked {
            self.mailbox.push(Event::Unblock { error });
        }
        blocked
    }
}

impl Receive for Client {
    fn served(&self, served: Served, lsn: Lsn) {
        self.mailbox.push(Event::Served(served, lsn));
    }
}
