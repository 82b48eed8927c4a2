//! A look at commands that the decoder will come to later.

use std::ops::Range;

/// More arguments are not looked at.
const ARGS_MAX: usize = 16;

/// Where the argument behind the name is in the multibulk command at the front of `input`, and where the command ends.
/// `None`: it is not complete, has no such argument or very many, or is malformed; that is for the decoder to say.
pub fn first_key(input: &[u8]) -> Option<(Range<usize>, usize)> {
    let (count, mut at) = header(input, 0, b'*')?;
    if !(2..=ARGS_MAX).contains(&count) {
        return None;
    }
    let mut key = 0..0;
    for index in 0..count {
        let (length, start) = header(input, at, b'$')?;
        let end = start.checked_add(length)?;
        at = end.checked_add(2)?;
        if index == 1 {
            key = start..end;
        }
    }
    (at <= input.len()).then_some((key, at))
}

/// The number of the line `<marker><digits>\r\n` at `at`, and the place behind the line.
#[inline]
fn header(input: &[u8], at: usize, marker: u8) -> Option<(usize, usize)> {
    let line = input.get(at..)?;
    if *line.first()? != marker {
        return None;
    }
    let (mut number, mut length) = (0usize, 1);
    loop {
        match *line.get(length)? {
            digit @ b'0'..=b'9' if length < 10 => {
                number = number * 10 + usize::from(digit - b'0');
                length += 1;
            }
            b'\r' if length > 1 => return Some((number, at + length + 2)),
            _ => return None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decode::Decoder;
    use proptest::prelude::*;

    #[test]
    fn keys_and_ends() {
        let two = b"*2\r\n$3\r\nGET\r\n$2\r\nab\r\n*1\r\n$4\r\nPING\r\n";
        let (key, end) = first_key(two).unwrap();
        assert_eq!((&two[key], end), (&b"ab"[..], 21));
        for not in [
            "*1\r\n$4\r\nPING\r\n",
            "GET a\r\n",
            "*2\r\n$3\r\nGET\r\n$2\r\nab",
            "*2\r\n$3\r\nGET\r\n:1\r\n",
            "*99\r\n",
            "",
        ] {
            assert_eq!(first_key(not.as_bytes()), None, "{not:?}");
        }
    }

    proptest! {
        /// Whatever it says of a command, the decoder says, too.
        #[test]
        fn agrees_with_the_decoder(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..12), 2..6), cut in 0usize..100, flip in any::<Option<(usize, u8)>>()) {
            let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
            for word in &words {
                bytes.extend(format!("${}\r\n", word.len()).bytes());
                bytes.extend(word);
                bytes.extend(b"\r\n");
            }
            if let Some((at, byte)) = flip {
                let at = at % bytes.len();
                bytes[at] = byte;
            }
            bytes.truncate(bytes.len().saturating_sub(cut % 50));
            let peeked = first_key(&bytes);
            let mut decoder = Decoder::default();
            if let (Some((key, end)), Ok(Some(used))) = (peeked, decoder.next_command(&bytes)) {
                prop_assert_eq!(used, end);
                prop_assert_eq!(decoder.args(&bytes).at(1), &bytes[key]);
            }
        }
    }
}
