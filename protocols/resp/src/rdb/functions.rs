//! Libraries of functions, as `FUNCTION DUMP` gives them and `FUNCTION RESTORE` takes them: what an RDB file has in front of its keys.
//!
//! ```text
//! (245 │ text)… │ version u16 │ CRC-64 of all in front u64                                         integers little-endian
//! ```

use super::input::Input;
use super::{VERSION, output, sign, verified};

/// In front of each library's text.
const LIBRARY: u8 = 245;
/// In front of what Redis 7.0 wrote before it was released.
const UNRELEASED: u8 = 246;

/// Why a payload is not libraries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LibrariesError {
    /// Too short for a version and a checksum, or they are wrong.
    #[error("unknown version or wrong checksum")]
    Footer,
    #[error("the format of a release candidate")]
    Unreleased,
    #[error("something else than a library")]
    Other,
    #[error("not a text")]
    Text,
    /// More than the caller takes.
    #[error("too many libraries, or too long ones")]
    Limits,
}

/// The bytes that `FUNCTION DUMP` gives. Texts are not compressed.
#[must_use]
pub fn dump_libraries<'a>(texts: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for text in texts {
        bytes.push(LIBRARY);
        output::bytes(text, &mut bytes);
    }
    sign(&mut bytes, VERSION);
    bytes
}

/// The texts of what `FUNCTION RESTORE` is given: at most so many, which take at most so many octets together when they are unpacked.
///
/// # Errors
/// See [`LibrariesError`].
pub fn restore_libraries(
    payload: &[u8],
    texts_max: usize,
    bytes_max: usize,
) -> Result<Vec<Vec<u8>>, LibrariesError> {
    let payload = verified(payload).map_err(|_| LibrariesError::Footer)?;
    let mut input = Input::with_room(payload, bytes_max);
    let mut texts = Vec::new();
    while let Some(kind) = input.byte() {
        match kind {
            LIBRARY if texts.len() >= texts_max => return Err(LibrariesError::Limits),
            LIBRARY => texts.push(input.string().ok_or(if input.is_exhausted() {
                LibrariesError::Limits
            } else {
                LibrariesError::Text
            })?),
            UNRELEASED => return Err(LibrariesError::Unreleased),
            _ => return Err(LibrariesError::Other),
        }
    }
    Ok(texts)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `FUNCTION DUMP` of Valkey 9.1.2 with one library, whose text it has compressed.
    const OF_VALKEY: &[u8] = b"\xf5\xc3@\x82@\x90\x1f#!lua name=mylib\nredis.register_\x08function{\xc0\x08\x00_`+\x0e'hello',descrip@!\x06='says \xa0\x18\x08callback=\xc07\x1f() return 'hi' end,flags={'no-wr\x06ites'}}P\x005\xb4\xe9\xe7\xae\xce\xdc>";
    const TEXT: &[u8] = b"#!lua name=mylib\nredis.register_function{function_name='hello',description='says hello',callback=function() return 'hi' end,flags={'no-writes'}}";

    fn restore_libraries(payload: &[u8]) -> Result<Vec<Vec<u8>>, LibrariesError> {
        super::restore_libraries(payload, 100, 1 << 20)
    }

    #[test]
    fn stops_at_the_limits() {
        let dumped = dump_libraries([&[b'x'; 1000][..]; 3]);
        let restored =
            |texts, bytes| super::restore_libraries(&dumped, texts, bytes).map(|texts| texts.len());
        assert_eq!(restored(3, 4000), Ok(3));
        assert_eq!(restored(2, 4000), Err(LibrariesError::Limits));
        assert_eq!(restored(3, 3000), Err(LibrariesError::Limits));
        // What is packed counts as what it becomes.
        assert_eq!(
            super::restore_libraries(OF_VALKEY, 1, TEXT.len() - 1),
            Err(LibrariesError::Limits)
        );
    }

    #[test]
    fn reads_what_valkey_writes() {
        assert_eq!(restore_libraries(OF_VALKEY), Ok(vec![TEXT.to_vec()]));
        assert_eq!(
            restore_libraries(b"P\x00\x92\xb1\x95\xd1\x91-\xc5."),
            Ok(Vec::new()),
            "none"
        );
    }

    #[test]
    fn reads_what_it_writes_and_refuses_all_else() {
        let texts = [TEXT, b"", b"12"];
        let dumped = dump_libraries(texts);
        let read: Vec<_> = texts.iter().map(|text| text.to_vec()).collect();
        assert_eq!(restore_libraries(&dumped), Ok(read));
        let signed = |bytes: &[u8]| {
            let mut bytes = bytes.to_vec();
            sign(&mut bytes, VERSION);
            restore_libraries(&bytes)
        };
        assert_eq!(restore_libraries(b"x"), Err(LibrariesError::Footer));
        assert_eq!(signed(b"\xf6\x01x"), Err(LibrariesError::Unreleased));
        assert_eq!(signed(b"\x00\x01v"), Err(LibrariesError::Other));
        assert_eq!(signed(b"\xf5"), Err(LibrariesError::Text));
        assert_eq!(signed(b"\xf5\x3fabc"), Err(LibrariesError::Text));
        for place in 0..dumped.len() {
            let mut broken = dumped.clone();
            if let Some(byte) = broken.get_mut(place) {
                *byte ^= 1;
            }
            assert_eq!(restore_libraries(&broken), Err(LibrariesError::Footer));
        }
    }
}
