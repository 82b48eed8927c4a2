//! Field tables with RabbitMQ's types. A table is a view of validated bytes: nothing is built, a lookup walks it.

use crate::error::DecodeError;
use crate::wire::{Field, Reader, Writer};

/// Tables and arrays inside each other. RabbitMQ has no limit; real clients need three.
const DEPTH_MAX: u8 = 32;

/// One value of a table or array.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value<'a> {
    Bool(bool),
    I8(i8),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    F32(f32),
    F64(f64),
    /// Decimal places and the unscaled value.
    Decimal(u8, u32),
    LongStr(&'a [u8]),
    Array(Array<'a>),
    /// Seconds since 1970.
    Timestamp(u64),
    Table(Table<'a>),
    Void,
    Bytes(&'a [u8]),
}

impl<'a> Value<'a> {
    /// Any of the integer types.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        Some(match *self {
            Self::I8(v) => v.into(),
            Self::U8(v) => v.into(),
            Self::I16(v) => v.into(),
            Self::U16(v) => v.into(),
            Self::I32(v) => v.into(),
            Self::U32(v) => v.into(),
            Self::I64(v) => v,
            _ => return None,
        })
    }

    /// A long string.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&'a [u8]> {
        match *self {
            Self::LongStr(v) => Some(v),
            _ => None,
        }
    }

    /// The name that RabbitMQ's error texts use for the type.
    #[must_use]
    pub const fn type_name(&self) -> &'static str {
        match self {
            Self::Bool(_) => "bool",
            Self::I8(_) => "byte",
            Self::U8(_) => "unsignedbyte",
            Self::I16(_) => "short",
            Self::U16(_) => "unsignedshort",
            Self::I32(_) => "signedint",
            Self::U32(_) => "unsignedint",
            Self::I64(_) => "long",
            Self::F32(_) => "float",
            Self::F64(_) => "double",
            Self::Decimal(..) => "decimal",
            Self::LongStr(_) => "longstr",
            Self::Array(_) => "array",
            Self::Timestamp(_) => "timestamp",
            Self::Table(_) => "table",
            Self::Void => "void",
            Self::Bytes(_) => "binary",
        }
    }

    fn read(reader: &mut Reader<'a>, depth: u8) -> Result<Self, DecodeError> {
        let tag = reader.u8()?;
        Ok(match tag {
            b't' => Self::Bool(reader.u8()? != 0),
            b'b' => Self::I8(i8::from_be_bytes(reader.array()?)),
            b'B' => Self::U8(reader.u8()?),
            b's' => Self::I16(i16::from_be_bytes(reader.array()?)),
            b'u' => Self::U16(reader.u16()?),
            b'I' => Self::I32(i32::from_be_bytes(reader.array()?)),
            b'i' => Self::U32(reader.u32()?),
            b'l' | b'L' => Self::I64(i64::from_be_bytes(reader.array()?)),
            b'f' => Self::F32(f32::from_be_bytes(reader.array()?)),
            b'd' => Self::F64(f64::from_be_bytes(reader.array()?)),
            b'D' => Self::Decimal(reader.u8()?, reader.u32()?),
            b'S' => Self::LongStr(reader.long()?),
            b'x' => Self::Bytes(reader.long()?),
            b'T' => Self::Timestamp(reader.u64()?),
            b'V' => Self::Void,
            b'A' => {
                let bytes = reader.long()?;
                validate(bytes, false, depth)?;
                Self::Array(Array(bytes))
            }
            b'F' => {
                let bytes = reader.long()?;
                validate(bytes, true, depth)?;
                Self::Table(Table(bytes))
            }
            other => return Err(DecodeError::UnknownFieldType(other)),
        })
    }

    /// Reads what was validated before: nested bytes are not walked again.
    fn read_valid(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let mut ahead = reader.clone();
        match ahead.u8()? {
            b'A' => {
                let bytes = ahead.long()?;
                *reader = ahead;
                Ok(Self::Array(Array(bytes)))
            }
            b'F' => {
                let bytes = ahead.long()?;
                *reader = ahead;
                Ok(Self::Table(Table(bytes)))
            }
            _ => Self::read(reader, 0),
        }
    }

    fn write(&self, writer: &mut Writer<'_>) {
        match *self {
            Self::Bool(v) => writer.put(&[b't', u8::from(v)]),
            Self::I8(v) => tagged(writer, b'b', &v.to_be_bytes()),
            Self::U8(v) => tagged(writer, b'B', &[v]),
            Self::I16(v) => tagged(writer, b's', &v.to_be_bytes()),
            Self::U16(v) => tagged(writer, b'u', &v.to_be_bytes()),
            Self::I32(v) => tagged(writer, b'I', &v.to_be_bytes()),
            Self::U32(v) => tagged(writer, b'i', &v.to_be_bytes()),
            Self::I64(v) => tagged(writer, b'l', &v.to_be_bytes()),
            Self::F32(v) => tagged(writer, b'f', &v.to_be_bytes()),
            Self::F64(v) => tagged(writer, b'd', &v.to_be_bytes()),
            Self::Decimal(scale, v) => {
                writer.put(&[b'D', scale]);
                writer.put(&v.to_be_bytes());
            }
            Self::LongStr(v) => {
                writer.put(b"S");
                writer.long(v);
            }
            Self::Bytes(v) => {
                writer.put(b"x");
                writer.long(v);
            }
            Self::Timestamp(v) => tagged(writer, b'T', &v.to_be_bytes()),
            Self::Void => writer.put(b"V"),
            Self::Array(v) => {
                writer.put(b"A");
                writer.long(v.0);
            }
            Self::Table(v) => {
                writer.put(b"F");
                writer.long(v.0);
            }
        }
    }
}

