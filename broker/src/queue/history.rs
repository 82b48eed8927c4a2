//! The last messages of an exchange, for whoever binds later (`x-recent-history`).
//!
//! They are memory, as in RabbitMQ: a restart begins with none.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::message::Message;

/// Octets that one exchange keeps, whatever length it asks for; the newest message is always kept.
const OCTETS_MAX: usize = 16 << 20;

/// Octets that all exchanges together keep; beyond, each keeps its newest message.
const ALL_OCTETS_MAX: usize = 64 << 20;
static ALL_OCTETS: AtomicUsize = AtomicUsize::new(0);

/// Messages when the exchange does not say how many.
pub(super) const LENGTH: usize = 20;

#[derive(Debug)]
pub(super) struct History {
    length: usize,
    kept: Mutex<Kept>,
}

#[derive(Debug, Default)]
struct Kept {
    messages: VecDeque<Message>,
    octets: usize,
}

impl History {
    pub(super) fn new(length: usize) -> Self {
        Self {
            length,
            kept: Mutex::default(),
        }
    }

    pub(super) fn keep(&self, message: &Message) {
        let mut kept = self.kept.lock();
        kept.octets += message.weight();
        let mut all = ALL_OCTETS.fetch_add(message.weight(), Ordering::Relaxed) + message.weight();
        kept.messages.push_back(message.clone());
        while kept.messages.len() > self.length
            || ((kept.octets > OCTETS_MAX || all > ALL_OCTETS_MAX) && kept.messages.len() > 1)
        {
            if let Some(oldest) = kept.messages.pop_front() {
                kept.octets -= oldest.weight();
                ALL_OCTETS.fetch_sub(oldest.weight(), Ordering::Relaxed);
                all = all.saturating_sub(oldest.weight());
            }
        }
    }

    /// Oldest first.
    pub(super) fn messages(&self) -> Vec<Message> {
        self.kept.lock().messages.iter().cloned().collect()
    }
}

impl Drop for History {
    fn drop(&mut self) {
        ALL_OCTETS.fetch_sub(self.kept.get_mut().octets, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_stay() {
        let history = History::new(3);
        for body in [b"a", b"b", b"c", b"d"] {
            history.keep(&Message::new(b"x", b"k", b"\0\0", body, false));
        }
        let bodies = |history: &History| -> Vec<u8> {
            let messages = history.messages();
            messages.iter().map(|message| message.body()[0]).collect()
        };
        assert_eq!(bodies(&history), b"bcd");
        let large = vec![b'l'; OCTETS_MAX];
        history.keep(&Message::new(b"x", b"k", b"\0\0", &large, false));
        assert_eq!(bodies(&history), b"l");
    }
}
