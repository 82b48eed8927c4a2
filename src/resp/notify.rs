//! Keyspace notifications: which events there are, and what each command calls what it does to a key.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};

use broker::cache::{Change, Note};
use protocol_resp::{Args, number};

use super::hub::{Hub, Topic};
use super::parse::is;
use super::spec::{Flags, Spec};

/// Classes of events, as bits; the letters of `notify-keyspace-events`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Class(u32);

impl Class {
    pub(crate) const KEYSPACE: Self = Self(1);
    pub(crate) const KEYEVENT: Self = Self(1 << 1);
    pub(crate) const GENERIC: Self = Self(1 << 2);
    pub(crate) const STRING: Self = Self(1 << 3);
    pub(crate) const LIST: Self = Self(1 << 4);
    pub(crate) const SET: Self = Self(1 << 5);
    pub(crate) const HASH: Self = Self(1 << 6);
    pub(crate) const ZSET: Self = Self(1 << 7);
    pub(crate) const EXPIRED: Self = Self(1 << 8);
    pub(crate) const EVICTED: Self = Self(1 << 9);
    pub(crate) const STREAM: Self = Self(1 << 10);
    pub(crate) const MISS: Self = Self(1 << 11);
    pub(crate) const MODULE: Self = Self(1 << 12);
    pub(crate) const NEW: Self = Self(1 << 13);
}

/// In the order in which Redis shows them.
const LETTERS: [(char, Class); 14] = [
    ('g', Class::GENERIC),
    ('$', Class::STRING),
    ('l', Class::LIST),
    ('s', Class::SET),
    ('h', Class::HASH),
    ('z', Class::ZSET),
    ('x', Class::EXPIRED),
    ('e', Class::EVICTED),
    ('t', Class::STREAM),
    ('d', Class::MODULE),
    ('n', Class::NEW),
    ('K', Class::KEYSPACE),
    ('E', Class::KEYEVENT),
    ('m', Class::MISS),
];

/// What `A` stands for.
fn all() -> u32 {
    let apart = Class::NEW.0 | Class::KEYSPACE.0 | Class::KEYEVENT.0 | Class::MISS.0;
    LETTERS.iter().fold(0, |all, (_, class)| all | class.0) & !apart
}

/// Which classes are wanted.
#[derive(Debug, Default)]
pub(crate) struct Wanted(AtomicU32);

impl Wanted {
    /// Somebody may want to hear something.
    #[inline]
    pub(crate) fn is_on(&self) -> bool {
        self.0.load(Relaxed) != 0
    }

    fn has(&self, class: Class) -> bool {
        self.0.load(Relaxed) & class.0 != 0
    }

    /// Takes letters that [`normal`] knows. True: events are noted from now on.
    pub(crate) fn set(&self, letters: &[u8]) -> bool {
        let bits = bits(letters).unwrap_or(0);
        let spaces = Class::KEYSPACE.0 | Class::KEYEVENT.0;
        // Without a channel to tell it on, or without anything to tell, nothing is noted.
        let on = bits & spaces != 0 && bits & !spaces != 0;
        self.0.store(if on { bits } else { 0 }, Relaxed);
        on
    }
}

fn bits(letters: &[u8]) -> Option<u32> {
    letters.iter().try_fold(0, |bits, letter| {
        if *letter == b'A' {
            return Some(bits | all());
        }
        let found = LETTERS
            .iter()
            .find(|(known, _)| *known == char::from(*letter));
        found.map(|(_, class)| bits | class.0)
    })
}

/// The letters as Redis shows them.
pub(crate) fn normal(letters: &[u8]) -> Result<String, &'static str> {
    const WRONG: &str = "Invalid event class character. Use 'Ag$lshzxeKEtmdn'.";
    let bits = bits(letters).ok_or(WRONG)?;
    let mut shown = String::new();
    let has_all = bits & all() == all();
    if has_all {
        shown.push('A');
    }
    for (letter, class) in LETTERS {
        let covered = has_all && (all() | Class::NEW.0) & class.0 != 0;
        if bits & class.0 != 0 && !covered {
            shown.push(letter);
        }
    }
    Ok(shown)
}

