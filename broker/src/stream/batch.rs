//! A record batch (magic 2): the unit in which producers send, the log stores and consumers read.
//!
//! ```text
//! base offset i64 @0 | length i32 @8 | leader epoch i32 @12 | magic i8 @16 | CRC-32C u32 @17, of @21 to the end
//! attributes i16 @21 | last offset delta i32 @23 | base timestamp i64 @27 | max timestamp i64 @35
//! producer id i64 @43 | producer epoch i16 @51 | base sequence i32 @53 | record count i32 @57 | records @61
//! ```
//! Offset and leader epoch lie outside the checksum, so a batch is stored as it came with 12 bytes patched.
//! Records stay compressed; who needs them one by one unpacks them with [`super::unpack`].

use bytes::{Bytes, BytesMut};

/// Bytes of a batch before its records.
pub const HEADER: usize = 61;
/// Bytes before those that the length field counts.
const PREFIX: usize = 12;
const CRC_FROM: usize = 21;
const MAGIC: i8 = 2;
const CODEC_MASK: i16 = 0x07;
const LOG_APPEND_TIME: i16 = 0x08;
const TRANSACTIONAL: i16 = 0x10;
const CONTROL: i16 = 0x20;
const CODECS: i16 = 4;

/// Why a batch is not accepted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BatchError {
    #[error("the batch is shorter than it says")]
    Truncated,
    #[error("bytes behind the batch: exactly one batch per partition may be sent")]
    MoreThanOne,
    #[error("message format {0} is not supported, only 2 is")]
    Magic(i8),
    #[error("the batch's checksum does not match its bytes")]
    Checksum,
    #[error("record count {count} and last offset delta {delta} do not fit together")]
    Count { count: i32, delta: i32 },
    #[error("unknown compression codec {0}")]
    Codec(i16),
    #[error("a client may not write control batches")]
    Control,
    #[error("a transactional batch needs a producer id")]
    Transactional,
}

/// The fields of a batch's header that the broker acts on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    pub base_offset: i64,
    pub attributes: i16,
    pub last_offset_delta: i32,
    pub base_timestamp: i64,
    pub max_timestamp: i64,
    /// -1: the producer is not idempotent.
    pub producer_id: i64,
    pub producer_epoch: i16,
    pub base_sequence: i32,
    pub record_count: i32,
}

impl Header {
    /// The header of the batch at the start of `bytes`, and the batch's whole length in bytes.
    pub fn read(bytes: &[u8]) -> Result<(Self, usize), BatchError> {
        let head = bytes.first_chunk::<HEADER>().ok_or(BatchError::Truncated)?;
        let magic = i8::from_be_bytes(field(head, 16));
        if magic != MAGIC {
            return Err(BatchError::Magic(magic));
        }
        let length = usize::try_from(i32::from_be_bytes(field(head, 8)))
            .ok()
            .and_then(|length| length.checked_add(PREFIX))
            .filter(|&length| length >= HEADER)
            .ok_or(BatchError::Truncated)?;
        let header = Self {
            base_offset: i64::from_be_bytes(field(head, 0)),
            attributes: i16::from_be_bytes(field(head, 21)),
            last_offset_delta: i32::from_be_bytes(field(head, 23)),
            base_timestamp: i64::from_be_bytes(field(head, 27)),
            max_timestamp: i64::from_be_bytes(field(head, 35)),
            producer_id: i64::from_be_bytes(field(head, 43)),
            producer_epoch: i16::from_be_bytes(field(head, 51)),
            base_sequence: i32::from_be_bytes(field(head, 53)),
            record_count: i32::from_be_bytes(field(head, 57)),
        };
        Ok((header, length))
    }

