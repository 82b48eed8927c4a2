//! A message and its row.
//!
//! ```text
//! data  [exchange len u8 | exchange | key len u8 | key | properties ………] [body, when below BODY_SHARED]
//!       └──────────────── head, `head_len` octets ─────────────────────┘
//! row   flags u8 | head len u32 LE | deadline u64 LE | head | body       keyspace bodies when the body has BODY_APART octets or more
//! ```
//! One allocation per message below 4 KiB; larger bodies stay the slice of the read buffer that they arrived in.

use bytes::Bytes;

use crate::Millis;

/// Bodies of this many octets and more are shared instead of copied.
const BODY_SHARED: usize = 4096;
/// Bodies of this many octets and more live in the keyspace for large values.
const BODY_APART: usize = 1024;

const FLAG_PERSISTENT: u8 = 1;
const FLAG_LATE: u8 = 2;
const ROW_FIXED: usize = 13;

/// A published message. Cloning shares the octets.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Message {
    data: Bytes,
    head_len: u32,
    persistent: bool,
    /// It stands in its lane behind messages that expire after it, or never.
    late: bool,
    /// For queues with priorities; not in the row, whose place says it.
    priority: u8,
    /// When it expires, in milliseconds since 1970; 0 = never.
    deadline_ms: u64,
    shared_body: Option<Bytes>,
}

impl Message {
    /// `properties` are opaque here: the face that delivers knows them. Exchange and key have at most 255 octets and are
    /// cut there.
    #[must_use]
    pub fn new(
        exchange: &[u8],
        routing_key: &[u8],
        properties: &[u8],
        body: &[u8],
        persistent: bool,
    ) -> Self {
        let mut data = Vec::with_capacity(
            2 + exchange.len() + routing_key.len() + properties.len() + body.len(),
        );
        push_head(&mut data, exchange, routing_key, properties);
        let head_len = len32(data.len());
        data.extend_from_slice(body);
        Self {
            data: Bytes::from(data),
            head_len,
            persistent,
            late: false,
            priority: 0,
            deadline_ms: 0,
            shared_body: None,
        }
    }

    /// The same for a body that exists as `Bytes`: a large one is not copied.
    #[must_use]
    pub fn with_body(
        exchange: &[u8],
        routing_key: &[u8],
        properties: &[u8],
        body: &Bytes,
        persistent: bool,
    ) -> Self {
        if body.len() < BODY_SHARED {
            return Self::new(exchange, routing_key, properties, body, persistent);
        }
        let mut data =
            Vec::with_capacity(2 + exchange.len() + routing_key.len() + properties.len());
        push_head(&mut data, exchange, routing_key, properties);
        let head_len = len32(data.len());
        Self {
            data: Bytes::from(data),
            head_len,
            persistent,
            late: false,
            priority: 0,
            deadline_ms: 0,
            shared_body: Some(body.clone()),
        }
    }

    /// It expires then, if not before.
    pub fn expire_at(&mut self, deadline: Millis) {
        if self.deadline_ms == 0 || deadline.0 < self.deadline_ms {
            // 0 means never: an expiration of 0 at the beginning of time is still one.
            self.deadline_ms = deadline.0.max(1);
        }
    }

    /// When it expires, in milliseconds since 1970; 0 = never.
    pub(super) fn deadline_ms(&self) -> u64 {
        self.deadline_ms
    }

    /// For queues with priorities: higher ones come first.
    pub fn set_priority(&mut self, priority: u8) {
        self.priority = priority;
    }

    pub(super) fn set_late(&mut self, late: bool) {
        self.late = late;
    }

    /// Do messages that expire after it, or never, stand before it? Then its row has one in [`super::expiry`].
    pub(super) fn is_late(&self) -> bool {
        self.late
    }

    /// Has it expired?
    #[inline]
    pub(super) fn is_over(&self, now: Millis) -> bool {
        self.deadline_ms != 0 && self.deadline_ms <= now.0
    }

    pub(super) fn priority(&self) -> u8 {
        self.priority
    }

