//! Values as `DUMP` gives them and `RESTORE` takes them: one value of the RDB format, with a version and a checksum behind it.
//!
//! ```text
//! type u8 │ value │ version u16 │ CRC-64 of all in front u64                                    integers little-endian
//! ```
//! What is written is what Redis 7.2 writes (version 11, lists and small collections as listpacks), but strings are never
//! compressed, and a hash whose fields have deadlines is Valkey's. What is read is every type that a Redis up to 7.2 or a Valkey up to 9 can have written and that is no module's.

mod functions;
mod input;
mod listpack;
mod old;
mod output;
mod stream;

pub use functions::{LibrariesError, dump_libraries, restore_libraries};
use input::Input;
pub use stream::{Consumer, Entry, Group, Id, Idempotence, Pending, Producer, Stream};

/// A field and its value.
pub type Pair = (Vec<u8>, Vec<u8>);
/// The same with a deadline, in ms since the epoch.
pub type LastingPair = (Vec<u8>, Vec<u8>, Option<u64>);

/// What a key holds.
#[derive(Debug, Clone, PartialEq)]
pub enum Object {
    String(Vec<u8>),
    List(Vec<Vec<u8>>),
    Set(Vec<Vec<u8>>),
    Hash(Vec<Pair>),
    /// Some field has a deadline.
    LastingHash(Vec<LastingPair>),
    /// Members and scores, in order of score.
    Zset(Vec<(Vec<u8>, f64)>),
    Stream(Stream),
}

/// Why a payload is not a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RdbError {
    /// Too short for a version and a checksum, or they are wrong.
    #[error("unknown version or wrong checksum")]
    Footer,
    #[error("not a value")]
    Data,
}

/// Of Redis 7.2, and of Valkey before 9.
const VERSION: u16 = 11;
/// Of Redis 8.6 and 8.8. Only streams are taken from them, and written so when they have something of these versions.
const IDEMPOTENT_VERSION: u16 = 13;
const RELEASING_VERSION: u16 = 14;
/// Of Valkey from 9 on.
const VALKEY_VERSION: u16 = 80;

mod types {
    pub(super) const STRING: u8 = 0;
    pub(super) const LIST: u8 = 1;
    pub(super) const SET: u8 = 2;
    /// Scores are texts.
    pub(super) const ZSET: u8 = 3;
    pub(super) const HASH: u8 = 4;
    pub(super) const ZSET_2: u8 = 5;
    pub(super) const HASH_ZIPMAP: u8 = 9;
    pub(super) const LIST_ZIPLIST: u8 = 10;
    pub(super) const SET_INTSET: u8 = 11;
    pub(super) const ZSET_ZIPLIST: u8 = 12;
    pub(super) const HASH_ZIPLIST: u8 = 13;
    pub(super) const LIST_QUICKLIST: u8 = 14;
    pub(super) const STREAM_LISTPACKS: u8 = 15;
    pub(super) const HASH_LISTPACK: u8 = 16;
    pub(super) const ZSET_LISTPACK: u8 = 17;
    pub(super) const LIST_QUICKLIST_2: u8 = 18;
    pub(super) const STREAM_LISTPACKS_2: u8 = 19;
    pub(super) const SET_LISTPACK: u8 = 20;
    pub(super) const STREAM_LISTPACKS_3: u8 = 21;
    /// Of Valkey: each field has a deadline, or -1.
    pub(super) const HASH_2: u8 = 22;
    pub(super) const STREAM_LISTPACKS_4: u8 = 26;
    pub(super) const STREAM_LISTPACKS_5: u8 = 27;
}

/// The bytes that `DUMP` gives.
#[must_use]
pub fn dump(object: &Object) -> Vec<u8> {
    let mut bytes = Vec::new();
    output::object(object, &mut bytes);
    let version = match bytes.first() {
        Some(&types::STREAM_LISTPACKS_4) => IDEMPOTENT_VERSION,
        Some(&types::STREAM_LISTPACKS_5) => RELEASING_VERSION,
        _ => VERSION,
    };
    sign(&mut bytes, version);
    bytes
}

