//! `x-death`: what a message's headers say about the queues that dropped it.

use broker::Millis;
use broker::queue::{Message, Reason, Stamped};
use protocol_amqp::{ArrayBuilder, Properties, ShortStr, Table, TableBuilder, Value};

/// Notes a death: newest first, one entry per queue and reason, counted. The expiration goes, or the message would die
/// again where it comes to.
pub(super) fn stamp(message: &Message, queue: &str, reason: Reason, now: Millis) -> Stamped {
    let properties = Properties::parse(message.properties()).unwrap_or_default();
    let headers = properties.headers.unwrap_or_default();
    let deaths: Vec<Table<'_>> = match headers.get("x-death") {
        Some(Value::Array(deaths)) => deaths
            .iter()
            .filter_map(|death| match death {
                Value::Table(death) => Some(death),
                _ => None,
            })
            .collect(),
        _ => Vec::new(),
    };
    let is_same = |death: &Table<'_>| {
        text(*death, "queue") == Some(queue.as_bytes())
            && text(*death, "reason") == Some(reason.name().as_bytes())
    };
    let before = deaths.iter().find(|death| is_same(death));
    let newest = entry(message, &properties, queue, reason, now, before);
    let mut list = ArrayBuilder::new();
    list.push(Value::Table(newest.as_table()));
    deaths
        .iter()
        .filter(|death| !is_same(death))
        .for_each(|death| list.push(Value::Table(*death)));
    // Without this death: RabbitMQ lets a message go around once.
    let visited = deaths
        .iter()
        .take_while(|death| text(**death, "reason") != Some(Reason::Rejected.name().as_bytes()))
        .filter_map(|death| text(*death, "queue"))
        .map(|name| String::from_utf8_lossy(name).into_owned())
        .collect();
    let mut kept = TableBuilder::new();
    for (name, value) in headers
        .iter()
        .filter(|(name, _)| *name != b"x-death" && *name != b"BCC")
    {
        kept.push(name, value);
    }
    if headers.get("x-first-death-queue").is_none() {
        kept.push(
            b"x-first-death-exchange",
            Value::LongStr(message.exchange()),
        );
        kept.push(b"x-first-death-queue", Value::LongStr(queue.as_bytes()));
        kept.push(
            b"x-first-death-reason",
            Value::LongStr(reason.name().as_bytes()),
        );
    }
    kept.push(b"x-death", Value::Array(list.as_array()));
    let stamped = Properties {
        headers: Some(kept.as_table()),
        expiration: None,
        ..properties
    };
    Stamped {
        properties: stamped.to_raw(),
        priority: stamped.priority.unwrap_or(0),
        visited,
    }
}

fn entry(
    message: &Message,
    properties: &Properties<'_>,
    queue: &str,
    reason: Reason,
    now: Millis,
    before: Option<&Table<'_>>,
) -> TableBuilder {
    let count = before
        .and_then(|death| death.get("count"))
        .and_then(|count| count.as_int())
        .unwrap_or(0);
    let mut keys = ArrayBuilder::new();
    keys.push(Value::LongStr(message.routing_key()));
    if let Some(Value::Array(copies)) = properties.headers.and_then(|headers| headers.get("CC")) {
        copies.iter().for_each(|key| keys.push(key));
    }
    let mut death = TableBuilder::new()
        .with("count", Value::I64(count.saturating_add(1)))
        .with("reason", Value::LongStr(reason.name().as_bytes()))
        .with("queue", Value::LongStr(queue.as_bytes()))
        .with("time", Value::Timestamp(now.0 / 1000))
        .with("exchange", Value::LongStr(message.exchange()))
        .with("routing-keys", Value::Array(keys.as_array()));
    if let Some(ShortStr(expiration)) = properties.expiration {
        death.push(b"original-expiration", Value::LongStr(expiration));
    }
    death
}

fn text<'a>(table: Table<'a>, name: &str) -> Option<&'a [u8]> {
    table.get(name)?.as_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deaths_are_counted_and_newest_first() {
        let first = Properties {
            expiration: Some("50".into()),
            ..Properties::default()
        }
        .to_raw();
        let message = Message::new(b"x", b"k", &first, b"", false);
        let one = stamp(&message, "q1", Reason::Expired, Millis(5_000));
        assert!(one.visited.is_empty());
        let message = Message::new(b"dlx", b"k", &one.properties, b"", false);
        let two = stamp(&message, "q2", Reason::MaxLength, Millis(6_000));
        assert_eq!(two.visited, ["q1"]);
        let message = Message::new(b"dlx", b"k", &two.properties, b"", false);
        let three = stamp(&message, "q1", Reason::Expired, Millis(7_000));
        let properties = Properties::parse(&three.properties).expect("own properties");
        assert_eq!(properties.expiration, None);
        let headers = properties.headers.expect("headers");
        assert_eq!(
            headers.get("x-first-death-queue"),
            Some(Value::LongStr(b"q1"))
        );
        let Some(Value::Array(deaths)) = headers.get("x-death") else {
            panic!("no x-death")
        };
        let seen: Vec<_> = deaths
            .iter()
            .filter_map(|death| match death {
                Value::Table(death) => Some((
                    text(death, "queue")?.to_vec(),
                    death.get("count")?.as_int()?,
                )),
                _ => None,
            })
            .collect();
        assert_eq!(seen, [(b"q1".to_vec(), 2), (b"q2".to_vec(), 1)]);
        let message = Message::new(b"dlx", b"k", &three.properties, b"", false);
        let rejected = stamp(&message, "q3", Reason::Rejected, Millis(8_000));
        let message = Message::new(b"dlx", b"k", &rejected.properties, b"", false);
        let after = stamp(&message, "q4", Reason::Expired, Millis(9_000));
        assert!(
            after.visited.is_empty(),
            "a rejection makes a circle deliberate"
        );
    }
}
