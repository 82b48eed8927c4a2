//! Client commands, multibulk or inline.
//!
//! The caller keeps the bytes; the decoder keeps how far it has read into the command at the front of them. A command
//! is its arguments' places in that buffer, so nothing is copied (but inline words, which may hold escapes), and a
//! command that arrives in many pieces is scanned once.

use crate::inline;
use thiserror::Error;

/// What one client may send.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Longest argument, in bytes (Redis' `proto-max-bulk-len`).
    pub bulk_len_max: usize,
    /// Most arguments of one command.
    pub args_max: usize,
    /// Longest inline command or header line, in bytes: Redis' `PROTO_INLINE_MAX_SIZE`.
    pub line_len_max: usize,
    /// Longest whole command, in bytes (Redis' `client-query-buffer-limit`).
    pub command_len_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            bulk_len_max: 512 << 20,
            args_max: i32::MAX as usize,
            line_len_max: 64 << 10,
            command_len_max: 1 << 30,
        }
    }
}

impl Limits {
    /// Before `AUTH` a client may send little: Redis' limits for the unauthenticated, and no more in a whole command or line
    /// than in one argument.
    pub fn unauthenticated() -> Self {
        const MOST: usize = 16 << 10;
        // `*2 $4 AUTH $16384` around it.
        const AROUND: usize = 64;
        Self {
            bulk_len_max: MOST,
            args_max: 10,
            line_len_max: MOST,
            command_len_max: MOST + AROUND,
        }
    }
}

/// The stream is broken for good: send the text as `-ERR …` and close. The texts are Redis' own.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub enum ProtocolError {
    #[error("Protocol error: too big mbulk count string")]
    MultibulkLineTooLong,
    #[error("Protocol error: invalid multibulk length")]
    InvalidMultibulkLength,
    #[error("Protocol error: unauthenticated multibulk length")]
    UnauthenticatedMultibulkLength,
    #[error("Protocol error: too big bulk count string")]
    BulkLineTooLong,
    #[error("Protocol error: expected '$', got '{}'", .0.escape_ascii())]
    ExpectedDollar(u8),
    #[error("Protocol error: invalid bulk length")]
    InvalidBulkLength,
    #[error("Protocol error: invalid CRLF in request")]
    InvalidBreak,
    #[error("Protocol error: unauthenticated bulk length")]
    UnauthenticatedBulkLength,
    #[error("Protocol error: too big inline request")]
    InlineTooLong,
    #[error("Protocol error: unbalanced quotes in request")]
    UnbalancedQuotes,
    #[error("Protocol error: command larger than the query buffer limit")]
    CommandTooLong,
}

/// The arguments of one command; the first is its name.
#[derive(Clone, Copy, Debug)]
pub struct Args<'a> {
    data: &'a [u8],
    ranges: &'a [(u32, u32)],
}

impl<'a> Args<'a> {
    /// Arguments at `(start, length)` places of `data`; a place outside reads as empty.
    pub fn new(data: &'a [u8], ranges: &'a [(u32, u32)]) -> Self {
        Self { data, ranges }
    }

    #[inline]
    pub fn len(&self) -> usize {
        self.ranges.len()
    }

    #[inline]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// The argument at `index`, or nothing.
    #[inline]
    pub fn get(&self, index: usize) -> Option<&'a [u8]> {
        let &(start, length) = self.ranges.get(index)?;
        self.data
            .get(start as usize..start as usize + length as usize)
    }

    /// The argument at `index`; empty when there is none (arity is checked before handlers run).
    #[inline]
    pub fn at(&self, index: usize) -> &'a [u8] {
        self.get(index).unwrap_or_default()
    }

    /// Arguments from `index` on.
    pub fn from(&self, index: usize) -> Self {
        Self {
            data: self.data,
            ranges: self.ranges.get(index..).unwrap_or_default(),
        }
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &'a [u8]> + use<'a> {
        let Self { data, ranges } = *self;
        ranges.iter().map(move |&(start, length)| {
            data.get(start as usize..start as usize + length as usize)
                .unwrap_or_default()
        })
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// At the first byte of a command.
    Start,
    /// Reading `$<length>` lines and their bytes; so many arguments are missing.
    Multibulk { missing: usize },
    /// A length line was read; so many bytes and a line break follow.
    Bulk { missing: usize, length: usize },
}

/// See the module.
#[derive(Debug)]
pub struct Decoder {
    limits: Limits,
    authenticated: bool,
    state: State,
    /// Read so far, from the command's first byte.
    position: usize,
    /// No line break before this place: a long line is scanned once.
    scanned: usize,
    ranges: Vec<(u32, u32)>,
    words: Vec<u8>,
    inline: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new(Limits::default())
    }
}

