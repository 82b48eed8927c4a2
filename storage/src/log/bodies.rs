//! Reading single bodies back from the log, by their positions.

use std::fs::File;
use std::io;

use bytes::Bytes;

use super::Files;
use crate::BodyAt;

/// Bytes between two bodies that are read with them: a further call would cost more.
const GAP_MAX: u64 = 4 << 10;
/// Bytes that one read takes, unless a single body is larger.
const READ_MAX: u64 = 1 << 20;

/// See [`crate::Engine::read_bodies`].
pub(crate) fn read(
    files: &Files,
    mut bodies: &[BodyAt],
    into: &mut Vec<Bytes>,
) -> io::Result<usize> {
    let asked = bodies.len();
    while let Some(first) = bodies.first() {
        let Some(opened) = files.open_at(first.at.0)? else {
            break;
        };
        let (start, mut end) = (first.at.0, first.end());
        let near = |next: &&BodyAt| {
            let fits = next.at.0 >= end
                && next.at.0 - end <= GAP_MAX
                && next.end() - start <= READ_MAX
                && next.end() <= opened.end;
            if fits {
                end = next.end();
            }
            fits
        };
        let count = 1 + bodies.iter().skip(1).take_while(near).count();
        let length = usize::try_from(end - start).map_err(io::Error::other)?;
        let bytes = read_exactly(&opened.file, opened.offset, length)?;
        let (read, rest) = bodies.split_at(count);
        into.extend(read.iter().map(|body| {
            // Inside what was read: at most `READ_MAX`, or the one body alone.
            let from = (body.at.0 - start) as usize;
            bytes.slice(from..from + body.length as usize)
        }));
        bodies = rest;
    }
    Ok(asked - bodies.len())
}

fn read_exactly(file: &File, offset: u64, length: usize) -> io::Result<Bytes> {
    let mut bytes = Vec::new();
    read_into(file, offset, length, &mut bytes)?;
    Ok(Bytes::from(bytes))
}

/// Replaces `bytes` by what the file has there, without clearing the memory first.
pub(crate) fn read_into(
    file: &File,
    mut offset: u64,
    length: usize,
    bytes: &mut Vec<u8>,
) -> io::Result<()> {
    bytes.clear();
    bytes.reserve_exact(length);
    while bytes.len() < length {
        match rustix::io::pread(file, rustix::buffer::spare_capacity(bytes), offset) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(read) => offset += read as u64,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The capacity may be more than was asked for.
    bytes.truncate(length);
    Ok(())
}
