//! What all RESP connections share: who is connected, who subscribes to what, and what `CONFIG` can change.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use broker::cache::{Served, matches};
use broker::{Durability, Lsn};
use bytes::Bytes;
use foldhash::fast::RandomState;
use hashbrown::HashMap;
use parking_lot::{Mutex, RwLock};
use protocol_resp::{Encoder, Version};

use super::acl::log::AclLog;
use super::client::Client;
use super::monitors::Monitors;
use super::notify::Wanted;
use super::pause::Pause;
use super::saves::Saves;
use super::script::Scripts;
use super::session::runner::{Evaluated, Runner};
use super::slowlog::{Latency, SlowLog};
use super::tally::Tally;
use crate::telemetry::metrics::Counter;

/// What arrives at a connection from outside.
#[derive(Debug)]
pub(crate) enum Event {
    Message(Arc<Message>),
    Served(Served, Lsn),
    /// Its script has ended.
    Evaluated(Evaluated),
    /// `CLIENT UNBLOCK`, with an error or as if time were up.
    Unblock {
        error: bool,
    },
    /// Keys that it keeps have changed; `None`: all. `redirected`: another connection keeps them; `own`: by itself.
    Changed {
        keys: Option<Arc<[Bytes]>>,
        redirected: bool,
        own: bool,
    },
    /// The connection that should hear of changes in its place is gone; its number.
    RedirectBroken(u64),
    /// A command of somebody, for `MONITOR`.
    Line(Bytes),
    /// What ran on another thread for it has ended: its answer, or why there is none.
    Finished(Result<Vec<u8>, String>),
}

/// A published message, encoded once for all who get it.
#[derive(Debug)]
pub(crate) struct Message {
    pub(crate) kind: Topic,
    /// What they subscribe to: a channel or a pattern.
    pub(crate) name: Bytes,
    /// In RESP2.
    frame: Vec<u8>,
}

impl Message {
    /// `channel`: where it was published, if `name` is a pattern.
    fn new(kind: Topic, name: &Bytes, channel: Option<&[u8]>, payload: &[u8]) -> Arc<Self> {
        let word: &[u8] = match kind {
            Topic::Channel => b"message",
            Topic::Pattern => b"pmessage",
            Topic::Shard => b"smessage",
        };
        let parts = [Some(word), Some(name), channel, Some(payload)];
        let mut frame = Vec::with_capacity(payload.len() + name.len() + 64);
        let mut out = Encoder::new(&mut frame, Version::Resp2);
        out.push(parts.iter().flatten().count());
        for part in parts.into_iter().flatten() {
            out.bulk(part);
        }
        Arc::new(Self {
            kind,
            name: name.clone(),
            frame,
        })
    }

    pub(crate) fn is_by_same(&self, other: &Self) -> bool {
        self.kind == other.kind && self.name == other.name
    }

    /// The frame; of RESP3 only the first octet is another.
    pub(crate) fn encode(&self, out: &mut Vec<u8>, version: Version) {
        let at = out.len();
        out.extend_from_slice(&self.frame);
        if version == Version::Resp3
            && let Some(first) = out.get_mut(at)
        {
            *first = b'>';
        }
    }
}

/// The three name spaces of subscriptions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Topic {
    Channel,
    Pattern,
    Shard,
}