    /// Checks all of a producer's batch that can be checked without unpacking it, its checksum included.
    /// Reads every byte: call it before taking a lock.
    pub fn check(bytes: &[u8]) -> Result<Self, BatchError> {
        let (header, length) = Self::read(bytes)?;
        match bytes.len().cmp(&length) {
            std::cmp::Ordering::Less => return Err(BatchError::Truncated),
            std::cmp::Ordering::Greater => return Err(BatchError::MoreThanOne),
            std::cmp::Ordering::Equal => {}
        }
        let crc = bytes
            .get(17..)
            .and_then(|rest| rest.first_chunk())
            .map(|crc| u32::from_be_bytes(*crc));
        if crc != Some(crc32c::crc32c(bytes.get(CRC_FROM..).unwrap_or_default())) {
            return Err(BatchError::Checksum);
        }
        let (count, delta) = (header.record_count, header.last_offset_delta);
        if count < 1 || delta != count - 1 {
            return Err(BatchError::Count { count, delta });
        }
        if header.attributes & CODEC_MASK > CODECS {
            return Err(BatchError::Codec(header.attributes & CODEC_MASK));
        }
        if header.attributes & CONTROL != 0 {
            return Err(BatchError::Control);
        }
        if header.is_transactional() && header.producer_id < 0 {
            return Err(BatchError::Transactional);
        }
        Ok(header)
    }

    /// Number of records, which is also how many offsets the batch takes.
    pub fn count(&self) -> u64 {
        u64::try_from(self.last_offset_delta).unwrap_or(0) + 1
    }

    /// Whether the records are one compressed block.
    pub fn is_compressed(&self) -> bool {
        self.attributes & CODEC_MASK != 0
    }

    /// Whether the batch is part of a transaction.
    pub fn is_transactional(&self) -> bool {
        self.attributes & TRANSACTIONAL != 0
    }

    /// Whether it is the server's own: where a transaction has ended.
    pub fn is_control(&self) -> bool {
        self.attributes & CONTROL != 0
    }

    /// How its records are compressed.
    pub(super) fn codec(&self) -> i16 {
        self.attributes & CODEC_MASK
    }

    /// Whether the batch carries the time of its append instead of the producer's times.
    pub fn has_append_time(&self) -> bool {
        self.attributes & LOG_APPEND_TIME != 0
    }

    /// The sequence number of the last record; sequences wrap at `i32::MAX`.
    pub fn last_sequence(&self) -> i32 {
        // Both are non-negative in a batch of an idempotent producer, so the sum fits 33 bits.
        let sum = i64::from(self.base_sequence) + i64::from(self.last_offset_delta);
        i32::try_from(sum).unwrap_or_else(|_| i32::try_from(sum - (1 << 31)).unwrap_or(0))
    }
}

#[expect(
    clippy::indexing_slicing,
    reason = "every caller names a field inside the fixed header"
)]
fn field<const N: usize>(head: &[u8; HEADER], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

/// Writes the offset and leader epoch that the broker decides. The checksum does not cover them.
pub fn stamp(batch: &mut [u8], base_offset: u64, leader_epoch: i32) {
    put(batch, 0, &base_offset.to_be_bytes());
    put(batch, 12, &leader_epoch.to_be_bytes());
}

/// Makes the batch say when it was appended, for topics with `message.timestamp.type=LogAppendTime`. Computes the checksum anew.
pub fn stamp_append_time(batch: &mut [u8], attributes: i16, now_ms: i64) {
    put(batch, 21, &(attributes | LOG_APPEND_TIME).to_be_bytes());
    put(batch, 35, &now_ms.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default());
    put(batch, 17, &crc.to_be_bytes());
}

fn put(batch: &mut [u8], at: usize, value: &[u8]) {
    if let Some(target) = batch.get_mut(at..at + value.len()) {
        target.copy_from_slice(value);
    }
}

/// Headers of one record that are looked at; a record may declare one for every two octets that it has.
const HEADERS_MAX: usize = 16 << 10;

/// One record of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    pub offset: u64,
    pub timestamp: i64,
    pub key: Option<Bytes>,
    pub value: Option<Bytes>,
    /// The first [`HEADERS_MAX`].
    pub headers: Vec<(Bytes, Option<Bytes>)>,
}

impl Record {
    /// Octets of its parts.
    #[must_use]
    pub fn octets(&self) -> usize {
        let of = |part: &Option<Bytes>| part.as_ref().map_or(0, Bytes::len);
        let headers = self.headers.iter();
        let headers: usize = headers.map(|(name, value)| name.len() + of(value)).sum();
        of(&self.key) + of(&self.value) + headers
    }

