//! Round trips over the whole crate, and any split of the stream.

use bytes::BytesMut;
use proptest::prelude::*;

use super::*;
use crate::method::IDS;

#[test]
fn frames_that_are_given_back_are_taken_again() {
    let whole = conversation(b"body");
    let cut = whole.len() - 3;
    for stop in 1..=4 {
        let mut input = BytesMut::from(whole.get(..cut).unwrap());
        let mut frames = Frames::take(&mut input, FRAME_MIN_SIZE);
        for _ in 0..stop {
            assert!(frames.next_frame().unwrap().is_some());
        }
        frames.give_back(&mut input);
        assert!(whole.get(..cut).unwrap().ends_with(&input));
        input.extend_from_slice(whole.get(cut..).unwrap());
        let mut frames = Frames::take(&mut input, FRAME_MIN_SIZE);
        let mut left = 0;
        while frames.next_frame().unwrap().is_some() {
            left += 1;
        }
        // Open, declare, publish, header, body, heartbeat.
        assert_eq!(
            left,
            6 - (stop - 1),
            "the one given out last is there again"
        );
    }
}

/// A client's first minute: open, declare, publish one message of `body`, heartbeat.
fn conversation(body: &[u8]) -> Vec<u8> {
    let arguments = TableBuilder::new()
        .with("x-max-length", Value::I32(5))
        .with("x-queue-type", Value::LongStr(b"classic"));
    let mut properties = Vec::new();
    Properties {
        delivery_mode: Some(2),
        headers: Some(arguments.as_table()),
        ..Properties::default()
    }
    .write(&mut properties);
    let mut out = Vec::new();
    method(
        &mut out,
        1,
        &Method::ChannelOpen {
            out_of_band: "".into(),
        },
    );
    method(
        &mut out,
        1,
        &Method::QueueDeclare {
            ticket: 0,
            queue: "q".into(),
            passive: false,
            durable: true,
            exclusive: false,
            auto_delete: true,
            nowait: false,
            arguments: arguments.as_table(),
        },
    );
    method(
        &mut out,
        1,
        &Method::BasicPublish {
            ticket: 0,
            exchange: "".into(),
            routing_key: ShortStr(b"q\xff"),
            mandatory: true,
            immediate: false,
        },
    );
    let size = u64::try_from(body.len()).unwrap_or_default();
    content_header(&mut out, 1, size, &properties);
    content_body(&mut out, 1, body, FRAME_MIN_SIZE);
    heartbeat(&mut out);
    out
}

/// Decodes what arrives in the given pieces and writes it again.
fn echo(pieces: &[&[u8]]) -> Result<(Vec<u8>, Vec<u8>), DecodeError> {
    let (mut out, mut body) = (Vec::new(), Vec::new());
    let (mut input, mut assembly) = (BytesMut::new(), Assembly::default());
    for piece in pieces {
        input.extend_from_slice(piece);
        let mut frames = Frames::take(&mut input, FRAME_MIN_SIZE);
        while let Some(frame) = frames.next_frame()? {
            match frame.kind {
                FrameKind::Method => {
                    method(&mut out, frame.channel, &Method::decode(frame.payload)?)
                }
                FrameKind::Header => {
                    let header = ContentHeader::decode(frame.payload)?;
                    let mut raw = Vec::new();
                    Properties::parse(header.properties)?.write(&mut raw);
                    assert_eq!(raw, header.properties);
                    content_header(&mut out, frame.channel, header.body_size, &raw);
                    assembly.start(header.body_size);
                }
                FrameKind::Body => {
                    if let Some(whole) = assembly.push(frame.shared())? {
                        body.extend_from_slice(&whole);
                        content_body(&mut out, frame.channel, &whole, FRAME_MIN_SIZE);
                    }
                }
                FrameKind::Heartbeat => heartbeat(&mut out),
            }
        }
    }
    Ok((out, body))
}

#[test]
fn byte_by_byte_gives_the_same() {
    let sent = conversation(&[7; 10_000]);
    let pieces: Vec<&[u8]> = sent.chunks(1).collect();
    assert_eq!(echo(&pieces), Ok((sent.clone(), vec![7; 10_000])));
}

#[test]
fn numbers_and_names_are_unique() {
    let mut ids: Vec<_> = IDS
        .iter()
        .map(|(class, method, _)| (class, method))
        .collect();
    let mut names: Vec<_> = IDS.iter().map(|(_, _, name)| name).collect();
    ids.sort_unstable();
    names.sort_unstable();
    ids.dedup();
    names.dedup();
    assert_eq!((ids.len(), names.len()), (IDS.len(), IDS.len()));
}

