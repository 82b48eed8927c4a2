//! A message as a record of a stream, and a record as a message.
//!
//! | message | record |
//! | --- | --- |
//! | routing key | key; none when it is empty |
//! | body | value |
//! | exchange | header `amqp.exchange`, which says that it was published |
//! | property | header `amqp.` and its name (`amqp.content_type`), numbers as text |
//! | headers of the message | headers of the same names, if all are strings |
//! | other headers | the table's octets in `amqp.headers`, and those that have a text also under their names |
//!
//! A record without `amqp.exchange` was produced: it comes from the default exchange, by its key, or by the queue's name when
//! the key is none or no routing key; then the key is the header `kafka.key`.

use broker::queue::Message;
use broker::stream::Record;
use broker::stream::batch::HeaderList;
use broker::stream_queue;
use bytes::Bytes;
use protocol_amqp::{Properties, ShortStr, Table, TableBuilder, Value};

const OURS: &[u8] = b"amqp.";
const HEADERS: &[u8] = b"amqp.headers";
const KEY: &[u8] = b"kafka.key";
/// RabbitMQ's names for the place of a message, and for what consumers filter by.
const OFFSET: &str = "x-stream-offset";
pub(super) const FILTER: &[u8] = b"x-stream-filter-value";
/// AMQP short strings are no longer.
const SHORT_MAX: usize = 255;
/// Octets of a content header frame that are not properties: the frame, class, weight and size.
const HEADER_OVERHEAD: usize = 8 + 12;

/// The text properties by the names that their headers have.
macro_rules! texts {
    ($with:ident) => {
        $with! {
            content_type, content_encoding, correlation_id, reply_to, expiration, message_id, kind, user_id, app_id,
            cluster_id,
        }
    };
}

/// `amqp.` and the name; `type` is a word of Rust's.
macro_rules! header {
    (kind) => {
        b"amqp.type"
    };
    ($name:ident) => {
        concat!("amqp.", stringify!($name)).as_bytes()
    };
}

/// What a message carries besides its body.
pub(super) fn headers(message: &Message, into: &mut HeaderList) {
    // Without properties there are two octets of flags.
    if message.properties().len() <= 2 {
        return;
    }
    let properties = Properties::parse(message.properties()).unwrap_or_default();
    macro_rules! push {
        ($($name:ident,)*) => {
            $(if let Some(ShortStr(text)) = properties.$name {
                into.push(header!($name), text);
            })*
        };
    }
    texts!(push);
    let numbers = [
        (
            header!(delivery_mode),
            properties.delivery_mode.map(u64::from),
        ),
        (header!(priority), properties.priority.map(u64::from)),
        (header!(timestamp), properties.timestamp),
    ];
    for (name, number) in numbers {
        if let Some(number) = number {
            into.push(name, number.to_string().as_bytes());
        }
    }
    let table = properties.headers.unwrap_or_default();
    let is_plain = |(name, value): (&[u8], Value<'_>)| {
        matches!(value, Value::LongStr(_)) && !name.starts_with(OURS)
    };
    if !table.iter().all(is_plain) {
        into.push(HEADERS, table.as_bytes());
    }
    for (name, value) in table.iter().filter(|(name, _)| !name.starts_with(OURS)) {
        let text = match value {
            Value::LongStr(text) | Value::Bytes(text) => {
                into.push(name, text);
                continue;
            }
            Value::Bool(flag) => flag.to_string(),
            Value::F32(number) => number.to_string(),
            Value::F64(number) => number.to_string(),
            Value::Timestamp(seconds) => seconds.to_string(),
            other => match other.as_int() {
                Some(number) => number.to_string(),
                None => continue,
            },
        };
        into.push(name, text.as_bytes());
    }
}

/// A record as it is delivered.
#[derive(Debug)]
pub(super) struct Delivered {
    pub(super) exchange: Bytes,
    pub(super) routing_key: Bytes,
    pub(super) properties: Vec<u8>,
    pub(super) body: Bytes,
}

/// What consumers filter by.
pub(super) fn filter_value(record: &Record) -> Option<&[u8]> {
    let (_, value) = record.headers.iter().find(|(name, _)| name == FILTER)?;
    value.as_deref()
}

