//! Whole frames, appended to the caller's buffer.

use crate::frame::{FRAME_END, FRAME_OVERHEAD};
use crate::method::Method;
use crate::wire::Writer;

/// Class of everything that carries content.
pub const BASIC_CLASS: u16 = 60;

const METHOD: u8 = 1;
const HEADER: u8 = 2;
const BODY: u8 = 3;
const HEARTBEAT: u8 = 8;

/// Opens a frame whose size is not known yet; returns where it began.
fn open(out: &mut Vec<u8>, kind: u8, channel: u16) -> usize {
    let start = out.len();
    let [c0, c1] = channel.to_be_bytes();
    out.extend_from_slice(&[kind, c0, c1, 0, 0, 0, 0]);
    start
}

fn close(out: &mut Vec<u8>, start: usize) {
    let size = u32::try_from(out.len() - start - 7).unwrap_or(u32::MAX);
    if let Some(place) = out.get_mut(start + 3..start + 7) {
        place.copy_from_slice(&size.to_be_bytes());
    }
    out.push(FRAME_END);
}

/// A method frame.
pub fn method(out: &mut Vec<u8>, channel: u16, method: &Method<'_>) {
    let start = open(out, METHOD, channel);
    method.write(out);
    close(out, start);
}

/// A heartbeat.
pub fn heartbeat(out: &mut Vec<u8>) {
    out.extend_from_slice(&[HEARTBEAT, 0, 0, 0, 0, 0, 0, FRAME_END]);
}

/// A content header frame around raw properties.
pub fn content_header(out: &mut Vec<u8>, channel: u16, body_size: u64, properties: &[u8]) {
    let [c0, c1] = channel.to_be_bytes();
    let size = u32::try_from(properties.len() + 12).unwrap_or(u32::MAX);
    out.extend_from_slice(&[HEADER, c0, c1]);
    out.extend_from_slice(&size.to_be_bytes());
    out.extend_from_slice(&[0, 60, 0, 0]);
    out.extend_from_slice(&body_size.to_be_bytes());
    out.extend_from_slice(properties);
    out.push(FRAME_END);
}

/// Body frames, split so that none exceeds `frame_max` (0 = no limit). No frame for an empty body.
pub fn content_body(out: &mut Vec<u8>, channel: u16, body: &[u8], frame_max: u32) {
    let limit = if frame_max <= FRAME_OVERHEAD {
        u32::MAX - FRAME_OVERHEAD
    } else {
        frame_max - FRAME_OVERHEAD
    };
    for part in body.chunks(usize::try_from(limit).unwrap_or(usize::MAX)) {
        content_body_head(out, channel, part.len());
        out.extend_from_slice(part);
        out.push(FRAME_END);
    }
}

/// The start of a body frame of `size` octets; the caller appends them and [`FRAME_END`].
pub fn content_body_head(out: &mut Vec<u8>, channel: u16, size: usize) {
    let [c0, c1] = channel.to_be_bytes();
    out.extend_from_slice(&[BODY, c0, c1]);
    out.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
}

/// `basic.deliver` without its content: the hot path, written without a detour over [`Method`].
pub fn deliver(
    out: &mut Vec<u8>,
    channel: u16,
    consumer_tag: &[u8],
    delivery_tag: u64,
    redelivered: bool,
    exchange: &[u8],
    routing_key: &[u8],
) {
    let start = open(out, METHOD, channel);
    let mut writer = Writer::new(out);
    writer.put(&[0, 60, 0, 60]);
    writer.short(consumer_tag);
    writer.put(&delivery_tag.to_be_bytes());
    writer.put(&[u8::from(redelivered)]);
    writer.short(exchange);
    writer.short(routing_key);
    close(out, start);
}

/// `basic.get-ok` without its content.
pub fn get_ok(
    out: &mut Vec<u8>,
    channel: u16,
    delivery_tag: u64,
    redelivered: bool,
    exchange: &[u8],
    routing_key: &[u8],
    message_count: u32,
) {
    let start = open(out, METHOD, channel);
    let mut writer = Writer::new(out);
    writer.put(&[0, 60, 0, 71]);
    writer.put(&delivery_tag.to_be_bytes());
    writer.put(&[u8::from(redelivered)]);
    writer.short(exchange);
    writer.short(routing_key);
    writer.put(&message_count.to_be_bytes());
    close(out, start);
}
