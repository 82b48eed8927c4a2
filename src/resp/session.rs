//! One Redis client's connection.

mod account;
mod blocking;
mod cluster;
mod hold;
mod identity;
mod notify;
mod pressure;
pub(super) mod runner;
mod script;
mod tracking;
mod transaction;

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use broker::access::Identity;
use broker::cache::{Deliveries, Name, Watch};
use broker::{Ctx, Effects, Locked, Mailbox, Millis, Need, ShardSet};
use bytes::{Buf, Bytes, BytesMut};
use indexmap::IndexSet;
use protocol_resp::{Args, Decoder, Encoder, Limits, Version};

use super::acl::log::Context;
use super::ahead;
use super::client::{Client, Facts, Seen};
use super::commands;
use super::commands::fm::After;
use super::exec::Exec;
use super::fail::{Done, Fail, lossy, wrong_arity};
use super::hub::{Event, Hub, Message, Topic};
use super::notify::Event as Told;
use super::script::Program;
use super::spec::{self, Flags, Run, Spec};
use super::tracking::Tracking;
use crate::auth::Seat;
use crate::config::Face;
use crate::net::{ConnInfo, Flow, Outbox, Reads, Session as NetSession};
use crate::node::Node;
use crate::tls::Certificate;

pub(super) use identity::Then;

use account::Account;
use blocking::Blocked;
use hold::Held;
pub(super) use hold::NESTED;
use runner::{Elsewhere, busy};
use tracking::Tracks;
pub(super) use transaction::TRANSACTION_MAX;
use transaction::{Multi, is_transaction_control};

/// What `CLIENT REPLY` asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Replies {
    On,
    Off,
    /// Not to the next command.
    SkipNext,
    Skip,
}

/// See the module.
pub(crate) struct Session {
    #[expect(
        clippy::redundant_allocation,
        reason = "counted here as well: each command borrows it once, and the inner count is shared by all threads"
    )]
    pub(super) node: Rc<Arc<Node>>,
    pub(super) hub: Arc<Hub>,
    pub(super) client: Arc<Client>,
    decoder: Decoder,
    pub(super) version: Version,
    pub(super) db: usize,
    pub(super) authenticated: bool,
    identity: Identity,
    login: Option<Box<identity::Pending>>,
    pub(super) replies: Replies,
    pub(super) closing: bool,
    /// Close at once, whatever waits to be sent.
    abort: bool,
    multi: Option<Multi>,
    watch: Arc<Watch>,
    watched: Vec<(usize, Vec<u8>)>,
    pub(super) channels: IndexSet<Bytes>,
    pub(super) patterns: IndexSet<Bytes>,
    pub(super) shard_channels: IndexSet<Bytes>,
    /// Octets of the names that are subscribed to and watched.
    pub(super) names_len: usize,
    /// Its place among the connections of its user.
    seat: Option<Seat>,
    blocked: Option<Blocked>,
    /// It waits for something that is not a key.
    held: Option<Held>,
    /// Its script runs on another thread.
    elsewhere: Option<Elsewhere>,
    /// It keeps what it reads.
    tracks: Option<Box<Tracks>>,
    /// Events of keys that are told with the next commit.
    told: Vec<Told>,
    /// It sees the commands of all.
    pub(super) monitors: bool,
    account: Account,
    /// A command of a transaction or script runs: locks are held, and nothing may wait.
    pub(super) nested: bool,
    /// The script or function that the next `EVAL` or `FCALL` means, and whether it is new: found before its locks.
    program: Option<(Program, bool)>,
    fx: Effects,
    deliveries: Deliveries,
    events: Vec<Event>,
    /// Those that wait for the end of its script.
    later: Vec<Event>,
    pub(super) ctx: Ctx,
    /// It is told that this is a cluster.
    clustered: bool,
    /// Limits of memory that were passed, and nothing could be deleted, when this command began; as bits.
    tight: u64,
    /// What replies since the last look wait for.
    need: Need,
    commands: u64,
    /// [`Spec::number`] of the last command, plus one.
    last: u16,
    used: Instant,
}