/// Makes a message of a record. Headers that do not fit the client's frames are left out, the last ones first.
pub(super) fn message(record: Record, queue: &str, frame_max: u32) -> Delivered {
    let room = match usize::try_from(frame_max).unwrap_or(usize::MAX) {
        0 => usize::MAX,
        limit => limit.saturating_sub(HEADER_OVERHEAD),
    };
    let mut properties = Properties::default();
    let (mut exchange, mut table) = (None, None);
    for (name, value) in &record.headers {
        let Some(value) = value.as_ref().filter(|_| name.starts_with(OURS)) else {
            continue;
        };
        if name == stream_queue::EXCHANGE {
            exchange = Some(value).filter(|value| value.len() <= SHORT_MAX);
        } else if name == HEADERS {
            table = Table::parse(value).ok();
        } else {
            property(&mut properties, name, value);
        }
    }
    let key = routing_key(&record, exchange.is_some());
    let mut built = TableBuilder::new();
    let offset = i64::try_from(record.offset).unwrap_or(i64::MAX);
    built.push(OFFSET.as_bytes(), Value::I64(offset));
    let least = Properties {
        headers: Some(built.as_table()),
        ..properties
    };
    let room = room.saturating_sub(least.to_raw().len());
    let mut headers = Headers { built, room };
    match table {
        Some(table) => table
            .iter()
            .for_each(|(name, value)| headers.push(name, value)),
        None => {
            for (name, value) in &record.headers {
                if !name.starts_with(OURS) && name.len() <= SHORT_MAX {
                    headers.push(name, value.as_deref().map_or(Value::Void, Value::LongStr));
                }
            }
            if let (None, Some(key)) = (&key, &record.key) {
                headers.push(KEY, Value::LongStr(key));
            }
        }
    }
    properties.headers = Some(headers.built.as_table());
    let properties = properties.to_raw();
    let queue = || Bytes::copy_from_slice(queue.as_bytes());
    Delivered {
        exchange: exchange.cloned().unwrap_or_default(),
        routing_key: key.unwrap_or_else(queue),
        properties,
        body: record.value.unwrap_or_default(),
    }
}

fn routing_key(record: &Record, is_published: bool) -> Option<Bytes> {
    match &record.key {
        None => is_published.then(Bytes::new),
        Some(key) if key.len() > SHORT_MAX || std::str::from_utf8(key).is_err() => None,
        Some(key) => Some(key.clone()),
    }
}

/// Headers of a message, as many as there is room for.
struct Headers {
    built: TableBuilder,
    room: usize,
}

impl Headers {
    fn push(&mut self, name: &[u8], value: Value<'_>) {
        // This place is the message's now.
        if name == OFFSET.as_bytes() || self.room == 0 {
            return;
        }
        let mut one = TableBuilder::new();
        one.push(name, value);
        let octets = one.as_table().as_bytes().len();
        if octets > self.room {
            self.room = 0;
            return;
        }
        self.room -= octets;
        self.built.push(name, value);
    }
}

