//! One connection loop for all three protocols: read → decode all → execute all → outbox.
//!
//! ```text
//!  accept thread ──round robin──▶ worker 0..n, one thread and one epoll each
//!  worker turn:  epoll ─▶ for each readable connection: read, Session::read (executes, appends to the log)
//!                      ─▶ mailboxes rung meanwhile: Session::wake      ─▶ due timers: Session::tick
//!                      ─▶ one Engine::flush for the whole turn         ─▶ write every outbox whose need is durable
//! ```
//! So a turn costs one log write however many connections it served (Redis does the same in its beforeSleep), and no
//! command passes through a queue, a task or another thread. A [`Session`] is a state machine without I/O of its own.

mod accept;
mod brake;
mod buffers;
mod conn;
mod crowd;
mod outbox;
mod socket;
#[cfg(test)]
mod tests;
mod tls;
#[cfg(test)]
mod tls_tests;
mod wake;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use storage::Engine;

use crate::telemetry::metrics::{Counter, Gauge};
use crate::tls::{Certificate, Keyring};

pub use outbox::Outbox;
pub use socket::{Listening, UnixDoor};
pub use wake::ConnHandle;

/// What the loop does after a session has handled an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    Continue,
    /// Close once everything in the outbox has been sent.
    Close,
    /// Close now; what was not sent is dropped.
    Abort,
}

/// One connection's protocol state. Runs on one thread, never blocks, never awaits.
pub trait Session: 'static {
    /// The client has shown a certificate that was verified. Called before anything is read, if at all.
    fn secured(&mut self, peer: &Certificate) {
        let _ = peer;
    }

    /// Takes every complete frame from `input`, executes it and appends the replies. An incomplete frame stays.
    fn read(&mut self, input: &mut BytesMut, out: &mut Outbox) -> Flow;

    /// Somebody rang: look into the mailbox. What is left there while the outbox is full is asked for again when there is room.
    fn wake(&mut self, out: &mut Outbox) -> Flow {
        let _ = out;
        Flow::Continue
    }

    /// When [`Session::tick`] wants to be called. Asked again after every event.
    fn deadline(&self) -> Option<Instant> {
        None
    }

    /// The deadline has passed.
    fn tick(&mut self, now: Instant, out: &mut Outbox) -> Flow {
        let _ = (now, out);
        Flow::Continue
    }

    /// While true the socket is not read (a blocked command, a long poll). A peer that hangs up is still noticed.
    fn paused(&self) -> bool {
        false
    }

    /// Nobody has logged in yet and somebody must: the connection has little room and little time. Asked until it is false once.
    fn is_stranger(&self) -> bool {
        false
    }

    /// What the client reads, which decides how far behind it may be. Asked when it is behind.
    fn reads(&self) -> Reads {
        Reads::Replies
    }

    /// Bytes of unfinished requests that the session keeps itself.
    fn held(&self) -> usize {
        0
    }

    /// It is not closed for what it holds, however short buffers are.
    fn is_spared(&self) -> bool {
        false
    }

    /// Size in bytes of the frame that `input` begins with, once known: only a hint for buffering.
    fn frame_hint(&self) -> usize {
        0
    }

    /// The server stops: say goodbye in the protocol's words.
    fn stop(&mut self, out: &mut Outbox) -> Flow {
        let _ = out;
        Flow::Close
    }

    /// The connection is gone: requeue, unsubscribe, release. Called exactly once, last.
    fn closed(&mut self) {}
}

/// What a client reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reads {
    /// Answers to what it asks: it sets the pace.
    Replies,
    /// What others publish, at their pace.
    Published,
}

/// What a session is told about its connection.
#[derive(Debug, Clone)]
pub struct ConnInfo {
    /// Never used twice in one run of the server.
    pub id: u64,
    pub peer: SocketAddr,
    pub local: SocketAddr,
    /// The socket file that it came by; both addresses are then this machine's, without a port.
    pub unix: Option<Arc<Path>>,
    /// Bytes are encrypted.
    pub tls: bool,
    /// Rings this connection from any thread, or closes it.
    pub handle: ConnHandle,
}

/// Makes the session of a new connection, on the thread that will run it.
pub type NewSession = Arc<dyn Fn(ConnInfo) -> Box<dyn Session> + Send + Sync>;

/// Whether new connections must be answered though the workers may wait for something long.
pub type Urgent = Arc<dyn Fn() -> bool + Send + Sync>;

/// A listening socket and whose protocol it speaks.
pub struct Listener {
    pub socket: Listening,
    pub sessions: NewSession,
    /// With TLS: what connections are made with.
    pub keyring: Option<Arc<Keyring>>,
    /// Told to a client that is one too many, then the connection is closed.
    pub refusal: &'static [u8],
    pub traffic: Arc<Traffic>,
    /// While it says so, new connections go to a worker that no other kind of connection can keep waiting.
    pub urgent: Option<Urgent>,
}