/// An event that is told when its change is committed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Event {
    db: usize,
    class: Class,
    name: &'static str,
    key: Box<[u8]>,
}

impl Hub {
    /// Tells the events to whoever listens.
    #[cold]
    pub(crate) fn notify(&self, events: impl IntoIterator<Item = Event>) {
        for event in events {
            if !self.wanted.has(event.class) {
                continue;
            }
            if self.wanted.has(Class::KEYSPACE) {
                let channel = channel("keyspace", event.db, &event.key);
                self.publish(Topic::Channel, &channel, event.name.as_bytes());
            }
            if self.wanted.has(Class::KEYEVENT) {
                let channel = channel("keyevent", event.db, event.name.as_bytes());
                self.publish(Topic::Channel, &channel, &event.key);
            }
        }
    }
}

fn channel(space: &str, db: usize, subject: &[u8]) -> Vec<u8> {
    let mut channel = format!("__{space}@{db}__:").into_bytes();
    channel.extend_from_slice(subject);
    channel
}

/// What must be known of the keys before a command runs, since neither its reply nor what it changes says it.
#[derive(Debug, Default)]
pub(crate) struct Before {
    pub(crate) now_ms: u64,
    /// `XADD`: entries of the stream.
    pub(crate) entries: Option<usize>,
    /// `XADD`, known afterwards: some were trimmed.
    pub(crate) trimmed: bool,
    /// Keys of streams whose group does not have the consumer before; of `XGROUP DELCONSUMER`, has it.
    pub(crate) consumers: Vec<Vec<u8>>,
    /// `LTRIM`, `XSETID`, `XGROUP SETID`: the key is there.
    pub(crate) exists: bool,
}

