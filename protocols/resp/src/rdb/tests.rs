use proptest::prelude::*;

use super::*;

/// Version and checksum.
const FOOTER: usize = 10;

/// What real servers answered to `DUMP`: server, name, payload.
fn captured() -> Vec<(String, String, Vec<u8>)> {
    let text = include_str!("../../testdata/dumps.txt");
    text.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| {
            let mut words = line.split(' ');
            let mut word = || words.next().expect("three words").to_owned();
            let (server, name, hex) = (word(), word(), word());
            let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex");
            let payload = (0..hex.len()).step_by(2).map(byte).collect();
            (server, name, payload)
        })
        .collect()
}

/// Sets and hashes of many elements have no order.
fn ordered(mut object: Object) -> Object {
    match &mut object {
        Object::Set(members) => members.sort(),
        Object::Hash(pairs) => pairs.sort(),
        Object::LastingHash(fields) => fields.sort(),
        // When somebody was seen differs from run to run.
        Object::Stream(stream) => {
            for group in &mut stream.groups {
                for consumer in &mut group.consumers {
                    (consumer.seen_ms, consumer.active_ms) = (0, None);
                }
                for pending in &mut group.pending {
                    pending.at_ms = 0;
                }
            }
        }
        _ => {}
    }
    object
}

fn signed(value: &[u8], version: u16) -> Vec<u8> {
    let mut bytes = value.to_vec();
    sign(&mut bytes, version);
    bytes
}

#[test]
fn checksum_is_the_known_one() {
    assert_eq!(crc64(b"123456789"), 0xe9c6_d914_c4b8_d9ca);
}

#[test]
fn what_servers_wrote_is_read_and_written_again() {
    let mut known = std::collections::BTreeMap::new();
    for (server, name, payload) in captured() {
        let object = restore(&payload).unwrap_or_else(|error| panic!("{server} {name}: {error}"));
        assert_eq!(
            restore(&dump(&object)),
            Ok(object.clone()),
            "{server} {name}"
        );
        let object = ordered(object);
        if let Some(other) = known.insert(name.clone(), object.clone()) {
            assert_eq!(other, object, "{name}");
        }
    }
    let text = |text: &str| text.as_bytes().to_vec();
    assert_eq!(known["string-lzf"], {
        Object::String([text("abc").repeat(40), text("xyz").repeat(30)].concat())
    });
    assert_eq!(
        known["zset-few"],
        Object::Zset(vec![
            (text("c"), f64::NEG_INFINITY),
            (text("f"), -0.1),
            (text("a"), 1.0),
            (text("b"), 2.5),
            (text("e"), 1e30),
            (text("d"), f64::INFINITY),
        ])
    );
    let Object::List(items) = &known["list-small"] else {
        panic!("a list");
    };
    assert_eq!(items[6], b"123456789012345");
    let Object::Stream(stream) = &known["stream"] else {
        panic!("a stream");
    };
    assert_eq!((stream.entries.len(), stream.added), (130, 132));
    assert_eq!((stream.last, stream.max_deleted), ((2000, 6), (2000, 5)));
    let group = &stream.groups[0];
    assert_eq!((group.consumers.len(), group.pending.len()), (3, 4));
}

#[test]
fn small_values_are_written_as_servers_write_them() {
    for (server, name, payload) in captured() {
        let compressed = ["list", "many", "long", "stream", "lzf", "binary"];
        if server.starts_with("valkey") && !compressed.iter().any(|word| name.contains(word)) {
            let object = restore(&payload).expect("a value");
            let ours = dump(&object);
            let value = |bytes: &[u8]| bytes[..bytes.len() - FOOTER].escape_ascii().to_string();
            assert_eq!(value(&ours), value(&payload), "{name}");
        }
    }
}

