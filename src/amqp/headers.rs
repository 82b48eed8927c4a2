//! Message headers as a headers exchange compares them.

use broker::queue::{HeaderMatch, Headers};
use bytes::Bytes;
use protocol_amqp::{Table, TableBuilder, Value};

/// The headers of one message; empty when it has none.
#[derive(Debug, Clone, Copy)]
pub(super) struct MessageHeaders<'a>(pub(super) Table<'a>);

impl Headers for MessageHeaders<'_> {
    fn value(&self, name: &[u8]) -> Option<Bytes> {
        self.0
            .iter()
            .find(|(key, _)| *key == name)
            .map(|(_, value)| canonical(value))
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
                "Invalid x-match field type {} (value {other:?}); expected longstr",
                other.type_name()
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
