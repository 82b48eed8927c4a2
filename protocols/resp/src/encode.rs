//! Replies, RESP2 or RESP3.

use crate::number;

/// What the client asked for with `HELLO`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    #[default]
    Resp2,
    Resp3,
}

/// Appends replies to a byte vector. Types that RESP2 lacks take the shape Redis gives them there.
#[derive(Debug)]
pub struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    version: Version,
}

impl<'a> Encoder<'a> {
    #[inline]
    pub fn new(out: &'a mut Vec<u8>, version: Version) -> Self {
        Self { out, version }
    }

    #[inline]
    pub fn version(&self) -> Version {
        self.version
    }

    #[inline]
    pub fn is_resp3(&self) -> bool {
        self.version == Version::Resp3
    }

    /// How many bytes the vector holds: a mark for [`Encoder::truncate`].
    pub fn mark(&self) -> usize {
        self.out.len()
    }

    /// Takes back what was written since `mark`.
    pub fn truncate(&mut self, mark: usize) {
        self.out.truncate(mark);
    }

    /// Appends bytes that are already encoded.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    pub fn ok(&mut self) {
        self.raw(b"+OK\r\n");
    }

    /// A status; `text` must hold no line break.
    pub fn simple(&mut self, text: &str) {
        self.line(b'+', text.as_bytes());
    }

    /// An error with its code in front (`ERR …`); line breaks become blanks, as Redis does.
    pub fn error(&mut self, text: &str) {
        self.out.push(b'-');
        self.out.extend(text.bytes().map(|byte| {
            if matches!(byte, b'\r' | b'\n') {
                b' '
            } else {
                byte
            }
        }));
        self.raw(b"\r\n");
    }

    #[inline]
    pub fn integer(&mut self, value: i64) {
        match value {
            0 => self.raw(b":0\r\n"),
            1 => self.raw(b":1\r\n"),
            _ => self.number(b':', value),
        }
    }

    /// A count or length.
    #[inline]
    pub fn count(&mut self, value: usize) {
        self.integer(i64::try_from(value).unwrap_or(i64::MAX));
    }

    #[inline]
    pub fn bulk(&mut self, bytes: &[u8]) {
        self.out.reserve(bytes.len() + 16);
        self.header(b'$', bytes.len());
        self.out.extend_from_slice(bytes);
        self.out.extend_from_slice(b"\r\n");
    }

    /// An integer as a bulk string.
    pub fn bulk_integer(&mut self, value: i64) {
        self.bulk(itoa::Buffer::new().format(value).as_bytes());
    }

    /// A missing value.
    #[inline]
    pub fn null(&mut self) {
        match self.version {
            Version::Resp2 => self.raw(b"$-1\r\n"),
            Version::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// A missing array (a blocked pop that timed out, an aborted EXEC).
    pub fn null_array(&mut self) {
        match self.version {
            Version::Resp2 => self.raw(b"*-1\r\n"),
            Version::Resp3 => self.raw(b"_\r\n"),
        }
    }

    /// `items` replies follow.
    #[inline]
    pub fn array(&mut self, items: usize) {
        self.header(b'*', items);
    }

    /// `pairs` keys and values follow: a flat array for RESP2.
    pub fn map(&mut self, pairs: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', pairs.saturating_mul(2)),
            Version::Resp3 => self.header(b'%', pairs),
        }
    }

    /// `items` distinct replies follow.
    pub fn set(&mut self, items: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', items),
            Version::Resp3 => self.header(b'~', items),
        }
    }

    /// An out-of-band message of `items` replies follows.
    pub fn push(&mut self, items: usize) {
        match self.version {
            Version::Resp2 => self.header(b'*', items),
            Version::Resp3 => self.header(b'>', items),
        }
    }

    pub fn double(&mut self, value: f64) {
        let mut text = Vec::with_capacity(24);
        number::write_f64(&mut text, value);
        match self.version {
            Version::Resp2 => self.bulk(&text),
            Version::Resp3 => self.line(b',', &text),
        }
    }

    pub fn boolean(&mut self, value: bool) {
        match self.version {
            Version::Resp2 => self.integer(i64::from(value)),
            Version::Resp3 => self.raw(if value { b"#t\r\n" } else { b"#f\r\n" }),
        }
    }

    /// `digits` is a decimal integer of any length.
    pub fn big_number(&mut self, digits: &str) {
        match self.version {
            Version::Resp2 => self.bulk(digits.as_bytes()),
            Version::Resp3 => self.line(b'(', digits.as_bytes()),
        }
    }

    /// Text for people; `format` is three letters (`txt`, `mkd`).
    pub fn verbatim(&mut self, format: &str, text: &[u8]) {
        match self.version {
            Version::Resp2 => self.bulk(text),
            Version::Resp3 => {
                self.header(b'=', text.len() + format.len() + 1);
                self.raw(format.as_bytes());
                self.raw(b":");
                self.raw(text);
                self.raw(b"\r\n");
            }
        }
    }

    #[inline]
    fn header(&mut self, kind: u8, length: usize) {
        // Most headers count to nine.
        if length < 10 {
            self.out
                .extend_from_slice(&[kind, b'0' + length as u8, b'\r', b'\n']);
        } else {
            self.number(kind, i64::try_from(length).unwrap_or(i64::MAX));
        }
    }

    fn number(&mut self, kind: u8, value: i64) {
        let mut buffer = itoa::Buffer::new();
        let digits = buffer.format(value).as_bytes();
        self.out.reserve(digits.len() + 3);
        self.out.push(kind);
        self.out.extend_from_slice(digits);
        self.out.extend_from_slice(b"\r\n");
    }

    fn line(&mut self, kind: u8, text: &[u8]) {
        self.out.reserve(text.len() + 3);
        self.out.push(kind);
        self.out.extend_from_slice(text);
        self.out.extend_from_slice(b"\r\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::{Expect, expect};

    fn check(write: impl Fn(&mut Encoder<'_>), resp2: Expect, resp3: Expect) {
        for (version, want) in [(Version::Resp2, resp2), (Version::Resp3, resp3)] {
            let mut out = Vec::new();
            write(&mut Encoder::new(&mut out, version));
            want.assert_eq(&out.escape_ascii().to_string());
        }
    }

    #[test]
    fn every_type() {
        check(|e| e.null(), expect![[r"$-1\r\n"]], expect![[r"_\r\n"]]);
        check(
            |e| e.null_array(),
            expect![[r"*-1\r\n"]],
            expect![[r"_\r\n"]],
        );
        check(|e| e.map(2), expect![[r"*4\r\n"]], expect![[r"%2\r\n"]]);
        check(|e| e.set(12), expect![[r"*12\r\n"]], expect![[r"~12\r\n"]]);
        check(|e| e.push(3), expect![[r"*3\r\n"]], expect![[r">3\r\n"]]);
        check(
            |e| e.double(1.5),
            expect![[r"$3\r\n1.5\r\n"]],
            expect![[r",1.5\r\n"]],
        );
        check(
            |e| e.boolean(true),
            expect![[r":1\r\n"]],
            expect![[r"#t\r\n"]],
        );
        check(
            |e| e.big_number("12345678901234567890"),
            expect![[r"$20\r\n12345678901234567890\r\n"]],
            expect![[r"(12345678901234567890\r\n"]],
        );
        check(
            |e| e.verbatim("txt", b"a\nb"),
            expect![[r"$3\r\na\nb\r\n"]],
            expect![[r"=7\r\ntxt:a\nb\r\n"]],
        );
        check(
            |e| e.integer(-5),
            expect![[r":-5\r\n"]],
            expect![[r":-5\r\n"]],
        );
        check(
            |e| e.error("ERR a\r\nb"),
            expect![[r"-ERR a  b\r\n"]],
            expect![[r"-ERR a  b\r\n"]],
        );
        check(
            |e| e.bulk(b"0123456789"),
            expect![[r"$10\r\n0123456789\r\n"]],
            expect![[r"$10\r\n0123456789\r\n"]],
        );
    }
}
