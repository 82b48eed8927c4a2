//! Request and response headers, and the list of requests whose encodings are known here.

use crate::DecodeError;
use crate::wire::{Reader, Span, Write};

/// One request type: its key, and the first version with compact strings and tagged fields (KIP-482).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Api {
    pub key: i16,
    pub name: &'static str,
    /// `None`: no version is flexible.
    pub flexible: Option<i16>,
}

impl Api {
    const fn new(key: i16, name: &'static str, flexible: i16) -> Self {
        Self {
            key,
            name,
            flexible: if flexible < 0 { None } else { Some(flexible) },
        }
    }

    /// Whether `version` uses compact strings and tagged fields.
    pub fn is_flexible(&self, version: i16) -> bool {
        self.flexible.is_some_and(|first| version >= first)
    }

    /// The row with this key.
    pub fn find(key: i16) -> Option<&'static Self> {
        APIS.binary_search_by_key(&key, |api| api.key)
            .ok()
            .and_then(|at| APIS.get(at))
    }
}

/// Key of ApiVersions, whose response header never has tagged fields: a client that knows nothing yet must read it.
pub const API_VERSIONS: i16 = 18;

/// All request types of Apache Kafka 4.4 that a client may send, by key.
pub const APIS: &[Api] = &[
    Api::new(0, "Produce", 9),
    Api::new(1, "Fetch", 12),
    Api::new(2, "ListOffsets", 6),
    Api::new(3, "Metadata", 9),
    Api::new(8, "OffsetCommit", 8),
    Api::new(9, "OffsetFetch", 6),
    Api::new(10, "FindCoordinator", 3),
    Api::new(11, "JoinGroup", 6),
    Api::new(12, "Heartbeat", 4),
    Api::new(13, "LeaveGroup", 4),
    Api::new(14, "SyncGroup", 4),
    Api::new(15, "DescribeGroups", 5),
    Api::new(16, "ListGroups", 3),
    Api::new(17, "SaslHandshake", -1),
    Api::new(API_VERSIONS, "ApiVersions", 3),
    Api::new(19, "CreateTopics", 5),
    Api::new(20, "DeleteTopics", 4),
    Api::new(21, "DeleteRecords", 2),
    Api::new(22, "InitProducerId", 2),
    Api::new(23, "OffsetForLeaderEpoch", 4),
    Api::new(24, "AddPartitionsToTxn", 3),
    Api::new(25, "AddOffsetsToTxn", 3),
    Api::new(26, "EndTxn", 3),
    Api::new(28, "TxnOffsetCommit", 3),
    Api::new(32, "DescribeConfigs", 4),
    Api::new(33, "AlterConfigs", 2),
    Api::new(35, "DescribeLogDirs", 2),
    Api::new(36, "SaslAuthenticate", 2),
    Api::new(37, "CreatePartitions", 2),
    Api::new(42, "DeleteGroups", 2),
    Api::new(44, "IncrementalAlterConfigs", 1),
    Api::new(46, "ListPartitionReassignments", 0),
    Api::new(47, "OffsetDelete", -1),
    Api::new(60, "DescribeCluster", 0),
    Api::new(61, "DescribeProducers", 0),
    Api::new(65, "DescribeTransactions", 0),
    Api::new(66, "ListTransactions", 0),
];

/// What stands in front of every request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    pub key: i16,
    pub version: i16,
    pub correlation_id: i32,
    /// Where the client id lies in the frame.
    pub client_id: Option<Span>,
    /// Where the body begins, in bytes from the frame's start.
    pub body: usize,
}

impl RequestHeader {
    /// Reads the header of `frame`. For a key that is not in [`APIS`] only the key, version and correlation id are read.
    pub fn decode(frame: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(frame);
        let (key, version, correlation_id) = (reader.i16()?, reader.i16()?, reader.i32()?);
        let mut header = Self {
            key,
            version,
            correlation_id,
            client_id: None,
            body: reader.position(),
        };
        if let Some(api) = Api::find(key) {
            // The client id is never compact, not even in the flexible header.
            header.client_id = reader.nullable_string(false)?;
            reader.tags(api.is_flexible(version))?;
            header.body = reader.position();
        }
        Ok(header)
    }
}

/// Appends the response header for a request of `key` and `version`.
pub fn put_response_header(out: &mut Vec<u8>, key: i16, version: i16, correlation_id: i32) {
    out.put_i32(correlation_id);
    let flexible =
        key != API_VERSIONS && Api::find(key).is_some_and(|api| api.is_flexible(version));
    out.put_no_tags(flexible);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_sorted_and_agree_with_the_generated_codec() {
        assert!(
            APIS.windows(2)
                .all(|pair| matches!(pair, [a, b] if a.key < b.key))
        );
        for api in APIS {
            let other = kafka_protocol::messages::ApiKey::try_from(api.key)
                .expect("a key of the generated codec");
            let range = other.valid_versions();
            for version in range.min..=range.max {
                assert_eq!(
                    other.request_header_version(version) == 2,
                    api.is_flexible(version),
                    "{} v{version}",
                    api.name
                );
                let mut header = Vec::new();
                put_response_header(&mut header, api.key, version, 7);
                assert_eq!(
                    other.response_header_version(version) == 1,
                    header.len() == 5,
                    "{} v{version}",
                    api.name
                );
            }
        }
    }

    #[test]
    fn flexible_and_plain_headers() {
        // kcat's first request: ApiVersions v3, client id "rdkafka", no tags.
        let mut frame = vec![0, 18, 0, 3, 0, 0, 0, 1, 0, 7];
        frame.extend_from_slice(b"rdkafka\0");
        let header = RequestHeader::decode(&frame).unwrap();
        assert_eq!(
            (
                header.key,
                header.version,
                header.correlation_id,
                header.body
            ),
            (18, 3, 1, 18)
        );
        assert_eq!(
            header.client_id.map(|id| id.of(&frame)),
            Some(&b"rdkafka"[..])
        );
        let plain = [0, 3, 0, 1, 0, 0, 0, 2, 0xff, 0xff, 1, 2];
        let header = RequestHeader::decode(&plain).unwrap();
        assert_eq!((header.key, header.client_id, header.body), (3, None, 10));
        for cut in 0..frame.len() {
            let part = frame.get(..cut).unwrap();
            assert_eq!(
                RequestHeader::decode(part),
                Err(DecodeError::Truncated),
                "{cut} bytes"
            );
        }
    }
}