/// A type and value with version and checksum behind it.
#[must_use]
pub fn signed(value: &[u8]) -> Vec<u8> {
    let mut bytes = value.to_vec();
    sign(&mut bytes, VERSION);
    bytes
}

fn sign(bytes: &mut Vec<u8>, version: u16) {
    bytes.extend_from_slice(&version.to_le_bytes());
    let sum = crc64(bytes);
    bytes.extend_from_slice(&sum.to_le_bytes());
}

/// What `RESTORE` is given. Collections are never empty and name nothing twice.
///
/// # Errors
/// See [`RdbError`].
pub fn restore(payload: &[u8]) -> Result<Object, RdbError> {
    object(&mut Input::new(verified(payload)?)).ok_or(RdbError::Data)
}

/// What stands in front of a version that is known and a checksum that is right.
fn verified(payload: &[u8]) -> Result<&[u8], RdbError> {
    let (signed, sum) = payload.split_last_chunk::<8>().ok_or(RdbError::Footer)?;
    let (value, version) = signed.split_last_chunk::<2>().ok_or(RdbError::Footer)?;
    let version = u16::from_le_bytes(*version);
    let known = match value.first() {
        Some(&(types::STREAM_LISTPACKS_4 | types::STREAM_LISTPACKS_5)) => {
            (IDEMPOTENT_VERSION..=RELEASING_VERSION).contains(&version)
        }
        _ => version <= VERSION || version == VALKEY_VERSION,
    };
    if !known || u64::from_le_bytes(*sum) != crc64(signed) {
        return Err(RdbError::Footer);
    }
    Ok(value)
}

fn object(input: &mut Input<'_>) -> Option<Object> {
    use types::*;
    let object = match input.byte()? {
        STRING => Object::String(input.string()?),
        LIST => Object::List(many(input, Input::string)?),
        LIST_ZIPLIST => Object::List(input.strings(old::ziplist)?),
        LIST_QUICKLIST => Object::List(nodes(input, |input| input.strings(old::ziplist))?),
        LIST_QUICKLIST_2 => Object::List(nodes(input, node)?),
        SET => Object::Set(many(input, Input::string)?),
        SET_INTSET => Object::Set(input.strings(old::intset)?),
        SET_LISTPACK => Object::Set(input.strings(listpack::read)?),
        HASH => Object::Hash(many(input, |input| {
            Some((input.string()?, input.string()?))
        })?),
        HASH_2 => lasting(many(input, lasting_field)?),
        HASH_ZIPMAP => Object::Hash(pairs(input.strings(old::zipmap)?)?),
        HASH_ZIPLIST => Object::Hash(pairs(input.strings(old::ziplist)?)?),
        HASH_LISTPACK => Object::Hash(pairs(input.strings(listpack::read)?)?),
        ZSET => Object::Zset(many(input, |input| {
            Some((input.string()?, input.text_double()?))
        })?),
        ZSET_2 => Object::Zset(many(input, |input| {
            Some((input.string()?, input.double()?))
        })?),
        ZSET_ZIPLIST => Object::Zset(scored(input.strings(old::ziplist)?)?),
        ZSET_LISTPACK => Object::Zset(scored(input.strings(listpack::read)?)?),
        STREAM_LISTPACKS => Object::Stream(stream::read(input, 1)?),
        STREAM_LISTPACKS_2 => Object::Stream(stream::read(input, 2)?),
        STREAM_LISTPACKS_3 => Object::Stream(stream::read(input, 3)?),
        STREAM_LISTPACKS_4 => Object::Stream(stream::read(input, 4)?),
        STREAM_LISTPACKS_5 => Object::Stream(stream::read(input, 5)?),
        _ => return None,
    };
    whole(object)
}

/// A count, and so many of what `read` reads.
fn many<'a, T>(
    input: &mut Input<'a>,
    read: impl Fn(&mut Input<'a>) -> Option<T>,
) -> Option<Vec<T>> {
    let mut all = Vec::new();
    for _ in 0..input.length()? {
        all.push(read(input)?);
    }
    Some(all)
}