/// What a command does to keys, in the words of its family.
#[derive(Debug, Clone, Copy)]
enum Rule {
    /// This to each key that has changed.
    Each(Class, &'static str),
    /// The same, also if nothing of the value was another one: Redis tells that it was done.
    Done(Class, &'static str),
    /// As [`Rule::Each`], and a deadline if the arguments from this one on give one; 0: always.
    Deadline(usize),
    /// What depends on the arguments.
    Special,
    /// Only that keys are gone.
    Silent,
}

/// `None`: the command is not known to change keys.
fn rule(name: &str) -> Option<Rule> {
    use Rule::{Deadline, Done, Each, Silent, Special};
    let (generic, string, list) = (Class::GENERIC, Class::STRING, Class::LIST);
    let (set, hash, zset, stream) = (Class::SET, Class::HASH, Class::ZSET, Class::STREAM);
    Some(match name {
        "set" | "msetex" => Deadline(3),
        "setex" | "psetex" => Deadline(0),
        "setnx" | "getset" | "mset" | "msetnx" | "bitop" => Each(string, "set"),
        "append" => Each(string, "append"),
        "setrange" => Each(string, "setrange"),
        "setbit" | "bitfield" => Each(string, "setbit"),
        "incr" | "incrby" | "decr" | "decrby" => Each(string, "incrby"),
        "incrbyfloat" => Each(string, "incrbyfloat"),
        "pfadd" | "pfmerge" => Each(string, "pfadd"),
        "expire" | "pexpire" | "expireat" | "pexpireat" => Each(generic, "expire"),
        "persist" => Each(generic, "persist"),
        "copy" => Each(generic, "copy_to"),
        "restore" => Each(generic, "restore"),
        "sort" => Each(list, "sortstore"),
        "lpush" | "lpushx" => Each(list, "lpush"),
        "rpush" | "rpushx" => Each(list, "rpush"),
        "lpop" | "blpop" => Each(list, "lpop"),
        "rpop" | "brpop" => Each(list, "rpop"),
        "lset" => Done(list, "lset"),
        "linsert" => Each(list, "linsert"),
        "lrem" => Each(list, "lrem"),
        "ltrim" => Done(list, "ltrim"),
        "sadd" => Each(set, "sadd"),
        "srem" => Each(set, "srem"),
        "spop" => Each(set, "spop"),
        "sinterstore" => Each(set, "sinterstore"),
        "sunionstore" => Each(set, "sunionstore"),
        "sdiffstore" => Each(set, "sdiffstore"),
        "hset" | "hmset" => Done(hash, "hset"),
        "hsetnx" => Each(hash, "hset"),
        "hincrby" => Done(hash, "hincrby"),
        "hincrbyfloat" => Done(hash, "hincrbyfloat"),
        "hdel" => Each(hash, "hdel"),
        "geoadd" => Each(zset, "zadd"),
        "georadius" | "georadiusbymember" => Each(zset, "georadiusstore"),
        "geosearchstore" => Each(zset, "geosearchstore"),
        "zincrby" => Each(zset, "zincr"),
        "zrem" => Each(zset, "zrem"),
        "zpopmin" | "bzpopmin" => Each(zset, "zpopmin"),
        "zpopmax" | "bzpopmax" => Each(zset, "zpopmax"),
        "zremrangebyrank" => Each(zset, "zremrangebyrank"),
        "zremrangebyscore" => Each(zset, "zremrangebyscore"),
        "zremrangebylex" => Each(zset, "zremrangebylex"),
        "zunionstore" => Each(zset, "zunionstore"),
        "zinterstore" => Each(zset, "zinterstore"),
        "zdiffstore" => Each(zset, "zdiffstore"),
        "zrangestore" => Each(zset, "zrangestore"),
        "xtrim" => Each(stream, "xtrim"),
        "xdel" | "xdelex" | "xackdel" => Each(stream, "xdel"),
        "xsetid" => Done(stream, "xsetid"),
        "xgroup|create" => Done(stream, "xgroup-create"),
        "xgroup|setid" => Done(stream, "xgroup-setid"),
        "hexpire" | "hpexpire" | "hexpireat" | "hpexpireat" | "hpersist" | "hgetex" | "hsetex"
        | "hgetdel" => Special,
        "increx"
        | "getex"
        | "zadd"
        | "rename"
        | "renamenx"
        | "move"
        | "smove"
        | "lmove"
        | "rpoplpush"
        | "blmove"
        | "brpoplpush"
        | "lmpop"
        | "blmpop"
        | "zmpop"
        | "bzmpop"
        | "xadd"
        | "xgroup|createconsumer"
        | "xgroup|delconsumer"
        | "xgroup|destroy"
        | "xreadgroup"
        | "xclaim"
        | "xautoclaim" => Special,
        "del" | "unlink" | "getdel" | "delifeq" | "delex" | "xack" | "xnack" | "xcfgset"
        | "flushdb" | "flushall" | "swapdb" | "function|delete" | "function|flush" => Silent,
        _ => return None,
    })
}

/// The keys that a command touched, each with what happened to it, in order.
struct Fate<'n> {
    db: usize,
    key: &'n [u8],
    expired: bool,
    new: bool,
    changed: bool,
    gone: bool,
}

fn fates(notes: &[Note]) -> Vec<Fate<'_>> {
    let mut fates: Vec<Fate<'_>> = Vec::new();
    for note in notes {
        let known = fates
            .iter()
            .position(|fate| fate.db == note.db && *fate.key == *note.key);
        let place = known.unwrap_or_else(|| {
            fates.push(Fate {
                db: note.db,
                key: &note.key,
                expired: false,
                new: false,
                changed: false,
                gone: false,
            });
            fates.len() - 1
        });
        let Some(fate) = fates.get_mut(place) else {
            continue;
        };
        match note.change {
            Change::Expired => fate.expired = true,
            // What takes the place of another value is not new.
            Change::New => fate.new = !std::mem::take(&mut fate.gone),
            Change::Changed => fate.changed = true,
            Change::Gone => fate.gone = true,
            // No command does either.
            Change::Evicted | Change::Served(_) => {}
        }
    }
    fates
}

