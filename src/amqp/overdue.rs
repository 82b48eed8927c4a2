//! Messages that a client has for too long (`x-consumer-timeout`).
//!
//! Nothing is noted per delivery: now and then each channel remembers how far its delivery tags are. What has a tag below
//! such a mark was delivered before it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::channel::{Channel, Map, Unacked};
use super::fault::Fault;
use super::session::Core;

/// How often channels are looked at when no queue asks for less; RabbitMQ looks each minute.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_MIN: Duration = Duration::from_millis(50);

/// What a channel remembers of its deliveries' age.
#[derive(Debug, Default)]
pub(super) struct Marks {
    /// How far its tags were at some moments, oldest first.
    moments: VecDeque<(u64, Instant)>,
    /// No message with this timeout and a lower tag is unacknowledged. A tag is passed once for each timeout that is in use.
    oldest: Map<Option<u32>, u64>,
    /// Tags below are counted there.
    seen: u64,
}

/// How often to look, so that a timeout is noticed soon after it has come.
pub(super) fn interval(timeout: Duration) -> Duration {
    (timeout / 4).clamp(LOOK_MIN, LOOK_EVERY)
}

/// The fault that closes a channel which has kept a message for too long.
pub(super) fn look(core: &Core, channel: &mut Channel, id: u16, now: Instant) -> Option<Fault> {
    let Channel {
        unacked,
        marks,
        last_tag,
        ..
    } = channel;
    marks.note(unacked, *last_tag, now);
    let timeout = marks.overdue(unacked, core.node.config.amqp_consumer_timeout, now)?;
    let text = format!(
        "delivery acknowledgement on channel {id} timed out. Timeout value used: {} ms. This timeout value can be \
         configured, see consumers doc guide to learn more",
        timeout.as_millis()
    );
    Some(Fault::precondition(text).about(0, 0))
}

impl Marks {
    fn note(&mut self, unacked: &Unacked, last_tag: u64, now: Instant) {
        let oldest = unacked.oldest().unwrap_or(u64::MAX);
        while self.moments.front().is_some_and(|(tag, _)| *tag < oldest) {
            self.moments.pop_front();
        }
        for (tag, pending) in unacked.from(self.seen) {
            self.oldest.entry(pending.timeout).or_insert(tag);
        }
        self.seen = last_tag + 1;
        if !self.oldest.is_empty() && self.moments.back().is_none_or(|(tag, _)| *tag != last_tag) {
            self.moments.push_back((last_tag, now));
        }
    }

    /// The timeout of a message that is over; `default` is that of messages whose queue has none.
    fn overdue(&mut self, unacked: &Unacked, default: Duration, now: Instant) -> Option<Duration> {
        let Self {
            moments, oldest, ..
        } = self;
        let mut over = None;
        oldest.retain(|millis, tag| {
            let mut same = unacked.from(*tag).filter(|(_, one)| one.timeout == *millis);
            let Some((first, _)) = same.next() else {
                return false;
            };
            *tag = first;
            let timeout = millis.map_or(default, |millis| Duration::from_millis(millis.into()));
            let at = moments.partition_point(|(tag, _)| *tag < first);
            if let Some((_, since)) = moments.get(at)
                && now.saturating_duration_since(*since) >= timeout
            {
                over = Some(timeout);
            }
            true
        });
        over
    }
}