impl Decoder {
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            authenticated: true,
            state: State::Start,
            position: 0,
            scanned: 0,
            ranges: Vec::new(),
            words: Vec::new(),
            inline: false,
        }
    }

    /// Other limits from the next command on; `authenticated` chooses the error's words.
    pub fn set_limits(&mut self, limits: Limits, authenticated: bool) {
        self.limits = limits;
        self.authenticated = authenticated;
    }

    /// Reads the command at the front of `input`. `Some(n)`: it is complete and takes `n` bytes; [`Decoder::args`] has
    /// its arguments (none for an empty line or array). `None`: call again with the same bytes and more of them.
    ///
    /// # Errors
    /// The stream cannot be understood from here on.
    pub fn next_command(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        loop {
            match self.state {
                State::Start => {
                    self.ranges.clear();
                    match input.first() {
                        None => return Ok(None),
                        Some(b'*') => {}
                        Some(_) => return self.inline(input),
                    }
                    self.inline = false;
                    let Some((line, after)) =
                        self.line(input, ProtocolError::MultibulkLineTooLong)?
                    else {
                        return Ok(None);
                    };
                    let count = length_of(line.get(1..).unwrap_or_default());
                    let Some(count) = count else {
                        return Err(ProtocolError::InvalidMultibulkLength);
                    };
                    if count <= 0 {
                        return Ok(Some(self.finish(after)));
                    }
                    let missing = usize::try_from(count).unwrap_or(usize::MAX);
                    if missing > self.limits.args_max {
                        return Err(if self.authenticated {
                            ProtocolError::InvalidMultibulkLength
                        } else {
                            ProtocolError::UnauthenticatedMultibulkLength
                        });
                    }
                    self.advance(after);
                    self.state = State::Multibulk { missing };
                }
                State::Multibulk { missing: 0 } => {
                    let used = self.position;
                    return Ok(Some(self.finish(used)));
                }
                State::Multibulk { missing } => {
                    match input.get(self.position) {
                        None => return Ok(None),
                        Some(b'$') => {}
                        Some(other) => return Err(ProtocolError::ExpectedDollar(*other)),
                    }
                    let Some((line, after)) = self.line(input, ProtocolError::BulkLineTooLong)?
                    else {
                        return Ok(None);
                    };
                    let length = length_of(line.get(1..).unwrap_or_default())
                        .and_then(|length| usize::try_from(length).ok())
                        .ok_or(ProtocolError::InvalidBulkLength)?;
                    if length > self.limits.bulk_len_max {
                        return Err(if self.authenticated {
                            ProtocolError::InvalidBulkLength
                        } else {
                            ProtocolError::UnauthenticatedBulkLength
                        });
                    }
                    if after.saturating_add(length) > self.limits.command_len_max {
                        return Err(ProtocolError::CommandTooLong);
                    }
                    self.advance(after);
                    self.state = State::Bulk { missing, length };
                }
                State::Bulk { missing, length } => {
                    let end = self.position + length + 2;
                    if input.len() < end {
                        return Ok(None);
                    }
                    if input.get(end - 2..end) != Some(b"\r\n") {
                        return Err(ProtocolError::InvalidBreak);
                    }
                    // Both fit: a command is at most `command_len_max`, far below 4 GiB.
                    self.ranges.push((self.position as u32, length as u32));
                    self.advance(end);
                    self.state = State::Multibulk {
                        missing: missing - 1,
                    };
                }
            }
        }
    }

    /// The arguments of the command that was just completed; `input` as given to [`Decoder::next_command`].
    #[inline]
    pub fn args<'a>(&'a self, input: &'a [u8]) -> Args<'a> {
        Args {
            data: if self.inline { &self.words } else { input },
            ranges: &self.ranges,
        }
    }

    /// Gives these limits to another decoder.
    pub fn copy_limits(&self, to: &mut Self) {
        to.set_limits(self.limits, self.authenticated);
    }

    /// Bytes that the present command takes at least, from its first one; 0 if unknown.
    pub fn frame_hint(&self) -> usize {
        match self.state {
            State::Bulk { length, .. } => self.position + length + 2,
            _ => 0,
        }
    }

    fn inline(&mut self, input: &[u8]) -> Result<Option<usize>, ProtocolError> {
        let from = self.scanned.min(input.len());
        let Some(end) =
            memchr::memchr(b'\n', input.get(from..).unwrap_or_default()).map(|at| at + from)
        else {
            self.scanned = input.len();
            if input.len() > self.limits.line_len_max {
                return Err(ProtocolError::InlineTooLong);
            }
            return Ok(None);
        };
        if end > self.limits.line_len_max {
            return Err(ProtocolError::InlineTooLong);
        }
        let line = input.get(..end).unwrap_or_default();
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        self.words.clear();
        self.inline = true;
        if !inline::split_words(line, &mut self.words, &mut self.ranges) {
            return Err(ProtocolError::UnbalancedQuotes);
        }
        Ok(Some(self.finish(end + 1)))
    }

    /// The line at `position` without its break, and the place after it.
    #[inline]
    fn line<'a>(
        &mut self,
        input: &'a [u8],
        too_long: ProtocolError,
    ) -> Result<Option<(&'a [u8], usize)>, ProtocolError> {
        let from = self.scanned.max(self.position).min(input.len());
        let tail = input.get(from..).unwrap_or_default();
        // Length lines are a few bytes long: a plain loop finds their end sooner than a vector search.
        let near = tail.iter().take(24).position(|&byte| byte == b'\r');
        let found = near.or_else(|| memchr::memchr(b'\r', tail.get(24..)?).map(|at| at + 24));
        match found {
            Some(at) if from + at + 1 < input.len() => {
                let end = from + at;
                Ok(Some((
                    input.get(self.position..end).unwrap_or_default(),
                    end + 2,
                )))
            }
            Some(at) => {
                self.scanned = from + at;
                Ok(None)
            }
            None => {
                self.scanned = input.len();
                if input.len() - self.position > self.limits.line_len_max {
                    return Err(too_long);
                }
                Ok(None)
            }
        }
    }

    #[inline]
    fn advance(&mut self, position: usize) {
        self.position = position;
        self.scanned = position;
    }

    #[inline]
    fn finish(&mut self, used: usize) -> usize {
        self.state = State::Start;
        self.position = 0;
        self.scanned = 0;
        used
    }
}

