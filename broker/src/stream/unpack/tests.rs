use std::io::Write;

use proptest::prelude::*;

use super::super::batch::tests::packed;
use super::super::batch::{Builder, HeaderList, stamp};
use super::*;

const CODECS: [i16; 6] = [0, 1, 2, 3, 4, 100];

/// Snappy framed as Java's library does it is 100 here.
fn pack(codec: i16, records: &[u8]) -> Vec<u8> {
    match codec {
        1 => {
            let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            gzip.write_all(records).unwrap();
            gzip.finish().unwrap()
        }
        2 => snap::raw::Encoder::new().compress_vec(records).unwrap(),
        3 => {
            let mut lz4 = lz4_flex::frame::FrameEncoder::new(Vec::new());
            lz4.write_all(records).unwrap();
            lz4.finish().unwrap()
        }
        4 => zstd::encode_all(records, 3).unwrap(),
        100 => {
            let mut framed = b"\x82SNAPPY\0\0\0\0\x01\0\0\0\x01".to_vec();
            for block in records.chunks(32 << 10) {
                let block = snap::raw::Encoder::new().compress_vec(block).unwrap();
                framed.extend_from_slice(&(block.len() as u32).to_be_bytes());
                framed.extend_from_slice(&block);
            }
            framed
        }
        _ => records.to_vec(),
    }
}

fn batch_of(codec: i16, values: &[Vec<u8>]) -> BytesMut {
    let mut batch = Builder::new();
    let mut headers = HeaderList::default();
    headers.push(b"h", b"1");
    for value in values {
        batch.push(None, Some(value), &headers);
    }
    let mut batch = packed(&batch.seal(7), codec % 98, |records| pack(codec, records));
    stamp(&mut batch, 100, 0);
    batch
}

fn all(batch: Bytes, record_max: usize) -> Result<Vec<Record>, Unreadable> {
    let mut unpacked = Unpacked::open(&batch, record_max)?;
    let mut found = Vec::new();
    while let Some(record) = unpacked.next_record()? {
        found.push(record);
    }
    Ok(found)
}

#[test]
fn records_come_back_in_every_codec() {
    let values: Vec<Vec<u8>> = [0, 1, 100, 40_000, 300_000, 5]
        .iter()
        .map(|size| (0..*size).map(|at: u32| (at * 7 % 251) as u8).collect())
        .collect();
    for codec in CODECS {
        let batch = batch_of(codec, &values);
        assert!(Header::check(&batch).is_ok());
        let found = all(batch.freeze(), 1 << 20).unwrap_or_else(|why| panic!("{codec}: {why}"));
        assert_eq!(found.len(), values.len(), "{codec}");
        for ((at, record), value) in (100..).zip(&found).zip(&values) {
            assert_eq!((record.offset, record.headers.len()), (at, 1));
            assert_eq!(record.value.as_deref(), Some(&value[..]), "{codec}");
        }
    }
}

#[test]
fn a_bomb_ends_at_the_record_that_is_too_large() {
    let values = [vec![1; 10], vec![0; 20 << 20], vec![2; 10]];
    for codec in CODECS {
        let batch = batch_of(codec, &values);
        let mut unpacked = Unpacked::open(&batch.freeze(), 1 << 20).unwrap();
        assert!(unpacked.next_record().unwrap().is_some(), "{codec}");
        assert!(matches!(
            unpacked.next_record(),
            Err(Unreadable::TooLarge(size)) if size > 20 << 20
        ));
        assert!(unpacked.next_record().unwrap().is_none());
    }
}

#[test]
fn what_needs_too_much_memory_is_not_begun() {
    let plain = Builder::new().seal(1);
    let open = |codec, records: &[u8]| {
        let batch = packed(&plain, codec, |_| records.to_vec());
        Unpacked::open(&batch.freeze(), 1 << 20).map(|unpacked| unpacked.weight())
    };
    // A window of 2^31, and one that is the content of 2^60 octets.
    assert!(open(4, b"\x28\xb5\x2f\xfd\x00\xa8").is_err());
    assert!(open(4, b"\x28\xb5\x2f\xfd\xe0\0\0\0\0\0\0\0\x10").is_err());
    assert!(open(4, b"").is_err());
    // A block of 4 GiB of snappy, and one that says more than its octets can.
    assert!(open(2, b"\xff\xff\xff\xff\x0f").is_err());
    assert!(open(2, b"\x80\x80\x04\0").is_err());
    assert!(open(7, b"").is_err());
}

proptest! {
    #[test]
    fn damaged_batches_end_without_harm(
        codec in 0..CODECS.len(),
        damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
        size in 0usize..3_000,
    ) {
        let values = [vec![3; size], (0..size).map(|at| at as u8).collect(), Vec::new()];
        let mut batch = batch_of(CODECS[codec], &values);
        let records = batch.len() - batch::HEADER;
        for (at, octet) in damage {
            batch[batch::HEADER + at.index(records)] = octet;
        }
        if cut.index(3) == 0 {
            batch.truncate(batch::HEADER + cut.index(records));
            let length = (batch.len() - 12) as i32;
            batch[8..12].copy_from_slice(&length.to_be_bytes());
        }
        let _ = all(batch.freeze(), 4_000);
    }
}
