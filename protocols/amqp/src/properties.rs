//! Content header properties of class basic (AMQP 0-9-1 §4.2.6.1). The raw bytes travel with the message and are sent
//! again as they came; this view is made where a value is needed.

use crate::error::DecodeError;
use crate::table::Table;
use crate::wire::{Field, Reader, ShortStr, Writer};

macro_rules! properties {
    ($($bit:literal $name:ident : $ty:ty,)*) => {
        /// All fourteen properties; absent ones are `None`.
        #[derive(Debug, Clone, Copy, PartialEq, Default)]
        pub struct Properties<'a> { $(pub $name: Option<$ty>,)* }

        const KNOWN: u16 = 0 $(| (1 << $bit))*;

        impl<'a> Properties<'a> {
            fn read_fields(flags: u16, reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
                Ok(Self { $($name: if flags & (1 << $bit) == 0 { None } else { Some(<$ty>::read(reader)?) },)* })
            }

            fn flags(&self) -> u16 {
                0 $(| (u16::from(self.$name.is_some()) << $bit))*
            }

            fn write_fields(&self, writer: &mut Writer<'_>) {
                $(if let Some(value) = &self.$name { value.write(writer); })*
            }
        }
    };
}

properties! {
    15 content_type: ShortStr<'a>,
    14 content_encoding: ShortStr<'a>,
    13 headers: Table<'a>,
    12 delivery_mode: u8,
    11 priority: u8,
    10 correlation_id: ShortStr<'a>,
    9 reply_to: ShortStr<'a>,
    8 expiration: ShortStr<'a>,
    7 message_id: ShortStr<'a>,
    6 timestamp: u64,
    5 kind: ShortStr<'a>,
    4 user_id: ShortStr<'a>,
    3 app_id: ShortStr<'a>,
    2 cluster_id: ShortStr<'a>,
}

impl<'a> Properties<'a> {
    /// Reads flags and values, all of them: what was accepted here is sound for every consumer.
    ///
    /// # Errors
    /// Unknown flags, or values that do not fit.
    pub fn parse(raw: &'a [u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(raw);
        let flags = reader.u16()?;
        // Bit 0 would announce more flags (§4.2.6.1): class basic has none.
        if flags & !KNOWN != 0 {
            return Err(DecodeError::PropertyFlags(flags));
        }
        let properties = Self::read_fields(flags, &mut reader)?;
        if !reader.is_empty() {
            return Err(DecodeError::PropertyFlags(flags));
        }
        Ok(properties)
    }

    /// Flags and values as they stand on the wire.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.put(&self.flags().to_be_bytes());
        self.write_fields(&mut writer);
    }

    /// Raw bytes, for messages born in another face.
    #[must_use]
    pub fn to_raw(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(32);
        self.write(&mut out);
        out
    }

    /// Delivery mode 2.
    #[must_use]
    pub fn is_persistent(&self) -> bool {
        self.delivery_mode == Some(2)
    }
}