impl std::fmt::Debug for Session {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Session")
            .field("client", &self.client.id)
            .finish_non_exhaustive()
    }
}

impl Session {
    pub(crate) fn new(node: Arc<Node>, hub: Arc<Hub>, info: ConnInfo) -> Self {
        let now = node.clock.now_ms();
        let client = Arc::new(Client {
            id: info.id,
            peer: info.peer,
            local: info.local,
            unix: info.unix,
            tls: info.tls,
            mailbox: Mailbox::new(info.handle.wake()),
            handle: info.handle,
            since_ms: now,
            facts: parking_lot::Mutex::new(Facts::default()),
            seen: Seen::default(),
            tracking: Tracking::default(),
            used_ms: now.into(),
            killed: false.into(),
            gone: false.into(),
        });
        hub.enter(&client);
        let identity = node.auth.before_login(info.peer.ip());
        let authenticated = identity.is_somebody();
        let mut seed = [0; 8];
        // Without a system's chance the seed is the connection's number: only which member SPOP takes depends on it.
        let chance = getrandom::fill(&mut seed).map_or(info.id, |()| u64::from_le_bytes(seed));
        let mut session = Self::bare(node, hub, client, identity, chance);
        session.ctx.now = Millis(now);
        session.set_authenticated(authenticated);
        session.watch_access();
        session.show();
        session
    }

    /// One that nobody knows of, as it must be where a script runs for another.
    fn bare(
        node: Arc<Node>,
        hub: Arc<Hub>,
        client: Arc<Client>,
        identity: Identity,
        chance: u64,
    ) -> Self {
        Self {
            decoder: Decoder::default(),
            version: Version::Resp2,
            db: 0,
            authenticated: identity.is_somebody(),
            identity,
            login: None,
            replies: Replies::On,
            closing: false,
            abort: false,
            multi: None,
            watch: Arc::default(),
            watched: Vec::new(),
            channels: IndexSet::new(),
            patterns: IndexSet::new(),
            shard_channels: IndexSet::new(),
            names_len: 0,
            seat: None,
            blocked: None,
            held: None,
            elsewhere: None,
            tracks: None,
            told: Vec::new(),
            monitors: false,
            account: Account::new(hub.tally.of_this_thread(), Instant::now()),
            nested: false,
            program: None,
            fx: Effects::new(),
            deliveries: Vec::new(),
            events: Vec::new(),
            later: Vec::new(),
            ctx: Ctx::new(Millis(0), chance),
            tight: 0,
            clustered: commands::cluster::is_on(&node),
            need: Need::none(),
            commands: 0,
            last: 0,
            used: Instant::now(),
            node: Rc::new(node),
            hub,
            client,
        }
    }

    pub(super) fn set_authenticated(&mut self, yes: bool) {
        self.authenticated = yes;
        let limits = Limits {
            bulk_len_max: self.node.config.resp_max_bulk.as_usize(),
            ..Limits::default()
        };
        self.decoder.set_limits(
            if yes {
                limits
            } else {
                Limits::unauthenticated()
            },
            yes,
        );
    }

    /// One command, its errors included, into `out`.
    #[inline]
    fn command(&mut self, args: &Args<'_>, alone: bool, out: &mut Vec<u8>) {
        let mark = out.len();
        self.commands += 1;
        let spec = commands::lookup(args);
        let exact = spec.is_none_or(|spec| self.before(spec, alone));
        let done = match spec {
            Some(spec) => {
                self.last = spec.number + 1;
                self.dispatch(spec, args, out)
            }
            None => Err(self.unknown(args)),
        };
        if let Err(fail) = done {
            out.truncate(mark);
            self.refuse(&fail, out);
        }
        if let Some(spec) = spec {
            self.after(spec, args, exact);
        }
        let waits = self.login.is_some() || self.elsewhere.is_some() || self.held.is_some();
        if self.replies != Replies::On && !waits {
            self.silence(mark, out);
        }
        if self.tracks.is_some() {
            self.after_tracked(spec, out);
        }
    }

