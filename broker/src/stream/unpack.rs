//! The records of a batch one by one, whatever its compression, in memory that does not depend on what the producer sent.
//!
//! A batch is never unpacked as a whole: the codec gives as many octets as the next record needs, and a record that is larger
//! than the caller allows ends the batch.

use std::io::{BufRead, BufReader, Error, ErrorKind, Read};

use bytes::{Buf, Bytes, BytesMut};
use lz4_flex::frame::FrameDecoder as Lz4;
use zstd::stream::read::Decoder as Zstd;

use super::batch::{self, Header, Record, Varlong};

/// Octets taken from a codec at once.
const STEP: usize = 32 << 10;
/// Back references of zstd reach so far at most; what RFC 8878 asks of every decoder.
const WINDOW_LOG_MAX: u32 = 23;
const WINDOW_MAX: u64 = 1 << WINDOW_LOG_MAX;
/// What its decoder takes besides the window: tables, and a block of 128 KiB.
const ZSTD_WEIGHT: usize = 384 << 10;
/// Snappy unpacks a block as a whole: producers make them of 32 KiB, or one of all the records.
const BLOCK_MAX: usize = 32 << 20;
/// Buffers of gzip: its window.
const GZIP_WEIGHT: usize = 64 << 10;

/// Why the rest of a batch cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    #[error("a record of the batch makes no sense")]
    Record,
    #[error("a record of {0} octets is larger than a message may be")]
    TooLarge(u64),
    #[error("the records cannot be unpacked: {0}")]
    Packed(#[from] Error),
}

/// Where the octets of records come from.
enum Source {
    Plain(Bytes),
    Packed(Box<dyn BufRead + Send>),
}

/// A batch under way.
pub struct Unpacked {
    header: Header,
    source: Source,
    left: i32,
    /// The offset that the next record has at least.
    next: i64,
    record_max: usize,
    weight: usize,
}

impl std::fmt::Debug for Unpacked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Unpacked")
            .field("header", &self.header)
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

impl Unpacked {
    /// Begins to read a stored batch whose records have `record_max` octets at most.
    ///
    /// # Errors
    /// When its records cannot be unpacked.
    pub fn open(batch: &Bytes, record_max: usize) -> Result<Self, Unreadable> {
        let (header, length) = Header::read(batch).map_err(|_| Unreadable::Record)?;
        if batch.len() < length {
            return Err(Unreadable::Record);
        }
        let (source, weight) = source(&header, batch.slice(batch::HEADER..length))?;
        Ok(Self {
            header,
            source,
            left: header.record_count,
            next: header.base_offset,
            record_max,
            weight,
        })
    }

    /// Octets of memory that it takes besides the batch.
    #[must_use]
    pub fn weight(&self) -> usize {
        self.weight
    }

    /// The next record.
    ///
    /// # Errors
    /// When the rest of the batch cannot be read; then it has no more records.
    pub fn next_record(&mut self) -> Result<Option<Record>, Unreadable> {
        if self.left <= 0 {
            return Ok(None);
        }
        self.left -= 1;
        let read = self.read();
        if read.is_err() {
            self.left = 0;
        }
        read.map(Some)
    }

    fn read(&mut self) -> Result<Record, Unreadable> {
        let length = self.source.length()?;
        let length = u64::try_from(length).map_err(|_| Unreadable::Record)?;
        let fits = usize::try_from(length)
            .ok()
            .filter(|&length| length <= self.record_max);
        let length = fits.ok_or(Unreadable::TooLarge(length))?;
        let body = self.source.take(length)?;
        let record = Record::read(&self.header, body).ok_or(Unreadable::Record)?;
        // What a producer says of its records' places is believed within the batch only.
        let (first, header) = (self.next, &self.header);
        let last = (header.base_offset).saturating_add(i64::from(header.last_offset_delta));
        let offset = i64::try_from(record.offset).unwrap_or(i64::MAX);
        if !(first..=last).contains(&offset) {
            return Err(Unreadable::Record);
        }
        self.next = offset + 1;
        Ok(record)
    }
}

impl Source {
    fn length(&mut self) -> Result<i64, Unreadable> {
        let mut length = Varlong::default();
        loop {
            let octet = match self {
                Self::Plain(bytes) => bytes.try_get_u8().map_err(|_| Unreadable::Record)?,
                Self::Packed(packed) => {
                    let mut octet = [0];
                    packed.read_exact(&mut octet)?;
                    octet[0]
                }
            };
            if let Some(length) = length.push(octet).ok_or(Unreadable::Record)? {
                return Ok(length);
            }
        }
    }

    fn take(&mut self, length: usize) -> Result<Bytes, Unreadable> {
        let packed = match self {
            Self::Plain(bytes) if length <= bytes.len() => return Ok(bytes.split_to(length)),
            Self::Plain(_) => return Err(Unreadable::Record),
            Self::Packed(packed) => packed,
        };
        // What is declared is not yet there: room is made as it comes.
        let mut body = BytesMut::with_capacity(length.min(STEP));
        while body.len() < length {
            let have = body.len();
            body.resize(length.min(have + STEP), 0);
            packed.read_exact(body.get_mut(have..).unwrap_or_default())?;
        }
        Ok(body.freeze())
    }
}

