//! One connection of a worker: its socket, its session, its buffers.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use storage::Engine;

use super::crowd::Place;
use super::outbox::Sent;
use super::socket::Stream;
use super::tls::Tls;
use super::{ConnHandle, Flow, Limits, Outbox, Reads, Session, Traffic};

pub(super) struct Conn {
    pub(super) id: u64,
    pub(super) socket: Stream,
    tls: Option<Box<Tls>>,
    pub(super) session: Box<dyn Session>,
    pub(super) handle: ConnHandle,
    pub(super) traffic: Arc<Traffic>,
    /// The start of a frame whose end has not come yet. Empty between frames, so an idle connection holds no buffer.
    input: BytesMut,
    pub(super) out: Outbox,
    /// epoll said so and no read has shown the opposite yet.
    pub(super) readable: bool,
    pub(super) writable: bool,
    /// The peer has closed its side: the end of the stream will come without another event.
    pub(super) hung_up: bool,
    /// In the worker's list of connections that have something to send.
    pub(super) queued: bool,
    /// Was not read because the outbox was full, the session paused, or it rests.
    pub(super) starved: bool,
    /// The outbox was full when the session was woken: it may have left something in its mailbox, which rings only once.
    held_back: bool,
    pub(super) closing: bool,
    pub(super) armed: Option<Instant>,
    /// Not read before this: it writes faster than the tables take it.
    pub(super) rests_until: Option<Instant>,
    /// Unsent bytes after the last event.
    pub(super) pending_before: usize,
    /// What it held when that was last counted.
    pub(super) counted: usize,
    /// Until when a login must be done; `None`: it is, or none is needed.
    stranger_until: Option<Instant>,
    /// When it is closed if it still owes more than it may for long.
    slow_until: Option<Instant>,
    /// Dropped with the connection.
    pub(super) place: Option<Place>,
}

/// What is left of a frame above this is kept in its own buffer instead of being copied into a fresh one.
const TAKE_OVER: usize = 16 << 10;
/// No frame's own claim makes us reserve more than this ahead of its bytes.
const MAX_RESERVE: usize = 1 << 20;
/// Of a connection that nobody has logged in on: read at once, and unsent when it is not read any more.
const STRANGER_MAX: usize = 16 << 10;

impl Conn {
    pub(super) fn new(
        id: u64,
        socket: Stream,
        tls: Option<Box<Tls>>,
        session: Box<dyn Session>,
        handle: ConnHandle,
        traffic: Arc<Traffic>,
        limits: &Limits,
    ) -> Self {
        let stranger = session.is_stranger();
        Self {
            id,
            socket,
            tls,
            session,
            handle,
            traffic,
            input: BytesMut::new(),
            out: Outbox::new(limits.outbox_pause),
            readable: true,
            writable: true,
            hung_up: false,
            queued: false,
            starved: false,
            held_back: false,
            closing: false,
            armed: None,
            rests_until: None,
            pending_before: 0,
            counted: 0,
            stranger_until: stranger.then(|| Instant::now() + limits.handshake),
            slow_until: None,
            place: None,
        }
    }

    /// Nobody has logged in on it and somebody must.
    pub(super) fn is_stranger(&self) -> bool {
        self.stranger_until.is_some()
    }

    /// How much may be unsent for it to be read: `pause`, and little before its login.
    pub(super) fn may_owe(&mut self, pause: usize) {
        let strange = self.stranger_until.is_some() && self.session.is_stranger();
        if !strange && self.stranger_until.take().is_some() {
            // What came behind the login waits for the room that there is now.
            self.starved |= !self.input.is_empty();
        }
        self.out.set_pause_at(if strange {
            pause.min(STRANGER_MAX)
        } else {
            pause
        });
    }

    /// Bytes of unfinished requests and unsent replies.
    pub(super) fn holds(&self) -> usize {
        self.input.len() + self.out.pending() + self.session.held()
    }