#[test]
fn bits_share_octets() {
    let mut out = Vec::new();
    let declare = Method::QueueDeclare {
        ticket: 0,
        queue: "".into(),
        passive: true,
        durable: false,
        exclusive: true,
        auto_delete: false,
        nowait: true,
        arguments: Table::default(),
    };
    method(&mut out, 3, &declare);
    assert_eq!(
        out,
        b"\x01\x00\x03\x00\x00\x00\x0c\x00\x32\x00\x0a\x00\x00\x00\x15\x00\x00\x00\x00\xce"
    );
}

#[test]
fn broken_streams_are_named_after_what_was_sound() {
    let mut input = BytesMut::from(&conversation(b"x")[..]);
    input.extend_from_slice(b"\x01\x00\x01\x00\x00\x00\x01x\xcd");
    let mut frames = Frames::take(&mut input, FRAME_MIN_SIZE);
    let mut sound = 0;
    let error = loop {
        match frames.next_frame() {
            Ok(Some(_)) => sound += 1,
            Ok(None) => panic!("the broken frame went unseen"),
            Err(error) => break error,
        }
    };
    assert_eq!(
        (sound, error),
        (
            6,
            DecodeError::FrameEnd {
                kind: 1,
                size: 1,
                octet: 0xcd
            }
        )
    );
    let mut input = BytesMut::from(&b"\x03\x00\x01\xff\xff\xff\xff"[..]);
    let error = Frames::take(&mut input, FRAME_MIN_SIZE).next_frame().err();
    assert_eq!(
        error,
        Some(DecodeError::FrameTooLarge {
            kind: 3,
            size: u32::MAX,
            limit: 4088
        })
    );
}

#[test]
fn protocol_headers() {
    let head = |bytes: &[u8]| protocol_header(&mut BytesMut::from(bytes));
    assert_eq!(
        head(b"AMQP\x00\x00\x09\x01"),
        Some(ProtocolHeader::Accepted)
    );
    assert_eq!(
        head(b"AMQP\x01\x01\x08\x00"),
        Some(ProtocolHeader::Accepted)
    );
    assert_eq!(head(b"AMQP\x00\x01\x00\x00"), Some(ProtocolHeader::Refused));
    assert_eq!(head(b"GET / HTTP/1.1"), Some(ProtocolHeader::Refused));
    assert_eq!(head(b"AMQ"), None);
    assert_eq!(head(b""), None);
}

proptest! {
    #[test]
    fn any_split_gives_the_same(body in prop::collection::vec(any::<u8>(), 0..9000), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let sent = conversation(&body);
        let mut places: Vec<usize> = cuts.iter().map(|cut| cut.index(sent.len())).collect();
        places.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for place in places {
            pieces.push(&sent[from..place]);
            from = place;
        }
        pieces.push(&sent[from..]);
        prop_assert_eq!(echo(&pieces), Ok((sent.clone(), body)));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..200), class in 0usize..IDS.len()) {
        let mut input = BytesMut::from(&bytes[..]);
        let mut frames = Frames::take(&mut input, FRAME_MIN_SIZE);
        while let Ok(Some(frame)) = frames.next_frame() {
            let _ = Method::decode(frame.payload);
        }
        let (class, id, _) = IDS[class];
        let mut payload = [class.to_be_bytes(), id.to_be_bytes()].concat();
        payload.extend_from_slice(&bytes);
        if let Ok(value) = Method::decode(&payload) {
            let mut out = Vec::new();
            method(&mut out, 0, &value);
            prop_assert_eq!(Method::decode(&out[7..out.len() - 1]), Ok(value));
        }
        if let Ok(properties) = Properties::parse(&bytes) {
            let mut out = Vec::new();
            properties.write(&mut out);
            prop_assert_eq!(Properties::parse(&out), Ok(properties));
        }
        let _ = ContentHeader::decode(&bytes);
    }

    #[test]
    fn properties_survive(text in prop::collection::vec(any::<u8>(), 0..255), flags in any::<u16>(), number in any::<u64>()) {
        let table = TableBuilder::new().with("h", Value::LongStr(&text));
        let pick = |bit: u16| flags & (1 << bit) != 0;
        let text = ShortStr(&text);
        let properties = Properties {
            content_type: pick(15).then_some(text),
            content_encoding: pick(14).then_some(text),
            headers: pick(13).then_some(table.as_table()),
            delivery_mode: pick(12).then_some(2),
            priority: pick(11).then_some(9),
            correlation_id: pick(10).then_some(text),
            reply_to: pick(9).then_some(text),
            expiration: pick(8).then_some(text),
            message_id: pick(7).then_some(text),
            timestamp: pick(6).then_some(number),
            kind: pick(5).then_some(text),
            user_id: pick(4).then_some(text),
            app_id: pick(3).then_some(text),
            cluster_id: pick(2).then_some(text),
        };
        let mut raw = Vec::new();
        properties.write(&mut raw);
        prop_assert_eq!(Properties::parse(&raw), Ok(properties));
    }
}
