//! Fetch (key 1): requests of versions 4 to 18 and their responses. Versions 13 and later name topics by id.

use crate::DecodeError;
use crate::topics::{Announced, Form, Topic};
use crate::wire::{Reader, Write};
use bytes::Bytes;
use uuid::Uuid;

/// First version with topic ids instead of names.
pub const TOPIC_IDS: i16 = 13;
const FLEXIBLE: i16 = 12;
/// Topics and partitions of one request; consumers of 100,000 partitions exist.
const ENTRIES_MAX: usize = 500_000;

/// Where the reader of one partition stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    /// -1 when the client does not know it.
    pub current_leader_epoch: i32,
    pub fetch_offset: i64,
    /// -1 when the client does not know it.
    pub last_fetched_epoch: i32,
    /// Soft limit in bytes: the first batch of the response comes whole, whatever its size.
    pub max_bytes: i32,
}

/// A Fetch request. Reused from request to request, so that nothing is allocated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// -1 for consumers.
    pub replica_id: i32,
    pub max_wait_ms: i32,
    pub min_bytes: i32,
    pub max_bytes: i32,
    /// 0: read uncommitted; 1: read committed.
    pub isolation_level: i8,
    pub session_id: i32,
    pub session_epoch: i32,
    pub topics: Vec<Topic>,
    pub partitions: Vec<Partition>,
}

impl Request {
    /// Reads the body that begins at `body` in `frame`. Forgotten topics and the rack are skipped: no session is ever granted,
    /// and there is one node.
    pub fn decode(&mut self, frame: &[u8], body: usize, version: i16) -> Result<(), DecodeError> {
        self.topics.clear();
        self.partitions.clear();
        let flexible = version >= FLEXIBLE;
        let mut reader = Reader::at(frame, body);
        self.replica_id = if version <= 14 { reader.i32()? } else { -1 };
        self.max_wait_ms = reader.i32()?;
        self.min_bytes = reader.i32()?;
        self.max_bytes = reader.i32()?;
        self.isolation_level = reader.i8()?;
        (self.session_id, self.session_epoch) = if version >= 7 {
            (reader.i32()?, reader.i32()?)
        } else {
            (0, -1)
        };
        Form::of(version, TOPIC_IDS, FLEXIBLE).decode(
            &mut reader,
            ENTRIES_MAX,
            &mut self.topics,
            &mut self.partitions,
            |reader| {
                let index = reader.i32()?;
                let current_leader_epoch = if version >= 9 { reader.i32()? } else { -1 };
                let fetch_offset = reader.i64()?;
                let last_fetched_epoch = if version >= 12 { reader.i32()? } else { -1 };
                if version >= 5 {
                    reader.i64()?; // Log start offset of a follower.
                }
                Ok(Partition {
                    index,
                    current_leader_epoch,
                    fetch_offset,
                    last_fetched_epoch,
                    max_bytes: reader.i32()?,
                })
            },
        )?;
        if version >= 7 {
            for _ in 0..reader.count(flexible)? {
                Form::of(version, TOPIC_IDS, FLEXIBLE).name(&mut reader)?;
                let count = reader.count(flexible)?;
                reader.span(count.checked_mul(4).ok_or(DecodeError::Length)?)?;
                reader.tags(flexible)?;
            }
        }
        if version >= 11 {
            reader.nullable_string(flexible)?;
        }
        reader.tags(flexible)?;
        Ok(())
    }
}

/// The state of one partition in a response; its batches are given beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionResponse {
    pub index: i32,
    /// Kafka's error code; 0 is success.
    pub error: i16,
    pub high_watermark: i64,
    pub last_stable_offset: i64,
    pub log_start_offset: i64,
}

/// A transaction that was aborted, for readers of committed records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted {
    pub producer_id: i64,
    pub first_offset: i64,
}

/// A response whose record batches are not copied: the fields between them are gathered in one buffer, with a note where each
/// batch goes. Reused from response to response.
#[derive(Debug, Default)]
pub struct Response {
    version: i16,
    fields: Vec<u8>,
    /// Batches, each with the position in `fields` in front of which it goes.
    batches: Vec<(usize, Bytes)>,
    batch_bytes: usize,
    announced: Announced,
}

/// A piece of a finished response.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece<'a> {
    Fields(&'a [u8]),
    Batch(Bytes),
}

