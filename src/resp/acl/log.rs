//! `ACL LOG`: what clients were refused, the same again as one entry with a count.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;

/// Octets of a key or a name in an entry.
const OBJECT_MAX: usize = 1024;
/// Entries that are looked at for the same one; Redis' number.
const LOOKED_AT: usize = 10;
/// Milliseconds within which the same again is counted; Redis' number.
const TOGETHER_MS: u64 = 60_000;

/// What was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::resp) enum Reason {
    Command,
    Key,
    Channel,
    Auth,
}

impl Reason {
    const fn index(self) -> usize {
        match self {
            Self::Command => 0,
            Self::Key => 1,
            Self::Channel => 2,
            Self::Auth => 3,
        }
    }

    pub(in crate::resp) const fn word(self) -> &'static str {
        match self {
            Self::Command => "command",
            Self::Key => "key",
            Self::Channel => "channel",
            Self::Auth => "auth",
        }
    }
}

/// Where it was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::resp) enum Context {
    Toplevel,
    /// Queued, or at `EXEC`.
    Multi,
    Lua,
}

impl Context {
    pub(in crate::resp) const fn word(self) -> &'static str {
        match self {
            Self::Toplevel => "toplevel",
            Self::Multi => "multi",
            Self::Lua => "lua",
        }
    }
}

/// One entry.
#[derive(Debug, Clone)]
pub(in crate::resp) struct Entry {
    pub(in crate::resp) id: u64,
    pub(in crate::resp) count: u64,
    pub(in crate::resp) reason: Reason,
    pub(in crate::resp) context: Context,
    /// The command, the key, the channel, or the command that was to log in.
    pub(in crate::resp) object: Box<[u8]>,
    pub(in crate::resp) user: Box<[u8]>,
    /// The line of `CLIENT LIST`.
    pub(in crate::resp) client: String,
    /// Milliseconds since 1970.
    pub(in crate::resp) created_ms: u64,
    pub(in crate::resp) updated_ms: u64,
}

/// The newest entries first, and how often each reason was since the start.
#[derive(Debug)]
pub(in crate::resp) struct AclLog {
    pub(in crate::resp) len_max: AtomicUsize,
    next: AtomicU64,
    counts: [AtomicU64; 4],
    entries: Mutex<VecDeque<Entry>>,
}

impl Default for AclLog {
    fn default() -> Self {
        Self {
            len_max: AtomicUsize::new(128),
            next: AtomicU64::new(0),
            counts: Default::default(),
            entries: Mutex::default(),
        }
    }
}

impl AclLog {
    /// Adds what was refused at `now_ms`, or counts it.
    pub(in crate::resp) fn add(
        &self,
        reason: Reason,
        context: Context,
        object: &[u8],
        user: &[u8],
        client: String,
        now_ms: u64,
    ) {
        if let Some(count) = self.counts.get(reason.index()) {
            count.fetch_add(1, Relaxed);
        }
        let object = object.get(..OBJECT_MAX).unwrap_or(object);
        let max = self.len_max.load(Relaxed);
        let mut entries = self.entries.lock();
        let same = entries.iter().take(LOOKED_AT).position(|entry| {
            entry.reason == reason
                && entry.context == context
                && now_ms.abs_diff(entry.updated_ms) <= TOGETHER_MS
                && *entry.object == *object
                && *entry.user == *user
        });
        if let Some(mut entry) = same.and_then(|at| entries.remove(at)) {
            entry.count += 1;
            entry.client = client;
            entry.updated_ms = now_ms;
            entries.push_front(entry);
            return;
        }
        entries.push_front(Entry {
            id: self.next.fetch_add(1, Relaxed),
            count: 1,
            reason,
            context,
            object: object.into(),
            user: user.into(),
            client,
            created_ms: now_ms,
            updated_ms: now_ms,
        });
        entries.truncate(max);
    }

    /// The newest `count`.
    pub(in crate::resp) fn newest(&self, count: usize) -> Vec<Entry> {
        self.entries.lock().iter().take(count).cloned().collect()
    }

    pub(in crate::resp) fn reset(&self) {
        self.entries.lock().clear();
    }

    /// How often that was the reason.
    pub(in crate::resp) fn count(&self, reason: Reason) -> u64 {
        let count = self.counts.get(reason.index());
        count.map_or(0, |count| count.load(Relaxed))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(log: &AclLog, object: &[u8], now_ms: u64) {
        let (reason, context) = (Reason::Key, Context::Toplevel);
        log.add(reason, context, object, b"u", String::new(), now_ms);
    }

    #[test]
    fn the_same_again_is_counted_and_comes_first() {
        let log = AclLog::default();
        add(&log, b"a", 1);
        add(&log, b"b", 2);
        add(&log, b"a", 60_001);
        let all = log.newest(10);
        let seen: Vec<_> = all.iter().map(|entry| (entry.id, entry.count)).collect();
        assert_eq!(seen, [(0, 2), (1, 1)]);
        assert_eq!((all[0].created_ms, all[0].updated_ms), (1, 60_001));
        add(&log, b"b", 60_003);
        assert_eq!(log.newest(1)[0].id, 2, "too long ago");
        assert_eq!((log.count(Reason::Key), log.count(Reason::Auth)), (4, 0));
        log.reset();
        assert!(log.newest(10).is_empty());
    }

    #[test]
    fn it_has_an_end() {
        let log = AclLog::default();
        log.len_max.store(3, Relaxed);
        for number in 0..20_u8 {
            add(&log, &[number; 5000], 1);
        }
        let all = log.newest(usize::MAX);
        assert!(all.len() == 3 && all[0].object.len() == OBJECT_MAX);
        log.len_max.store(0, Relaxed);
        assert_eq!(log.newest(10).len(), 3, "until the next one");
        add(&log, b"x", 1);
        assert!(log.newest(10).is_empty());
    }
}