/// What gives the octets of a batch's records, and how much memory it takes.
fn source(header: &Header, records: Bytes) -> Result<(Source, usize), Unreadable> {
    let packed = records.clone().reader();
    let (packed, weight): (Box<dyn BufRead + Send>, usize) = match header.codec() {
        0 => return Ok((Source::Plain(records), 0)),
        1 => {
            let gzip = flate2::bufread::GzDecoder::new(packed);
            (buffered(gzip), GZIP_WEIGHT)
        }
        2 => {
            let snappy = Snappy::new(records)?;
            let weight = snappy.block_max;
            (Box::new(snappy), weight)
        }
        3 => (buffered(Lz4::new(packed)), lz4_weight(&records)),
        4 => {
            let window = zstd_window(&records).filter(|&window| window <= WINDOW_MAX);
            let window = window.ok_or_else(|| invalid("the window of zstd is too large"))?;
            let mut zstd = Zstd::with_buffer(packed)?;
            zstd.window_log_max(WINDOW_LOG_MAX)?;
            let window = usize::try_from(window).unwrap_or(usize::MAX);
            (buffered(zstd), window.saturating_add(ZSTD_WEIGHT))
        }
        _ => return Err(invalid("unknown codec").into()),
    };
    Ok((Source::Packed(packed), weight))
}

fn buffered(packed: impl Read + Send + 'static) -> Box<dyn BufRead + Send> {
    Box::new(BufReader::new(packed))
}

fn invalid(why: &'static str) -> Error {
    Error::new(ErrorKind::InvalidData, why)
}

/// Two blocks, as large as the frame says that they may be, with what they came from.
fn lz4_weight(frame: &[u8]) -> usize {
    const MAGIC: [u8; 4] = [0x04, 0x22, 0x4d, 0x18];
    /// Of the older format, which does not say.
    const LEGACY: usize = 8 << 20;
    let descriptor = frame.strip_prefix(&MAGIC).and_then(|rest| rest.get(1));
    let block = descriptor.map_or(LEGACY, |descriptor| match descriptor >> 4 & 7 {
        4 => 64 << 10,
        5 => 256 << 10,
        6 => 1 << 20,
        _ => 4 << 20,
    });
    3 * block + (64 << 10)
}

/// RFC 8878 §3.1.1.1: how far back a frame refers. `None`: it is no frame.
fn zstd_window(frame: &[u8]) -> Option<u64> {
    const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];
    let rest = frame.strip_prefix(&MAGIC)?;
    let (&descriptor, rest) = rest.split_first()?;
    let is_single = descriptor & 0x20 != 0;
    if !is_single {
        let &window = rest.first()?;
        let base = 1u64 << (10 + (window >> 3));
        return Some(base + base / 8 * u64::from(window & 7));
    }
    // The whole content is the window; its size stands behind the dictionary's id.
    let dictionary = [0, 1, 2, 4].get(usize::from(descriptor & 3))?;
    let rest = rest.get(*dictionary..)?;
    let number = |octets: usize| {
        let octets = rest.get(..octets)?;
        Some(
            octets
                .iter()
                .rev()
                .fold(0u64, |sum, octet| sum << 8 | u64::from(*octet)),
        )
    };
    match descriptor >> 6 {
        0 => number(1),
        1 => Some(number(2)? + 256),
        2 => number(4),
        _ => number(8),
    }
}

/// Snappy in the blocks of its Java library, or one block of everything as other libraries send it.
struct Snappy {
    rest: Bytes,
    framed: bool,
    block: Bytes,
    /// The largest block, unpacked.
    block_max: usize,
}

impl Snappy {
    /// Followed by two versions of four octets each.
    const MAGIC: &[u8] = b"\x82SNAPPY\0";

    fn new(mut rest: Bytes) -> Result<Self, Unreadable> {
        let framed = rest.starts_with(Self::MAGIC);
        let block_max = if framed {
            rest.advance((Self::MAGIC.len() + 8).min(rest.len()));
            largest_block(&rest)
        } else {
            unpacked_len(&rest)?
        };
        Ok(Self {
            rest,
            framed,
            block: Bytes::new(),
            block_max,
        })
    }

    fn next_block(&mut self) -> Result<(), Error> {
        let packed = if self.framed {
            let length = self.rest.try_get_u32().map_err(Error::other)?;
            let length = usize::try_from(length).unwrap_or(usize::MAX);
            if length > self.rest.len() {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            self.rest.split_to(length)
        } else {
            std::mem::take(&mut self.rest)
        };
        unpacked_len(&packed)?;
        let block = snap::raw::Decoder::new()
            .decompress_vec(&packed)
            .map_err(Error::other)?;
        self.block = block.into();
        Ok(())
    }
}

/// Of the blocks that are whole.
fn largest_block(mut rest: &[u8]) -> usize {
    let mut largest = 0;
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_be_bytes(*length)).unwrap_or(usize::MAX);
        let Some((block, behind)) = behind.split_at_checked(length) else {
            break;
        };
        largest = largest.max(unpacked_len(block).unwrap_or(0));
        rest = behind;
    }
    largest
}

fn unpacked_len(block: &[u8]) -> Result<usize, Error> {
    let length = snap::raw::decompress_len(block).map_err(Error::other)?;
    // Three octets say at most: 64 octets again.
    if length > BLOCK_MAX.min(block.len().saturating_mul(32)) {
        return Err(invalid("a block of snappy is too large"));
    }
    Ok(length)
}

impl Read for Snappy {
    fn read(&mut self, into: &mut [u8]) -> Result<usize, Error> {
        let length = self.fill_buf()?.len().min(into.len());
        self.block
            .copy_to_slice(into.get_mut(..length).unwrap_or_default());
        Ok(length)
    }
}

impl BufRead for Snappy {
    fn fill_buf(&mut self) -> Result<&[u8], Error> {
        while self.block.is_empty() && !self.rest.is_empty() {
            self.next_block()?;
        }
        Ok(&self.block)
    }

    fn consume(&mut self, amount: usize) {
        self.block.advance(amount.min(self.block.len()));
    }
}

#[cfg(test)]
mod tests;
