//! Ringing a connection from another thread, or from under a shard's lock.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;

use broker::Wake;
use parking_lot::Mutex;

/// What other threads tell a worker.
pub(super) enum Message {
    Accepted(super::accept::Accepted),
    Ring(usize, u64),
    /// Close this connection now.
    Kill(usize, u64),
    Stop(std::time::Instant),
    /// All buffers together are too large: see [`super::buffers`].
    Trim,
}

/// A worker's inbox. Its eventfd is written only when the worker sleeps.
pub(super) struct Inbox {
    messages: Mutex<Vec<Message>>,
    sleeping: AtomicBool,
    waker: mio::Waker,
}

impl Inbox {
    pub(super) fn new(waker: mio::Waker) -> Self {
        Self {
            messages: Mutex::new(Vec::new()),
            sleeping: AtomicBool::new(false),
            waker,
        }
    }

    pub(super) fn push(&self, message: Message) {
        self.messages.lock().push(message);
        // SeqCst pairs with `prepare_sleep`: either it sees our message, or we see it sleeping.
        if self.sleeping.swap(false, Ordering::SeqCst)
            && let Err(error) = self.waker.wake()
        {
            tracing::error!(%error, "cannot wake a network thread");
        }
    }

    pub(super) fn drain(&self, into: &mut Vec<Message>) {
        into.clear();
        std::mem::swap(&mut *self.messages.lock(), into);
    }

    /// False when messages wait already.
    pub(super) fn prepare_sleep(&self) -> bool {
        self.sleeping.store(true, Ordering::SeqCst);
        if self.messages.lock().is_empty() {
            return true;
        }
        self.sleeping.store(false, Ordering::SeqCst);
        false
    }

    pub(super) fn awake(&self) {
        self.sleeping.store(false, Ordering::SeqCst);
    }
}

struct Bell {
    inbox: Arc<Inbox>,
    token: usize,
    id: u64,
    /// Set while a ring is on its way, so that a thousand deliveries ring once.
    rung: AtomicBool,
}

/// Rings or closes one connection, from any thread. Cheap to clone.
#[derive(Clone)]
pub struct ConnHandle(Arc<Bell>);

impl ConnHandle {
    pub(super) fn new(inbox: Arc<Inbox>, token: usize, id: u64) -> Self {
        Self(Arc::new(Bell {
            inbox,
            token,
            id,
            rung: AtomicBool::new(false),
        }))
    }

    /// Of no connection: for a session that is driven by hand.
    ///
    /// # Errors
    /// When the operating system has no more file descriptors.
    pub fn detached() -> std::io::Result<Self> {
        let waker = mio::Waker::new(mio::Poll::new()?.registry(), mio::Token(0))?;
        Ok(Self::new(Arc::new(Inbox::new(waker)), 0, 0))
    }

    /// Makes the connection's session look into its mailbox.
    pub fn ring(&self) {
        self.0.wake();
    }

    /// Closes the connection from outside (CLIENT KILL, an operator).
    pub fn kill(&self) {
        self.0.inbox.push(Message::Kill(self.0.token, self.0.id));
    }

    /// As what the broker rings.
    #[must_use]
    pub fn wake(&self) -> Arc<dyn Wake> {
        Arc::clone(&self.0) as Arc<dyn Wake>
    }

    /// As what the engine wakes.
    #[must_use]
    pub fn waker(&self) -> Waker {
        Waker::from(Arc::clone(&self.0))
    }

    pub(super) fn heard(&self) {
        self.0.rung.store(false, Ordering::SeqCst);
    }
}

impl Wake for Bell {
    fn wake(&self) {
        if !self.rung.swap(true, Ordering::SeqCst) {
            self.inbox.push(Message::Ring(self.token, self.id));
        }
    }
}

impl std::task::Wake for Bell {
    fn wake(self: Arc<Self>) {
        Wake::wake(&*self);
    }

    fn wake_by_ref(self: &Arc<Self>) {
        Wake::wake(&**self);
    }
}

impl fmt::Debug for ConnHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ConnHandle").field(&self.0.id).finish()
    }
}