    /// Reads what follows a record's length. `None`: it makes no sense.
    pub(super) fn read(header: &Header, mut body: Bytes) -> Option<Self> {
        let _attributes = take(&mut body, 1)?;
        let timestamp = header.base_timestamp.checked_add(varlong(&mut body)?)?;
        let offset = u64::try_from(header.base_offset.checked_add(varlong(&mut body)?)?).ok()?;
        let key = nullable(&mut body)?;
        let value = nullable(&mut body)?;
        let mut headers = Vec::new();
        for _ in 0..varlong(&mut body)? {
            let length = usize::try_from(varlong(&mut body)?).ok()?;
            let header = (take(&mut body, length)?, nullable(&mut body)?);
            if headers.len() < HEADERS_MAX {
                headers.push(header);
            }
        }
        let timestamp = if header.has_append_time() {
            header.max_timestamp
        } else {
            timestamp
        };
        Some(Self {
            offset,
            timestamp,
            key,
            value,
            headers,
        })
    }
}

/// The records of a batch; ends early at the first one that makes no sense, and at once when they are compressed.
#[derive(Debug)]
pub struct Records {
    header: Header,
    rest: Bytes,
    left: i32,
}

/// Reads the records of `batch`.
pub fn records(batch: &Bytes) -> Result<Records, BatchError> {
    let (header, length) = Header::read(batch)?;
    if batch.len() < length {
        return Err(BatchError::Truncated);
    }
    let left = if header.is_compressed() {
        0
    } else {
        header.record_count
    };
    Ok(Records {
        header,
        rest: batch.slice(HEADER..length),
        left,
    })
}

impl Iterator for Records {
    type Item = Record;

    fn next(&mut self) -> Option<Record> {
        self.left = self.left.checked_sub(1).filter(|left| *left >= 0)?;
        let length = usize::try_from(varlong(&mut self.rest)?).ok()?;
        let body = take(&mut self.rest, length)?;
        Record::read(&self.header, body)
    }
}

fn take(bytes: &mut Bytes, length: usize) -> Option<Bytes> {
    (length <= bytes.len()).then(|| bytes.split_to(length))
}

fn nullable(bytes: &mut Bytes) -> Option<Option<Bytes>> {
    match varlong(bytes)? {
        -1 => Some(None),
        length => take(bytes, usize::try_from(length).ok()?).map(Some),
    }
}

fn varlong(bytes: &mut Bytes) -> Option<i64> {
    let mut value = Varlong::default();
    for (index, byte) in bytes.iter().enumerate() {
        if let Some(whole) = value.push(*byte)? {
            let _ = bytes.split_to(index + 1);
            return Some(whole);
        }
    }
    None
}

/// A zigzag number under way, octet by octet.
#[derive(Debug, Default)]
pub(super) struct Varlong {
    value: u64,
    octets: u32,
}

impl Varlong {
    /// `Some(None)`: there is more of it. `None`: it is too long.
    pub(super) fn push(&mut self, octet: u8) -> Option<Option<i64>> {
        if self.octets == 10 {
            return None;
        }
        self.value |= u64::from(octet & 0x7f) << (7 * self.octets).min(63);
        self.octets += 1;
        let value = self.value;
        let whole = || (value >> 1).cast_signed() ^ -((value & 1).cast_signed());
        Some((octet & 0x80 == 0).then(whole))
    }
}

fn put_varlong(out: &mut BytesMut, value: i64) {
    let mut value = zigzag(value);
    while value >= 0x80 {
        // The low seven bits.
        out.extend_from_slice(&[(value & 0x7f) as u8 | 0x80]);
        value >>= 7;
    }
    out.extend_from_slice(&[value as u8]);
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn varlong_len(value: i64) -> usize {
    let bits = 64 - (zigzag(value) | 1).leading_zeros() as usize;
    bits.div_ceil(7)
}

/// A batch of one record, as a producer that is not idempotent would send it.
pub fn single(
    timestamp: i64,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &[(&[u8], &[u8])],
) -> BytesMut {
    let mut list = HeaderList::default();
    for (name, value) in headers {
        list.push(name, value);
    }
    let mut batch = Builder::new();
    batch.push(key, value, &list);
    batch.seal(timestamp)
}

/// The same of several records, keys and values, all of one time.
pub(crate) fn many<'a>(
    timestamp: i64,
    records: impl Iterator<Item = (Option<&'a [u8]>, &'a [u8])>,
) -> BytesMut {
    let mut batch = Builder::new();
    for (key, value) in records {
        batch.push(key, Some(value), &HeaderList::default());
    }
    batch.seal(timestamp)
}

