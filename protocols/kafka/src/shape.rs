//! The shape of each cold request, walked before the generated decoder sees a byte of it.
//!
//! The generated decoder does `Vec::with_capacity(count)` with the count from the wire, so thirty bytes could ask for tens of
//! gigabytes. [`decode`] therefore first walks the request by its schema: every length must fit into the frame, every count
//! must be possible in what is left, and the total of elements has a limit, since one byte on the wire can become a structure
//! of a hundred in memory.

use crate::DecodeError;
use crate::header::Api;
use crate::wire::{Reader, Write};
use bytes::Bytes;
use kafka_protocol::protocol::Decodable;

/// Bounds on one cold request.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Array elements, tagged fields included, of the whole request.
    pub elements: usize,
}

impl Default for Limits {
    fn default() -> Self {
        // The largest honest request known is an OffsetCommit or CreateTopics of all partitions of a large cluster.
        Self { elements: 200_000 }
    }
}

/// A field and the versions that have it.
#[derive(Debug, Clone, Copy)]
struct Field {
    kind: Kind,
    from: i16,
    to: i16,
}

impl Field {
    fn is_in(&self, version: i16) -> bool {
        (self.from..=self.to).contains(&version)
    }
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    /// A number, boolean or uuid of so many bytes.
    Fixed(usize),
    /// Nullable or not: null is told from the rest by the generated decoder.
    Text,
    Blob,
    Numbers(usize),
    Texts,
    Structs(&'static [Field]),
}

const fn all(kind: Kind) -> Field {
    since(0, kind)
}

const fn since(from: i16, kind: Kind) -> Field {
    Field {
        kind,
        from,
        to: i16::MAX,
    }
}

const fn until(to: i16, kind: Kind) -> Field {
    Field { kind, from: 0, to }
}

const fn between(from: i16, to: i16, kind: Kind) -> Field {
    Field { kind, from, to }
}

use Kind::{Blob, Fixed, Numbers, Structs, Text, Texts};
const BOOL: Kind = Fixed(1);
const I8: Kind = Fixed(1);
const I16: Kind = Fixed(2);
const I32: Kind = Fixed(4);
const I64: Kind = Fixed(8);
const UUID: Kind = Fixed(16);
const I32S: Kind = Numbers(4);
const NAME_AND_INDEXES: &[Field] = &[all(Text), all(I32S)];
const NAME_AND_VALUE: &[Field] = &[all(Text), all(Text)];

/// The requests with their key and the versions for which the shape holds.
const SHAPES: &[(i16, i16, i16, &[Field])] = &[
    (
        2,
        1,
        10,
        &[
            all(I32),
            since(2, I8),
            all(Structs(&[
                all(Text),
                all(Structs(&[all(I32), since(4, I32), all(I64)])),
            ])),
            since(10, I32),
        ],
    ),
    (
        3,
        0,
        13,
        &[
            all(Structs(&[since(10, UUID), all(Text)])),
            since(4, BOOL),
            between(8, 10, BOOL),
            since(8, BOOL),
        ],
    ),
    (
        8,
        2,
        9,
        &[
            all(Text),
            all(I32),
            all(Text),
            since(7, Text),
            until(4, I64),
            all(Structs(&[
                all(Text),
                all(Structs(&[all(I32), all(I64), since(6, I32), all(Text)])),
            ])),
        ],
    ),
    (
        9,
        1,
        9,
        &[
            until(7, Text),
            until(7, Structs(NAME_AND_INDEXES)),
            since(
                8,
                Structs(&[
                    all(Text),
                    since(9, Text),
                    since(9, I32),
                    all(Structs(NAME_AND_INDEXES)),
                ]),
            ),
            since(7, BOOL),
        ],
    ),
    (10, 0, 6, &[until(3, Text), since(1, I8), since(4, Texts)]),
    (
        11,
        0,
        9,
        &[
            all(Text),
            all(I32),
            since(1, I32),
            all(Text),
            since(5, Text),
            all(Text),
            all(Structs(&[all(Text), all(Blob)])),
            since(8, Text),
        ],
    ),
    (12, 0, 4, &[all(Text), all(I32), all(Text), since(3, Text)]),
    (
        13,
        0,
        5,
        &[
            all(Text),
            until(2, Text),
            since(3, Structs(&[all(Text), all(Text), since(5, Text)])),
        ],
    ),
    (
        14,
        0,
        5,
        &[
            all(Text),
            all(I32),
            all(Text),
            since(3, Text),
            since(5, Text),
            since(5, Text),
            all(Structs(&[all(Text), all(Blob)])),
        ],
    ),
    (15, 0, 6, &[all(Texts), since(3, BOOL)]),
    (16, 0, 5, &[since(4, Texts), since(5, Texts)]),
    (17, 0, 1, &[all(Text)]),
    (18, 0, 4, &[since(3, Text), since(3, Text)]),
    (
        19,
        2,
        7,
        &[
            all(Structs(&[
                all(Text),
                all(I32),
                all(I16),
                all(Structs(&[all(I32), all(I32S)])),
                all(Structs(NAME_AND_VALUE)),
            ])),
            all(I32),
            all(BOOL),
        ],
    ),
    (
        20,
        1,
        6,
        &[
            since(6, Structs(&[all(Text), all(UUID)])),
            until(5, Texts),
            all(I32),
        ],
    ),
    (
        21,
        0,
        2,
        &[
            all(Structs(&[all(Text), all(Structs(&[all(I32), all(I64)]))])),
            all(I32),
        ],
    ),
    (
        22,
        0,
        5,
        &[all(Text), all(I32), since(3, I64), since(3, I16)],
    ),
    (
        23,
        2,
        4,
        &[
            since(3, I32),
            all(Structs(&[
                all(Text),
                all(Structs(&[all(I32), all(I32), all(I32)])),
            ])),
        ],
    ),
    (
        24,
        0,
        5,
        &[
            since(
                4,
                Structs(&[
                    all(Text),
                    all(I64),
                    all(I16),
                    all(BOOL),
                    all(Structs(NAME_AND_INDEXES)),
                ]),
            ),
            until(3, Text),
            until(3, I64),
            until(3, I16),
            until(3, Structs(NAME_AND_INDEXES)),
        ],
    ),
    (25, 0, 4, &[all(Text), all(I64), all(I16), all(Text)]),
    (26, 0, 5, &[all(Text), all(I64), all(I16), all(BOOL)]),
    (
        28,
        0,
        5,
        &[
            all(Text),
            all(Text),
            all(I64),
            all(I16),
            since(3, I32),
            since(3, Text),
            since(3, Text),
            all(Structs(&[
                all(Text),
                all(Structs(&[all(I32), all(I64), since(2, I32), all(Text)])),
            ])),
        ],
    ),
    (
        32,
        1,
        4,
        &[
            all(Structs(&[all(I8), all(Text), all(Texts)])),
            all(BOOL),
            since(3, BOOL),
        ],
    ),
    (
        33,
        0,
        2,
        &[
            all(Structs(&[all(I8), all(Text), all(Structs(NAME_AND_VALUE))])),
            all(BOOL),
        ],
    ),
    (35, 1, 4, &[all(Structs(NAME_AND_INDEXES))]),
    (36, 0, 2, &[all(Blob)]),
    (
        37,
        0,
        3,
        &[
            all(Structs(&[all(Text), all(I32), all(Structs(&[all(I32S)]))])),
            all(I32),
            all(BOOL),
        ],
    ),
    (42, 0, 2, &[all(Texts)]),
    (
        44,
        0,
        1,
        &[
            all(Structs(&[
                all(I8),
                all(Text),
                all(Structs(&[all(Text), all(I8), all(Text)])),
            ])),
            all(BOOL),
        ],
    ),
    (46, 0, 0, &[all(I32), all(Structs(NAME_AND_INDEXES))]),
    (
        47,
        0,
        0,
        &[
            all(Text),
            all(Structs(&[all(Text), all(Structs(&[all(I32)]))])),
        ],
    ),
    (60, 0, 2, &[all(BOOL), since(1, I8), since(2, BOOL)]),
    (61, 0, 0, &[all(Structs(NAME_AND_INDEXES))]),
    (65, 0, 0, &[all(Texts)]),
    (
        66,
        0,
        2,
        &[all(Texts), all(Numbers(8)), since(1, I64), since(2, Text)],
    ),
];

/// Whether `version` of the request `key` can be decoded by [`decode`].
pub fn is_known(key: i16, version: i16) -> bool {
    find(key, version).is_some()
}

fn find(key: i16, version: i16) -> Option<&'static [Field]> {
    let &(_, min, max, fields) = SHAPES.iter().find(|row| row.0 == key)?;
    (min..=max).contains(&version).then_some(fields)
}