    #[cold]
    fn silence(&mut self, mark: usize, out: &mut Vec<u8>) {
        match self.replies {
            Replies::On => {}
            // The command that asked for it is itself not answered.
            Replies::SkipNext => {
                out.truncate(mark);
                self.replies = Replies::Skip;
            }
            Replies::Skip => {
                out.truncate(mark);
                self.replies = Replies::On;
            }
            Replies::Off => out.truncate(mark),
        }
    }

    #[cold]
    fn refuse(&mut self, fail: &Fail, out: &mut Vec<u8>) {
        self.account.failed = true;
        self.hub.tally.error(fail.text());
        self.hub.stats.errors.inc();
        self.node.metrics.errors_total.of(Face::Resp).inc();
        Encoder::new(out, self.version).error(fail.text());
    }

    #[cold]
    fn unknown(&mut self, args: &Args<'_>) -> Fail {
        if let Some(multi) = &mut self.multi {
            multi.failed = true;
        }
        if let Some(container) = commands::lookup_name(args.at(0))
            && !container.sub.is_empty()
            && args.len() > 1
        {
            return spec::unknown_subcommand(container, args.at(1));
        }
        if let Some(container) = commands::lookup_name(args.at(0)) {
            return wrong_arity(container.name);
        }
        // A browser that was made to talk to us: whatever follows must not be read as commands.
        if args.at(0).eq_ignore_ascii_case(b"post") || args.at(0).eq_ignore_ascii_case(b"host:") {
            self.abort = true;
        }
        let mut shown = String::new();
        for arg in args.iter().skip(1) {
            if shown.len() >= 128 {
                break;
            }
            shown.push_str(&format!("'{}' ", lossy(arg, 128 - shown.len())));
        }
        Fail::Owned(format!(
            "ERR unknown command '{}', with args beginning with: {shown}",
            lossy(args.at(0), 128)
        ))
    }

    #[inline]
    fn dispatch(&mut self, spec: &'static Spec, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
        if !spec.takes(args.len()) {
            if spec.name == "exec" {
                if self.multi.is_some() {
                    self.multi_discard()?;
                }
                return Err(Fail::Text(
                    "EXECABORT Transaction discarded because of: wrong number of arguments for 'exec' command",
                ));
            }
            if let Some(multi) = &mut self.multi {
                multi.failed = true;
            }
            return Err(wrong_arity(spec.name));
        }
        if self.is_restricted() && !spec.flags.has(Flags::NO_AUTH) {
            let db = self.multi.as_ref().map_or(self.db, |multi| multi.db);
            let context = if self.multi.is_some() {
                Context::Multi
            } else {
                Context::Toplevel
            };
            let permitted = self.permit(db, spec, args, context);
            if let (Err(_), Some(multi)) = (&permitted, &mut self.multi) {
                multi.failed = true;
            }
            permitted?;
        }
        if self.clustered {
            self.in_one_slot(spec, args)?;
        }
        if self.version == Version::Resp2
            && self.subscriptions() > 0
            && !allowed_while_subscribed(spec)
        {
            return Err(Fail::Owned(format!(
                "ERR Can't execute '{}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed in this context",
                spec.name
            )));
        }
        self.tight = 0;
        if self.node.governor.stops() || self.node.broker.limiter.is_on() {
            self.under_pressure(spec, args)?;
        }
        if self.multi.is_some() && !is_transaction_control(spec) {
            return self.queue(spec, args, out);
        }
        if self.monitors && !matches!(spec.run, Run::Session(_) | Run::Held(_)) {
            return Err(Fail::Text("ERR Replica can't interact with the keyspace"));
        }
        self.shown(spec, args, |session| session.execute(spec, args, out))
    }

