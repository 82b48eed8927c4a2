//! Produce (key 0): requests of versions 3 to 13 and their responses. Version 13 names topics by id.

use crate::DecodeError;
use crate::topics::{Announced, Form, Topic};
use crate::wire::{Reader, Span, Write};
use uuid::Uuid;

/// First version with topic ids instead of names.
pub const TOPIC_IDS: i16 = 13;
const FLEXIBLE: i16 = 9;
/// Topics and partitions of one request: a producer sends at most one batch per partition, and there are a few thousand of those.
const ENTRIES_MAX: usize = 100_000;

/// The record batches for one partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Partition {
    pub index: i32,
    /// `None`: null, which no client sends.
    pub records: Option<Span>,
}

/// A Produce request as places in its frame. Reused from request to request, so that nothing is allocated.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    pub transactional_id: Option<Span>,
    /// 0: no response; 1: the leader has it; -1: all replicas have it.
    pub acks: i16,
    pub timeout_ms: i32,
    pub topics: Vec<Topic>,
    /// Ascending in the frame, topic by topic.
    pub partitions: Vec<Partition>,
}

impl Request {
    /// Reads the body that begins at `body` in `frame`.
    pub fn decode(&mut self, frame: &[u8], body: usize, version: i16) -> Result<(), DecodeError> {
        self.topics.clear();
        self.partitions.clear();
        let flexible = version >= FLEXIBLE;
        let mut reader = Reader::at(frame, body);
        self.transactional_id = reader.nullable_string(flexible)?;
        self.acks = reader.i16()?;
        self.timeout_ms = reader.i32()?;
        Form::of(version, TOPIC_IDS, FLEXIBLE).decode(
            &mut reader,
            ENTRIES_MAX,
            &mut self.topics,
            &mut self.partitions,
            |reader| {
                Ok(Partition {
                    index: reader.i32()?,
                    records: reader.nullable_bytes(flexible)?,
                })
            },
        )?;
        reader.tags(flexible)?;
        Ok(())
    }
}

/// What became of the batch for one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionResponse {
    pub index: i32,
    /// Kafka's error code; 0 is success.
    pub error: i16,
    /// Offset of the batch's first record, -1 on an error.
    pub base_offset: i64,
    /// -1 unless the topic's timestamps are append times.
    pub log_append_time_ms: i64,
    pub log_start_offset: i64,
    /// Said to people from version 8 on.
    pub error_message: Option<String>,
}

/// Appends a response field by field: [`Response::begin`], then for each topic [`Response::topic`] and its partitions, then
/// [`Response::end`].
#[derive(Debug)]
pub struct Response<'a> {
    out: &'a mut Vec<u8>,
    version: i16,
    announced: Announced,
}

impl<'a> Response<'a> {
    /// A response about `topics` topics.
    pub fn begin(out: &'a mut Vec<u8>, version: i16, topics: usize) -> Self {
        let announced = Announced::begin(out, Form::of(version, TOPIC_IDS, FLEXIBLE), topics);
        Self {
            out,
            version,
            announced,
        }
    }

    /// The next topic, named as in the request (`name` is not written in versions with topic ids, `id` only in those).
    pub fn topic(&mut self, name: &[u8], id: Uuid, partitions: usize) {
        self.announced.topic(self.out, name, id, partitions);
    }

    /// The next partition of the topic.
    pub fn partition(&mut self, partition: &PartitionResponse) {
        self.announced.partition();
        let flexible = self.version >= FLEXIBLE;
        self.out.put_i32(partition.index);
        self.out.put_i16(partition.error);
        self.out.put_i64(partition.base_offset);
        if self.version >= 2 {
            self.out.put_i64(partition.log_append_time_ms);
        }
        if self.version >= 5 {
            self.out.put_i64(partition.log_start_offset);
        }
        if self.version >= 8 {
            self.out.put_length(0, flexible);
            self.out
                .put_nullable_string(partition.error_message.as_deref(), flexible);
        }
        self.out.put_no_tags(flexible);
    }

