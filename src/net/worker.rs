//! A worker thread: one epoll, its connections, its timers.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mio::{Events, Interest, Poll, Token};
use slab::Slab;
use storage::Engine;

use super::brake::Brake;
use super::buffers::{self, Buffers};
use super::conn::Conn;
use super::tls::Tls;
use super::wake::{Inbox, Message};
use super::{ConnHandle, ConnInfo, Flow, Limits};

#[derive(Debug)]
pub(super) struct Handle {
    thread: JoinHandle<()>,
    inbox: Arc<Inbox>,
}

impl Handle {
    pub(super) fn mailbox(&self) -> Arc<Inbox> {
        Arc::clone(&self.inbox)
    }

    pub(super) fn stop(&self, until: Instant) {
        self.inbox.push(Message::Stop(until));
    }

    pub(super) fn join(self) {
        let _ = self.thread.join();
    }
}

impl std::fmt::Debug for Inbox {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Inbox").finish_non_exhaustive()
    }
}

const INBOX: Token = Token(usize::MAX);
/// One read takes at most this; a connection that has more waits for the others' turn.
const READ_SIZE: usize = 128 << 10;
/// Reads of one connection in one turn, so that a bulk load does not starve its neighbours.
const READS_PER_TURN: usize = 4;

/// How long a peer may take to read the last words of a connection that is being closed.
const CLOSE_GRACE: Duration = Duration::from_secs(5);

/// What all workers share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) engine: Arc<Engine>,
    pub(super) limits: Limits,
    pub(super) open: Arc<AtomicUsize>,
    pub(super) brake: Arc<Brake>,
    pub(super) buffers: Arc<Buffers>,
}

struct Worker {
    poll: Poll,
    inbox: Arc<Inbox>,
    engine: Arc<Engine>,
    limits: Limits,
    open: Arc<AtomicUsize>,
    brake: Arc<Brake>,
    buffers: Arc<Buffers>,
    /// Bytes that the connections hold, and what of it all know.
    held: usize,
    told: usize,
    /// While they are over the limit: it was of no use to look for some to close until this worker holds more.
    trim_at: usize,
    /// Unsent bytes at which a connection is not read; less when buffers are short.
    pause_at: usize,
    /// No connection that owes less is too slow, whatever it reads.
    behind: usize,
    conns: Slab<Conn>,
    /// Connections that have something to send at the end of this turn.
    to_send: Vec<usize>,
    /// Connections whose socket had more than one turn's share.
    to_read: Vec<usize>,
    timers: BinaryHeap<Reverse<(Instant, usize, u64)>>,
    scratch: Vec<u8>,
    shared: BytesMut,
    stopping: Option<Instant>,
}

pub(super) fn start(index: usize, shared: Shared) -> io::Result<Handle> {
    let poll = Poll::new()?;
    let inbox = Arc::new(Inbox::new(mio::Waker::new(poll.registry(), INBOX)?));
    let own_inbox = Arc::clone(&inbox);
    let thread = std::thread::Builder::new()
        .name(format!("net-{index}"))
        .spawn(move || {
            // Built here: sessions never leave their thread.
            let mut worker = Worker {
                poll,
                inbox: own_inbox,
                engine: shared.engine,
                limits: shared.limits,
                open: shared.open,
                brake: shared.brake,
                buffers: shared.buffers,
                held: 0,
                told: 0,
                trim_at: 0,
                pause_at: shared.limits.outbox_pause,
                behind: [
                    shared.limits.outbox_close,
                    shared.limits.published_close,
                    shared.limits.published_soft,
                ]
                .into_iter()
                .fold(usize::MAX, usize::min),
                conns: Slab::new(),
                to_send: Vec::new(),
                to_read: Vec::new(),
                timers: BinaryHeap::new(),
                scratch: vec![0; READ_SIZE],
                shared: BytesMut::new(),
                stopping: None,
            };
            worker.run();
        })?;
    Ok(Handle { thread, inbox })
}

