//! Request framing: `size i32 | size bytes`, in both directions.

use crate::DecodeError;
use bytes::BytesMut;

/// Bytes of the size in front of each frame.
pub const SIZE_LENGTH: usize = 4;

/// Takes the next whole frame (without its size) from `input`, or says that more bytes are needed. Nothing is allocated from
/// the size that the peer declares; a size that is negative or above `limit` is an error.
///
/// The frame stays writable: a record batch in it is patched in place before it is stored.
pub fn next_frame(input: &mut BytesMut, limit: usize) -> Result<Option<BytesMut>, DecodeError> {
    let Some(size) = input.first_chunk::<SIZE_LENGTH>() else {
        return Ok(None);
    };
    let size = i32::from_be_bytes(*size);
    let length = match usize::try_from(size) {
        Ok(length) if length <= limit => length,
        _ => return Err(DecodeError::FrameSize { size, limit }),
    };
    if input.len() < SIZE_LENGTH + length {
        return Ok(None);
    }
    let mut frame = input.split_to(SIZE_LENGTH + length);
    let _ = frame.split_to(SIZE_LENGTH);
    Ok(Some(frame))
}

/// How many more bytes the frame at the head of `input` wants; 0 when it is whole, or when its size is not known yet.
pub fn missing(input: &[u8]) -> usize {
    let Some(size) = input.first_chunk::<SIZE_LENGTH>() else {
        return 0;
    };
    let length = usize::try_from(i32::from_be_bytes(*size)).unwrap_or(0);
    (SIZE_LENGTH + length).saturating_sub(input.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_out_of_bounds_end_the_connection() {
        let check = |size: i32| next_frame(&mut BytesMut::from(&size.to_be_bytes()[..]), 100);
        assert_eq!(
            check(-1),
            Err(DecodeError::FrameSize {
                size: -1,
                limit: 100
            })
        );
        assert_eq!(
            check(101),
            Err(DecodeError::FrameSize {
                size: 101,
                limit: 100
            })
        );
        assert_eq!(check(100), Ok(None));
        assert_eq!(check(0), Ok(Some(BytesMut::new())));
    }

    proptest! {
        #[test]
        fn any_split_gives_the_same_frames(
            frames in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..8),
            step in 1usize..50,
        ) {
            let mut stream = Vec::new();
            for frame in &frames {
                stream.extend_from_slice(&(frame.len() as i32).to_be_bytes());
                stream.extend_from_slice(frame);
            }
            let (mut input, mut seen) = (BytesMut::new(), Vec::new());
            for chunk in stream.chunks(step) {
                input.extend_from_slice(chunk);
                while let Some(frame) = next_frame(&mut input, 64).unwrap() {
                    seen.push(frame.to_vec());
                }
            }
            prop_assert_eq!(seen, frames);
            prop_assert!(input.is_empty());
        }
    }
}