/// A length line's number; most have one or two digits.
#[inline]
fn length_of(digits: &[u8]) -> Option<i64> {
    match digits {
        [one @ b'0'..=b'9'] => Some(i64::from(one - b'0')),
        [ten @ b'1'..=b'9', one @ b'0'..=b'9'] => {
            Some(i64::from(ten - b'0') * 10 + i64::from(one - b'0'))
        }
        _ => crate::number::parse_i64(digits),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Decodes `bytes` given in pieces that end at `cuts`; commands, and the error that stopped it.
    fn decode(bytes: &[u8], cuts: &[usize]) -> (Vec<Vec<Vec<u8>>>, Option<String>) {
        let mut decoder = Decoder::default();
        let mut commands = Vec::new();
        let mut start = 0;
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut % (bytes.len() + 1)).collect();
        ends.push(bytes.len());
        ends.sort_unstable();
        for end in ends {
            loop {
                let input = &bytes[start.min(end)..end];
                match decoder.next_command(input) {
                    Ok(Some(used)) => {
                        commands.push(decoder.args(input).iter().map(<[u8]>::to_vec).collect());
                        start += used;
                    }
                    Ok(None) => break,
                    Err(error) => return (commands, Some(error.to_string())),
                }
            }
        }
        (commands, None)
    }

    fn words(bytes: &[u8]) -> Vec<Vec<String>> {
        let (commands, error) = decode(bytes, &[]);
        assert_eq!(error, None);
        commands
            .iter()
            .map(|c| c.iter().map(|a| a.escape_ascii().to_string()).collect())
            .collect()
    }

    #[test]
    fn multibulk_and_inline_mix() {
        assert_eq!(
            words(b"*2\r\n$3\r\nGET\r\n$1\r\na\r\nPING\r\n\r\n*0\r\n*-1\r\nset 'a b' \"\\x00\\n\"\r\n"),
            vec![vec!["GET", "a"], vec!["PING"], vec![], vec![], vec![], vec!["set", "a b", "\\x00\\n"]]
        );
    }

    #[test]
    fn broken_streams_get_the_words_of_redis() {
        for (bytes, text) in [
            (&b"*a\r\n"[..], "Protocol error: invalid multibulk length"),
            (
                b"*2147483648\r\n",
                "Protocol error: invalid multibulk length",
            ),
            (b"*1\r\n:1\r\n", "Protocol error: expected '$', got ':'"),
            (b"*1\r\n$-1\r\n", "Protocol error: invalid bulk length"),
            (b"*1\r\n$x\r\n", "Protocol error: invalid bulk length"),
            (
                b"*1\r\n$536870913\r\n",
                "Protocol error: invalid bulk length",
            ),
            (
                b"set 'a\r\n",
                "Protocol error: unbalanced quotes in request",
            ),
            (
                b"set \"a\"b\r\n",
                "Protocol error: unbalanced quotes in request",
            ),
        ] {
            assert_eq!(decode(bytes, &[]).1.as_deref(), Some(text));
        }
        let long = vec![b'1'; 70_000];
        assert_eq!(
            decode(&long, &[]).1.as_deref(),
            Some("Protocol error: too big inline request")
        );
        let mut header = b"*".to_vec();
        header.extend_from_slice(&long);
        assert_eq!(
            decode(&header, &[]).1.as_deref(),
            Some("Protocol error: too big mbulk count string")
        );
    }

    #[test]
    fn the_unauthenticated_may_send_little() {
        let mut decoder = Decoder::default();
        decoder.set_limits(Limits::unauthenticated(), false);
        assert_eq!(
            decoder.next_command(b"*11\r\n"),
            Err(ProtocolError::UnauthenticatedMultibulkLength)
        );
        let mut decoder = Decoder::default();
        decoder.set_limits(Limits::unauthenticated(), false);
        assert_eq!(
            decoder.next_command(b"*1\r\n$16385\r\n"),
            Err(ProtocolError::UnauthenticatedBulkLength)
        );
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same(
            commands in prop::collection::vec(prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 1..6), 1..6),
            cuts in prop::collection::vec(any::<usize>(), 0..12),
        ) {
            let mut bytes = Vec::new();
            for command in &commands {
                bytes.extend(format!("*{}\r\n", command.len()).bytes());
                for arg in command {
                    bytes.extend(format!("${}\r\n", arg.len()).bytes());
                    bytes.extend_from_slice(arg);
                    bytes.extend_from_slice(b"\r\n");
                }
            }
            let whole = decode(&bytes, &[]);
            prop_assert_eq!(&whole.0, &commands);
            prop_assert_eq!(decode(&bytes, &cuts), whole.clone());
            let every: Vec<usize> = (0..bytes.len()).collect();
            prop_assert_eq!(decode(&bytes, &every), whole);
        }

        #[test]
        fn noise_never_panics_and_splits_alike(bytes in prop::collection::vec(any::<u8>(), 0..300), cuts in prop::collection::vec(any::<usize>(), 0..8)) {
            prop_assert_eq!(decode(&bytes, &[]), decode(&bytes, &cuts));
        }

        #[test]
        fn protocol_like_noise_splits_alike(bytes in "[*$0-9\\r\\na'\" -]{0,200}", cuts in prop::collection::vec(any::<usize>(), 0..8)) {
            prop_assert_eq!(decode(bytes.as_bytes(), &[]), decode(bytes.as_bytes(), &cuts));
        }
    }
}