    #[inline]
    fn execute(&mut self, spec: &'static Spec, args: &Args<'_>, out: &mut Vec<u8>) -> Done {
        self.account.ran = true;
        match spec.run {
            Run::Keys(run) => {
                self.on_keys(spec, run, args, out);
                Ok(())
            }
            Run::Session(run) => {
                if self.node.scripts.is_busy() && !spec.flags.has(Flags::ALLOW_BUSY) {
                    return Err(busy(&self.node));
                }
                run(self, args, out)
            }
            Run::Held(run) => {
                if self.node.scripts.is_busy() && !spec.flags.has(Flags::ALLOW_BUSY) {
                    return Err(busy(&self.node));
                }
                run(self, args, None, out)
            }
            Run::Planned(_) => self.atomically(&[(spec, *args)], false, out),
            Run::Loading(_) => {
                if self.node.scripts.is_busy() {
                    return Err(busy(&self.node));
                }
                self.send_elsewhere(spec, args, None)
            }
            Run::Script(how) => self.start_script(spec, how, args, out),
            Run::Container => Err(wrong_arity(spec.name)),
        }
    }

    /// Locks what the command names, runs it, and appends its record before the locks go.
    #[inline]
    fn on_keys(
        &mut self,
        spec: &'static Spec,
        run: fn(&mut Exec<'_, '_>, &Args<'_>) -> Done,
        args: &Args<'_>,
        out: &mut Vec<u8>,
    ) {
        let node = Rc::clone(&self.node);
        let (mut set, slot) = spec.shards(args);
        if set.is_empty() {
            // The handler will refuse it; it still needs something to hold.
            set = spec::any_shard(args);
        }
        let Some(mut locked) = node.broker.lock_unless(set, &|| node.scripts.is_busy()) else {
            return self.refuse(&busy(&node), out);
        };
        locked.set_client(self.client.id);
        let (db, now) = (self.db, self.ctx.now);
        let command = std::iter::once((spec, args));
        if let Some(cold) = ahead::note(&mut locked, db, now, &mut self.fx, command) {
            drop(locked);
            locked = ahead::read(&node, set, cold, now, &mut self.fx);
            locked.set_client(self.client.id);
        }
        let mark = out.len();
        let before = (self.hub.wanted.is_on()).then(|| self.before_events(spec, args, &mut locked));
        let mut exec = Exec {
            locked: &mut locked,
            fx: &mut self.fx,
            out: Encoder::new(out, self.version),
            ctx: &self.ctx,
            node: &node,
            hub: &self.hub,
            db: self.db,
            first: slot.map(|slot| Name {
                bytes: args.at(1),
                slot,
            }),
            in_transaction: false,
            need: &mut self.need,
            block: None,
        };
        let done = run(&mut exec, args);
        let block = exec.block.take();
        if let Err(fail) = done {
            out.truncate(mark);
            self.refuse(&fail, out);
        } else if let Some(block) = block {
            self.block(block, spec, args, &mut locked);
        }
        if let Some(before) = before {
            let reply = out.get(mark..).unwrap_or_default();
            self.note_events(spec, args, before, &mut locked, reply);
        }
        self.commit(&mut locked, &After::default());
        if self.tracks.is_some() {
            // Behind the commit: what this command itself has dropped, an expired key, was told to earlier readers.
            self.note_reads(spec, args, &mut locked);
        }
    }

    /// Serves blocked clients, appends the record, and notes what replies must wait for. The locks are still held.
    #[inline]
    fn commit(&mut self, locked: &mut Locked<'_>, after: &After) {
        let set = locked.set();
        let class = self.hub.durability();
        let mut written = ShardSet::EMPTY;
        for id in set.iter().filter(|id| *id != broker::ShardId::CATALOG) {
            let mut view = locked.shard(id).keys(0, self.ctx.now, &mut self.fx);
            if view.has_ready()
                && let Err(error) = view.serve(&mut self.deliveries)
            {
                tracing::error!(%error, "cannot serve blocked clients");
            }
            written = written.with(id);
        }
        if self.fx.is_empty() {
            // A flush of nothing is told as well, as in Redis.
            locked.tell();
            for id in written.iter() {
                let shard = locked.shard(id);
                self.need = self
                    .need
                    .merge(Need::of(shard.cache_lsn, class))
                    .merge(shard.cache.strict);
            }
        } else {
            let lsn = locked.commit(self.ctx.now, &mut self.fx);
            for id in written.iter() {
                locked.shard(id).cache_lsn = lsn;
            }
            self.need = self.need.merge(Need::of(lsn, class));
            if let Some(stricter) = after.class {
                let need = Need::of(lsn, stricter);
                for id in written.iter() {
                    let strict = &mut locked.shard(id).cache.strict;
                    *strict = strict.merge(need);
                }
                self.need = self.need.merge(need);
            }
        }
        if self.hub.wanted.is_on() {
            self.tell_events(locked);
        }
        if !self.deliveries.is_empty() {
            let lsn = locked.broker().engine.appended();
            for (waiter, served) in self.deliveries.drain(..) {
                waiter.deliver(served, lsn);
            }
        }
    }

    /// The reply of this command waits for `need`.
    pub(super) fn wait_for(&mut self, need: Need) {
        self.need = self.need.merge(need);
    }

    pub(super) fn subscriptions(&self) -> usize {
        self.channels.len() + self.patterns.len() + self.shard_channels.len()
    }

    /// Back to how the connection was when it was new (`RESET`).
    pub(super) fn reset(&mut self) {
        self.multi = None;
        self.unwatch_all();
        self.stop_tracking();
        self.end_monitoring();
        for topic in [Topic::Channel, Topic::Pattern, Topic::Shard] {
            self.unsubscribe_all(topic);
        }
        self.db = 0;
        self.version = Version::Resp2;
        self.replies = Replies::On;
        self.forget_identity();
        let mut facts = self.client.facts.lock();
        facts.name.clear();
        facts.no_evict = false;
        facts.no_touch = false;
    }

    pub(super) fn known(&self, topic: Topic) -> &IndexSet<Bytes> {
        match topic {
            Topic::Channel => &self.channels,
            Topic::Pattern => &self.patterns,
            Topic::Shard => &self.shard_channels,
        }
    }

    pub(super) fn names(&mut self, topic: Topic) -> &mut IndexSet<Bytes> {
        match topic {
            Topic::Channel => &mut self.channels,
            Topic::Pattern => &mut self.patterns,
            Topic::Shard => &mut self.shard_channels,
        }
    }

    pub(super) fn unsubscribe_all(&mut self, topic: Topic) -> Vec<Bytes> {
        let names: Vec<Bytes> = std::mem::take(self.names(topic)).into_iter().collect();
        for name in &names {
            self.names_len -= name.len();
            self.hub.unsubscribe(topic, name, &self.client);
        }
        names
    }

    /// Lets others see how it is now.
    #[inline]
    pub(super) fn show(&self) {
        let seen = &self.client.seen;
        let (multi, bytes) = (self.multi.as_ref()).map_or((-1, 0), |multi| {
            let queued = i64::try_from(multi.queued.len()).unwrap_or(i64::MAX);
            (queued, multi.held())
        });
        seen.db.store(self.db, Ordering::Relaxed);
        (seen.resp3).store(self.version == Version::Resp3, Ordering::Relaxed);
        (seen.channels).store(self.channels.len(), Ordering::Relaxed);
        (seen.patterns).store(self.patterns.len(), Ordering::Relaxed);
        (seen.shard_channels).store(self.shard_channels.len(), Ordering::Relaxed);
        seen.multi.store(multi, Ordering::Relaxed);
        seen.multi_bytes.store(bytes, Ordering::Relaxed);
        seen.watches.store(self.watched.len(), Ordering::Relaxed);
        (seen.touched).store(self.watch.is_touched(), Ordering::Relaxed);
        seen.closing.store(self.closing, Ordering::Relaxed);
        seen.command.store(self.last, Ordering::Relaxed);
    }

    /// What arrived from outside.
    fn take_events(&mut self, out: &mut Vec<u8>) {
        self.stand();
        if self.blocked.is_some() && self.is_restricted() {
            self.stand_blocked(out);
        }
        let mut events = std::mem::take(&mut self.events);
        self.client.mailbox.drain(&mut events);
        if self.closing {
            // Of rights that it has no more.
            events.clear();
        }
        // Most messages come by what the one before came by.
        let mut heard: Option<Arc<Message>> = None;
        for event in events.drain(..) {
            match event {
                Event::Message(message) => {
                    let same = heard.as_ref().is_some_and(|last| last.is_by_same(&message));
                    // Else unsubscribed while it was on its way.
                    if same || self.known(message.kind).contains(&message.name) {
                        message.encode(out, self.version);
                        heard = Some(message);
                    }
                }
                Event::Served(served, lsn) => self.served(served, lsn, out),
                Event::Unblock { error } => self.time_is_up(error, out),
                Event::Evaluated(evaluated) => {
                    self.evaluated(evaluated, out);
                    for event in std::mem::take(&mut self.later) {
                        if let Event::Changed {
                            keys, redirected, ..
                        } = event
                        {
                            self.changed(keys.as_deref(), redirected, out);
                        }
                    }
                }
                // What its own script changes is told behind the script's answer.
                Event::Changed { own: true, .. } if self.elsewhere.is_some() => {
                    self.later.push(event);
                }
                Event::Changed {
                    keys, redirected, ..
                } => self.changed(keys.as_deref(), redirected, out),
                Event::RedirectBroken(id) => self.redirect_is_broken(id, out),
                Event::Line(line) if self.monitors => {
                    out.push(b'+');
                    out.extend_from_slice(&line);
                    out.extend_from_slice(b"\r\n");
                }
                Event::Line(_) => {}
                Event::Finished(done) => self.finished(done, out),
            }
        }
        self.events = events;
    }

    fn settle(&mut self, out: &mut Outbox, unsent_before: usize) -> Flow {
        self.show();
        let seen = &self.client.seen;
        let unsent = out.pending();
        seen.output.store(unsent, Ordering::Relaxed);
        let new = unsent.saturating_sub(unsent_before) as u64;
        seen.bytes_out.fetch_add(new, Ordering::Relaxed);
        if !self.need.is_none() {
            out.need(std::mem::take(&mut self.need));
        }
        if self.commands > 0 {
            seen.commands.fetch_add(self.commands, Ordering::Relaxed);
            self.hub.stats.commands.add(self.commands);
            self.node
                .metrics
                .commands_total
                .of(Face::Resp)
                .add(self.commands);
            self.commands = 0;
        }
        if self.closing || self.client.killed.load(Ordering::Relaxed) {
            Flow::Close
        } else {
            Flow::Continue
        }
    }
}

impl NetSession for Session {
    /// As Valkey's tls-auth-clients-user: the certificate is the AUTH.
    fn secured(&mut self, peer: &Certificate) {
        self.certified(peer);
    }