/// What a command did, as events. `reply`: what it answered.
pub(crate) fn events(
    spec: &Spec,
    args: &Args<'_>,
    db: usize,
    before: &Before,
    notes: &[Note],
    reply: &[u8],
) -> Vec<Event> {
    let mut told = Told {
        db,
        events: Vec::new(),
    };
    let fates = fates(notes);
    for fate in fates.iter().filter(|fate| fate.expired) {
        told.put(fate.db, Class::EXPIRED, "expired", fate.key);
    }
    let done = !reply.starts_with(b"-");
    let rule = match rule(spec.name) {
        _ if !done => Rule::Silent,
        Some(rule) => rule,
        None => Rule::Silent,
    };
    for fate in fates.iter().filter(|fate| fate.new) {
        told.put(fate.db, Class::NEW, "new", fate.key);
    }
    match rule {
        Rule::Each(class, name) => told.each(&fates, |_| Some((class, name))),
        Rule::Done(class, name) => {
            let key = args.at(if spec.name.starts_with("xgroup|") {
                2
            } else {
                1
            });
            let noted = fates.iter().any(|fate| fate.key == key && fate.changed);
            let made = matches!(
                spec.name,
                "hset" | "hmset" | "hincrby" | "hincrbyfloat" | "lset"
            );
            if !noted && (before.exists || made || spec.name == "xgroup|create") {
                told.put(db, class, name, key);
            }
            told.each(&fates, |_| Some((class, name)));
        }
        Rule::Deadline(from) => {
            // Behind the keys and values.
            let from = match number::parse_i64(args.at(1)) {
                Some(keys) if spec.name == "msetex" => {
                    usize::try_from(keys).unwrap_or(0).saturating_mul(2) + 2
                }
                _ => from,
            };
            let options = args.iter().skip(from);
            let expires = from == 0
                || options.into_iter().any(|word| {
                    let words = ["EX", "PX", "EXAT", "PXAT"];
                    words.iter().any(|option| is(word, option))
                });
            for fate in fates.iter().filter(|fate| fate.changed) {
                told.put(fate.db, Class::STRING, "set", fate.key);
                if expires {
                    told.put(fate.db, Class::GENERIC, "expire", fate.key);
                }
            }
        }
        Rule::Special => told.special(spec.name, args, before, &fates, reply),
        Rule::Silent => told.each(&fates, |_| None),
    }
    told.events
}

/// Events in the making.
struct Told {
    db: usize,
    events: Vec<Event>,
}

impl Told {
    fn put(&mut self, db: usize, class: Class, name: &'static str, key: &[u8]) {
        self.events.push(Event {
            db,
            class,
            name,
            key: key.into(),
        });
    }

    fn put_gone(&mut self, fate: &Fate<'_>) {
        if fate.gone {
            self.put(fate.db, Class::GENERIC, "del", fate.key);
        }
    }