    /// More is unsent than the smallest limit: does the client not read? Redis closes in the same cases.
    #[cold]
    pub(super) fn is_too_slow(&mut self, before: usize, pending: usize, limits: &Limits) -> bool {
        match self.session.reads() {
            // One reply may be larger than the limit: what closes is output that grows although the client has not taken
            // what was too much before.
            Reads::Replies => before > limits.outbox_close && pending > before,
            Reads::Published if pending > limits.published_close => true,
            Reads::Published if pending > limits.published_soft => {
                let until = *self
                    .slow_until
                    .get_or_insert_with(|| Instant::now() + limits.published_for);
                Instant::now() >= until
            }
            Reads::Published => {
                self.slow_until = None;
                false
            }
        }
    }

    /// Some of the output was sent.
    pub(super) fn sent_some(&mut self, limits: &Limits) {
        let pending = self.out.pending();
        self.pending_before = self.pending_before.min(pending);
        if self.slow_until.is_some() && pending <= limits.published_soft {
            self.slow_until = None;
        }
    }

    /// Somebody rang, or there is room again for what was held back.
    pub(super) fn wake(&mut self) -> Flow {
        let flow = self.session.wake(&mut self.out);
        self.held_back = self.out.is_full();
        flow
    }

    /// There is room again for what the session left in its mailbox.
    #[inline]
    pub(super) fn owes_wake(&self) -> bool {
        self.held_back && !self.closing && !self.out.is_full()
    }

    /// Whether the socket may be read now.
    pub(super) fn wants_input(&self) -> bool {
        !self.closing && self.rests_until.is_none() && !self.session.paused() && !self.out.is_full()
    }