impl Response {
    /// Begins a response about `topics` topics; what was in it before is forgotten. `header` is the encoded response header.
    pub fn begin(&mut self, version: i16, header: &[u8], error: i16, topics: usize) {
        *self = Self {
            version,
            fields: std::mem::take(&mut self.fields),
            batches: std::mem::take(&mut self.batches),
            batch_bytes: 0,
            announced: Announced::default(),
        };
        self.fields.clear();
        self.batches.clear();
        self.fields.put_i32(0); // The frame's size, known at the end.
        self.fields.extend_from_slice(header);
        self.fields.put_i32(0); // Throttle time.
        if version >= 7 {
            self.fields.put_i16(error);
            self.fields.put_i32(0); // No session: every fetch names all its partitions.
        }
        self.announced = Announced::begin(
            &mut self.fields,
            Form::of(version, TOPIC_IDS, FLEXIBLE),
            topics,
        );
    }

    /// The next topic, named as in the request.
    pub fn topic(&mut self, name: &[u8], id: Uuid, partitions: usize) {
        self.announced.topic(&mut self.fields, name, id, partitions);
    }

    /// The next partition of the topic, with its batches in order. `aborted`: null for readers of uncommitted records.
    pub fn partition(
        &mut self,
        partition: &PartitionResponse,
        aborted: Option<&[Aborted]>,
        batches: impl Iterator<Item = Bytes>,
    ) {
        self.announced.partition();
        let flexible = self.version >= FLEXIBLE;
        self.fields.put_i32(partition.index);
        self.fields.put_i16(partition.error);
        self.fields.put_i64(partition.high_watermark);
        self.fields.put_i64(partition.last_stable_offset);
        if self.version >= 5 {
            self.fields.put_i64(partition.log_start_offset);
        }
        match (aborted, flexible) {
            (Some(aborted), _) => {
                self.fields.put_length(aborted.len(), flexible);
                for transaction in aborted {
                    self.fields.put_i64(transaction.producer_id);
                    self.fields.put_i64(transaction.first_offset);
                    self.fields.put_no_tags(flexible);
                }
            }
            (None, true) => self.fields.put_uvarint(0),
            (None, false) => self.fields.put_i32(-1),
        }
        if self.version >= 11 {
            self.fields.put_i32(-1); // No preferred replica.
        }
        let first = self.batches.len();
        let mut length = 0;
        for batch in batches {
            length += batch.len();
            self.batches.push((0, batch));
        }
        self.fields.put_length(length, flexible);
        self.batch_bytes += length;
        let at = self.fields.len();
        for (position, _) in self.batches.iter_mut().skip(first) {
            *position = at;
        }
        self.fields.put_no_tags(flexible);
    }

