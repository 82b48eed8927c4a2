//! Recorded requests of real clients: whole, octet by octet, and each by the decoder that serves it.

use bytes::BytesMut;
use protocol_kafka::{RequestHeader, fetch, frame, produce, shape};

#[path = "../../testdata.rs"]
mod testdata;

/// The requests; `step` octets come at a time.
fn requests(octets: &[u8], step: usize) -> Vec<Vec<u8>> {
    let (mut input, mut found) = (BytesMut::new(), Vec::new());
    for part in octets.chunks(step) {
        input.extend_from_slice(part);
        while let Some(request) =
            frame::next_frame(&mut input, 100 << 20).expect("a client's frame")
        {
            found.push(request.to_vec());
        }
    }
    found
}

#[test]
fn captured_requests_decode() {
    for (name, octets) in testdata::recordings(env!("CARGO_MANIFEST_DIR")) {
        let found = requests(&octets, octets.len());
        assert!(!found.is_empty(), "{name}");
        assert_eq!(requests(&octets, 1), found, "{name}");
        for request in found {
            let header =
                RequestHeader::decode(&request).unwrap_or_else(|error| panic!("{name}: {error}"));
            let (key, version) = (header.key, header.version);
            // A client asks for the newest version that it knows and is told which ones there are.
            if key > 1 && !shape::is_known(key, version) {
                assert_eq!(
                    key,
                    protocol_kafka::header::API_VERSIONS,
                    "{name}: version {version}"
                );
                continue;
            }
            let body = request.get(header.body..).unwrap_or_default();
            let decoded = match key {
                0 => produce::Request::default().decode(&request, header.body, version),
                1 => fetch::Request::default().decode(&request, header.body, version),
                _ => shape::check(key, version, body, shape::Limits::default()),
            };
            assert_eq!(decoded, Ok(()), "{name}: request {key} version {version}");
        }
    }
}