#[test]
fn old_forms_are_read() {
    let pack = |values: &[&[u8]]| {
        // A ziplist of strings of up to 63 bytes and integers of one byte.
        let mut bytes = vec![0; 10];
        let (mut before, mut last) = (0, 10);
        for value in values {
            last = bytes.len();
            bytes.push(before);
            match crate::number::parse_i64(value) {
                Some(value @ 0..=12) => bytes.push(0xf1 + value as u8),
                Some(value) => bytes.extend_from_slice(&[0xfe, value as u8]),
                None => {
                    bytes.push(value.len() as u8);
                    bytes.extend_from_slice(value);
                }
            }
            before = (bytes.len() - last) as u8;
        }
        bytes.push(0xff);
        let size = (bytes.len() as u32).to_le_bytes();
        bytes[..4].copy_from_slice(&size);
        bytes[4..8].copy_from_slice(&(last as u32).to_le_bytes());
        bytes[8..10].copy_from_slice(&(values.len() as u16).to_le_bytes());
        bytes
    };
    let packed = |kind: u8, values: &[&[u8]]| {
        let mut value = vec![kind];
        if kind == types::LIST_QUICKLIST {
            value.push(1);
        }
        output::bytes(&pack(values), &mut value);
        restore(&signed(&value, 6))
    };
    let text = |text: &str| text.as_bytes().to_vec();
    let values: &[&[u8]] = &[b"a", b"1", b"bcd", b"-100"];
    let list = Object::List(vec![text("a"), text("1"), text("bcd"), text("-100")]);
    assert_eq!(packed(types::LIST_ZIPLIST, values), Ok(list.clone()));
    assert_eq!(packed(types::LIST_QUICKLIST, values), Ok(list));
    assert_eq!(
        packed(types::HASH_ZIPLIST, values),
        Ok(Object::Hash(vec![
            (text("a"), text("1")),
            (text("bcd"), text("-100"))
        ]))
    );
    assert_eq!(
        packed(types::ZSET_ZIPLIST, values),
        Ok(Object::Zset(vec![(text("bcd"), -100.0), (text("a"), 1.0)]))
    );
    assert_eq!(
        packed(types::HASH_ZIPLIST, &[b"a", b"1", b"a", b"2"]),
        Err(RdbError::Data)
    );
    assert_eq!(
        packed(types::HASH_ZIPLIST, &values[..3]),
        Err(RdbError::Data)
    );
    assert_eq!(packed(types::LIST_ZIPLIST, &[]), Err(RdbError::Data));
    let mut map = vec![types::HASH_ZIPMAP];
    output::bytes(b"\x02\x01a\x01\x00b\x02cd\x00\x02xx\xff", &mut map);
    assert_eq!(
        restore(&signed(&map, 2)),
        Ok(Object::Hash(vec![
            (text("a"), text("b")),
            (text("cd"), text(""))
        ]))
    );
    let zset = b"\x03\x02\x01a\x031.5\x01b\xff";
    assert_eq!(
        restore(&signed(zset, 7)),
        Ok(Object::Zset(vec![
            (text("b"), f64::NEG_INFINITY),
            (text("a"), 1.5)
        ]))
    );
}

#[test]
fn footers_are_judged_first() {
    let good = signed(b"\x00\x01a", 11);
    assert_eq!(restore(&good), Ok(Object::String(b"a".to_vec())));
    for version in [0, 6, 10, 80] {
        assert!(restore(&signed(b"\x00\x01a", version)).is_ok());
    }
    // Of Redis 8 only what these versions have of their own.
    for version in [12, 13, 14, 79, 81, u16::MAX] {
        assert_eq!(
            restore(&signed(b"\x00\x01a", version)),
            Err(RdbError::Footer)
        );
    }
    for length in 0..good.len() {
        assert_eq!(restore(&good[..length]), Err(RdbError::Footer));
    }
    assert_eq!(restore(&signed(b"", 11)), Err(RdbError::Data));
}

#[test]
fn what_claims_to_be_large_costs_nothing() {
    for value in [
        &b"\x00\x81\x7f\xff\xff\xff\xff\xff\xff\xff"[..],
        b"\x02\x81\x7f\xff\xff\xff\xff\xff\xff\xff",
        b"\x00\xc3\x05\x81\x7f\xff\xff\xff\xff\xff\xff\xffabcde",
        b"\x0b\x08\x08\x00\x00\x00\xff\xff\xff\xff",
        b"\x15\x81\xff\xff\xff\xff\xff\xff\xff\xff",
    ] {
        assert_eq!(restore(&signed(value, 11)), Err(RdbError::Data));
    }
}

fn texts() -> impl Strategy<Value = Vec<Vec<u8>>> {
    let text = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..100),
        any::<i64>().prop_map(|value| value.to_string().into_bytes()),
        any::<i8>().prop_map(|value| value.to_string().into_bytes()),
    ];
    prop::collection::hash_set(text, 1..200).prop_map(|texts| texts.into_iter().collect())
}

