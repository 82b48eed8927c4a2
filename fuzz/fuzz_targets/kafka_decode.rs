//! Frames, headers and bodies of every request: Produce and Fetch by their own decoders, the rest by its shape.
#![no_main]

use bytes::BytesMut;
use libfuzzer_sys::fuzz_target;
use protocol_kafka::{RequestHeader, fetch, frame, produce, shape};

fuzz_target!(|data: &[u8]| {
    let mut input = BytesMut::from(data);
    while let Ok(Some(request)) = frame::next_frame(&mut input, 1 << 20) {
        body(&request);
    }
    body(data);
});

fn body(request: &[u8]) {
    let Ok(header) = RequestHeader::decode(request) else {
        return;
    };
    let _ = match header.key {
        0 => produce::Request::default().decode(request, header.body, header.version),
        1 => fetch::Request::default().decode(request, header.body, header.version),
        key => shape::check(
            key,
            header.version,
            request.get(header.body..).unwrap_or_default(),
            shape::Limits::default(),
        ),
    };
}
