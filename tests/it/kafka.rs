//! The Kafka face, byte by byte: every request in every version that ApiVersions promises, and what libraries do not show.

use std::io::{Read, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use broker::stream::batch;
use bytes::Bytes;
use flowmesh::kafka::API_TABLE;
use protocol_kafka::header::API_VERSIONS;
use protocol_kafka::wire::{Reader, Write};
use protocol_kafka::{Api, produce, shape};

use crate::server::Server;

/// A connection that sends requests and reads responses.
pub(crate) struct Client {
    socket: TcpStream,
    correlation: i32,
}

impl Client {
    pub(crate) fn connect(server: &Server) -> Self {
        let socket = TcpStream::connect(server.addr("kafka")).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        Self {
            socket,
            correlation: 0,
        }
    }

    pub(crate) fn send(&mut self, key: i16, version: i16, body: &[u8]) {
        self.correlation += 1;
        let mut frame = vec![0; 4];
        frame.put_i16(key);
        frame.put_i16(version);
        frame.put_i32(self.correlation);
        frame.put_string("test", false);
        frame.put_no_tags(Api::find(key).unwrap().is_flexible(version));
        frame.extend_from_slice(body);
        let size = i32::try_from(frame.len() - 4).unwrap();
        frame.splice(..4, size.to_be_bytes());
        // The server may have closed, which receiving tells.
        let _ = self.socket.write_all(&frame);
    }

    /// The next response without its header; `None`: the server has closed.
    pub(crate) fn receive(&mut self, key: i16, version: i16) -> Option<Vec<u8>> {
        let mut size = [0; 4];
        self.socket.read_exact(&mut size).ok()?;
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(size)).unwrap()];
        self.socket.read_exact(&mut frame).ok()?;
        assert_eq!(
            frame[..4],
            self.correlation.to_be_bytes(),
            "responses come in order"
        );
        let flexible = key != API_VERSIONS && Api::find(key).unwrap().is_flexible(version);
        Some(frame.split_off(if flexible { 5 } else { 4 }))
    }

    /// The first message of a SASL mechanism: the error, and the server's message; `None`: it has closed.
    pub(crate) fn try_sasl(&mut self, mechanism: &str, message: &[u8]) -> Option<(i16, Vec<u8>)> {
        let mut body = Vec::new();
        body.put_string(mechanism, false);
        self.call(17, 1, &body)?;
        self.sasl_goes_on(message)
    }

    /// Another one.
    pub(crate) fn sasl_goes_on(&mut self, message: &[u8]) -> Option<(i16, Vec<u8>)> {
        let mut body = Vec::new();
        body.put_i32(i32::try_from(message.len()).unwrap());
        body.extend_from_slice(message);
        let answer = self.call(36, 0, &body)?;
        // Error, text (null or counted), octets with their count.
        let error = i16::from_be_bytes([answer[0], answer[1]]);
        let text = usize::try_from(i16::from_be_bytes([answer[2], answer[3]])).unwrap_or(0);
        Some((error, answer[4 + text + 4..].to_vec()))
    }

    /// SASL PLAIN; false: refused.
    pub(crate) fn log_in(&mut self, user: &str, password: &str) -> bool {
        let token = format!("\0{user}\0{password}");
        let (error, _) = self.try_sasl("PLAIN", token.as_bytes()).unwrap();
        error == 0
    }

    pub(crate) fn call(&mut self, key: i16, version: i16, body: &[u8]) -> Option<Vec<u8>> {
        self.send(key, version, body);
        self.receive(key, version)
    }

    /// Produces one record and returns (error, offset).
    pub(crate) fn produce(&mut self, topic: &str, acks: i16, batch: &[u8]) -> (i16, i64) {
        let body = self.call(0, 9, &produce_body(topic, acks, batch)).unwrap();
        let mut reader = Reader::new(&body);
        reader.count(true).unwrap();
        reader.string(true).unwrap();
        reader.count(true).unwrap();
        reader.i32().unwrap();
        (reader.i16().unwrap(), reader.i64().unwrap())
    }

    /// The error of a deletion.
    pub(crate) fn delete_topic(&mut self, topic: &str) -> i16 {
        let mut request = Vec::new();
        request.put_i32(1);
        request.put_string(topic, false);
        request.put_i32(20_000);
        let body = self.call(20, 1, &request).unwrap();
        let mut reader = Reader::new(&body);
        reader.i32().unwrap();
        reader.count(false).unwrap();
        reader.string(false).unwrap();
        reader.i16().unwrap()
    }
}