/// The batch that ends a producer's transaction in a partition: one record with a key of version and type (0 aborted, 1
/// committed) and a value of version and coordinator's epoch.
pub(crate) fn marker(timestamp: i64, producer_id: i64, epoch: i16, committed: bool) -> BytesMut {
    let key = [0, 0, 0, u8::from(committed)];
    let mut records = Builder::new();
    records.push(Some(&key), Some(&[0; 6]), &HeaderList::default());
    let (mut batch, count) = (records.batch, records.count);
    put(&mut batch, 21, &(TRANSACTIONAL | CONTROL).to_be_bytes());
    seal_of(batch, timestamp, count, producer_id, epoch)
}

/// The headers of one record as they will stand in it.
#[derive(Debug, Default)]
pub struct HeaderList {
    count: i64,
    bytes: BytesMut,
}

impl HeaderList {
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.count += 1;
        put_varlong(&mut self.bytes, name.len() as i64);
        self.bytes.extend_from_slice(name);
        put_varlong(&mut self.bytes, value.len() as i64);
        self.bytes.extend_from_slice(value);
    }

    /// As they will be read.
    #[must_use]
    pub fn pairs(&self) -> Vec<(Bytes, Option<Bytes>)> {
        let mut rest = self.bytes.clone().freeze();
        let mut pairs = Vec::new();
        while let Some(name) = nullable(&mut rest) {
            pairs.extend(name.zip(nullable(&mut rest)));
        }
        pairs
    }

    /// Without any, for the next record.
    pub fn clear(&mut self) {
        self.count = 0;
        self.bytes.clear();
    }
}

/// A batch under way: records of one producer that is not idempotent, all of one time.
#[derive(Debug)]
pub(crate) struct Builder {
    batch: BytesMut,
    count: i32,
}

impl Builder {
    pub(crate) fn new() -> Self {
        Self {
            batch: BytesMut::zeroed(HEADER),
            count: 0,
        }
    }

    /// Octets of the batch as it is now.
    pub(crate) fn len(&self) -> usize {
        self.batch.len()
    }

    /// How many records it has.
    pub(crate) fn count(&self) -> i32 {
        self.count
    }

    /// Octets by which one more record makes it longer.
    pub(crate) fn grows_by(
        &self,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: &HeaderList,
    ) -> usize {
        let body = body_len(self.count, key, value, headers);
        varlong_len(body as i64) + body
    }

    pub(crate) fn push(&mut self, key: Option<&[u8]>, value: Option<&[u8]>, headers: &HeaderList) {
        let body = body_len(self.count, key, value, headers);
        let out = &mut self.batch;
        put_varlong(out, body as i64);
        out.extend_from_slice(&[0]); // Attributes.
        put_varlong(out, 0); // Timestamp delta.
        put_varlong(out, self.count.into());
        for part in [key, value] {
            match part {
                Some(part) => {
                    put_varlong(out, part.len() as i64);
                    out.extend_from_slice(part);
                }
                None => put_varlong(out, -1),
            }
        }
        put_varlong(out, headers.count);
        out.extend_from_slice(&headers.bytes);
        self.count += 1;
    }

    /// The whole batch.
    pub(crate) fn seal(self, timestamp: i64) -> BytesMut {
        seal(self.batch, timestamp, self.count)
    }
}

/// Octets of a batch of one such record.
pub(crate) fn single_len(key: Option<&[u8]>, value: Option<&[u8]>, headers: &HeaderList) -> usize {
    let body = body_len(0, key, value, headers);
    HEADER + varlong_len(body as i64) + body
}

fn body_len(
    offset_delta: i32,
    key: Option<&[u8]>,
    value: Option<&[u8]>,
    headers: &HeaderList,
) -> usize {
    let part = |part: Option<&[u8]>| match part {
        Some(part) => varlong_len(part.len() as i64) + part.len(),
        None => 1,
    };
    2 + varlong_len(offset_delta.into())
        + part(key)
        + part(value)
        + varlong_len(headers.count)
        + headers.bytes.len()
}

/// Fills in the header of a batch of `count` records.
fn seal(batch: BytesMut, timestamp: i64, count: i32) -> BytesMut {
    seal_of(batch, timestamp, count, -1, -1)
}