/// A header that says a property; what cannot be one is none.
fn property<'a>(properties: &mut Properties<'a>, name: &[u8], value: &'a [u8]) {
    let number = || std::str::from_utf8(value).ok()?.parse::<u64>().ok();
    let small = || number().and_then(|number| u8::try_from(number).ok());
    if name == header!(delivery_mode) {
        properties.delivery_mode = small();
    } else if name == header!(priority) {
        properties.priority = small();
    } else if name == header!(timestamp) {
        properties.timestamp = number();
    } else if value.len() <= SHORT_MAX {
        macro_rules! set {
            ($($property:ident,)*) => {
                $(if name == header!($property) {
                    properties.$property = Some(ShortStr(value));
                })*
            };
        }
        texts!(set);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a record made of the message would have.
    fn record_of(message: &Message) -> Record {
        let mut list = HeaderList::default();
        list.push(stream_queue::EXCHANGE, message.exchange());
        headers(message, &mut list);
        let key = message.routing_key();
        Record {
            offset: 7,
            timestamp: 0,
            key: (!key.is_empty()).then(|| Bytes::copy_from_slice(key)),
            value: Some(message.body_bytes()),
            headers: list.pairs(),
        }
    }

    fn back(message: &Message) -> Delivered {
        super::message(record_of(message), "q", 131_072)
    }

    fn rich(headers: Table<'_>) -> Vec<u8> {
        Properties {
            content_type: Some("text/plain".into()),
            content_encoding: Some("utf-8".into()),
            headers: Some(headers),
            delivery_mode: Some(1),
            priority: Some(255),
            correlation_id: Some("c".into()),
            reply_to: Some("r".into()),
            expiration: Some("5".into()),
            message_id: Some("m".into()),
            timestamp: Some(u64::MAX),
            kind: Some("t".into()),
            user_id: Some("u".into()),
            app_id: Some("a".into()),
            cluster_id: Some("".into()),
        }
        .to_raw()
    }

    #[test]
    fn everything_comes_back() {
        let inner = TableBuilder::new().with("k", Value::Void);
        let tables = [
            TableBuilder::new(),
            TableBuilder::new()
                .with("text", Value::LongStr(b"\xff\0"))
                .with("more", Value::LongStr(b"")),
            TableBuilder::new()
                .with("int", Value::I8(-1))
                .with("amqp.priority", Value::LongStr(b"9"))
                .with("table", Value::Table(inner.as_table())),
            TableBuilder::new().with("amqp.exchange", Value::LongStr(b"not this")),
        ];
        for table in tables {
            let raw = rich(table.as_table());
            for (exchange, key) in [(&b"x"[..], &b"a.b"[..]), (b"", b"q"), (b"f", b"")] {
                let delivered = back(&Message::new(exchange, key, &raw, b"body", false));
                assert_eq!(
                    (&delivered.exchange[..], &delivered.routing_key[..]),
                    (exchange, key)
                );
                let mut headers = TableBuilder::new().with(OFFSET, Value::I64(7));
                for (name, value) in table.as_table().iter() {
                    headers.push(name, value);
                }
                assert_eq!(delivered.properties, rich(headers.as_table()));
            }
        }
    }

    #[test]
    fn what_a_producer_sends_becomes_a_message() {
        let pair = |name: &'static [u8], value: &'static [u8]| {
            (Bytes::from_static(name), Some(Bytes::from_static(value)))
        };
        let record = |key: Option<&'static [u8]>| Record {
            offset: 0,
            timestamp: 5,
            key: key.map(Bytes::from_static),
            value: None,
            headers: vec![
                pair(b"trace", b"1"),
                (Bytes::from_static(b"null"), None),
                pair(b"amqp.content_type", b"application/json"),
                pair(b"amqp.priority", b"high"),
                pair(b"amqp.headers", b"\x05nonsense"),
                pair(b"x-stream-offset", b"99"),
            ],
        };
        let key_of = |key| {
            let delivered = message(record(key), "orders", 0);
            assert_eq!(
                (&delivered.exchange[..], &delivered.body[..]),
                (&b""[..], &b""[..])
            );
            let properties = Properties::parse(&delivered.properties).expect("sound");
            assert_eq!(properties.content_type, Some("application/json".into()));
            assert_eq!(properties.priority, None);
            let headers = properties.headers.expect("offset");
            assert_eq!(headers.get("trace"), Some(Value::LongStr(b"1")));
            assert_eq!(headers.get("null"), Some(Value::Void));
            assert_eq!(headers.get(OFFSET), Some(Value::I64(0)));
            let key = headers.get("kafka.key").and_then(|key| key.as_bytes());
            (delivered.routing_key.to_vec(), key.map(<[u8]>::to_vec))
        };
        assert_eq!(key_of(Some(b"eu")), (b"eu".to_vec(), None));
        assert_eq!(key_of(None), (b"orders".to_vec(), None));
        let odd: &[u8] = b"\xff\xfe";
        assert_eq!(key_of(Some(odd)), (b"orders".to_vec(), Some(odd.to_vec())));
        let long: &[u8] = &[b'k'; 300];
        assert_eq!(
            key_of(Some(long)),
            (b"orders".to_vec(), Some(long.to_vec()))
        );
    }

    #[test]
    fn headers_that_do_not_fit_a_frame_are_left_out() {
        let mut record = record_of(&Message::new(b"", b"q", b"\0\0", b"", false));
        for number in 0..100 {
            let name = Bytes::from(format!("h{number}"));
            record.headers.push((name, Some(Bytes::from(vec![1; 100]))));
        }
        let delivered = message(record, "q", 4096);
        let octets = delivered.properties.len();
        assert!(
            (3_800..=4096 - HEADER_OVERHEAD).contains(&octets),
            "{octets}"
        );
        let properties = Properties::parse(&delivered.properties).expect("sound");
        let headers = properties.headers.expect("headers");
        assert!(headers.get("h0").is_some() && headers.get("h99").is_none());
    }
}
