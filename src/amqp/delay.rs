//! Messages that are routed later: `x-delay`, in milliseconds, as RabbitMQ's plugin has it. Here every exchange honours it.

use std::sync::Arc;

use broker::queue::Message;
use broker::queue::delay::{self, Due};
use broker::{Effects, Millis};
use protocol_amqp::{Properties, Table, TableBuilder, Value};

use super::content;
use crate::node::Node;

/// The plugin's limit, of Erlang's timers: what is longer is no delay.
const DELAY_MAX: u64 = u32::MAX as u64;
/// Routed in one step of the job.
const STEP: usize = 1000;

const NAME: &str = "x-delay";

/// How long the publisher wants a message to wait.
pub(super) fn of(headers: Table<'_>) -> Option<u64> {
    let millis = match headers.get(NAME)? {
        Value::LongStr(text) => std::str::from_utf8(text).ok()?.parse().ok()?,
        Value::F32(number) => whole(number.into())?,
        Value::F64(number) => whole(number)?,
        Value::Decimal(scale, number) => {
            u64::from(number).checked_div(10_u64.checked_pow(scale.into())?)?
        }
        other => u64::try_from(other.as_int()?).ok()?,
    };
    (1..=DELAY_MAX).contains(&millis).then_some(millis)
}

fn whole(number: f64) -> Option<u64> {
    // The range is checked before, so nothing is cut off but the fraction.
    (1.0..=DELAY_MAX as f64)
        .contains(&number)
        .then_some(number as u64)
}

/// Routes what is due; `true`: there is more.
pub fn release_due(node: &Arc<Node>, fx: &mut Effects) -> bool {
    let now = Millis(node.clock.now_ms());
    let (found, more) = delay::due(&node.broker, now, STEP);
    for due in found {
        release(node, due, now, fx);
    }
    more
}

fn release(node: &Node, due: Due, now: Millis, fx: &mut Effects) {
    let kept = due.message().clone();
    let properties = Properties::parse(kept.properties()).unwrap_or_default();
    let headers = without_delay(properties.headers.unwrap_or_default());
    let shown = Properties {
        headers: Some(headers.as_table()),
        ..properties
    };
    let raw = shown.to_raw();
    let mut message = Message::with_body(
        kept.exchange(),
        kept.routing_key(),
        &content::without_bcc(&raw),
        &kept.body_bytes(),
        kept.is_persistent(),
    );
    message.set_priority(properties.priority.unwrap_or(0));
    if let Some(expiration) = content::expiration(&properties) {
        message.expire_at(Millis(now.0.saturating_add(expiration)));
    }
    let mut due = due;
    loop {
        let (exchange, key) = (message.exchange(), message.routing_key());
        // When the exchange is gone, so is what it would have routed.
        let route = content::copies_route(&node.broker.routes, exchange, key, &shown);
        let route = route.unwrap_or_default();
        match delay::release(&node.broker, due, &message, &route, now, fx) {
            Ok(_) => return,
            Err(back) => due = back,
        }
    }
}

/// As the plugin does: the header stays, negative, so that whoever gets the message sees that it was delayed.
fn without_delay(headers: Table<'_>) -> TableBuilder {
    let mut built = TableBuilder::new();
    for (name, value) in headers.iter() {
        if name != NAME.as_bytes() {
            built.push(name, value);
        }
    }
    if let Some(millis) = of(headers) {
        let negative = -i64::try_from(millis).unwrap_or(i64::MAX);
        let value = i32::try_from(negative).map_or(Value::I64(negative), Value::I32);
        built.push(NAME.as_bytes(), value);
    }
    built
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_of_every_kind_are_delays() {
        let delay = |value| of(TableBuilder::new().with(NAME, value).as_table());
        for (value, wanted) in [
            (Value::I32(50), Some(50)),
            (Value::I64(1 << 32), None),
            (Value::U32(u32::MAX), Some(u64::from(u32::MAX))),
            (Value::I8(-5), None),
            (Value::I32(0), None),
            (Value::LongStr(b"250"), Some(250)),
            (Value::LongStr(b"soon"), None),
            (Value::F64(1.9), Some(1)),
            (Value::F64(f64::NAN), None),
            (Value::Decimal(2, 12_345), Some(123)),
            (Value::Decimal(255, 1), None),
            (Value::Bool(true), None),
        ] {
            assert_eq!(delay(value), wanted, "{value:?}");
        }
        assert_eq!(of(Table::default()), None);
    }
}