    fn each(
        &mut self,
        fates: &[Fate<'_>],
        name_of: impl Fn(&Fate<'_>) -> Option<(Class, &'static str)>,
    ) {
        for fate in fates {
            if fate.changed
                && let Some((class, name)) = name_of(fate)
            {
                self.put(fate.db, class, name, fate.key);
            }
            self.put_gone(fate);
        }
    }

    fn special(
        &mut self,
        name: &str,
        args: &Args<'_>,
        before: &Before,
        fates: &[Fate<'_>],
        reply: &[u8],
    ) {
        let (generic, list) = (Class::GENERIC, Class::LIST);
        let has = |word: &str| args.iter().skip(1).any(|arg| is(arg, word));
        match name {
            "increx" => {
                let event = if has("BYFLOAT") {
                    "incrbyfloat"
                } else {
                    "incrby"
                };
                self.each(fates, |_| Some((Class::STRING, event)));
                if ["EX", "PX", "EXAT", "PXAT"].iter().any(|word| has(word)) {
                    self.each(fates, |_| Some((generic, "expire")));
                }
            }
            "getex" => {
                let event = if has("PERSIST") { "persist" } else { "expire" };
                self.each(fates, |_| Some((generic, event)));
            }
            "zadd" => {
                let mut options = args.iter().skip(2);
                let words = ["NX", "XX", "GT", "LT", "CH"];
                let option = options.find(|arg| !words.iter().any(|word| is(arg, word)));
                let incr = option.is_some_and(|arg| is(arg, "INCR"));
                let event = if incr { "zincr" } else { "zadd" };
                self.each(fates, |_| Some((Class::ZSET, event)));
            }
            "rename" | "renamenx" => {
                if fates
                    .iter()
                    .any(|fate| fate.key == args.at(2) && fate.changed)
                {
                    self.put(self.db, generic, "rename_from", args.at(1));
                    self.put(self.db, generic, "rename_to", args.at(2));
                }
            }
            "move" => {
                for fate in fates {
                    if fate.db == self.db && fate.gone {
                        self.put(fate.db, generic, "move_from", fate.key);
                    } else if fate.changed {
                        self.put(fate.db, generic, "move_to", fate.key);
                    }
                }
            }
            "smove" => {
                let from = args.at(1);
                self.each(fates, |fate| {
                    let event = if fate.key == from { "srem" } else { "sadd" };
                    Some((Class::SET, event))
                });
            }
            "lmove" | "rpoplpush" | "blmove" | "brpoplpush" => {
                let by_args = name.ends_with("lmove");
                let (from, to) = (args.at(1), args.at(2));
                let pops_left = by_args && is(args.at(3), "LEFT");
                let pushes_left = !by_args || is(args.at(4), "LEFT");
                let touched = |key: &[u8]| fates.iter().find(|fate| fate.key == key);
                if touched(to).is_some_and(|fate| fate.changed) {
                    let push = if pushes_left { "lpush" } else { "rpush" };
                    let pop = if pops_left { "lpop" } else { "rpop" };
                    self.put(self.db, list, push, to);
                    self.put(self.db, list, pop, from);
                    if let Some(fate) = touched(from) {
                        self.put_gone(fate);
                    }
                }
            }
            "lmpop" | "blmpop" => {
                let event = if has("LEFT") { "lpop" } else { "rpop" };
                self.each(fates, |_| Some((list, event)));
            }
            "zmpop" | "bzmpop" => {
                let event = if has("MAX") { "zpopmax" } else { "zpopmin" };
                self.each(fates, |_| Some((Class::ZSET, event)));
            }
            _ if name.starts_with('h') => {
                // A reply with codes says it also of a deadline that was the same before.
                let by_reply = name.ends_with("expire") || name.ends_with("expireat");
                if by_reply || fates.iter().any(|fate| fate.changed) {
                    for event in of_fields(name, args, before.now_ms, reply) {
                        self.put(self.db, Class::HASH, event, args.at(1));
                    }
                }
                fates.iter().for_each(|fate| self.put_gone(fate));
            }
            _ => self.of_stream(name, args, before, fates, reply),
        }
    }

    fn of_stream(
        &mut self,
        name: &str,
        args: &Args<'_>,
        before: &Before,
        fates: &[Fate<'_>],
        reply: &[u8],
    ) {
        let stream = Class::STREAM;
        match name {
            "xadd" => {
                self.each(fates, |_| Some((stream, "xadd")));
                if before.trimmed {
                    self.put(self.db, stream, "xtrim", args.at(1));
                }
            }
            "xgroup|createconsumer" | "xgroup|destroy" => {
                let event = if name.ends_with("destroy") {
                    "xgroup-destroy"
                } else {
                    "xgroup-createconsumer"
                };
                if reply.starts_with(b":1") {
                    self.put(self.db, stream, event, args.at(2));
                }
            }
            "xgroup|delconsumer" => {
                for key in &before.consumers {
                    self.put(self.db, stream, "xgroup-delconsumer", key);
                }
            }
            _ => {
                for key in &before.consumers {
                    self.put(self.db, stream, "xgroup-createconsumer", key);
                }
            }
        }
    }
}

/// What was done to deadlines of a hash's fields, in Redis' order.
fn of_fields(name: &str, args: &Args<'_>, now_ms: u64, reply: &[u8]) -> Vec<&'static str> {
    let options: Vec<&[u8]> = args
        .iter()
        .skip(2)
        .take_while(|word| !is(word, "FIELDS"))
        .collect();
    let deadline = |unit: &str| {
        let at = options.iter().position(|word| is(word, unit))?;
        number::parse_i64(options.get(at + 1)?)
    };
    let is_past = |ms: i64| u64::try_from(ms).is_ok_and(|ms| ms <= now_ms);
    let past = deadline("EXAT").is_some_and(|at| is_past(at.saturating_mul(1000)))
        || deadline("PXAT").is_some_and(is_past);
    let lasts = |units: &[&str]| units.iter().any(|unit| deadline(unit).is_some());
    let mut events = Vec::new();
    let mut put = |event, so: bool| events.extend(so.then_some(event));
    match name {
        "hgetdel" => put("hdel", true),
        "hpersist" => put("hpersist", true),
        "hgetex" => {
            let persists = options.iter().any(|word| is(word, "PERSIST"));
            put("hpersist", persists);
            put("hexpire", !persists && !past);
            put("hexpired", past);
        }
        "hsetex" => {
            put("hset", true);
            put("hexpire", lasts(&["EX", "PX", "EXAT", "PXAT"]));
            put("hexpired", past);
        }
        // One code for each field: 1 has the deadline, 2 is gone, since it had come.
        _ => {
            let has = |code: &[u8]| memchr::memmem::find(reply, code).is_some();
            put("hexpire", has(b":1\r\n"));
            put("hexpired", has(b":2\r\n"));
        }
    }
    events
}

/// Events of what happened without a command, or for clients that waited: in [`Change`]'s own words.
pub(crate) fn of_notes(notes: &[Note]) -> Vec<Event> {
    let event = |note: &Note| {
        let (class, name) = match note.change {
            Change::Expired => (Class::EXPIRED, "expired"),
            Change::Gone => (Class::GENERIC, "del"),
            Change::Evicted => (Class::EVICTED, "evicted"),
            Change::New => (Class::NEW, "new"),
            Change::Served(name) if name.starts_with('z') => (Class::ZSET, name),
            Change::Served(name) => (Class::LIST, name),
            Change::Changed => return None,
        };
        Some(Event {
            db: note.db,
            class,
            name,
            key: note.key.clone(),
        })
    };
    notes.iter().filter_map(event).collect()
}

/// A command that reads has not found this key.
pub(crate) fn missed(db: usize, key: &[u8]) -> Event {
    Event {
        db,
        class: Class::MISS,
        name: "keymiss",
        key: key.into(),
    }
}

/// Whether a command tells of keys that it does not find.
pub(crate) fn tells_misses(hub: &Hub, spec: &Spec) -> bool {
    hub.wanted.has(Class::MISS)
        && (spec.flags.has(Flags::READ) || matches!(spec.name, "getex" | "getdel"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::commands;
    use crate::resp::spec::Run;

    #[test]
    fn letters_are_shown_as_redis_does() {
        for (given, shown) in [
            ("KEA", "AKE"),
            ("K$", "$K"),
            ("Eg", "gE"),
            ("Kn", "nK"),
            ("Em", "Em"),
            ("KEAmn", "AKEm"),
            ("KEx$lshztdgmen", "AKEm"),
            ("", ""),
        ] {
            assert_eq!(normal(given.as_bytes()).as_deref(), Ok(shown), "{given}");
        }
        assert!(normal(b"q").is_err());
    }

    #[test]
    fn nothing_is_noted_without_a_channel_or_a_class() {
        let wanted = Wanted::default();
        assert!(!wanted.set(b"A") && !wanted.set(b"KE") && !wanted.is_on());
        assert!(wanted.set(b"Kg") && wanted.is_on());
        assert!(wanted.has(Class::GENERIC) && !wanted.has(Class::STRING));
        assert!(!wanted.set(b"") && !wanted.is_on());
    }

    /// A command that writes must say what it calls it.
    #[test]
    fn every_command_that_writes_has_a_rule() {
        for (_, spec) in commands::all() {
            for spec in std::iter::once(spec).chain(spec.sub) {
                let writes = spec.flags.has(Flags::WRITE) && matches!(spec.run, Run::Keys(_));
                assert!(!writes || rule(spec.name).is_some(), "{}", spec.name);
            }
        }
    }
}
