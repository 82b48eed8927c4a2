use super::*;
use crate::wire::Write;
use kafka_protocol::messages::*;
use proptest::prelude::*;

/// Writes a random valid request by its shape; the generated decoder must then agree with the shape to the byte.
struct Writer<'a> {
    out: Vec<u8>,
    version: i16,
    flexible: bool,
    /// Counts, in turn.
    choices: std::iter::Cycle<std::slice::Iter<'a, u8>>,
}

impl Writer<'_> {
    fn choice(&mut self) -> usize {
        usize::from(*self.choices.next().unwrap_or(&0))
    }

    fn fields(&mut self, fields: &[Field]) {
        let version = self.version;
        for field in fields.iter().filter(|field| field.is_in(version)) {
            match field.kind {
                Fixed(size) => self.out.extend(std::iter::repeat_n(1, size)),
                Text => self.text(),
                Blob => {
                    let length = self.choice();
                    self.out.put_length(length, self.flexible);
                    self.out.extend(std::iter::repeat_n(b'b', length));
                }
                Numbers(size) => {
                    let count = self.count();
                    self.out.extend(std::iter::repeat_n(2, count * size));
                }
                Texts => {
                    for _ in 0..self.count() {
                        self.text();
                    }
                }
                Structs(fields) => {
                    for _ in 0..self.count() {
                        self.fields(fields);
                    }
                }
            }
        }
        self.out.put_no_tags(self.flexible);
    }

    fn text(&mut self) {
        let text = "t".repeat(self.choice());
        self.out.put_string(&text, self.flexible);
    }

    fn count(&mut self) -> usize {
        let count = self.choice();
        self.out.put_length(count, self.flexible);
        count
    }
}

fn generated(key: i16, version: i16, body: Bytes) -> Result<usize, String> {
    fn left<R: Decodable>(mut body: Bytes, version: i16) -> Result<usize, String> {
        R::decode(&mut body, version)
            .map(|_| body.len())
            .map_err(|error| error.to_string())
    }
    match key {
        2 => left::<ListOffsetsRequest>(body, version),
        3 => left::<MetadataRequest>(body, version),
        8 => left::<OffsetCommitRequest>(body, version),
        9 => left::<OffsetFetchRequest>(body, version),
        10 => left::<FindCoordinatorRequest>(body, version),
        11 => left::<JoinGroupRequest>(body, version),
        12 => left::<HeartbeatRequest>(body, version),
        13 => left::<LeaveGroupRequest>(body, version),
        14 => left::<SyncGroupRequest>(body, version),
        15 => left::<DescribeGroupsRequest>(body, version),
        16 => left::<ListGroupsRequest>(body, version),
        17 => left::<SaslHandshakeRequest>(body, version),
        18 => left::<ApiVersionsRequest>(body, version),
        19 => left::<CreateTopicsRequest>(body, version),
        20 => left::<DeleteTopicsRequest>(body, version),
        21 => left::<DeleteRecordsRequest>(body, version),
        22 => left::<InitProducerIdRequest>(body, version),
        23 => left::<OffsetForLeaderEpochRequest>(body, version),
        24 => left::<AddPartitionsToTxnRequest>(body, version),
        25 => left::<AddOffsetsToTxnRequest>(body, version),
        26 => left::<EndTxnRequest>(body, version),
        28 => left::<TxnOffsetCommitRequest>(body, version),
        32 => left::<DescribeConfigsRequest>(body, version),
        33 => left::<AlterConfigsRequest>(body, version),
        35 => left::<DescribeLogDirsRequest>(body, version),
        36 => left::<SaslAuthenticateRequest>(body, version),
        37 => left::<CreatePartitionsRequest>(body, version),
        42 => left::<DeleteGroupsRequest>(body, version),
        44 => left::<IncrementalAlterConfigsRequest>(body, version),
        46 => left::<ListPartitionReassignmentsRequest>(body, version),
        47 => left::<OffsetDeleteRequest>(body, version),
        60 => left::<DescribeClusterRequest>(body, version),
        61 => left::<DescribeProducersRequest>(body, version),
        65 => left::<DescribeTransactionsRequest>(body, version),
        66 => left::<ListTransactionsRequest>(body, version),
        other => Err(format!("no decoder for key {other}")),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]
    #[test]
    fn shapes_agree_with_the_generated_decoders(choices in proptest::collection::vec(0u8..4, 1..40)) {
        for &(key, min, max, fields) in SHAPES {
            for version in min..=max {
                let flexible = Api::find(key).unwrap().is_flexible(version);
                let mut writer = Writer { out: Vec::new(), version, flexible, choices: choices.iter().cycle() };
                writer.fields(fields);
                prop_assert_eq!(check(key, version, &writer.out, Limits::default()), Ok(()), "key {} v{}", key, version);
                let left = generated(key, version, Bytes::from(writer.out.clone()));
                prop_assert_eq!(left, Ok(0), "key {} v{}: {:?}", key, version, writer.out);
            }
        }
    }

    #[test]
    fn random_bytes_never_panic(key in 0..SHAPES.len(), version in 0i16..11, body in proptest::collection::vec(any::<u8>(), 0..200)) {
        let &(key, ..) = SHAPES.get(key).unwrap();
        if check(key, version, &body, Limits::default()).is_ok() {
            let _ = generated(key, version, Bytes::from(body));
        }
    }
}

#[test]
fn a_hostile_count_is_refused_before_anything_is_allocated() {
    // Metadata v1 with two thousand million topics.
    let body = [0x7f, 0xff, 0xff, 0xff, 0, 0];
    assert_eq!(
        check(3, 1, &body, Limits::default()),
        Err(DecodeError::Truncated)
    );
    // Within the frame, but above the limit of elements.
    let mut body = vec![0, 0, 0, 200];
    body.resize(4 + 2 * 200, 0);
    assert_eq!(check(3, 1, &body, Limits::default()), Ok(()));
    assert_eq!(
        check(3, 1, &body, Limits { elements: 199 }),
        Err(DecodeError::TooMany)
    );
    assert_eq!(
        check(3, 14, &body, Limits::default()),
        Err(DecodeError::Version {
            key: 3,
            version: 14
        })
    );
    assert_eq!(check(3, 0, &[0, 0, 0, 0, 9], Limits::default()), Ok(()));
}
