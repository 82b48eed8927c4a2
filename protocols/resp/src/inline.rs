//! Inline commands: one line of words, with quotes and escapes as `redis-cli` writes them.

/// Splits `line`, of at most 4 GiB, into words appended to `data`, their places to `ranges`. False: quotes are not balanced.
pub fn split_words(line: &[u8], data: &mut Vec<u8>, ranges: &mut Vec<(u32, u32)>) -> bool {
    let mut rest = line;
    loop {
        rest = rest.trim_ascii_start();
        // Redis stops at a NUL, which ends its C string.
        if matches!(rest, [] | [0, ..]) {
            return true;
        }
        let start = data.len();
        loop {
            match rest {
                [] | [0, ..] => break,
                [byte, ..] if byte.is_ascii_whitespace() => break,
                [b'"', tail @ ..] => match double_quoted(tail, data) {
                    Some(after) => rest = after,
                    None => return false,
                },
                [b'\'', tail @ ..] => match single_quoted(tail, data) {
                    Some(after) => rest = after,
                    None => return false,
                },
                [byte, tail @ ..] => {
                    data.push(*byte);
                    rest = tail;
                }
            }
        }
        let place = (
            u32::try_from(start).unwrap_or(0),
            u32::try_from(data.len() - start).unwrap_or(0),
        );
        ranges.push(place);
    }
}

/// Reads up to the closing `"`; what follows must be blank or the end.
fn double_quoted<'a>(mut rest: &'a [u8], data: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'x', high, low, tail @ ..]
                if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() =>
            {
                data.push(hex(*high) << 4 | hex(*low));
                rest = tail;
            }
            [b'\\', escaped, tail @ ..] => {
                data.push(match escaped {
                    b'n' => b'\n',
                    b'r' => b'\r',
                    b't' => b'\t',
                    b'b' => 8,
                    b'a' => 7,
                    other => *other,
                });
                rest = tail;
            }
            [b'"', tail @ ..] => return ends_word(tail),
            [byte, tail @ ..] => {
                data.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn single_quoted<'a>(mut rest: &'a [u8], data: &mut Vec<u8>) -> Option<&'a [u8]> {
    loop {
        match rest {
            [b'\\', b'\'', tail @ ..] => {
                data.push(b'\'');
                rest = tail;
            }
            [b'\'', tail @ ..] => return ends_word(tail),
            [byte, tail @ ..] => {
                data.push(*byte);
                rest = tail;
            }
            [] => return None,
        }
    }
}

fn ends_word(tail: &[u8]) -> Option<&[u8]> {
    match tail.first() {
        None => Some(tail),
        Some(byte) if byte.is_ascii_whitespace() => Some(tail),
        Some(_) => None,
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A') + 10,
    }
}