fn seal_of(
    mut batch: BytesMut,
    timestamp: i64,
    count: i32,
    producer_id: i64,
    epoch: i16,
) -> BytesMut {
    let length = i32::try_from(batch.len() - PREFIX).unwrap_or(i32::MAX);
    put(&mut batch, 8, &length.to_be_bytes());
    put(&mut batch, 16, &MAGIC.to_be_bytes());
    put(&mut batch, 23, &(count - 1).to_be_bytes());
    put(&mut batch, 27, &timestamp.to_be_bytes());
    put(&mut batch, 35, &timestamp.to_be_bytes());
    put(&mut batch, 43, &producer_id.to_be_bytes());
    put(&mut batch, 51, &epoch.to_be_bytes());
    put(&mut batch, 53, &(-1i32).to_be_bytes());
    put(&mut batch, 57, &count.to_be_bytes());
    let crc = crc32c::crc32c(batch.get(CRC_FROM..).unwrap_or_default());
    put(&mut batch, 17, &crc.to_be_bytes());
    batch
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The same in a transaction.
    pub(crate) fn transactional(
        count: i32,
        producer_id: i64,
        epoch: i16,
        sequence: i32,
    ) -> BytesMut {
        let mut batch = idempotent(count, producer_id, epoch, sequence);
        put(&mut batch, 21, &TRANSACTIONAL.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        put(&mut batch, 17, &crc.to_be_bytes());
        batch
    }

    /// A batch of `count` records as an idempotent producer sends it.
    pub(crate) fn idempotent(count: i32, producer_id: i64, epoch: i16, sequence: i32) -> BytesMut {
        let mut batch = single(1_000, None, Some(b"v"), &[]);
        put(&mut batch, 23, &(count - 1).to_be_bytes());
        put(&mut batch, 43, &producer_id.to_be_bytes());
        put(&mut batch, 51, &epoch.to_be_bytes());
        put(&mut batch, 53, &sequence.to_be_bytes());
        put(&mut batch, 57, &count.to_be_bytes());
        let crc = crc32c::crc32c(&batch[CRC_FROM..]);
        put(&mut batch, 17, &crc.to_be_bytes());
        batch
    }

    /// The same batch with its records packed, as `pack` does it.
    pub(crate) fn packed(batch: &[u8], codec: i16, pack: impl Fn(&[u8]) -> Vec<u8>) -> BytesMut {
        let (head, records) = batch.split_at(HEADER);
        let mut packed = BytesMut::from(head);
        packed.extend_from_slice(&pack(records));
        let length = (packed.len() - PREFIX) as i32;
        put(&mut packed, 8, &length.to_be_bytes());
        put(&mut packed, 21, &codec.to_be_bytes());
        let crc = crc32c::crc32c(&packed[CRC_FROM..]);
        put(&mut packed, 17, &crc.to_be_bytes());
        packed
    }

    #[test]
    fn stamping_leaves_the_checksum_alone() {
        let mut batch = single(77, Some(b"k"), Some(b"v"), &[(b"h", b"1")]);
        stamp(&mut batch, 42, 0);
        let header = Header::check(&batch).unwrap();
        assert_eq!(
            (header.base_offset, header.count(), header.max_timestamp),
            (42, 1, 77)
        );
        stamp_append_time(&mut batch, header.attributes, 99);
        let header = Header::check(&batch).unwrap();
        assert!(header.has_append_time());
        let record = records(&batch.freeze()).unwrap().next().unwrap();
        assert_eq!((record.offset, record.timestamp), (42, 99));
        assert_eq!(
            record.headers,
            [(Bytes::from_static(b"h"), Some(Bytes::from_static(b"1")))]
        );
    }

    #[test]
    fn many_records_in_one_batch() {
        let all = [
            (Some(&b"a"[..]), &b"1"[..]),
            (None, b"2"),
            (Some(b"c"), b""),
        ];
        let mut batch = many(9, all.into_iter());
        stamp(&mut batch, 40, 0);
        assert_eq!(Header::check(&batch).unwrap().count(), 3);
        let found: Vec<_> = records(&batch.freeze()).unwrap().collect();
        for (at, (record, (key, value))) in found.iter().zip(all).enumerate() {
            assert_eq!((record.offset, record.timestamp), (40 + at as u64, 9));
            assert_eq!(record.key.as_deref(), key);
            assert_eq!(record.value.as_deref(), Some(value));
        }
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn a_builder_knows_what_a_record_adds() {
        let mut batch = Builder::new();
        let mut headers = HeaderList::default();
        for size in [0, 1, 63, 64, 8191, 8192, 70_000] {
            let value = vec![7; size];
            headers.clear();
            headers.push(b"size", size.to_string().as_bytes());
            let key = (size % 2 == 0).then_some(&b"k"[..]);
            let expected = batch.len() + batch.grows_by(key, Some(&value), &headers);
            batch.push(key, Some(&value), &headers);
            assert_eq!(batch.len(), expected);
        }
        let sealed = batch.seal(5);
        assert_eq!(Header::check(&sealed).unwrap().count(), 7);
        let sizes = records(&sealed.freeze()).unwrap().map(|record| {
            let [(name, size)] = &record.headers[..] else {
                panic!("{record:?}")
            };
            assert_eq!(&name[..], b"size");
            let size = std::str::from_utf8(size.as_ref().unwrap()).unwrap();
            assert_eq!(record.value.unwrap().len(), size.parse::<usize>().unwrap());
            record.offset
        });
        assert_eq!(sizes.collect::<Vec<_>>(), [0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn what_is_refused() {
        let good = single(1, None, Some(b"v"), &[]);
        let check = |at: usize, bytes: &[u8], crc: bool| {
            let mut bad = good.clone();
            put(&mut bad, at, bytes);
            if crc {
                let crc = crc32c::crc32c(&bad[CRC_FROM..]);
                put(&mut bad, 17, &crc.to_be_bytes());
            }
            Header::check(&bad).unwrap_err()
        };
        assert_eq!(check(16, &[1], false), BatchError::Magic(1));
        assert_eq!(check(61, &[9], false), BatchError::Checksum);
        assert_eq!(check(8, &[0, 0, 0, 1], false), BatchError::Truncated);
        assert_eq!(check(8, &[0xff; 4], false), BatchError::Truncated);
        assert_eq!(
            check(8, &50i32.to_be_bytes(), false),
            BatchError::MoreThanOne
        );
        assert_eq!(
            check(57, &2i32.to_be_bytes(), true),
            BatchError::Count { count: 2, delta: 0 }
        );
        assert_eq!(check(21, &[0, 5], true), BatchError::Codec(5));
        assert_eq!(check(21, &[0, 0x20], true), BatchError::Control);
        assert_eq!(check(21, &[0, 0x10], true), BatchError::Transactional);
    }

    #[test]
    fn sequences_wrap() {
        let header = Header::check(&idempotent(3, 1, 0, i32::MAX - 1)).unwrap();
        assert_eq!(header.last_sequence(), 0);
    }

    proptest! {
        #[test]
        fn a_single_record_comes_back(
            key in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..100)),
            value in proptest::option::of(proptest::collection::vec(any::<u8>(), 0..300)),
            timestamp in 0i64..i64::MAX,
            offset in 0u64..1 << 60,
        ) {
            let mut batch = single(timestamp, key.as_deref(), value.as_deref(), &[]);
            stamp(&mut batch, offset, 0);
            Header::check(&batch).unwrap();
            let all: Vec<_> = records(&batch.freeze()).unwrap().collect();
            prop_assert_eq!(all.len(), 1);
            prop_assert_eq!(all[0].key.as_deref(), key.as_deref());
            prop_assert_eq!(all[0].value.as_deref(), value.as_deref());
            prop_assert_eq!((all[0].offset, all[0].timestamp), (offset, timestamp));
        }

        #[test]
        fn a_flipped_bit_is_seen_or_lies_outside_the_checksum(bit in 0usize..69 * 8) {
            let mut batch = single(5, None, Some(b"v"), &[]);
            prop_assume!(bit / 8 < batch.len());
            batch[bit / 8] ^= 1 << (bit % 8);
            if Header::check(&batch).is_ok() {
                prop_assert!((0..8).contains(&(bit / 8)) || (12..16).contains(&(bit / 8)));
            }
        }

        #[test]
        fn random_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = Header::check(&bytes);
            let mut batch = single(5, None, Some(b"v"), &[]);
            batch.truncate(HEADER);
            batch.extend_from_slice(&bytes);
            let length = (batch.len() - PREFIX) as i32;
            put(&mut batch, 8, &length.to_be_bytes());
            put(&mut batch, 57, &i32::MAX.to_be_bytes());
            let _ = records(&batch.freeze()).unwrap().count();
        }
    }
}