/// The items of all nodes of a list.
fn nodes<'a>(
    input: &mut Input<'a>,
    read: impl Fn(&mut Input<'a>) -> Option<Vec<Vec<u8>>>,
) -> Option<Vec<Vec<u8>>> {
    Some(many(input, read)?.into_iter().flatten().collect())
}

/// How a node of a list keeps its items.
const PLAIN: u64 = 1;
const PACKED: u64 = 2;

fn node(input: &mut Input<'_>) -> Option<Vec<Vec<u8>>> {
    match input.length()? {
        PLAIN => Some(vec![input.string()?]),
        PACKED => input.strings(listpack::read),
        _ => None,
    }
}

/// A field of a hash with its value and deadline, -1 for none.
fn lasting_field(input: &mut Input<'_>) -> Option<LastingPair> {
    let (field, value) = (input.string()?, input.string()?);
    let at_ms = match input.long()? {
        -1 => None,
        at_ms => Some(u64::try_from(at_ms).ok()?),
    };
    Some((field, value, at_ms))
}

fn lasting(fields: Vec<LastingPair>) -> Object {
    if fields.iter().any(|(.., at_ms)| at_ms.is_some()) {
        return Object::LastingHash(fields);
    }
    let pairs = fields.into_iter().map(|(field, value, _)| (field, value));
    Object::Hash(pairs.collect())
}

/// Every two strings are one pair.
fn pairs(all: Vec<Vec<u8>>) -> Option<Vec<Pair>> {
    if !all.len().is_multiple_of(2) {
        return None;
    }
    let mut pairs = Vec::with_capacity(all.len() / 2);
    let mut all = all.into_iter();
    while let (Some(name), Some(value)) = (all.next(), all.next()) {
        pairs.push((name, value));
    }
    Some(pairs)
}

fn scored(all: Vec<Vec<u8>>) -> Option<Vec<(Vec<u8>, f64)>> {
    pairs(all)?
        .into_iter()
        .map(|(member, score)| Some((member, input::double(&score)?)))
        .collect()
}

/// A collection that is not empty, names nothing twice, and whose scores are numbers.
fn whole(mut object: Object) -> Option<Object> {
    let distinct = match &object {
        Object::String(_) | Object::Stream(_) => true,
        Object::List(items) => !items.is_empty(),
        Object::Set(members) => distinct(members.iter()),
        Object::Hash(pairs) => distinct(pairs.iter().map(|(field, _)| field)),
        Object::LastingHash(fields) => distinct(fields.iter().map(|(field, ..)| field)),
        Object::Zset(pairs) => {
            distinct(pairs.iter().map(|(member, _)| member))
                && pairs.iter().all(|(_, score)| !score.is_nan())
        }
    };
    if let Object::Zset(pairs) = &mut object {
        pairs.sort_by(|(a, x), (b, y)| x.total_cmp(y).then_with(|| a.cmp(b)));
    }
    distinct.then_some(object)
}

fn distinct<'a>(names: impl ExactSizeIterator<Item = &'a Vec<u8>>) -> bool {
    let count = names.len();
    let names: std::collections::HashSet<&Vec<u8>> = names.collect();
    count > 0 && names.len() == count
}

/// CRC-64 of Jones: polynomial `ad93d23594c935a9`, reflected, neither inverted at the start nor at the end.
fn crc64(bytes: &[u8]) -> u64 {
    const TABLE: [u64; 256] = {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut sum = byte as u64;
            let mut bit = 0;
            while bit < 8 {
                sum = sum >> 1
                    ^ if sum & 1 == 1 {
                        0x95ac_9329_ac4b_c9b5
                    } else {
                        0
                    };
                bit += 1;
            }
            table[byte] = sum;
            byte += 1;
        }
        table
    };
    bytes.iter().fold(0, |sum, byte| {
        let at = usize::from(sum as u8 ^ byte);
        // 256 entries for a byte.
        sum >> 8 ^ TABLE.get(at).copied().unwrap_or(0)
    })
}

#[cfg(test)]
mod tests;