    /// Whether it was published to survive a restart.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.persistent
    }

    #[must_use]
    pub fn exchange(&self) -> &[u8] {
        split_short(self.head()).0
    }

    #[must_use]
    pub fn routing_key(&self) -> &[u8] {
        split_short(split_short(self.head()).1).0
    }

    /// As the publisher sent them.
    #[must_use]
    pub fn properties(&self) -> &[u8] {
        split_short(split_short(self.head()).1).1
    }

    #[must_use]
    pub fn body(&self) -> &[u8] {
        match &self.shared_body {
            Some(body) => body,
            None => self.data.get(self.head_len as usize..).unwrap_or_default(),
        }
    }

    /// The body when it is large enough to be sent without copying.
    #[must_use]
    pub fn shared_body(&self) -> Option<&Bytes> {
        self.shared_body.as_ref()
    }

    /// Octets it holds in memory, the bookkeeping of a queue included.
    #[must_use]
    pub fn weight(&self) -> usize {
        super::ready::ENTRY_BYTES
            + self.data.len()
            + self.shared_body.as_ref().map_or(0, Bytes::len)
    }

    /// Does its row lie in the keyspace for large values?
    pub(super) fn is_apart(&self) -> bool {
        self.body().len() >= BODY_APART
    }

    fn head(&self) -> &[u8] {
        self.data.get(..self.head_len as usize).unwrap_or_default()
    }

    /// Octets of its row.
    pub(super) fn row_len(&self) -> u32 {
        len32(ROW_FIXED + self.head_len as usize + self.body().len())
    }

    /// What stands before the body in its row: the fixed part and the head.
    pub(super) fn row_head(&self) -> ([u8; ROW_FIXED], &[u8]) {
        let mut fixed = [0; ROW_FIXED];
        let flags = if self.persistent { FLAG_PERSISTENT } else { 0 }
            | if self.late { FLAG_LATE } else { 0 };
        let parts = [
            &[flags][..],
            &self.head_len.to_le_bytes(),
            &self.deadline_ms.to_le_bytes(),
        ];
        for (place, octet) in fixed.iter_mut().zip(parts.into_iter().flatten()) {
            *place = *octet;
        }
        (fixed, self.head())
    }

    /// The body as `Bytes`.
    #[must_use]
    pub fn body_bytes(&self) -> Bytes {
        match &self.shared_body {
            Some(body) => body.clone(),
            None => self
                .data
                .slice((self.head_len as usize).min(self.data.len())..),
        }
    }

    /// When the message of a row expires, if it is late.
    pub(super) fn late_deadline(row: &[u8]) -> Option<u64> {
        let (fixed, _) = row.split_first_chunk::<ROW_FIXED>()?;
        let is_late = fixed.first()? & FLAG_LATE != 0;
        is_late.then(|| fixed.last_chunk().map(|octets| u64::from_le_bytes(*octets)))?
    }

    /// Reads a row. `None`: it is no message row.
    pub(super) fn from_row(row: &[u8]) -> Option<Self> {
        let (fixed, rest) = row.split_first_chunk::<ROW_FIXED>()?;
        let (flags, fixed) = fixed.split_first()?;
        let (head_len, deadline) = fixed.split_first_chunk::<4>()?;
        let head_len = u32::from_le_bytes(*head_len);
        let deadline_ms = u64::from_le_bytes(deadline.try_into().ok()?);
        let (head, body) = rest.split_at_checked(usize::try_from(head_len).ok()?)?;
        let persistent = flags & FLAG_PERSISTENT != 0;
        let late = flags & FLAG_LATE != 0;
        if body.len() < BODY_SHARED {
            return Some(Self {
                data: Bytes::copy_from_slice(rest),
                head_len,
                persistent,
                late,
                priority: 0,
                deadline_ms,
                shared_body: None,
            });
        }
        let data = Bytes::copy_from_slice(head);
        Some(Self {
            data,
            head_len,
            persistent,
            late,
            priority: 0,
            deadline_ms,
            shared_body: Some(Bytes::copy_from_slice(body)),
        })
    }
}

fn push_head(data: &mut Vec<u8>, exchange: &[u8], routing_key: &[u8], properties: &[u8]) {
    for text in [exchange, routing_key] {
        let text = text.get(..255).unwrap_or(text);
        data.push(text.len() as u8);
        data.extend_from_slice(text);
    }
    data.extend_from_slice(properties);
}

/// A length-prefixed string and what follows it.
fn split_short(bytes: &[u8]) -> (&[u8], &[u8]) {
    let Some((len, rest)) = bytes.split_first() else {
        return (&[], &[]);
    };
    rest.split_at_checked(usize::from(*len))
        .unwrap_or((rest, &[]))
}

fn len32(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_give_the_message_back() {
        for size in [0, 10, 1023, 1024, 4095, 4096, 9000] {
            let body = Bytes::from(vec![3; size]);
            let mut message = Message::with_body(b"ex", b"key", b"\0\0", &body, true);
            message.expire_at(Millis(77));
            message.set_late(size % 2 == 0);
            let (fixed, head) = message.row_head();
            let row = [&fixed[..], head, &body].concat();
            let back = Message::from_row(&row).expect("own row");
            let late = (size % 2 == 0).then_some(77);
            assert_eq!(Message::late_deadline(&row), late);
            assert_eq!(back, message);
            assert_eq!(
                (back.exchange(), back.routing_key(), back.properties()),
                (&b"ex"[..], &b"key"[..], &b"\0\0"[..])
            );
            assert_eq!(back.body(), &body);
        }
        assert_eq!(Message::from_row(b"\0\xff\0\0\0\0\0\0\0\0\0\0\0"), None);
    }
}