    /// Ends the response and hands out its pieces in order, the frame's size included.
    pub fn end(&mut self, mut piece: impl FnMut(Piece<'_>)) {
        self.announced.end(&mut self.fields);
        self.fields.put_no_tags(self.version >= FLEXIBLE);
        let size = self.fields.len() - 4 + self.batch_bytes;
        if let Some(head) = self.fields.first_chunk_mut::<4>() {
            // Bounded by the callers' limits on a response, far below 2 GiB.
            *head = i32::try_from(size).unwrap_or(i32::MAX).to_be_bytes();
        }
        let mut from = 0;
        for (at, batch) in self.batches.drain(..) {
            if let Some(fields) = self
                .fields
                .get(from..at)
                .filter(|fields| !fields.is_empty())
            {
                piece(Piece::Fields(fields));
            }
            piece(Piece::Batch(batch));
            from = at;
        }
        if let Some(fields) = self.fields.get(from..) {
            piece(Piece::Fields(fields));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kafka_protocol::messages::fetch_response::{
        AbortedTransaction, FetchableTopicResponse, PartitionData,
    };
    use kafka_protocol::messages::{BrokerId, FetchRequest, FetchResponse, TopicName as Name};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use proptest::prelude::*;

    fn request(version: i16) -> Vec<u8> {
        let flexible = version >= FLEXIBLE;
        let mut out = vec![0xee; 5];
        if version <= 14 {
            out.put_i32(-1);
        }
        out.put_i32(500);
        out.put_i32(1);
        out.put_i32(1 << 20);
        out.put_i8(1);
        if version >= 7 {
            out.put_i32(0);
            out.put_i32(-1);
        }
        out.put_length(1, flexible);
        if version >= TOPIC_IDS {
            out.extend_from_slice(&[7; 16]);
        } else {
            out.put_string("orders", flexible);
        }
        out.put_length(2, flexible);
        for index in 0..2 {
            out.put_i32(index);
            if version >= 9 {
                out.put_i32(0);
            }
            out.put_i64(42);
            if version >= 12 {
                out.put_i32(-1);
            }
            if version >= 5 {
                out.put_i64(-1);
            }
            out.put_i32(1000);
            out.put_no_tags(flexible);
        }
        out.put_no_tags(flexible);
        if version >= 7 {
            out.put_length(0, flexible);
        }
        if version >= 11 {
            out.put_string("", flexible);
        }
        out.put_no_tags(flexible);
        out
    }

    #[test]
    fn requests_as_the_generated_decoder_reads_them() {
        for version in 4..=18 {
            let frame = request(version);
            let mut decoded = Request::default();
            decoded.decode(&frame, 5, version).unwrap();
            assert_eq!(
                (decoded.max_wait_ms, decoded.min_bytes, decoded.max_bytes),
                (500, 1, 1 << 20)
            );
            assert_eq!(
                (
                    decoded.replica_id,
                    decoded.isolation_level,
                    decoded.session_epoch
                ),
                (-1, 1, -1)
            );
            assert_eq!(decoded.partitions.len(), 2);
            assert_eq!(
                decoded.partitions.last().map(|part| (
                    part.index,
                    part.fetch_offset,
                    part.max_bytes
                )),
                Some((1, 42, 1000))
            );
            let mut body = Bytes::copy_from_slice(frame.get(5..).unwrap());
            let theirs = FetchRequest::decode(&mut body, version.min(17)).unwrap();
            assert_eq!((theirs.topics.len(), body.len()), (1, 0), "v{version}");
            for cut in 5..frame.len() {
                assert!(
                    decoded
                        .decode(frame.get(..cut).unwrap(), 5, version)
                        .is_err(),
                    "v{version}, {cut} bytes"
                );
            }
        }
    }

    #[test]
    fn responses_as_the_generated_encoder_writes_them() {
        for version in 4..=17 {
            let (one, two) = (
                Bytes::from_static(b"first batch"),
                Bytes::from_static(b"second"),
            );
            let mut response = Response::default();
            response.begin(version, b"head", 0, 1);
            response.topic(b"orders", Uuid::from_bytes([9; 16]), 2);
            let mut row = PartitionResponse {
                index: 0,
                error: 0,
                high_watermark: 9,
                last_stable_offset: 9,
                log_start_offset: 3,
            };
            const ABORTED: [Aborted; 1] = [Aborted {
                producer_id: 5,
                first_offset: 4,
            }];
            let even = version % 2 == 0;
            let told = |aborted: &'static [Aborted]| even.then_some(aborted);
            response.partition(&row, told(&ABORTED), [one.clone(), two.clone()].into_iter());
            row.index = 1;
            response.partition(&row, told(&[]), std::iter::empty());
            let mut ours = Vec::new();
            response.end(|piece| match piece {
                Piece::Fields(fields) => ours.extend_from_slice(fields),
                Piece::Batch(batch) => ours.extend_from_slice(&batch),
            });

            let partition = |index, records: Bytes| {
                let mut data = PartitionData::default()
                    .with_partition_index(index)
                    .with_high_watermark(9)
                    .with_last_stable_offset(9)
                    .with_aborted_transactions((version % 2 == 0).then(|| {
                        let aborted = AbortedTransaction::default()
                            .with_producer_id(5.into())
                            .with_first_offset(4);
                        std::iter::repeat_n(aborted, usize::from(index == 0)).collect()
                    }))
                    .with_preferred_read_replica(BrokerId(-1))
                    .with_records(Some(records));
                data.log_start_offset = if version >= 5 { 3 } else { -1 };
                data
            };
            let both = Bytes::from([&one[..], &two[..]].concat());
            let mut topic = FetchableTopicResponse::default()
                .with_partitions(vec![partition(0, both), partition(1, Bytes::new())]);
            if version >= TOPIC_IDS {
                topic = topic.with_topic_id(Uuid::from_bytes([9; 16]));
            } else {
                topic = topic.with_topic(Name(StrBytes::from_static_str("orders")));
            }
            let mut theirs = b"\0\0\0\0head".to_vec();
            FetchResponse::default()
                .with_responses(vec![topic])
                .encode(&mut theirs, version)
                .unwrap();
            let size = theirs.len() as i32 - 4;
            theirs.splice(..4, size.to_be_bytes());
            assert_eq!(ours, theirs, "v{version}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..200), version in 4i16..=18) {
            let _ = Request::default().decode(&frame, 0, version);
        }
    }
}
