//! Writing values as Redis 7.2 does.

use super::listpack::Listpack;
use super::{LastingPair, Object, PACKED, PLAIN, Pair, old, stream, types};
use crate::number;

/// Elements and bytes of each up to which a set or sorted set is one listpack, and how many fields a hash may have.
const FEW: usize = 128;
const FEW_FIELDS: usize = 512;
const SHORT: usize = 64;
/// Integers up to which a set is nothing else.
const INTEGERS: usize = 512;
/// Bytes of a node of a list.
const NODE: usize = 8192;

pub(super) fn length(value: u64, into: &mut Vec<u8>) {
    match value {
        0..=63 => into.push(value as u8),
        64..=16_383 => into.extend_from_slice(&[0x40 | (value >> 8) as u8, value as u8]),
        _ => match u32::try_from(value) {
            Ok(value) => {
                into.push(0x80);
                into.extend_from_slice(&value.to_be_bytes());
            }
            Err(_) => {
                into.push(0x81);
                into.extend_from_slice(&value.to_be_bytes());
            }
        },
    }
}

pub(super) fn count(value: usize, into: &mut Vec<u8>) {
    length(value as u64, into);
}

/// A string as it is.
pub(super) fn bytes(text: &[u8], into: &mut Vec<u8>) {
    count(text.len(), into);
    into.extend_from_slice(text);
}

/// A string, as an integer if it is one of at most four bytes.
pub(super) fn string(text: &[u8], into: &mut Vec<u8>) {
    let integer = number::parse_i64(text).and_then(|value| i32::try_from(value).ok());
    let Some(value) = integer else {
        bytes(text, into);
        return;
    };
    let [a, b, c, d] = value.to_le_bytes();
    match value {
        -0x80..=0x7f => into.extend_from_slice(&[0xc0, a]),
        -0x8000..=0x7fff => into.extend_from_slice(&[0xc1, a, b]),
        _ => into.extend_from_slice(&[0xc2, a, b, c, d]),
    }
}

/// Type and value.
pub(super) fn object(object: &Object, into: &mut Vec<u8>) {
    match object {
        Object::String(text) => {
            into.push(types::STRING);
            string(text, into);
        }
        Object::List(items) => list(items, into),
        Object::Set(members) => set(members, into),
        Object::Hash(pairs) => hash(pairs, into),
        Object::LastingHash(fields) => lasting_hash(fields, into),
        Object::Zset(pairs) => zset(pairs, into),
        Object::Stream(stream) => {
            into.push(match stream.version() {
                5 => types::STREAM_LISTPACKS_5,
                4 => types::STREAM_LISTPACKS_4,
                _ => types::STREAM_LISTPACKS_3,
            });
            stream::write(stream, into);
        }
    }
}

fn list(items: &[Vec<u8>], into: &mut Vec<u8>) {
    into.push(types::LIST_QUICKLIST_2);
    let (mut nodes, mut written) = (0, Vec::new());
    let mut pack = Listpack::new();
    let end = |pack: &mut Listpack, written: &mut Vec<u8>| {
        let full = std::mem::replace(pack, Listpack::new());
        if full.is_empty() {
            return 0;
        }
        length(PACKED, written);
        bytes(&full.finish(), written);
        1
    };
    for item in items {
        // Of an element's lengths there are at most ten bytes.
        if pack.len() + item.len() + 10 > NODE {
            nodes += end(&mut pack, &mut written);
        }
        if item.len() + 16 > NODE {
            length(PLAIN, &mut written);
            bytes(item, &mut written);
            nodes += 1;
        } else {
            pack.push(item);
        }
    }
    nodes += end(&mut pack, &mut written);
    count(nodes, into);
    into.extend_from_slice(&written);
}

fn set(members: &[Vec<u8>], into: &mut Vec<u8>) {
    let integers: Option<Vec<i64>> = members
        .iter()
        .map(|member| number::parse_i64(member))
        .collect();
    match integers {
        Some(mut integers) if integers.len() <= INTEGERS => {
            integers.sort_unstable();
            into.push(types::SET_INTSET);
            bytes(&old::write_intset(&integers), into);
        }
        _ if members.len() <= FEW && are_short(members.iter()) => {
            into.push(types::SET_LISTPACK);
            bytes(&packed(members.iter()), into);
        }
        _ => {
            into.push(types::SET);
            count(members.len(), into);
            members.iter().for_each(|member| string(member, into));
        }
    }
}

fn hash(pairs: &[Pair], into: &mut Vec<u8>) {
    let texts = || pairs.iter().flat_map(|(field, value)| [field, value]);
    if pairs.len() <= FEW_FIELDS && are_short(texts()) {
        into.push(types::HASH_LISTPACK);
        bytes(&packed(texts()), into);
    } else {
        into.push(types::HASH);
        count(pairs.len(), into);
        texts().for_each(|text| string(text, into));
    }
}

fn lasting_hash(fields: &[LastingPair], into: &mut Vec<u8>) {
    into.push(types::HASH_2);
    count(fields.len(), into);
    for (field, value, at_ms) in fields {
        string(field, into);
        string(value, into);
        into.extend_from_slice(&at_ms.unwrap_or(u64::MAX).to_le_bytes());
    }
}

fn zset(pairs: &[(Vec<u8>, f64)], into: &mut Vec<u8>) {
    if pairs.len() <= FEW && are_short(pairs.iter().map(|(member, _)| member)) {
        let mut pack = Listpack::new();
        let mut score = Vec::new();
        for (member, value) in pairs {
            pack.push(member);
            score.clear();
            number::write_f64(&mut score, *value);
            pack.push(&score);
        }
        into.push(types::ZSET_LISTPACK);
        bytes(&pack.finish(), into);
    } else {
        into.push(types::ZSET_2);
        count(pairs.len(), into);
        // From the last one, so that who reads them inserts each in front.
        for (member, value) in pairs.iter().rev() {
            string(member, into);
            into.extend_from_slice(&value.to_le_bytes());
        }
    }
}

fn are_short<'a>(mut texts: impl Iterator<Item = &'a Vec<u8>>) -> bool {
    texts.all(|text| text.len() <= SHORT)
}

fn packed<'a>(texts: impl Iterator<Item = &'a Vec<u8>>) -> Vec<u8> {
    let mut pack = Listpack::new();
    texts.for_each(|text| pack.push(text));
    pack.finish()
}
