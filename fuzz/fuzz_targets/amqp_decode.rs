//! Frames, then whatever each frame claims to hold: method, content header with its properties and tables.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use protocol_amqp::{ContentHeader, FrameKind, Frames, Method, Properties, Table};

fuzz_target!(|data: &[u8]| {
    let mut input = BytesMut::from(data);
    let mut frames = Frames::take(&mut input, 131_072);
    while let Ok(Some(frame)) = frames.next_frame() {
        match frame.kind {
            FrameKind::Method => {
                let _ = Method::decode(frame.payload);
            }
            FrameKind::Header => {
                let _ = ContentHeader::decode(frame.payload);
            }
            FrameKind::Body | FrameKind::Heartbeat => {}
        }
    }
    let _ = Properties::parse(data);
    if let Ok(table) = Table::parse(data) {
        let _ = format!("{table:?}");
    }
});
