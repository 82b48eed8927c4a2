//! One connection of a worker: its socket, its session, its buffers.

use std::io::{self, Read};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use mio::net::TcpStream;
use storage::Engine;

use super::outbox::Sent;
use super::{ConnHandle, Flow, Outbox, Session, Traffic};

pub(super) struct Conn {
    pub(super) id: u64,
    pub(super) socket: TcpStream,
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
    pub(super) closing: bool,
    pub(super) armed: Option<Instant>,
    /// Not read before this: it writes faster than the tables take it.
    pub(super) rests_until: Option<Instant>,
    /// Unsent bytes after the last event.
    pub(super) pending_before: usize,
}

/// What is left of a frame above this is kept in its own buffer instead of being copied into a fresh one.
const TAKE_OVER: usize = 16 << 10;
/// No frame's own claim makes us reserve more than this ahead of its bytes.
const MAX_RESERVE: usize = 1 << 20;

impl Conn {
    pub(super) fn new(
        id: u64,
        socket: TcpStream,
        session: Box<dyn Session>,
        handle: ConnHandle,
        traffic: Arc<Traffic>,
        outbox_pause: usize,
    ) -> Self {
        Self {
            id,
            socket,
            session,
            handle,
            traffic,
            input: BytesMut::new(),
            out: Outbox::new(outbox_pause),
            readable: true,
            writable: true,
            hung_up: false,
            queued: false,
            starved: false,
            closing: false,
            armed: None,
            rests_until: None,
            pending_before: 0,
        }
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
        let flow = if self.input.is_empty() {
            shared.clear();
            shared.extend_from_slice(bytes);
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
        } else {
            self.input.extend_from_slice(bytes);
            let flow = self.session.read(&mut self.input, &mut self.out);
            if self.input.is_empty() {
                self.input = BytesMut::new();
            } else {
                self.reserve();
            }
            flow
        };
        Ok((flow, read))
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
            return Ok((self.out.is_empty(), 0));
        }
        let mut total = 0;
        loop {
            let (sent, written) = self.out.send(engine, &mut self.socket)?;
            total += written;
            match sent {
                Sent::All => return Ok((true, total)),
                Sent::Blocked => {
                    self.writable = false;
                    return Ok((false, total));
                }
                // It may have become durable between the look and the registration: then try again.
                Sent::Waits(need) => {
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
}