#[derive(Debug, Default)]
struct Subscribers {
    /// By topic and name: those who get it, in order of subscription.
    names: HashMap<(Topic, Bytes), Vec<Arc<Client>>, RandomState>,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Hub {
    clients: Mutex<HashMap<u64, Arc<Client>, RandomState>>,
    subscribers: RwLock<Subscribers>,
    durability: AtomicU8,
    pub(crate) settings: RwLock<Vec<(&'static str, String)>>,
    pub(crate) stats: Stats,
    pub(crate) blocked: AtomicU64,
    pub(crate) pause: Pause,
    /// Milliseconds after which a silent client is closed; 0: never.
    pub(crate) idle_timeout_ms: AtomicU64,
    /// Which keyspace notifications are wanted.
    pub(crate) wanted: Wanted,
    pub(crate) monitors: Monitors,
    pub(crate) tally: Tally,
    pub(crate) slowlog: SlowLog,
    pub(crate) latency: Latency,
    pub(in crate::resp) acl_log: AclLog,
    /// `acl-pubsub-default` is `allchannels`.
    pub(crate) acl_all_channels: AtomicBool,
    pub(crate) saves: Saves,
    pub(crate) rewrites: Saves,
    pub(crate) scripts: Scripts,
    pub(crate) runner: Runner,
    pub(crate) rates: Rates,
    /// What memory was at its highest, in bytes.
    pub(crate) peak_memory: AtomicU64,
}

/// Counters of `INFO`, since the start or `CONFIG RESETSTAT`.
#[derive(Debug, Default)]
pub(crate) struct Stats {
    pub(crate) commands: Counter,
    pub(crate) connections: Counter,
    pub(crate) errors: Counter,
    /// What the counters were at the last reset.
    base: Mutex<[u64; 3]>,
}

impl Stats {
    fn raw(&self) -> [u64; 3] {
        [&self.commands, &self.connections, &self.errors].map(Counter::value)
    }

    /// Commands, connections, errors.
    pub(crate) fn values(&self) -> [u64; 3] {
        let mut values = self.raw();
        for (value, base) in values.iter_mut().zip(*self.base.lock()) {
            *value = value.saturating_sub(base);
        }
        values
    }

    pub(crate) fn reset(&self) {
        *self.base.lock() = self.raw();
    }
}

/// How fast counters grow, measured between the questions of those who ask: commands, bytes read, bytes written.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<Option<Measure>>);

#[derive(Debug, Clone, Copy)]
struct Measure {
    at: Instant,
    counters: [u64; 3],
    per_s: [f64; 3],
}

impl Rates {
    /// Per second.
    pub(crate) fn now(&self, commands: u64, read: u64, written: u64) -> [f64; 3] {
        /// A shorter time says little.
        const LEAST: Duration = Duration::from_millis(100);
        let (now, counters) = (Instant::now(), [commands, read, written]);
        let mut last = self.0.lock();
        let measure = match *last {
            Some(last) if now - last.at < LEAST => last,
            Some(last) => {
                let seconds = (now - last.at).as_secs_f64();
                let mut per_s = [0.0; 3];
                for ((rate, new), old) in per_s.iter_mut().zip(counters).zip(last.counters) {
                    *rate = new.saturating_sub(old) as f64 / seconds;
                }
                Measure {
                    at: now,
                    counters,
                    per_s,
                }
            }
            None => Measure {
                at: now,
                counters,
                per_s: [0.0; 3],
            },
        };
        *last = Some(measure);
        measure.per_s
    }
}

impl Hub {
    pub(crate) fn new(durability: Durability, settings: Vec<(&'static str, String)>) -> Self {
        let hub = Self {
            clients: Mutex::default(),
            subscribers: RwLock::default(),
            durability: AtomicU8::new(0),
            settings: RwLock::new(settings),
            stats: Stats::default(),
            blocked: AtomicU64::new(0),
            pause: Pause::default(),
            idle_timeout_ms: AtomicU64::new(0),
            wanted: Wanted::default(),
            monitors: Monitors::default(),
            tally: Tally::default(),
            slowlog: SlowLog::default(),
            latency: Latency::default(),
            acl_log: AclLog::default(),
            acl_all_channels: AtomicBool::new(false),
            saves: Saves::default(),
            rewrites: Saves::default(),
            scripts: Scripts::default(),
            runner: Runner::default(),
            rates: Rates::default(),
            peak_memory: AtomicU64::new(0),
        };
        hub.set_durability(durability);
        hub
    }

    #[inline]
    pub(crate) fn durability(&self) -> Durability {
        match self.durability.load(Ordering::Relaxed) {
            0 => Durability::Os,
            1 => Durability::Interval,
            _ => Durability::Sync,
        }
    }

    pub(crate) fn set_durability(&self, durability: Durability) {
        let code = match durability {
            Durability::Os => 0,
            Durability::Interval => 1,
            Durability::Sync => 2,
        };
        self.durability.store(code, Ordering::Relaxed);
    }

    pub(crate) fn enter(&self, client: &Arc<Client>) {
        self.stats.connections.inc();
        self.clients.lock().insert(client.id, Arc::clone(client));
    }

    pub(crate) fn leave(&self, client: &Client) {
        client.gone.store(true, Ordering::Relaxed);
        self.clients.lock().remove(&client.id);
    }

    /// Everybody, in order of arrival.
    pub(crate) fn clients(&self) -> Vec<Arc<Client>> {
        let mut all: Vec<_> = self.clients.lock().values().cloned().collect();
        all.sort_by_key(|client| client.id);
        all
    }

    pub(crate) fn client(&self, id: u64) -> Option<Arc<Client>> {
        self.clients.lock().get(&id).cloned()
    }

    /// Commands that wait for the end of a pause go on.
    pub(crate) fn unpause(&self) {
        self.pause.end();
        for client in self.clients.lock().values() {
            client.mailbox.ring();
        }
    }

    pub(crate) fn subscribe(&self, topic: Topic, name: &Bytes, client: &Arc<Client>) {
        self.subscribers
            .write()
            .names
            .entry((topic, name.clone()))
            .or_default()
            .push(Arc::clone(client));
    }

    pub(crate) fn unsubscribe(&self, topic: Topic, name: &Bytes, client: &Client) {
        let mut subscribers = self.subscribers.write();
        let key = (topic, name.clone());
        if let Some(list) = subscribers.names.get_mut(&key) {
            list.retain(|other| other.id != client.id);
            if list.is_empty() {
                subscribers.names.remove(&key);
            }
        }
    }

    /// Puts a message into the mailboxes of those who want it; how many.
    pub(crate) fn publish(&self, topic: Topic, channel: &[u8], payload: &[u8]) -> usize {
        let subscribers = self.subscribers.read();
        if subscribers.names.is_empty() {
            return 0;
        }
        let mut count = 0;
        let key = (topic, Bytes::copy_from_slice(channel));
        if let Some(list) = subscribers.names.get(&key) {
            let message = Message::new(topic, &key.1, None, payload);
            for client in list {
                client.mailbox.push(Event::Message(Arc::clone(&message)));
            }
            count += list.len();
        }
        if topic == Topic::Channel {
            for ((kind, pattern), list) in &subscribers.names {
                if *kind == Topic::Pattern && matches(pattern, channel) {
                    let message = Message::new(*kind, pattern, Some(channel), payload);
                    for client in list {
                        client.mailbox.push(Event::Message(Arc::clone(&message)));
                    }
                    count += list.len();
                }
            }
        }
        count
    }

    /// How many names somebody listens to.
    pub(crate) fn count(&self, topic: Topic) -> usize {
        let subscribers = self.subscribers.read();
        let kinds = subscribers.names.keys().filter(|(kind, _)| *kind == topic);
        kinds.count()
    }

    /// Names of a topic that somebody subscribes to.
    pub(crate) fn names(&self, topic: Topic) -> Vec<Bytes> {
        let mut names: Vec<Bytes> = self
            .subscribers
            .read()
            .names
            .keys()
            .filter(|(kind, _)| *kind == topic)
            .map(|(_, name)| name.clone())
            .collect();
        names.sort_unstable();
        names
    }

    pub(crate) fn subscriber_count(&self, topic: Topic, name: &[u8]) -> usize {
        self.subscribers
            .read()
            .names
            .get(&(topic, Bytes::copy_from_slice(name)))
            .map_or(0, Vec::len)
    }
}