    /// The end of the response.
    pub fn end(mut self, throttle_time_ms: i32) {
        self.announced.end(self.out);
        if self.version >= 1 {
            self.out.put_i32(throttle_time_ms);
        }
        self.out.put_no_tags(self.version >= FLEXIBLE);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use kafka_protocol::messages::produce_response::{
        PartitionProduceResponse, TopicProduceResponse,
    };
    use kafka_protocol::messages::{ProduceRequest, ProduceResponse, TopicName as Name};
    use kafka_protocol::protocol::{Decodable, Encodable, StrBytes};
    use proptest::prelude::*;

    /// Topics with the batches for their partitions.
    type Topics<'a> = &'a [(&'a str, Vec<(i32, Vec<u8>)>)];

    fn request(version: i16, topics: Topics<'_>) -> Vec<u8> {
        let flexible = version >= FLEXIBLE;
        let mut out = vec![0xee; 3];
        out.put_nullable_string(None, flexible);
        out.put_i16(-1);
        out.put_i32(30_000);
        out.put_length(topics.len(), flexible);
        for (name, partitions) in topics {
            if version >= TOPIC_IDS {
                out.extend_from_slice(&[7; 16]);
            } else {
                out.put_string(name, flexible);
            }
            out.put_length(partitions.len(), flexible);
            for (index, records) in partitions {
                out.put_i32(*index);
                out.put_length(records.len(), flexible);
                out.extend_from_slice(records);
                out.put_no_tags(flexible);
            }
            out.put_no_tags(flexible);
        }
        out.put_no_tags(flexible);
        out
    }

    #[test]
    fn requests_as_the_generated_decoder_reads_them() {
        for version in 3..=13 {
            let frame = request(
                version,
                &[
                    ("a", vec![(0, b"xyz".to_vec()), (5, vec![])]),
                    ("bc", vec![(1, b"q".to_vec())]),
                ],
            );
            let mut decoded = Request::default();
            decoded.decode(&frame, 3, version).unwrap();
            assert_eq!(
                (decoded.acks, decoded.timeout_ms, decoded.transactional_id),
                (-1, 30_000, None)
            );
            assert_eq!(
                decoded
                    .topics
                    .iter()
                    .map(|topic| topic.partitions.clone())
                    .collect::<Vec<_>>(),
                [0..2, 2..3]
            );
            let records: Vec<_> = decoded
                .partitions
                .iter()
                .map(|part| (part.index, part.records.unwrap().of(&frame)))
                .collect();
            assert_eq!(records, [(0, &b"xyz"[..]), (5, b""), (1, b"q")]);

            let theirs = ProduceRequest::decode(
                &mut Bytes::copy_from_slice(frame.get(3..).unwrap()),
                version,
            )
            .unwrap();
            assert_eq!(theirs.topic_data.len(), 2);
            for cut in 3..frame.len() {
                assert!(
                    decoded
                        .decode(frame.get(..cut).unwrap(), 3, version)
                        .is_err(),
                    "v{version}, {cut} bytes"
                );
            }
        }
    }

    #[test]
    fn responses_as_the_generated_encoder_writes_them() {
        for version in 3..=13 {
            let mut ours = Vec::new();
            let mut response = Response::begin(&mut ours, version, 1);
            response.topic(b"orders", Uuid::from_bytes([9; 16]), 1);
            let row = PartitionResponse {
                index: 3,
                error: 10,
                base_offset: -1,
                log_append_time_ms: -1,
                log_start_offset: if version >= 5 { 4 } else { -1 },
                error_message: (version >= 8).then(|| "too large".to_owned()),
            };
            response.partition(&row);
            response.end(0);

            let partition = PartitionProduceResponse::default()
                .with_index(3)
                .with_error_code(10)
                .with_base_offset(-1)
                .with_log_append_time_ms(-1)
                .with_log_start_offset(row.log_start_offset)
                .with_error_message(row.error_message.clone().map(StrBytes::from_string));
            let mut topic =
                TopicProduceResponse::default().with_partition_responses(vec![partition]);
            if version >= TOPIC_IDS {
                topic = topic.with_topic_id(Uuid::from_bytes([9; 16]));
            } else {
                topic = topic.with_name(Name(StrBytes::from_static_str("orders")));
            }
            let mut theirs = Vec::new();
            ProduceResponse::default()
                .with_responses(vec![topic])
                .encode(&mut theirs, version)
                .unwrap();
            assert_eq!(ours, theirs, "v{version}");
        }
    }

    proptest! {
        #[test]
        fn random_bytes_never_panic(frame in proptest::collection::vec(any::<u8>(), 0..200), version in 3i16..=13) {
            let _ = Request::default().decode(&frame, 0, version);
        }
    }
}