fn any_stream() -> impl Strategy<Value = Object> {
    let pairs = prop_oneof![
        3 => Just(vec![(b"f".to_vec(), b"1".to_vec()), (b"g".to_vec(), b"v".to_vec())]),
        1 => prop::collection::vec((prop::collection::vec(any::<u8>(), 0..5), prop::collection::vec(any::<u8>(), 0..900)), 0..4),
    ];
    (
        prop::collection::btree_map((0u64..9, any::<u64>()), pairs, 0..150),
        any::<u64>(),
        prop::collection::btree_map(
            (any::<u64>(), any::<u64>()),
            (
                any::<u64>(),
                any::<u64>(),
                prop::option::weighted(0.9, 0usize..2),
            ),
            0..20,
        ),
        prop_oneof![Just(-1i64), 0..i64::MAX],
        prop::option::of(prop::collection::vec((any::<u64>(), 0u64..9), 0..9)),
    )
        .prop_map(|(entries, added, pending, read, known)| {
            let consumer = |name: &str, active_ms| Consumer {
                name: name.into(),
                seen_ms: 5,
                active_ms,
            };
            let released = pending.values().any(|(.., consumer)| consumer.is_none());
            let known = known.map(|ids| Idempotence {
                duration_s: 7,
                ids_max: added,
                producers: vec![(
                    b"p".to_vec(),
                    ids.into_iter()
                        .map(|id| (id.0.to_string().into_bytes(), id))
                        .collect(),
                )],
                added,
                duplicates: 1 << 40,
            });
            // Version 5 has the facts of version 4 always.
            let known = known.or(released.then(|| Idempotence {
                duration_s: 100,
                ids_max: 100,
                ..Idempotence::default()
            }));
            let pending = pending
                .into_iter()
                .map(|(id, (at_ms, count, consumer))| Pending {
                    id,
                    at_ms: at_ms >> 1,
                    count,
                    consumer,
                });
            Object::Stream(Stream {
                last: (9, 0),
                max_deleted: (3, added),
                added,
                entries: entries.into_iter().collect(),
                groups: vec![Group {
                    name: b"g".to_vec(),
                    last: (1, added),
                    read: Some(read),
                    consumers: vec![consumer("a", None), consumer("b", Some(7))],
                    pending: pending.collect(),
                }],
                idempotence: known,
            })
        })
}

fn any_object() -> impl Strategy<Value = Object> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300).prop_map(Object::String),
        any::<i64>().prop_map(|value| Object::String(value.to_string().into_bytes())),
        texts().prop_map(Object::List),
        (texts(), 1usize..9000).prop_map(|(mut texts, long)| {
            texts.push(vec![b'x'; long]);
            Object::List(texts)
        }),
        texts().prop_map(Object::Set),
        prop::collection::btree_set(any::<i32>(), 1..40).prop_map(|set| {
            Object::Set(
                set.into_iter()
                    .map(|n| n.to_string().into_bytes())
                    .collect(),
            )
        }),
        texts().prop_map(|texts| Object::Hash(
            texts.into_iter().map(|text| (text.clone(), text)).collect()
        )),
        (texts(), 0..u64::MAX >> 1).prop_map(|(texts, at_ms)| Object::LastingHash(
            texts
                .into_iter()
                .enumerate()
                .map(|(n, text)| (text.clone(), text, (n % 3 == 0).then_some(at_ms)))
                .collect()
        )),
        (texts(), any::<i64>()).prop_map(|(texts, seed)| {
            let mut pairs: Vec<_> = texts
                .into_iter()
                .enumerate()
                .map(|(n, text)| (text, (n as f64 - 20.0) * seed as f64 / 1024.0 + 0.0))
                .collect();
            pairs.sort_by(|(a, x), (b, y)| x.total_cmp(y).then_with(|| a.cmp(b)));
            Object::Zset(pairs)
        }),
        any_stream(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn what_is_dumped_is_restored(object in any_object()) {
        let payload = dump(&object);
        let back = restore(&payload).map(|back| match (back, &object) {
            // Integers come in order.
            (Object::Set(mut a), Object::Set(b)) => {
                a.sort();
                let mut b = b.clone();
                b.sort();
                prop_assert_eq!(a, b);
                Ok(object.clone())
            }
            (back, _) => Ok(back),
        });
        match back {
            Ok(back) => prop_assert_eq!(back?, object),
            Err(error) => prop_assert!(false, "{error}"),
        }
    }

    /// Flipped, cut or inserted bytes under a good checksum: an error or some value, never a panic.
    #[test]
    fn hostile_payloads_are_borne(
        which in any::<prop::sample::Index>(),
        object in any_object(),
        from_server in any::<bool>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in prop::option::of(any::<prop::sample::Index>()),
    ) {
        let payload = if from_server {
            let all = captured();
            all[which.index(all.len())].2.clone()
        } else {
            dump(&object)
        };
        let mut value = payload[..payload.len() - FOOTER].to_vec();
        for (place, byte) in flips {
            let place = place.index(value.len());
            value[place] = byte;
        }
        if let Some(cut) = cut {
            value.truncate(cut.index(value.len()));
        }
        if let Ok(object) = restore(&signed(&value, 11)) {
            // What is taken can be given.
            prop_assert!(restore(&dump(&object)).is_ok());
        }
        prop_assert_eq!(restore(&value).err(), Some(RdbError::Footer));
    }
}
