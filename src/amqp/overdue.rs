//! Messages that a client has for too long (`x-consumer-timeout`).
//!
//! Nothing is noted per delivery: now and then each channel remembers how far its delivery tags are. What has a tag below
//! such a mark was delivered before it.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use super::channel::{Channel, Unacked};
use super::fault::Fault;
use super::session::Core;

/// How often channels are looked at when no queue asks for less; RabbitMQ looks each minute.
pub(super) const LOOK_EVERY: Duration = Duration::from_secs(30);
const LOOK_MIN: Duration = Duration::from_millis(50);

/// How far a channel's tags were at some moments, oldest first.
#[derive(Debug, Default)]
pub(super) struct Marks(VecDeque<(u64, Instant)>);

/// How often to look, so that a timeout is noticed soon after it has come.
pub(super) fn interval(timeout: Duration) -> Duration {
    (timeout / 4).clamp(LOOK_MIN, LOOK_EVERY)
}

/// The fault that closes a channel which has kept a message for too long.
pub(super) fn look(core: &Core, channel: &mut Channel, id: u16, now: Instant) -> Option<Fault> {
    let Channel {
        unacked,
        marks: Marks(marks),
        last_tag,
        ..
    } = channel;
    let Some(oldest) = unacked.oldest() else {
        marks.clear();
        return None;
    };
    while marks.front().is_some_and(|(tag, _)| *tag < oldest) {
        marks.pop_front();
    }
    if marks.back().is_none_or(|(tag, _)| *tag != *last_tag) {
        marks.push_back((*last_tag, now));
    }
    let timeout = overdue(core, unacked, marks, now)?;
    let text = format!(
        "delivery acknowledgement on channel {id} timed out. Timeout value used: {} ms. This timeout value can be \
         configured, see consumers doc guide to learn more",
        timeout.as_millis()
    );
    Some(Fault::precondition(text).about(0, 0))
}

/// The timeout of a message that is over.
fn overdue(
    core: &Core,
    unacked: &Unacked,
    marks: &VecDeque<(u64, Instant)>,
    now: Instant,
) -> Option<Duration> {
    let mut marks = marks.iter();
    let mut mark = marks.next()?;
    for (tag, pending) in unacked.iter() {
        while tag > mark.0 {
            mark = marks.next()?;
        }
        let timeout = pending
            .timeout
            .map_or(core.node.config.amqp_consumer_timeout, |ms| {
                Duration::from_millis(ms.into())
            });
        if now.saturating_duration_since(mark.1) >= timeout {
            return Some(timeout);
        }
    }
    None
}