impl Worker {
    fn run(&mut self) {
        let mut events = Events::with_capacity(1024);
        let mut messages = Vec::new();
        let mut due = Vec::new();
        loop {
            if self
                .stopping
                .is_some_and(|until| self.conns.is_empty() || Instant::now() >= until)
            {
                let left: Vec<usize> = self.conns.iter().map(|(token, _)| token).collect();
                for token in left {
                    self.close(token);
                }
                return;
            }
            let timeout = if self.to_read.is_empty() && self.inbox.prepare_sleep() {
                self.timeout()
            } else {
                Some(Duration::ZERO)
            };
            let polled = self.poll.poll(&mut events, timeout);
            self.inbox.awake();
            if let Err(error) = polled
                && error.kind() != io::ErrorKind::Interrupted
            {
                tracing::error!(%error, "network thread cannot poll");
                return;
            }
            std::mem::swap(&mut due, &mut self.to_read);
            for token in due.drain(..) {
                self.readable(token);
            }
            for event in &events {
                if event.token() == INBOX {
                    continue;
                }
                let token = event.token().0;
                let Some(conn) = self.conns.get_mut(token) else {
                    continue;
                };
                if event.is_writable() && !conn.writable {
                    conn.writable = true;
                    self.queue_send(token);
                }
                if event.is_readable() || event.is_read_closed() || event.is_error() {
                    if let Some(conn) = self.conns.get_mut(token) {
                        conn.readable = true;
                        conn.hung_up |= event.is_read_closed() || event.is_error();
                    }
                    self.readable(token);
                }
            }
            self.fire_timers();
            self.take_messages(&mut messages);
            self.send_all();
            self.tell_held();
        }
    }

    /// Within a turn: a thousand clients may each be owed a large reply before it ends.
    #[cold]
    fn relieve(&mut self) {
        self.send_all();
        self.tell_held();
    }

    /// Tells what this turn has changed in the buffers' size, and sees to it that all together stay below their limit.
    #[inline]
    fn tell_held(&mut self) {
        if self.held != self.told {
            self.buffers.told(self.told, self.held);
            self.told = self.held;
            if !self.buffers.is_over() {
                self.trim_at = 0;
            } else if self.held <= self.buffers.share {
                self.buffers.ask_all();
            } else if self.held > self.trim_at {
                self.trim();
                if self.buffers.is_over() {
                    self.buffers.ask_all();
                }
            }
        }
        self.pause_at = if self.buffers.is_short() {
            self.limits.outbox_pause.min(buffers::PAUSE_WHEN_SHORT)
        } else {
            self.limits.outbox_pause
        };
    }

    /// Closes what holds most, as long as all together hold too much and this worker more than its share. Those that hold little
    /// come last.
    #[cold]
    fn trim(&mut self) {
        let mut all: Vec<_> = self
            .conns
            .iter()
            .filter(|(_, conn)| conn.counted > 0 && !conn.session.is_spared())
            .map(|(token, conn)| {
                let large = conn.counted > buffers::SMALL;
                (large, conn.is_stranger(), conn.counted, token)
            })
            .collect();
        all.sort_unstable();
        // A little further than it must, or each turn would look at all of them again.
        while self.buffers.is_nearly_over() && self.held > self.buffers.share {
            let Some((_, _, bytes, token)) = all.pop() else {
                // What is left is spared.
                self.trim_at = self.held + buffers::SMALL;
                return;
            };
            if let Some(conn) = self.conns.get(token) {
                tracing::warn!(
                    conn = conn.id,
                    bytes,
                    all = self.buffers.total(),
                    "clients' buffers are full, closing the largest"
                );
                conn.traffic.evicted.inc();
            }
            self.close(token);
            self.buffers.told(self.told, self.held);
            self.told = self.held;
        }
    }

    fn take_messages(&mut self, messages: &mut Vec<Message>) {
        self.inbox.drain(messages);
        for message in messages.drain(..) {
            match message {
                Message::Accepted(accepted) => self.adopt(accepted),
                Message::Ring(token, id) => {
                    if let Some(conn) = self.conns.get_mut(token).filter(|conn| conn.id == id) {
                        conn.handle.heard();
                        conn.may_owe(self.pause_at);
                        let flow = conn.wake();
                        self.after(token, flow);
                        self.readable(token);
                    }
                }
                Message::Kill(token, id) => {
                    if self.conns.get(token).is_some_and(|conn| conn.id == id) {
                        self.close(token);
                    }
                }
                Message::Trim => {
                    self.buffers.looked();
                    if self.buffers.is_over() && self.held > self.buffers.share {
                        self.trim();
                    }
                }
                Message::Stop(until) => {
                    self.stopping = Some(until);
                    let tokens: Vec<usize> = self.conns.iter().map(|(token, _)| token).collect();
                    for token in tokens {
                        if let Some(conn) = self.conns.get_mut(token) {
                            if conn.is_shaking() {
                                self.close(token);
                                continue;
                            }
                            let flow = conn.session.stop(&mut conn.out);
                            self.after(token, flow);
                        }
                    }
                }
            }
        }
    }