/// Decodes the body of the cold request `key`: walks it by its shape, then hands it to the generated decoder, whose strings
/// and bytes are slices of `body`.
pub fn decode<R: Decodable>(
    key: i16,
    version: i16,
    mut body: Bytes,
    limits: Limits,
) -> Result<R, DecodeError> {
    check(key, version, &body, limits)?;
    // What the walk allows can only fail here for null where the schema forbids it, or text that is not UTF-8.
    R::decode(&mut body, version).map_err(|_| DecodeError::Utf8)
}

/// Walks `body` by the shape of the request; see [`decode`]. Bytes behind the last field are ignored, as Kafka does: librdkafka
/// sends some with its Metadata requests.
pub fn check(key: i16, version: i16, body: &[u8], limits: Limits) -> Result<(), DecodeError> {
    let unknown = DecodeError::Version { key, version };
    let fields = find(key, version).ok_or(unknown)?;
    let flexible = Api::find(key).ok_or(unknown)?.is_flexible(version);
    let mut walk = Walk {
        reader: Reader::new(body),
        version,
        flexible,
        elements: limits.elements,
    };
    walk.fields(fields)?;
    Ok(())
}

/// A request body of this shape, for tests and as seed of fuzzing: one element in each array, `text` in each string, `fill` in each
/// byte of a number. `None`: the shape is not known.
#[doc(hidden)]
#[must_use]
pub fn sample(key: i16, version: i16, text: &str, fill: u8) -> Option<Vec<u8>> {
    let fields = find(key, version)?;
    let flexible = Api::find(key)?.is_flexible(version);
    let mut out = Vec::new();
    put_sample(&mut out, fields, version, flexible, text, fill);
    Some(out)
}

