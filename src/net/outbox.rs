//! Replies in order, each waiting until what it saw is durable.

use std::collections::VecDeque;
use std::io::{self, IoSlice, Write};

use bytes::{Buf, Bytes};
use storage::{Engine, Need};

/// A piece of output and what must be durable before it may leave.
#[derive(Debug)]
struct Chunk {
    need: Need,
    bytes: Bytes,
}

/// Ordered output of one connection. Bytes that were encoded since the last turn share one need.
#[derive(Debug)]
pub struct Outbox {
    /// Sealed output, oldest first. Needs never decrease along the queue.
    chunks: VecDeque<Chunk>,
    queued_bytes: usize,
    /// Output of this turn.
    current: Vec<u8>,
    need: Need,
    /// How much of `current` has been sent already.
    sent: usize,
    /// See [`super::Limits::outbox_pause`].
    pause_at: usize,
}

impl Default for Outbox {
    fn default() -> Self {
        Self::new(super::Limits::default().outbox_pause)
    }
}

/// Buffers grown beyond this are not kept for the next turn: ten thousand connections may idle after one large reply each.
const KEEP_CAPACITY: usize = 16 << 10;
/// Chunks in one `writev`; Linux takes 1,024, beyond 64 nothing is gained.
const MAX_SLICES: usize = 64;

/// How far [`Outbox::send`] came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// Nothing is left.
    All,
    /// The socket is full.
    Blocked,
    /// The next piece waits for this.
    Waits(Need),
}

impl Outbox {
    /// Reports itself full at `pause_at` unsent bytes.
    #[must_use]
    pub fn new(pause_at: usize) -> Self {
        Self {
            chunks: VecDeque::new(),
            queued_bytes: 0,
            current: Vec::new(),
            need: Need::none(),
            sent: 0,
            pause_at,
        }
    }

    /// So much is unsent that a session should leave the rest of its input, or of its mailbox, for later: it is called
    /// again when there is room.
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.pending() >= self.pause_at
    }

    /// From now on full at so many unsent bytes.
    #[inline]
    pub(super) fn set_pause_at(&mut self, pause_at: usize) {
        self.pause_at = pause_at;
    }

    /// Where replies are encoded to. Only append.
    #[inline]
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        &mut self.current
    }

    /// Appends a payload without copying it.
    pub fn push(&mut self, payload: Bytes) {
        self.seal();
        self.queued_bytes += payload.len();
        self.chunks.push_back(Chunk {
            need: self.need,
            bytes: payload,
        });
    }

    /// Everything encoded in this turn, and whatever follows, waits for `need`.
    #[inline]
    pub fn need(&mut self, need: Need) {
        self.need = self.need.merge(need);
    }

    /// Unsent bytes.
    #[must_use]
    pub fn pending(&self) -> usize {
        self.queued_bytes + self.current.len() - self.sent
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pending() == 0
    }

    fn seal(&mut self) {
        if self.current.len() > self.sent {
            let mut bytes = Bytes::from(std::mem::take(&mut self.current));
            bytes.advance(self.sent);
            self.queued_bytes += bytes.len();
            self.chunks.push_back(Chunk {
                need: self.need,
                bytes,
            });
        }
        self.current.clear();
        self.sent = 0;
    }

    /// Writes as much as is durable and as the socket takes.
    pub(super) fn send(
        &mut self,
        engine: &Engine,
        socket: &mut impl Write,
    ) -> io::Result<(Sent, usize)> {
        let mut total = 0;
        while let Some(first) = self.chunks.front() {
            if !engine.is_durable(first.need) {
                let need = first.need;
                self.seal();
                return Ok((Sent::Waits(need), total));
            }
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(&self.chunks) {
                if !engine.is_durable(chunk.need) {
                    break;
                }
                *slice = IoSlice::new(&chunk.bytes);
                count += 1;
            }
            match socket.write_vectored(slices.get(..count).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    total += written;
                    self.drop_sent(written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Ok((Sent::Blocked, total));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        while self.sent < self.current.len() {
            if !engine.is_durable(self.need) {
                let need = self.need;
                self.seal();
                return Ok((Sent::Waits(need), total));
            }
            match socket.write(self.current.get(self.sent..).unwrap_or_default()) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    total += written;
                    self.sent += written;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.seal();
                    return Ok((Sent::Blocked, total));
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        self.current.clear();
        self.sent = 0;
        if self.current.capacity() > KEEP_CAPACITY {
            self.current = Vec::new();
        }
        Ok((Sent::All, total))
    }

    fn drop_sent(&mut self, mut written: usize) {
        self.queued_bytes -= written;
        while written > 0 {
            let Some(front) = self.chunks.front_mut() else {
                return;
            };
            if front.bytes.len() > written {
                front.bytes.advance(written);
                return;
            }
            written -= front.bytes.len();
            self.chunks.pop_front();
        }
    }
}