fn tagged(writer: &mut Writer<'_>, tag: u8, bytes: &[u8]) {
    writer.put(&[tag]);
    writer.put(bytes);
}

fn validate(bytes: &[u8], named: bool, depth: u8) -> Result<(), DecodeError> {
    if depth >= DEPTH_MAX {
        return Err(DecodeError::TooDeep);
    }
    let mut reader = Reader::new(bytes);
    while !reader.is_empty() {
        if named {
            reader.short()?;
        }
        Value::read(&mut reader, depth + 1)?;
    }
    Ok(())
}

/// A field table's bytes, without their length. Equal bytes, equal table; the order of fields counts.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Table<'a>(&'a [u8]);

impl<'a> Table<'a> {
    /// A view of a table's bytes without their length.
    ///
    /// # Errors
    /// When the bytes are no table.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        validate(bytes, true, 0)?;
        Ok(Self(bytes))
    }

    /// The bytes, without their length.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }

    /// Has it no fields?
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Fields in wire order.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + use<'a> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || {
            let name = reader.short().ok()?;
            Some((name, Value::read_valid(&mut reader).ok()?))
        })
    }

    /// The first field of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        self.iter()
            .find(|(key, _)| *key == name.as_bytes())
            .map(|(_, value)| value)
    }
}

impl std::fmt::Debug for Table<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_map()
            .entries(
                self.iter()
                    .map(|(name, value)| (String::from_utf8_lossy(name), value)),
            )
            .finish()
    }
}

impl<'a> Field<'a> for Table<'a> {
    fn read(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        Self::parse(reader.long()?)
    }
    fn write(&self, writer: &mut Writer<'_>) {
        writer.long(self.0);
    }
}

/// A field array's bytes, without their length.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub struct Array<'a>(&'a [u8]);

impl<'a> Array<'a> {
    /// Values in wire order.
    pub fn iter(&self) -> impl Iterator<Item = Value<'a>> + use<'a> {
        let mut reader = Reader::new(self.0);
        std::iter::from_fn(move || Value::read_valid(&mut reader).ok())
    }
}

impl std::fmt::Debug for Array<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// Builds a table's bytes.
#[derive(Debug, Default, Clone)]
pub struct TableBuilder(Vec<u8>);

impl TableBuilder {
    /// No fields yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a field.
    #[must_use]
    pub fn with(mut self, name: &str, value: Value<'_>) -> Self {
        self.push(name.as_bytes(), value);
        self
    }

    /// Appends a field.
    pub fn push(&mut self, name: &[u8], value: Value<'_>) {
        let mut writer = Writer::new(&mut self.0);
        writer.short(name);
        value.write(&mut writer);
    }

    /// A view of what was built.
    #[must_use]
    pub fn as_table(&self) -> Table<'_> {
        Table(&self.0)
    }
}

/// Builds an array's bytes.
#[derive(Debug, Default, Clone)]
pub struct ArrayBuilder(Vec<u8>);

impl ArrayBuilder {
    /// No values yet.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends a value.
    pub fn push(&mut self, value: Value<'_>) {
        value.write(&mut Writer::new(&mut self.0));
    }

    /// A view of what was built.
    #[must_use]
    pub fn as_array(&self) -> Array<'_> {
        Array(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_type_survives() {
        let inner = TableBuilder::new().with("k", Value::Bool(true));
        let values = [
            Value::Bool(false),
            Value::I8(-1),
            Value::U8(255),
            Value::I16(-300),
            Value::U16(65_535),
            Value::I32(-70_000),
            Value::U32(u32::MAX),
            Value::I64(i64::MIN),
            Value::F32(1.5),
            Value::F64(-2.25),
            Value::Decimal(2, 12345),
            Value::LongStr(b"long"),
            Value::Timestamp(1_700_000_000),
            Value::Table(inner.as_table()),
            Value::Void,
            Value::Bytes(&[0, 255]),
        ];
        let mut built = TableBuilder::new();
        for (index, value) in values.iter().enumerate() {
            built.push(index.to_string().as_bytes(), *value);
        }
        let table = Table::parse(built.as_table().as_bytes()).expect("own table");
        assert_eq!(
            table.iter().map(|(_, value)| value).collect::<Vec<_>>(),
            values
        );
        assert_eq!(table.get("13").map(|v| v.type_name()), Some("table"));
    }

    #[test]
    fn nesting_is_limited() {
        let mut bytes = Vec::new();
        for _ in 0..40 {
            let mut outer = TableBuilder::new();
            outer.push(b"t", Value::Table(Table(&bytes)));
            bytes = outer.0;
        }
        assert_eq!(Table::parse(&bytes), Err(DecodeError::TooDeep));
    }

    #[test]
    fn a_declared_length_beyond_the_frame_is_refused() {
        assert_eq!(
            Table::parse(b"\x01kS\xff\xff\xff\xffab"),
            Err(DecodeError::Truncated)
        );
        assert_eq!(
            Table::parse(b"\x01kz"),
            Err(DecodeError::UnknownFieldType(b'z'))
        );
    }
}
