//! What a queue does by itself: lets messages expire, bounds its length, passes on what it drops.

use std::sync::Arc;

use bytes::Bytes;

use super::seen::Once;

/// What happens to a message that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overflow {
    /// The oldest one goes.
    #[default]
    DropHead,
    /// The new one is refused.
    Reject,
    /// The new one is refused and dead-lettered.
    RejectDeadLetter,
}

/// Where dropped messages go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    pub exchange: Arc<str>,
    /// Instead of the message's own routing key.
    pub routing_key: Option<Bytes>,
    /// What finds no queue there stays, and is tried again.
    pub at_least_once: bool,
}

/// Limits of a queue; nothing is limited by default.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Limits {
    /// Milliseconds that a message may wait.
    pub message_ttl_ms: Option<u64>,
    /// Milliseconds after which an unused queue goes.
    pub expires_ms: Option<u64>,
    /// Ready messages.
    pub length: Option<u64>,
    /// Octets of the bodies of ready messages.
    pub bytes: Option<u64>,
    pub overflow: Overflow,
    pub dead_letter: Option<DeadLetter>,
    /// Only one consumer at a time gets messages.
    pub single_active: bool,
    /// Messages with a higher priority come first, up to this one; `None`: all are equal.
    pub max_priority: Option<u8>,
    /// How often a message may be given back; counted by quorum queues.
    pub delivery_limit: Option<u64>,
    /// Milliseconds that a client may have a message without saying what becomes of it; `None`: as the server is configured.
    pub consumer_timeout_ms: Option<u64>,
    /// It takes no message twice.
    pub once: Option<Once>,
}

impl Limits {
    /// Dead letters without a queue to go to stay with this one.
    #[must_use]
    pub fn keeps_dead(&self) -> bool {
        self.dead_letter
            .as_ref()
            .is_some_and(|dead_letter| dead_letter.at_least_once)
    }

    /// Appends the row form: `tag u8 | u64 LE` or `tag u8 | len u16 LE | octets`, present ones only.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let overflow = match self.overflow {
            Overflow::DropHead => None,
            Overflow::Reject => Some(1),
            Overflow::RejectDeadLetter => Some(2),
        };
        let numbers = [
            (1, self.message_ttl_ms),
            (2, self.expires_ms),
            (3, self.length),
            (4, self.bytes),
            (5, overflow),
            (6, self.single_active.then_some(1)),
            (9, self.max_priority.map(u64::from)),
            (10, self.delivery_limit),
            (11, self.consumer_timeout_ms),
            (20, self.once.map(|once| once.size)),
            (21, self.once.and_then(|once| once.ttl_ms)),
        ];
        for (tag, number) in numbers {
            if let Some(number) = number {
                out.push(tag);
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
        if let Some(dead_letter) = &self.dead_letter {
            text(out, 7, dead_letter.exchange.as_bytes());
            if let Some(key) = &dead_letter.routing_key {
                text(out, 8, key);
            }
            if dead_letter.at_least_once {
                text(out, 12, &[]);
            }
        }
    }

    /// Reads what [`Limits::write`] wrote; `None` when it did not.
    pub(super) fn read(mut row: &[u8]) -> Option<Self> {
        let mut limits = Self::default();
        while let Some((tag, rest)) = row.split_first() {
            if ![7, 8, 12].contains(tag) {
                let (number, rest) = rest.split_first_chunk::<8>()?;
                let number = u64::from_le_bytes(*number);
                match tag {
                    1 => limits.message_ttl_ms = Some(number),
                    2 => limits.expires_ms = Some(number),
                    3 => limits.length = Some(number),
                    4 => limits.bytes = Some(number),
                    5 if number == 1 => limits.overflow = Overflow::Reject,
                    5 => limits.overflow = Overflow::RejectDeadLetter,
                    6 => limits.single_active = true,
                    9 => limits.max_priority = Some(u8::try_from(number).ok()?),
                    10 => limits.delivery_limit = Some(number),
                    11 => limits.consumer_timeout_ms = Some(number),
                    20 => {
                        limits.once = Some(Once {
                            ttl_ms: None,
                            size: number,
                        });
                    }
                    21 => limits.once.as_mut()?.ttl_ms = Some(number),
                    _ => return None,
                }
                row = rest;
                continue;
            }
            let (len, rest) = rest.split_first_chunk::<2>()?;
            let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*len)))?;
            match tag {
                7 => {
                    let exchange = std::str::from_utf8(text).ok()?.into();
                    limits.dead_letter = Some(DeadLetter {
                        exchange,
                        routing_key: None,
                        at_least_once: false,
                    });
                }
                12 => limits.dead_letter.as_mut()?.at_least_once = true,
                8 => limits.dead_letter.as_mut()?.routing_key = Some(Bytes::copy_from_slice(text)),
                _ => return None,
            }
            row = rest;
        }
        Some(limits)
    }
}

fn text(out: &mut Vec<u8>, tag: u8, text: &[u8]) {
    let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
    out.push(tag);
    out.extend_from_slice(&len.to_le_bytes());
    out.extend_from_slice(text.get(..usize::from(len)).unwrap_or(text));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_give_the_limits_back() {
        let limits = Limits {
            message_ttl_ms: Some(0),
            expires_ms: Some(7),
            length: None,
            bytes: Some(u64::MAX),
            overflow: Overflow::RejectDeadLetter,
            dead_letter: Some(DeadLetter {
                exchange: "x".into(),
                routing_key: Some(Bytes::from_static(b"k\xff")),
                at_least_once: true,
            }),
            single_active: true,
            max_priority: Some(255),
            delivery_limit: Some(3),
            consumer_timeout_ms: Some(4),
            once: Some(Once {
                ttl_ms: Some(5),
                size: 6,
            }),
        };
        for limits in [limits, Limits::default()] {
            let mut row = Vec::new();
            limits.write(&mut row);
            assert_eq!(Limits::read(&row), Some(limits));
        }
        assert_eq!(Limits::read(b"\x7f12345678"), None);
    }
}
