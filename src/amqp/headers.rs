//! Message headers and properties as exchanges see them.

use broker::Millis;
use broker::queue::events::Event;
use broker::queue::{HeaderMatch, Headers, Message, Property, Reader, Reason, Stamped};
use broker::stream::batch::HeaderList;
use bytes::Bytes;
use protocol_amqp::{Properties, Table, TableBuilder, Value};
use sha2::{Digest, Sha256};

/// What one message carries beside its body.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageHeaders<'a> {
    properties: Properties<'a>,
    table: Table<'a>,
}

impl<'a> MessageHeaders<'a> {
    pub(super) fn of(properties: Properties<'a>) -> Self {
        Self {
            properties,
            table: properties.headers.unwrap_or_default(),
        }
    }
}

impl Headers for MessageHeaders<'_> {
    fn value(&self, name: &[u8]) -> Option<Bytes> {
        self.table
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| canonical(value))
    }

    fn property(&self, which: Property) -> Option<Bytes> {
        let text = match which {
            Property::CorrelationId => self.properties.correlation_id,
            Property::MessageId => self.properties.message_id,
            Property::Timestamp => {
                let seconds = self.properties.timestamp?;
                return Some(seconds.to_string().into());
            }
        };
        text.map(|text| Bytes::copy_from_slice(text.0))
    }

    fn is_not_kept(&self) -> bool {
        self.table.get("x-recent-history-no-store") == Some(Value::Bool(true))
    }
}

/// What the broker asks of the face that knows properties.
#[derive(Debug)]
pub(super) struct MessageReader;

impl Reader for MessageReader {
    fn stamp(&self, message: &Message, queue: &str, reason: Reason, now: Millis) -> Stamped {
        super::death::stamp(message, queue, reason, now)
    }

    /// The header of the community's plugin, or else the message-id.
    fn identity(&self, properties: &[u8]) -> Option<u128> {
        let properties = Properties::parse(properties).ok()?;
        let headers = properties.headers.unwrap_or_default();
        let digest = match headers.get("x-deduplication-header") {
            Some(value) => Sha256::digest(canonical(value)),
            None => Sha256::digest([b"\0", properties.message_id?.0].concat()),
        };
        digest
            .first_chunk()
            .map(|first| u128::from_be_bytes(*first))
    }

    fn record_headers(&self, message: &Message, into: &mut HeaderList) {
        super::record::headers(message, into);
    }

    fn describe(&self, event: &Event, user: Option<&str>, now: Millis) -> Message {
        super::events::describe(event, user, now)
    }

    fn show(&self, properties: &[u8], look: &mut dyn FnMut(&dyn Headers)) {
        look(&MessageHeaders::of(
            Properties::parse(properties).unwrap_or_default(),
        ));
    }
}

/// Type and value as one string. All integers are one type, as in RabbitMQ's comparison.
fn canonical(value: Value<'_>) -> Bytes {
    if let Some(int) = value.as_int() {
        return Bytes::from([&b"i"[..], &int.to_be_bytes()].concat());
    }
    let mut built = TableBuilder::new();
    built.push(b"", value);
    Bytes::copy_from_slice(built.as_table().as_bytes())
}

/// What a binding's arguments ask for. `Err`: `x-match` is neither of the four words.
pub(super) fn matching(arguments: Table<'_>) -> Result<HeaderMatch, String> {
    let (any, with_x) = match arguments.get("x-match") {
        None => (false, false),
        Some(Value::LongStr(b"all")) => (false, false),
        Some(Value::LongStr(b"any")) => (true, false),
        Some(Value::LongStr(b"all-with-x")) => (false, true),
        Some(Value::LongStr(b"any-with-x")) => (true, true),
        Some(Value::LongStr(other)) => {
            return Err(format!(
                "Invalid x-match field value <<\"{}\">>; expected all, any, all-with-x, or any-with-x",
                String::from_utf8_lossy(other)
            ));
        }
        Some(other) => {
            return Err(format!(
                "Invalid x-match field type {} (value {}); expected longstr",
                other.type_name(),
                super::arguments::plain(other)
            ));
        }
    };
    let wanted = arguments
        .iter()
        .filter(|(name, _)| *name != b"x-match" && (with_x || !name.starts_with(b"x-")))
        .map(|(name, value)| {
            let wanted = (value != Value::Void).then(|| canonical(value));
            (Bytes::copy_from_slice(name), wanted)
        })
        .collect();
    Ok(HeaderMatch { any, wanted })
}