    /// One `read()` and everything that came with it. `scratch` and `shared` belong to the worker.
    pub(super) fn read_once(
        &mut self,
        scratch: &mut [u8],
        shared: &mut BytesMut,
    ) -> io::Result<(Flow, usize)> {
        if self.tls.as_ref().is_some_and(|tls| tls.ended()) {
            return Ok((Flow::Close, 0));
        }
        let most = if self.is_stranger() {
            STRANGER_MAX
        } else {
            scratch.len()
        };
        let scratch = scratch.get_mut(..most).unwrap_or_default();
        let read = match self.socket.read(scratch) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                self.readable = false;
                return Ok((Flow::Continue, 0));
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {
                return Ok((Flow::Continue, 0));
            }
            Err(error) => return Err(error),
        };
        // A short read has emptied the socket; epoll will say when there is more, and an EAGAIN is saved.
        if read < scratch.len() && !self.hung_up {
            self.readable = false;
        }
        let bytes = scratch.get(..read).unwrap_or_default();
        if self.tls.is_some() {
            return self.take_encrypted(bytes, shared);
        }
        let flow = if self.input.is_empty() {
            shared.clear();
            shared.extend_from_slice(bytes);
            self.handle_shared(shared)
        } else {
            self.input.extend_from_slice(bytes);
            self.handle_input()
        };
        Ok((flow, read))
    }

    /// The session takes what came; what it leaves becomes our own buffer, which was empty.
    fn handle_shared(&mut self, shared: &mut BytesMut) -> Flow {
        let flow = self.session.read(shared, &mut self.out);
        if !shared.is_empty() {
            if shared.len() > TAKE_OVER {
                self.input = shared.split();
            } else {
                self.input = BytesMut::from(&shared[..]);
            }
            self.reserve();
        }
        flow
    }

    /// The session takes what came behind the start of a frame.
    fn handle_input(&mut self) -> Flow {
        let flow = self.session.read(&mut self.input, &mut self.out);
        if self.input.is_empty() {
            self.input = BytesMut::new();
        } else {
            self.reserve();
        }
        flow
    }

    /// As [`Conn::read_once`], for what must be decrypted first; the size is that of the plain bytes.
    fn take_encrypted(&mut self, bytes: &[u8], shared: &mut BytesMut) -> io::Result<(Flow, usize)> {
        let Some(tls) = &mut self.tls else {
            return Ok((Flow::Continue, 0));
        };
        let fresh = self.input.is_empty();
        let plain = if fresh {
            shared.clear();
            &mut *shared
        } else {
            &mut self.input
        };
        let before = plain.len();
        if let Err(error) = tls.decrypt(bytes, plain) {
            tracing::debug!(conn = self.id, %error, "TLS ends");
            // The alert; a socket that is full has a peer that does not listen.
            let _ = tls.flush(&mut self.socket);
            return Err(io::Error::other(error));
        }
        let read = plain.len() - before;
        if tls.ended() {
            // The end comes without another event.
            self.readable = true;
            self.hung_up = true;
        }
        if tls.finished() {
            self.traffic.handshakes.inc();
            if let Some(peer) = tls.peer() {
                self.session.secured(&peer);
            }
        }
        let flow = match (read, fresh) {
            (0, _) => Flow::Continue,
            (_, true) => self.handle_shared(shared),
            (_, false) => self.handle_input(),
        };
        Ok((flow, read))
    }

    /// The TLS handshake is not done yet: nothing may be sent, and the session has heard nothing.
    pub(super) fn is_shaking(&self) -> bool {
        self.shakes_until().is_some()
    }

    fn shakes_until(&self) -> Option<Instant> {
        self.tls.as_ref()?.shakes_until()
    }

    /// When [`Conn::tick`] wants to be called.
    pub(super) fn deadline(&self) -> Option<Instant> {
        if let Some(until) = self.shakes_until() {
            return Some(until);
        }
        [
            self.session.deadline(),
            self.stranger_until,
            self.slow_until,
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// The deadline has passed.
    pub(super) fn tick(&mut self, now: Instant) -> Flow {
        if self.is_shaking() {
            tracing::debug!(conn = self.id, "TLS handshake takes too long");
            return Flow::Abort;
        }
        if self.stranger_until.is_some_and(|until| until <= now) {
            if self.session.is_stranger() {
                tracing::debug!(conn = self.id, "no login in time");
                return Flow::Abort;
            }
            self.stranger_until = None;
        }
        if self.slow_until.is_some_and(|until| until <= now) {
            tracing::warn!(
                conn = self.id,
                pending = self.out.pending(),
                "subscriber does not keep up, closing"
            );
            self.traffic.evicted.inc();
            return Flow::Abort;
        }
        match self.session.deadline() {
            Some(deadline) if deadline <= now => self.session.tick(now, &mut self.out),
            _ => Flow::Continue,
        }
    }

    /// Something waits for the socket, or for the disk.
    pub(super) fn has_output(&self) -> bool {
        !self.out.is_empty() || self.tls.as_ref().is_some_and(|tls| tls.wants_write())
    }

    /// Frames that stayed in the buffer because the session was paused.
    pub(super) fn resume(&mut self) -> Flow {
        if self.input.is_empty() {
            return Flow::Continue;
        }
        let flow = self.session.read(&mut self.input, &mut self.out);
        if self.input.is_empty() {
            self.input = BytesMut::new();
        }
        flow
    }

    fn reserve(&mut self) {
        let missing = self.session.frame_hint().saturating_sub(self.input.len());
        if missing > 0 {
            self.input.reserve(missing.min(MAX_RESERVE));
        }
    }

    /// Sends what may leave. `Ok(true)`: nothing is left.
    pub(super) fn send(&mut self, engine: &Engine) -> io::Result<(bool, usize)> {
        if !self.writable {
            return Ok((!self.has_output(), 0));
        }
        if self.is_shaking() {
            self.flush_tls()?;
            return Ok((false, 0));
        }
        let mut total = 0;
        loop {
            let (sent, written) = match &mut self.tls {
                None => self.out.send(engine, &mut self.socket)?,
                Some(tls) => self.out.send(engine, &mut tls.over(&mut self.socket))?,
            };
            total += written;
            match sent {
                Sent::All => {
                    if let Some(tls) = self.tls.as_mut().filter(|_| self.closing) {
                        tls.goodbye();
                    }
                    return Ok((self.flush_tls()?, total));
                }
                Sent::Blocked => {
                    self.writable = false;
                    return Ok((false, total));
                }
                // It may have become durable between the look and the registration: then try again.
                Sent::Waits(need) => {
                    self.flush_tls()?;
                    if !engine.notify(need, &self.handle.waker()) {
                        return Ok((false, total));
                    }
                    if engine.failed() {
                        return Err(io::Error::other("the log failed"));
                    }
                }
            }
        }
    }

    /// Writes what is encrypted already. False: the socket is full.
    fn flush_tls(&mut self) -> io::Result<bool> {
        let Some(tls) = &mut self.tls else {
            return Ok(true);
        };
        self.writable = tls.flush(&mut self.socket)?;
        Ok(self.writable)
    }
}