/// Produce version 9 with one batch for partition 0.
pub(crate) fn produce_body(topic: &str, acks: i16, batch: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_nullable_string(None, true);
    body.put_i16(acks);
    body.put_i32(1000);
    body.put_length(1, true);
    body.put_string(topic, true);
    body.put_length(1, true);
    body.put_i32(0);
    body.put_length(batch.len(), true);
    body.extend_from_slice(batch);
    body.extend_from_slice(&[0, 0, 0]);
    body
}

/// Fetch version 12 of partition 0.
pub(crate) fn fetch_body(topic: &str, offset: i64, max_wait_ms: i32) -> Vec<u8> {
    fetch_partition_body(topic, 0, offset, max_wait_ms)
}

/// The same of any partition.
pub(crate) fn fetch_partition_body(
    topic: &str,
    partition: i32,
    offset: i64,
    max_wait_ms: i32,
) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i32(-1);
    body.put_i32(max_wait_ms);
    body.put_i32(1);
    body.put_i32(1 << 20);
    body.put_i8(0);
    body.put_i32(0);
    body.put_i32(-1);
    body.put_length(1, true);
    body.put_string(topic, true);
    body.put_length(1, true);
    body.put_i32(partition);
    body.put_i32(-1);
    body.put_i64(offset);
    body.put_i32(-1);
    body.put_i64(-1);
    body.put_i32(1 << 20);
    body.extend_from_slice(&[0, 0]);
    body.put_length(0, true);
    body.put_string("", true);
    body.push(0);
    body
}

/// Error, high watermark and batches of such a fetch.
pub(crate) fn fetched(body: &[u8]) -> (i16, i64, Vec<u8>) {
    let mut reader = Reader::new(body);
    reader.i32().unwrap();
    assert_eq!((reader.i16().unwrap(), reader.i32().unwrap()), (0, 0));
    reader.count(true).unwrap();
    reader.string(true).unwrap();
    reader.count(true).unwrap();
    reader.i32().unwrap();
    let (error, high_watermark) = (reader.i16().unwrap(), reader.i64().unwrap());
    reader.i64().unwrap();
    reader.i64().unwrap();
    assert_eq!(
        reader.nullable_count(true).unwrap(),
        None,
        "no aborted transactions"
    );
    reader.i32().unwrap();
    let records = reader.nullable_bytes(true).unwrap().unwrap();
    (error, high_watermark, records.of(body).to_vec())
}

/// Offsets and values of the records in fetched batches.
pub(crate) fn values(batches: Vec<u8>) -> Vec<(u64, Bytes)> {
    let mut rest = Bytes::from(batches);
    let mut values = Vec::new();
    while !rest.is_empty() {
        let (_, length) = batch::Header::read(&rest).unwrap();
        let records = batch::records(&rest.split_to(length)).unwrap();
        values.extend(records.map(|record| (record.offset, record.value.unwrap())));
    }
    values
}

pub(crate) fn metadata_body(topic: &str) -> Vec<u8> {
    let mut body = Vec::new();
    body.put_i32(1);
    body.put_string(topic, false);
    body
}

pub(crate) fn record(value: &[u8]) -> Vec<u8> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap();
    batch::single(now.as_millis() as i64, None, Some(value), &[]).to_vec()
}

#[test]
fn every_promised_version_is_answered() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.call(3, 1, &metadata_body("t")).unwrap();
    assert_eq!(client.produce("t", -1, &record(b"v")), (0, 0));
    // Produce and Fetch, 0 and 1, have decoders of their own.
    for row in API_TABLE.iter().filter(|row| row.key > 1) {
        for version in row.min..=row.max {
            for (text, fill) in [("t", 0), ("t", 0xff), ("u", 1), ("t", 1)] {
                let body = shape::sample(row.key, version, text, fill).unwrap();
                let response = client.call(row.key, version, &body);
                assert!(
                    response.is_some(),
                    "{row:?} version {version}, {text} and {fill}: closed"
                );
            }
            // The topic may be gone by now: DeleteTopics is one of the rows.
            client.call(3, 1, &metadata_body("t")).unwrap();
        }
    }
    // One version above: the connection ends, but ApiVersions answers in version 0 with its own range (as Kafka 4.4 does).
    let body = client.call(API_VERSIONS, 9, &[]).unwrap();
    let mut reader = Reader::new(&body);
    assert_eq!(reader.i16(), Ok(35));
    assert_eq!(reader.count(false), Ok(1));
    assert_eq!(client.call(12, 5, &[0; 30]), None);
}

