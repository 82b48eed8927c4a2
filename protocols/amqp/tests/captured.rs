//! Recorded connections of real clients: whole, octet by octet, and back to the same octets.

use bytes::BytesMut;
use protocol_amqp::{ContentHeader, FrameKind, Frames, Method, Properties, ProtocolHeader};

#[path = "../../testdata.rs"]
mod testdata;

type Frame = (FrameKind, u16, Vec<u8>);

/// The frames; `step` octets come at a time.
fn frames(octets: &[u8], step: usize) -> Vec<Frame> {
    let (mut input, mut found) = (BytesMut::new(), Vec::new());
    let mut begun = false;
    for part in octets.chunks(step) {
        input.extend_from_slice(part);
        if !begun {
            match protocol_amqp::protocol_header(&mut input) {
                Some(ProtocolHeader::Accepted) => begun = true,
                None => continue,
                Some(ProtocolHeader::Refused) => panic!("refused"),
            }
        }
        let mut frames = Frames::take(&mut input, 131_072);
        while let Some(frame) = frames.next_frame().expect("a client's frame") {
            found.push((frame.kind, frame.channel, frame.payload.to_vec()));
        }
    }
    found
}

#[test]
fn captured_frames_come_back() {
    for (name, octets) in testdata::recordings(env!("CARGO_MANIFEST_DIR")) {
        let found = frames(&octets, octets.len());
        assert!(found.len() > 3, "{name}: {} frames", found.len());
        assert_eq!(frames(&octets, 1), found, "{name}");
        for (kind, channel, payload) in found {
            let mut back = Vec::new();
            match kind {
                FrameKind::Method => {
                    let method =
                        Method::decode(&payload).unwrap_or_else(|error| panic!("{name}: {error}"));
                    protocol_amqp::method(&mut back, channel, &method);
                }
                FrameKind::Header => {
                    let header = ContentHeader::decode(&payload)
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    let properties = Properties::parse(header.properties)
                        .unwrap_or_else(|error| panic!("{name}: {error}"));
                    protocol_amqp::content_header(
                        &mut back,
                        channel,
                        header.body_size,
                        &properties.to_raw(),
                    );
                }
                FrameKind::Body | FrameKind::Heartbeat => continue,
            }
            // `type u8 | channel u16 | size u32 | payload | 0xCE`.
            assert_eq!(
                back.get(7..back.len() - 1),
                Some(&payload[..]),
                "{name}: {kind:?}"
            );
        }
    }
}