    fn adopt(&mut self, accepted: super::accept::Accepted) {
        let super::accept::Accepted {
            id,
            mut socket,
            peer,
            unix,
            sessions,
            keyring,
            traffic,
            place,
        } = accepted;
        let entry = self.conns.vacant_entry();
        let token = entry.key();
        let registered = self.poll.registry().register(
            &mut socket,
            Token(token),
            Interest::READABLE | Interest::WRITABLE,
        );
        let local = socket.local_addr();
        let secured = keyring.is_some();
        // Fails only for a configuration that no connection could be made with.
        let tls = keyring
            .map(|keyring| {
                let until = Instant::now() + self.limits.handshake;
                Tls::new(Arc::clone(&keyring.current().clients), until).map(Box::new)
            })
            .transpose();
        let (Ok(()), Ok(local), Ok(tls), None) = (registered, local, tls, self.stopping) else {
            traffic.open.add(-1);
            self.open.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let handle = ConnHandle::new(Arc::clone(&self.inbox), token, id);
        let session = sessions(ConnInfo {
            id,
            peer,
            local,
            unix,
            tls: secured,
            handle: handle.clone(),
        });
        let mut conn = Conn::new(id, socket, tls, session, handle, traffic, &self.limits);
        conn.place = place;
        entry.insert(conn);
        self.after(token, Flow::Continue);
    }

    fn readable(&mut self, token: usize) {
        if self.held > self.told.saturating_add(buffers::GROWN) {
            self.relieve();
        }
        for _ in 0..READS_PER_TURN {
            let Some(conn) = self.conns.get_mut(token) else {
                return;
            };
            conn.may_owe(self.pause_at);
            if conn.owes_wake() {
                let flow = conn.wake();
                self.after(token, flow);
                continue;
            }
            if !conn.wants_input() {
                conn.starved = true;
                // A paused connection is not read, so this is where a hang-up is noticed.
                if conn.hung_up && conn.session.paused() {
                    self.close(token);
                }
                return;
            }
            let appended = storage::appended_by_this_thread();
            if std::mem::take(&mut conn.starved) {
                let flow = conn.resume();
                self.slow_down(token, appended);
                self.after(token, flow);
                continue;
            }
            if !conn.readable {
                return;
            }
            match conn.read_once(&mut self.scratch, &mut self.shared) {
                Ok((flow, read)) => {
                    conn.traffic.bytes_read.add(read as u64);
                    self.slow_down(token, appended);
                    self.after(token, flow);
                }
                // Who says goodbye behind its last command (`printf 'PING\r\n' | nc`) still hears the answer.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof && conn.has_output() => {
                    self.after(token, Flow::Close);
                    return;
                }
                Err(_) => {
                    self.close(token);
                    return;
                }
            }
        }
        // Also without more in the socket: then only this says that input is left.
        if let Some(conn) = self.conns.get_mut(token) {
            conn.starved |= !conn.wants_input();
            self.to_read.push(token);
        }
    }

    /// The connection has appended what the log of this thread has grown by since it stood at `before`.
    fn slow_down(&mut self, token: usize, before: u64) {
        let bytes = storage::appended_by_this_thread().wrapping_sub(before);
        if bytes == 0 {
            return;
        }
        let Some(pace) = self.engine.pace() else {
            return;
        };
        if let Some(until) = self.brake.rest(Instant::now(), bytes, pace)
            && let Some(conn) = self.conns.get_mut(token)
        {
            conn.rests_until = Some(until);
            self.timers.push(Reverse((until, token, conn.id)));
        }
    }

    /// Everything that follows from an event of a session.
    fn after(&mut self, token: usize, flow: Flow) {
        let Some(conn) = self.conns.get_mut(token) else {
            return;
        };
        match flow {
            Flow::Continue => {}
            Flow::Close => {
                conn.closing = true;
                let deadline = Instant::now() + CLOSE_GRACE;
                conn.armed = Some(deadline);
                self.timers.push(Reverse((deadline, token, conn.id)));
            }
            Flow::Abort => return self.close(token),
        }
        let pending = conn.out.pending();
        let before = std::mem::replace(&mut conn.pending_before, pending);
        if pending > self.behind
            && conn.is_too_slow(before, pending, &self.limits)
            && !self.catches_up(token, before)
        {
            let Some(conn) = self.conns.get(token) else {
                return;
            };
            tracing::warn!(conn = conn.id, pending, "client does not read, closing");
            conn.traffic.evicted.inc();
            return self.close(token);
        }
        let Some(conn) = self.conns.get_mut(token) else {
            return;
        };
        let holds = conn.holds();
        self.held = self.held + holds - std::mem::replace(&mut conn.counted, holds);
        if !conn.closing
            && let Some(deadline) = conn.deadline()
            && conn.armed.is_none_or(|armed| deadline < armed)
        {
            conn.armed = Some(deadline);
            self.timers.push(Reverse((deadline, token, conn.id)));
        }
        if conn.closing || conn.has_output() {
            self.queue_send(token);
        }
    }

