//! The accept thread: hands new connections to the workers in turn.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mio::{Events, Interest, Poll, Token};

use super::crowd::{Crowd, Place, Rate};
use super::socket::{self, Stream};
use super::wake::{Inbox, Message};
use super::{Limits, Listener, NewSession, Traffic, Urgent};
use crate::tls::Keyring;

/// A connection on its way to a worker.
pub(super) struct Accepted {
    pub(super) id: u64,
    pub(super) socket: Stream,
    pub(super) peer: SocketAddr,
    pub(super) unix: Option<Arc<Path>>,
    pub(super) sessions: NewSession,
    pub(super) keyring: Option<Arc<Keyring>>,
    pub(super) traffic: Arc<Traffic>,
    pub(super) place: Option<Place>,
}

#[derive(Debug)]
pub(super) struct Handle {
    thread: JoinHandle<()>,
    stop: Arc<AtomicBool>,
    waker: Arc<mio::Waker>,
}

impl Handle {
    pub(super) fn stop(self) {
        self.stop.store(true, Ordering::SeqCst);
        if self.waker.wake().is_ok() {
            let _ = self.thread.join();
        }
    }
}

const STOP: Token = Token(usize::MAX);
/// After `EMFILE` and its kin: long enough not to spin, short enough to go on at once when descriptors are free again.
const OUT_OF_FILES_PAUSE: Duration = Duration::from_millis(50);

/// A listener in the hands of this thread.
struct Door {
    socket: socket::Acceptor,
    /// Somebody may be waiting: epoll said so, and no accept has shown the opposite yet.
    ready: bool,
    sessions: NewSession,
    keyring: Option<Arc<Keyring>>,
    refusal: &'static [u8],
    traffic: Arc<Traffic>,
    urgent: Option<Urgent>,
}

struct Acceptor {
    doors: Vec<Door>,
    workers: Vec<Arc<Inbox>>,
    /// For those that are urgent.
    spare: Arc<Inbox>,
    limits: Limits,
    open: Arc<AtomicUsize>,
    crowd: Arc<Crowd>,
    rate: Rate,
    /// Whose turn it is.
    next_door: usize,
    next_worker: usize,
    next_id: u64,
}

pub(super) fn start(
    listeners: Vec<Listener>,
    workers: Vec<Arc<Inbox>>,
    spare: Arc<Inbox>,
    limits: Limits,
    open: Arc<AtomicUsize>,
) -> io::Result<Handle> {
    let mut poll = Poll::new()?;
    let waker = Arc::new(mio::Waker::new(poll.registry(), STOP)?);
    let mut doors = Vec::new();
    for (index, listener) in listeners.into_iter().enumerate() {
        let mut socket = socket::Acceptor::new(listener.socket)?;
        poll.registry()
            .register(socket.source(), Token(index), Interest::READABLE)?;
        doors.push(Door {
            socket,
            ready: false,
            sessions: listener.sessions,
            keyring: listener.keyring,
            refusal: listener.refusal,
            traffic: listener.traffic,
            urgent: listener.urgent,
        });
    }
    let stop = Arc::new(AtomicBool::new(false));
    let stopped = Arc::clone(&stop);
    let mut acceptor = Acceptor {
        doors,
        workers,
        spare,
        crowd: Crowd::new(&limits),
        rate: Rate::new(limits.accept_rate, Instant::now()),
        limits,
        open,
        next_door: 0,
        next_worker: 0,
        next_id: 1,
    };
    let thread = std::thread::Builder::new()
        .name("accept".into())
        .spawn(move || {
            let mut events = Events::with_capacity(64);
            while !stopped.load(Ordering::SeqCst) {
                if let Err(error) = poll.poll(&mut events, acceptor.timeout(Instant::now()))
                    && error.kind() != io::ErrorKind::Interrupted
                {
                    tracing::error!(%error, "accept thread cannot poll");
                    return;
                }
                for event in &events {
                    if let Some(door) = acceptor.doors.get_mut(event.token().0) {
                        door.ready = true;
                    }
                }
                acceptor.accept_some();
            }
        })?;
    Ok(Handle {
        thread,
        stop,
        waker,
    })
}

impl Acceptor {
    /// How long there is nothing to do without an event. Whoever waits longer is in the kernel's queue; those behind a full queue
    /// are not answered and try again.
    fn timeout(&self, now: Instant) -> Option<Duration> {
        let waiting = self.doors.iter().any(|door| door.ready);
        waiting.then(|| self.rate.wait(now))
    }

    /// One of each door, as far as the rate allows; the next time goes on with the door behind.
    fn accept_some(&mut self) {
        for _ in 0..self.doors.len() {
            let now = Instant::now();
            if !self.rate.wait(now).is_zero() {
                return;
            }
            let index = self.next_door;
            self.next_door = (index + 1) % self.doors.len();
            self.accept(index, now);
        }
    }

    fn accept(&mut self, index: usize, now: Instant) {
        let Some(door) = self.doors.get_mut(index).filter(|door| door.ready) else {
            return;
        };
        match door.socket.accept() {
            Ok((mut socket, peer)) => {
                let unix = door.socket.path();
                let room = self.open.load(Ordering::Relaxed) < self.limits.connections;
                // Clients of a Unix socket have no address.
                let place = match unix {
                    Some(_) => Ok(None),
                    None => self.crowd.enter(peer.ip(), now),
                };
                let (true, Ok(place)) = (room, place) else {
                    door.traffic.refused.inc();
                    // The socket's buffer is empty, so a short text fits or the peer is gone.
                    let _ = socket.write(door.refusal);
                    return;
                };
                self.rate.charge(now);
                door.traffic.accepted.inc();
                door.traffic.open.add(1);
                self.open.fetch_add(1, Ordering::Relaxed);
                let accepted = Accepted {
                    id: self.next_id,
                    socket,
                    peer,
                    unix,
                    sessions: Arc::clone(&door.sessions),
                    keyring: door.keyring.clone(),
                    traffic: Arc::clone(&door.traffic),
                    place,
                };
                self.next_id += 1;
                if door.urgent.as_ref().is_some_and(|urgent| urgent()) {
                    self.spare.push(Message::Accepted(accepted));
                    return;
                }
                self.next_worker = (self.next_worker + 1) % self.workers.len();
                if let Some(worker) = self.workers.get(self.next_worker) {
                    worker.push(Message::Accepted(accepted));
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => door.ready = false,
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
                ) =>
            {
                tracing::warn!(%error, "cannot accept, out of file descriptors or memory");
                std::thread::sleep(OUT_OF_FILES_PAUSE);
            }
            // The peer went away between its SYN and our accept.
            Err(_) => {}
        }
    }
}