impl std::fmt::Debug for Listener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Listener")
            .field("socket", &self.socket)
            .finish_non_exhaustive()
    }
}

/// Bounds of the loop; all sizes in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections of all protocols together; one more is refused.
    pub connections: usize,
    /// Connections of one address; one more is refused. 0: no limit.
    pub connections_per_address: usize,
    /// New connections in a second; more wait in the kernel's queue. 0: no limit.
    pub accept_rate: u32,
    /// New connections of one address in a second; more are refused. 0: no limit.
    pub accept_rate_per_address: usize,
    /// Unsent replies above which a connection is not read any more, so that a client that never reads costs this much.
    pub outbox_pause: usize,
    /// Unsent bytes above which a connection is closed when they still grow.
    pub outbox_close: usize,
    /// The same for those who read what others publish.
    pub published_close: usize,
    /// Unsent bytes that those may have for `published_for`, and then are closed.
    pub published_soft: usize,
    pub published_for: Duration,
    /// Unfinished requests and unsent replies of all connections; beyond it those that hold most are closed.
    pub buffers: usize,
    /// How long a TLS handshake may take, and then the login where there must be one.
    pub handshake: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 10_000,
            connections_per_address: 0,
            accept_rate: 0,
            accept_rate_per_address: 0,
            outbox_pause: 1 << 20,
            outbox_close: 256 << 20,
            published_close: 32 << 20,
            published_soft: 8 << 20,
            published_for: Duration::from_secs(60),
            buffers: 1 << 30,
            handshake: Duration::from_secs(10),
        }
    }
}

/// Counters that the loop keeps for one listener, for metrics; listeners of the same face share one.
#[derive(Debug, Default)]
pub struct Traffic {
    pub accepted: Counter,
    pub refused: Counter,
    /// Closed because they did not read, or because buffers were short and they held most.
    pub evicted: Counter,
    /// Connections open now.
    pub open: Gauge,
    /// Of the protocol, without what TLS adds; so is what is written.
    pub bytes_read: Counter,
    pub bytes_written: Counter,
    /// TLS handshakes done.
    pub handshakes: Counter,
    /// Connections that ended before their handshake was done.
    pub handshakes_failed: Counter,
}

/// The running loop.
#[derive(Debug)]
pub struct Net {
    workers: Vec<worker::Handle>,
    accept: accept::Handle,
    /// Connections of all listeners, which share one limit.
    open: Arc<AtomicUsize>,
    buffers: Arc<buffers::Buffers>,
}

impl Net {
    /// Starts `threads` workers and the accept thread.
    ///
    /// # Errors
    /// When a poll instance or a thread cannot be made.
    pub fn start(
        threads: usize,
        engine: &Arc<Engine>,
        listeners: Vec<Listener>,
        limits: Limits,
    ) -> io::Result<Self> {
        let open = Arc::new(AtomicUsize::new(0));
        let shared = worker::Shared {
            engine: Arc::clone(engine),
            limits,
            open: Arc::clone(&open),
            brake: Arc::new(brake::Brake::new()),
            buffers: buffers::Buffers::new(limits.buffers, threads),
        };
        let mut workers = (0..threads.max(1))
            .map(|index| worker::start(index, shared.clone()))
            .collect::<io::Result<Vec<_>>>()?;
        let mailboxes: Vec<_> = workers.iter().map(worker::Handle::mailbox).collect();
        // One more, which sleeps until it is urgent.
        let spare = worker::start(workers.len(), shared.clone())?;
        let spare_mailbox = spare.mailbox();
        let known = mailboxes.iter().chain([&spare_mailbox]).cloned().collect();
        shared.buffers.know(known);
        workers.push(spare);
        let accept = accept::start(
            listeners,
            mailboxes,
            spare_mailbox,
            limits,
            Arc::clone(&open),
        )?;
        Ok(Self {
            workers,
            accept,
            open,
            buffers: shared.buffers,
        })
    }

    /// Tells how many bytes of unfinished requests and unsent replies all connections hold.
    pub fn buffered(&self) -> impl Fn() -> usize + Send + Sync + use<> {
        let buffers = Arc::clone(&self.buffers);
        move || buffers.total()
    }

    /// Connections open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.open.load(Ordering::Relaxed)
    }

    /// Stops accepting, lets every session say goodbye, and waits at most `grace` for the outboxes to drain.
    pub fn stop(self, grace: Duration) {
        self.accept.stop();
        let until = Instant::now() + grace;
        for worker in &self.workers {
            worker.stop(until);
        }
        for worker in self.workers {
            worker.join();
        }
        debug_assert_eq!(
            self.open.load(Ordering::Relaxed),
            0,
            "every connection was closed"
        );
    }
}