#[test]
fn groups_join_and_sync_in_every_version() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    for version in 0..=9i16 {
        let flexible = version >= 6;
        let group = format!("g{version}");
        let join = |member: &str| {
            let mut body = Vec::new();
            body.put_string(&group, flexible);
            body.put_i32(10_000);
            if version >= 1 {
                body.put_i32(10_000);
            }
            body.put_string(member, flexible);
            if version >= 5 {
                body.put_nullable_string(None, flexible);
            }
            body.put_string("consumer", flexible);
            body.put_length(1, flexible);
            body.put_string("range", flexible);
            body.put_length(3, flexible);
            body.extend_from_slice(b"abc");
            body.put_no_tags(flexible);
            if version >= 8 {
                body.put_nullable_string(None, flexible);
            }
            body.put_no_tags(flexible);
            body
        };
        // (error, generation, member id)
        let read = |body: Vec<u8>| {
            let mut reader = Reader::new(&body);
            if version >= 2 {
                reader.i32().unwrap();
            }
            let (error, generation) = (reader.i16().unwrap(), reader.i32().unwrap());
            if version >= 7 {
                reader.nullable_string(flexible).unwrap();
            }
            reader.nullable_string(flexible).unwrap();
            reader.string(flexible).unwrap();
            if version >= 9 {
                reader.i8().unwrap();
            }
            let member = reader.string(flexible).unwrap();
            (
                error,
                generation,
                String::from_utf8(member.of(&body).to_vec()).unwrap(),
            )
        };
        let (mut error, mut generation, mut member) =
            read(client.call(11, version, &join("")).unwrap());
        if version >= 4 {
            assert_eq!((error, generation), (79, -1), "version {version}");
            (error, generation, member) = read(client.call(11, version, &join(&member)).unwrap());
        }
        assert_eq!((error, generation), (0, 1), "version {version}");
        assert!(member.starts_with("test-"), "{member}");

        let sync = version.min(5);
        let flexible = sync >= 4;
        let mut body = Vec::new();
        body.put_string(&group, flexible);
        body.put_i32(generation);
        body.put_string(&member, flexible);
        if sync >= 3 {
            body.put_nullable_string(None, flexible);
        }
        if sync >= 5 {
            body.put_string("consumer", flexible);
            body.put_string("range", flexible);
        }
        body.put_length(1, flexible);
        body.put_string(&member, flexible);
        body.put_length(5, flexible);
        body.extend_from_slice(b"share");
        body.put_no_tags(flexible);
        body.put_no_tags(flexible);
        let response = client.call(14, sync, &body).unwrap();
        let mut reader = Reader::new(&response);
        if sync >= 1 {
            reader.i32().unwrap();
        }
        assert_eq!(reader.i16(), Ok(0), "version {sync}");
        if sync >= 5 {
            reader.string(true).unwrap();
            reader.string(true).unwrap();
        }
        let share = reader.nullable_bytes(flexible).unwrap().unwrap();
        assert_eq!(share.of(&response), b"share");
    }
}

#[test]
fn a_long_poll_ends_with_the_next_record_or_its_time() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut reader = Client::connect(&server);
    let mut writer = Client::connect(&server);
    writer.call(3, 1, &metadata_body("t")).unwrap();

    let started = Instant::now();
    assert_eq!(
        fetched(&reader.call(1, 12, &fetch_body("t", 0, 300)).unwrap()),
        (0, 0, vec![])
    );
    assert!(started.elapsed() >= Duration::from_millis(300));

    // The request behind the waiting one is answered after it.
    reader.send(1, 12, &fetch_body("t", 0, 20_000));
    let batch = record(b"hello");
    assert_eq!(writer.produce("t", 1, &batch), (0, 0));
    let (error, high_watermark, mut records) = fetched(&reader.receive(1, 12).unwrap());
    assert_eq!((error, high_watermark), (0, 1));
    // Offset 0 and leader epoch 0, whatever the producer wrote there.
    records.splice(..8, batch[..8].iter().copied());
    records.splice(12..16, batch[12..16].iter().copied());
    assert_eq!(records, batch);
    // Beyond the end.
    assert_eq!(
        fetched(&reader.call(1, 12, &fetch_body("t", 2, 20_000)).unwrap()).0,
        1
    );
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.call(3, 1, &metadata_body("t")).unwrap();
    for n in 0..20 {
        assert_eq!(
            client.produce("t", -1, &record(format!("value {n}").as_bytes())),
            (0, n)
        );
    }
    drop(server);
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    let (error, high_watermark, records) =
        fetched(&client.call(1, 12, &fetch_body("t", 0, 0)).unwrap());
    assert_eq!((error, high_watermark), (0, 20));
    let expected: Vec<_> = (0..20)
        .map(|n| (n, Bytes::from(format!("value {n}"))))
        .collect();
    assert_eq!(values(records), expected);
    assert_eq!(client.produce("t", -1, &record(b"on")), (0, 20));
}