fn put_sample(
    out: &mut Vec<u8>,
    fields: &[Field],
    version: i16,
    flexible: bool,
    text: &str,
    fill: u8,
) {
    for field in fields.iter().filter(|field| field.is_in(version)) {
        match field.kind {
            Fixed(size) => out.extend(std::iter::repeat_n(fill, size)),
            Text => out.put_string(text, flexible),
            Blob => out.put_length(0, flexible),
            Numbers(size) => {
                out.put_length(1, flexible);
                out.extend(std::iter::repeat_n(fill, size));
            }
            Texts => {
                out.put_length(1, flexible);
                out.put_string(text, flexible);
            }
            Structs(fields) => {
                out.put_length(1, flexible);
                put_sample(out, fields, version, flexible, text, fill);
            }
        }
    }
    out.put_no_tags(flexible);
}

struct Walk<'a> {
    reader: Reader<'a>,
    version: i16,
    flexible: bool,
    /// Elements that may still come.
    elements: usize,
}

impl Walk<'_> {
    fn fields(&mut self, fields: &[Field]) -> Result<(), DecodeError> {
        let version = self.version;
        for field in fields.iter().filter(|field| field.is_in(version)) {
            self.field(field.kind)?;
        }
        if self.flexible {
            // The generated decoder keeps unknown tags in a map.
            let tags = self.reader.clone().uvarint()? as usize;
            self.spend(tags)?;
            self.reader.tags(true)?;
        }
        Ok(())
    }

    fn field(&mut self, kind: Kind) -> Result<(), DecodeError> {
        match kind {
            Fixed(size) => self.reader.span(size).map(drop),
            Text => self.reader.nullable_string(self.flexible).map(drop),
            Blob => self.reader.nullable_bytes(self.flexible).map(drop),
            Numbers(size) => {
                let count = self.elements()?;
                self.reader
                    .span(count.checked_mul(size).ok_or(DecodeError::Length)?)
                    .map(drop)
            }
            Texts => {
                for _ in 0..self.elements()? {
                    self.reader.string(self.flexible)?;
                }
                Ok(())
            }
            Structs(fields) => {
                for _ in 0..self.elements()? {
                    self.fields(fields)?;
                }
                Ok(())
            }
        }
    }

    fn elements(&mut self) -> Result<usize, DecodeError> {
        let count = self.reader.count(self.flexible)?;
        self.spend(count)?;
        Ok(count)
    }

    fn spend(&mut self, count: usize) -> Result<(), DecodeError> {
        self.elements = self
            .elements
            .checked_sub(count)
            .ok_or(DecodeError::TooMany)?;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
