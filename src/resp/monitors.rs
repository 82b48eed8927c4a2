//! `MONITOR`: connections that see every command.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use protocol_resp::Args;

use super::client::Client;
use super::hub::Event;
use super::parse::is;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Monitors {
    count: AtomicUsize,
    clients: RwLock<Vec<Arc<Client>>>,
}

/// From where a command comes.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Source<'a> {
    Client(&'a Client),
    Script,
}

impl Monitors {
    #[inline]
    pub(crate) fn is_empty(&self) -> bool {
        self.count.load(Ordering::Relaxed) == 0
    }

    pub(crate) fn add(&self, client: &Arc<Client>) {
        let mut clients = self.clients.write();
        clients.push(Arc::clone(client));
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    pub(crate) fn remove(&self, id: u64) {
        let mut clients = self.clients.write();
        clients.retain(|client| client.id != id);
        self.count.store(clients.len(), Ordering::Relaxed);
    }

    /// Shows a command to all of them. `now_us`: microseconds since 1970.
    #[cold]
    pub(crate) fn show(&self, source: Source<'_>, db: usize, args: &Args<'_>, now_us: u64) {
        let line = Bytes::from(line(source, db, args, now_us));
        for client in self.clients.read().iter() {
            client.mailbox.push(Event::Line(line.clone()));
        }
    }
}

fn line(source: Source<'_>, db: usize, args: &Args<'_>, now_us: u64) -> String {
    let mut line = format!("{}.{:06} [{db} ", now_us / 1_000_000, now_us % 1_000_000);
    match source {
        Source::Script => line.push_str("lua"),
        Source::Client(client) => match &client.unix {
            Some(path) => {
                // Writing to a String cannot fail.
                let _ = write!(line, "unix:{}", path.display());
            }
            None => {
                let _ = write!(line, "{}", client.peer);
            }
        },
    }
    line.push(']');
    let hidden = hidden(args);
    for (place, arg) in args.iter().enumerate() {
        line.push(' ');
        if hidden(place) {
            line.push_str("\"(redacted)\"");
        } else {
            quote(&mut line, arg);
        }
    }
    line
}

/// Which arguments are passwords, or stand beside them.
pub(crate) fn hidden<'a>(args: &Args<'a>) -> impl Fn(usize) -> bool + use<'a> {
    let args = *args;
    let (word, sub) = (args.at(0), args.get(1).unwrap_or_default());
    let from = if is(word, "AUTH") {
        1
    } else if is(word, "ACL") && is(sub, "SETUSER") {
        2
    } else if is(word, "HELLO") {
        let auth = (2..args.len()).find(|place| is(args.at(*place), "AUTH"));
        auth.map_or(usize::MAX, |auth| auth + 1)
    } else {
        usize::MAX
    };
    let to = if is(word, "HELLO") {
        from.saturating_add(2)
    } else {
        usize::MAX
    };
    let configures = is(word, "CONFIG") && is(sub, "SET");
    move |place| {
        let of_password = |place: usize| {
            let name = args.at(place - 1);
            place % 2 == 1 && (is(name, "REQUIREPASS") || is(name, "MASTERAUTH"))
        };
        (from..to).contains(&place) || configures && place > 2 && of_password(place)
    }
}

fn quote(line: &mut String, bytes: &[u8]) {
    line.push('"');
    for byte in bytes {
        match byte {
            b'\\' | b'"' => {
                line.push('\\');
                line.push(char::from(*byte));
            }
            b'\n' => line.push_str("\\n"),
            b'\r' => line.push_str("\\r"),
            b'\t' => line.push_str("\\t"),
            0x07 => line.push_str("\\a"),
            0x08 => line.push_str("\\b"),
            b' '..=b'~' => line.push(char::from(*byte)),
            other => {
                let _ = write!(line, "\\x{other:02x}");
            }
        }
    }
    line.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(words: &[&[u8]]) -> String {
        let (mut data, mut ranges) = (Vec::new(), Vec::new());
        for word in words {
            ranges.push((data.len() as u32, word.len() as u32));
            data.extend_from_slice(word);
        }
        line(Source::Script, 3, &Args::new(&data, &ranges), 7_000_042)
    }

    #[test]
    fn lines() {
        assert_eq!(
            shown(&[b"set", b"a\"\\\n\r\t\x07\x08\x00\xff"]),
            r#"7.000042 [3 lua] "set" "a\"\\\n\r\t\a\b\x00\xff""#
        );
        assert_eq!(
            shown(&[b"auth", b"me", b"secret"]),
            r#"7.000042 [3 lua] "auth" "(redacted)" "(redacted)""#
        );
        assert_eq!(
            shown(&[b"HELLO", b"3", b"auth", b"me", b"secret", b"SETNAME", b"n"]),
            r#"7.000042 [3 lua] "HELLO" "3" "auth" "(redacted)" "(redacted)" "SETNAME" "n""#
        );
    }
}