#[test]
fn broken_batches_are_refused_in_kafkas_codes() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    client.call(3, 1, &metadata_body("t")).unwrap();
    let good = record(b"v");
    let mut flipped = good.clone();
    *flipped.last_mut().unwrap() ^= 1;
    assert_eq!(client.produce("t", -1, &flipped), (2, -1));
    assert_eq!(client.produce("t", -1, &good[..good.len() - 1]), (2, -1));
    assert_eq!(
        client.produce("t", -1, &[&good[..], &good[..]].concat()),
        (87, -1)
    );
    assert_eq!(client.produce("t", 7, &good), (21, -1));
    assert_eq!(client.produce("nowhere", -1, &good), (3, -1));
    assert_eq!(
        client.produce("t", -1, &record(&vec![0; 2 << 20])),
        (10, -1)
    );
    let mut old = good.clone();
    old[16] = 1;
    assert_eq!(client.produce("t", -1, &old), (43, -1));
    assert_eq!(client.produce("t", -1, &good), (0, 0));
    // Without acknowledgements an error ends the connection, and success says nothing.
    client.send(0, 9, &produce_body("t", 0, &good));
    client.correlation -= 1;
    assert_eq!(client.produce("t", -1, &good), (0, 2));
    assert_eq!(client.call(0, 9, &produce_body("t", 0, &flipped)), None);
}

#[test]
fn what_would_have_no_effect_is_not_taken() {
    const INVALID_CONFIG: i16 = 40;
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut client = Client::connect(&server);
    // CreateTopics version 4.
    let mut create = |name: &str, policy: &str| {
        let mut body = Vec::new();
        body.put_i32(1);
        body.put_string(name, false);
        body.put_i32(1);
        body.put_i16(1);
        body.put_i32(0);
        body.put_i32(1);
        body.put_string("cleanup.policy", false);
        body.put_nullable_string(Some(policy), false);
        body.put_i32(1000);
        body.put_i8(0);
        let response = client.call(19, 4, &body).unwrap();
        let mut reader = Reader::new(&response);
        reader.i32().unwrap();
        reader.count(false).unwrap();
        reader.string(false).unwrap();
        let error = reader.i16().unwrap();
        let message = reader.nullable_string(false).unwrap();
        (error, message.map(|span| span.of(&response).to_vec()))
    };
    assert_eq!(create("plain", "delete"), (0, None));
    let (error, message) = create("compacted", "compact");
    let message = String::from_utf8(message.unwrap()).unwrap();
    assert_eq!(error, INVALID_CONFIG);
    assert!(message.contains("compact is not supported"), "{message}");
    // AlterConfigs and IncrementalAlterConfigs, version 0.
    let mut alter = |key: i16, policy: &str| {
        let mut body = Vec::new();
        body.put_i32(1);
        body.put_i8(2);
        body.put_string("plain", false);
        body.put_i32(1);
        body.put_string("cleanup.policy", false);
        if key == 44 {
            body.put_i8(0);
        }
        body.put_nullable_string(Some(policy), false);
        body.put_i8(0);
        let response = client.call(key, 0, &body).unwrap();
        let mut reader = Reader::new(&response);
        reader.i32().unwrap();
        reader.count(false).unwrap();
        reader.i16().unwrap()
    };
    for key in [33, 44] {
        assert_eq!(alter(key, "delete"), 0);
        assert_eq!(alter(key, "compact,delete"), INVALID_CONFIG, "{key}");
    }
}

#[test]
fn hostile_counts_close_the_connection_and_no_other() {
    let dir = tempfile::tempdir().unwrap();
    let server = Server::start(dir.path());
    let mut other = Client::connect(&server);
    other.call(3, 1, &metadata_body("t")).unwrap();
    for (key, version, body) in [
        (3i16, 1i16, [0x7f, 0xff, 0xff, 0xff].as_slice()),
        (3, 12, &[0xff, 0xff, 0xff, 0xff, 0x0f, 0]),
        (0, 9, &[0, 0, 1, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0x0f]),
        (1, 4, &[0x7f; 40]),
        (11, 0, &[0x7f, 0xff, 1]),
    ] {
        assert_eq!(
            Client::connect(&server).call(key, version, body),
            None,
            "key {key} version {version}"
        );
    }
    for size in [-1i32, i32::MAX] {
        let mut client = Client::connect(&server);
        client.socket.write_all(&size.to_be_bytes()).unwrap();
        assert_eq!(client.receive(3, 1), None);
    }
    assert!(other.call(3, 1, &metadata_body("t")).is_some());
    // Kept from drifting apart: the hand-written decoder begins topic ids where the table ends.
    assert_eq!(
        API_TABLE.first().map(|row| row.max),
        Some(produce::TOPIC_IDS)
    );
}