    /// What came within one turn was not offered to the socket yet: is it still too much afterwards?
    #[cold]
    fn catches_up(&mut self, token: usize, before: usize) -> bool {
        self.flush();
        let Some(conn) = self.conns.get_mut(token).filter(|conn| !conn.closing) else {
            return false;
        };
        let Ok((_, written)) = conn.send(&self.engine) else {
            return false;
        };
        conn.traffic.bytes_written.add(written as u64);
        conn.sent_some(&self.limits);
        let pending = conn.out.pending();
        pending <= self.behind || !conn.is_too_slow(before, pending, &self.limits)
    }

    fn queue_send(&mut self, token: usize) {
        if let Some(conn) = self.conns.get_mut(token)
            && !conn.queued
        {
            conn.queued = true;
            self.to_send.push(token);
        }
    }

    fn send_all(&mut self) {
        // Also without anything to send: a publish without confirms has no reply, but it is in the log buffer.
        self.flush();
        let mut tokens = std::mem::take(&mut self.to_send);
        for token in tokens.drain(..) {
            let Some(conn) = self.conns.get_mut(token) else {
                continue;
            };
            conn.queued = false;
            match conn.send(&self.engine) {
                Ok((done, written)) => {
                    if written > 0 {
                        conn.sent_some(&self.limits);
                        let holds = conn.holds();
                        self.held = self.held + holds - std::mem::replace(&mut conn.counted, holds);
                    }
                    conn.traffic.bytes_written.add(written as u64);
                    if done && conn.closing {
                        self.close(token);
                    } else if conn.owes_wake() || conn.starved && conn.wants_input() {
                        // Room again: the session may have held back deliveries as well as input.
                        let flow = conn.wake();
                        self.after(token, flow);
                        self.to_read.push(token);
                    }
                }
                Err(_) => self.close(token),
            }
        }
        // `after` may have queued more meanwhile; keep the larger buffer.
        if self.to_send.is_empty() {
            self.to_send = tokens;
        } else {
            self.inbox_self_ring();
        }
    }

    /// Until everything of this turn is written. When another thread is writing, ours goes with its next group, which
    /// takes microseconds: waiting is cheaper than a wake-up for each connection.
    fn flush(&self) {
        const SPINS: u32 = 100;
        let target = self.engine.appended();
        let mut tries = 0;
        while self.engine.written() < target && !self.engine.failed() {
            self.engine.flush();
            tries += 1;
            if tries > SPINS {
                std::thread::yield_now();
            } else {
                std::hint::spin_loop();
            }
        }
    }

    /// The next turn must not sleep: something was queued behind this turn's end.
    fn inbox_self_ring(&mut self) {
        if let Some(&token) = self.to_send.first() {
            self.to_read.push(token);
        }
    }

    fn timeout(&self) -> Option<Duration> {
        let now = Instant::now();
        let timer = self
            .timers
            .peek()
            .map(|Reverse((at, ..))| at.saturating_duration_since(now));
        let stop = self
            .stopping
            .map(|until| until.saturating_duration_since(now));
        match (timer, stop) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        }
    }

    fn fire_timers(&mut self) {
        if self.timers.is_empty() {
            return;
        }
        let now = Instant::now();
        // No more than there are now: what a session arms anew for a time that has passed comes after the messages of this turn.
        for _ in 0..self.timers.len() {
            let Some(&Reverse((at, token, id))) = self.timers.peek() else {
                return;
            };
            if at > now {
                return;
            }
            self.timers.pop();
            let Some(conn) = self.conns.get_mut(token).filter(|conn| conn.id == id) else {
                continue;
            };
            if conn.rests_until == Some(at) {
                conn.rests_until = None;
                self.readable(token);
                continue;
            }
            if conn.armed != Some(at) {
                continue;
            }
            conn.armed = None;
            if conn.closing {
                self.close(token);
                continue;
            }
            // Deadlines move without the heap being told: ask again.
            let flow = match conn.deadline() {
                Some(deadline) if deadline <= now => conn.tick(now),
                _ => Flow::Continue,
            };
            self.after(token, flow);
            self.readable(token);
        }
    }

    fn close(&mut self, token: usize) {
        if let Some(mut conn) = self.conns.try_remove(token) {
            let _ = self.poll.registry().deregister(&mut conn.socket);
            if conn.is_shaking() {
                conn.traffic.handshakes_failed.inc();
            }
            conn.session.closed();
            self.held -= conn.counted;
            conn.traffic.open.add(-1);
            self.open.fetch_sub(1, Ordering::Relaxed);
        }
    }
}