    fn read(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow {
        self.ctx.now = Millis(self.node.clock.now_ms());
        self.client.used_ms.store(self.ctx.now.0, Ordering::Relaxed);
        self.used = Instant::now();
        self.account.begin(self.used);
        let unsent = out.pending();
        if self.subscriptions() > 0 || self.tracks.is_some() {
            // What was published before these commands were sent is seen before their replies.
            self.take_events(out.bytes());
        }
        // The arguments borrow the decoder while the command changes the session.
        let mut decoder = std::mem::take(&mut self.decoder);
        let (mut taken, mut touched) = (0, 0);
        while !self.paused() && !self.closing && !self.abort && !out.is_full() {
            let rest = input.get(taken..).unwrap_or_default();
            if touched <= taken && self.authenticated {
                touched = taken + ahead::touch(&self.node, self.db, rest).max(1);
            }
            match decoder.next_command(rest) {
                Ok(Some(length)) => {
                    let args = decoder.args(rest);
                    if !args.is_empty() {
                        if self.hub.pause.is_on() && self.is_paused_by(&args) {
                            self.hold(Held::Paused);
                            break;
                        }
                        let authenticated = self.authenticated;
                        let alone = taken + length >= input.len();
                        self.command(&args, alone, out.bytes());
                        if authenticated != self.authenticated {
                            // Limits have changed with the login; they were set on the stand-in.
                            self.decoder.copy_limits(&mut decoder);
                        }
                    }
                    taken += length;
                }
                Ok(None) => break,
                Err(error) => {
                    Encoder::new(out.bytes(), self.version).error(&format!("ERR {error}"));
                    self.closing = true;
                }
            }
        }
        self.account.close();
        self.decoder = decoder;
        input.advance(taken.min(input.len()));
        if self.closing {
            input.clear();
        }
        if self.abort {
            return Flow::Abort;
        }
        let seen = &self.client.seen;
        seen.bytes_in.fetch_add(taken as u64, Ordering::Relaxed);
        seen.input.store(input.len(), Ordering::Relaxed);
        self.settle(out, unsent)
    }

    fn wake(&mut self, out: &mut Outbox) -> Flow {
        self.ctx.now = Millis(self.node.clock.now_ms());
        let unsent = out.pending();
        self.end_login(Instant::now(), out);
        self.take_events(out.bytes());
        if self.held.is_some() {
            self.look_at_hold(out.bytes());
        }
        self.settle(out, unsent)
    }

    fn deadline(&self) -> Option<Instant> {
        if let Some(login) = &self.login {
            return Some(login.look_at());
        }
        if let Some(blocked) = &self.blocked {
            return blocked.until;
        }
        if let Some(held) = &self.held {
            return self.hold_deadline(held);
        }
        if let Some(elsewhere) = &self.elsewhere {
            return Some(elsewhere.look_at);
        }
        let idle = Duration::from_millis(self.hub.idle_timeout_ms.load(Ordering::Relaxed));
        (!idle.is_zero() && self.subscriptions() == 0 && !self.monitors).then(|| self.used + idle)
    }

    fn tick(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        self.ctx.now = Millis(self.node.clock.now_ms());
        let unsent = out.pending();
        if self.login.is_some() {
            self.end_login(now, out);
        } else if let Some(blocked) = &self.blocked {
            if blocked.until.is_some_and(|until| until <= now) {
                self.time_is_up(false, out.bytes());
            }
        } else if self.held.is_some() {
            self.look_at_hold(out.bytes());
        } else if let Some(elsewhere) = &self.elsewhere {
            if elsewhere.look_at <= now {
                self.look_elsewhere(out.bytes());
            }
        } else if self.deadline().is_some_and(|at| at <= now) {
            return Flow::Close;
        }
        self.settle(out, unsent)
    }

    fn paused(&self) -> bool {
        self.blocked.is_some()
            || self.login.is_some()
            || self.elsewhere.is_some()
            || self.held.is_some()
    }

    fn is_stranger(&self) -> bool {
        !self.authenticated
    }

    fn reads(&self) -> Reads {
        if self.subscriptions() > 0 || self.monitors {
            Reads::Published
        } else {
            Reads::Replies
        }
    }

    fn held(&self) -> usize {
        /// Of each name, where it is noted besides.
        const NAME: usize = 128;
        let names = self.subscriptions() + self.watched.len();
        self.names_len
            + names * NAME
            + self.multi.as_ref().map_or(0, Multi::held)
            + self.blocked.as_ref().map_or(0, Blocked::held)
    }

    fn is_spared(&self) -> bool {
        self.client.facts.lock().no_evict
    }

    fn frame_hint(&self) -> usize {
        self.decoder.frame_hint()
    }

    fn closed(&mut self) {
        if let Some(blocked) = self.unblock() {
            // Served in this very moment: what was popped for it is gone with it, as with Redis.
            blocked.waiter.claim();
        }
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.abandon();
        }
        self.release();
        self.unwatch_all();
        self.stop_tracking();
        self.end_monitoring();
        for topic in [Topic::Channel, Topic::Pattern, Topic::Shard] {
            self.unsubscribe_all(topic);
        }
        self.unwatch_access();
        self.hub.leave(&self.client);
    }
}

fn allowed_while_subscribed(spec: &Spec) -> bool {
    matches!(
        spec.name,
        "subscribe"
            | "unsubscribe"
            | "psubscribe"
            | "punsubscribe"
            | "ssubscribe"
            | "sunsubscribe"
            | "ping"
            | "quit"
            | "reset"
    )
}
