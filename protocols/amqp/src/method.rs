//! The table of methods of AMQP 0-9-1 with RabbitMQ's extensions. Arguments borrow from the frame.

use crate::error::DecodeError;
use crate::table::Table;
use crate::wire::{Field, LongStr, Reader, ShortStr, Writer};

macro_rules! methods {
    ($(#[$doc:meta])* enum $Enum:ident; $($name:ident $text:literal = $class:literal . $method:literal { $($field:ident : $ty:ty),* $(,)? })*) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq)]
        pub enum $Enum<'a> { $($name { $($field: $ty),* },)* }

        impl<'a> $Enum<'a> {
            /// Reads a method frame's payload.
            ///
            /// # Errors
            /// An unknown class or method, or arguments that do not fit.
            pub fn decode(payload: &'a [u8]) -> Result<Self, DecodeError> {
                let mut reader = Reader::new(payload);
                let (class, method) = (reader.u16()?, reader.u16()?);
                let value = match (class, method) {
                    $(($class, $method) => Self::$name { $($field: <$ty>::read(&mut reader)?),* },)*
                    _ => return Err(DecodeError::UnknownMethod { class, method }),
                };
                Ok(value)
            }

            /// Class and method number.
            #[must_use]
            pub const fn id(&self) -> (u16, u16) {
                match self { $(Self::$name { .. } => ($class, $method),)* }
            }

            /// The name as RabbitMQ's texts write it.
            #[must_use]
            pub const fn name(&self) -> &'static str {
                match self { $(Self::$name { .. } => $text,)* }
            }

            pub(crate) fn write(&self, out: &mut Vec<u8>) {
                let mut writer = Writer::new(out);
                let (class, method) = self.id();
                writer.put(&class.to_be_bytes());
                writer.put(&method.to_be_bytes());
                match self { $(Self::$name { $($field),* } => { $($field.write(&mut writer);)* })* }
            }
        }

        /// Every row of the table.
        #[cfg(test)]
        pub(crate) const IDS: &[(u16, u16, &str)] = &[$(($class, $method, $text)),*];
    };
}

methods! {
    /// One method with its arguments. Reserved arguments are kept, so that a capture encodes back to the same bytes.
    enum Method;

    ConnectionStart "connection.start" = 10 . 10 { version_major: u8, version_minor: u8, server_properties: Table<'a>, mechanisms: LongStr<'a>, locales: LongStr<'a> }
    ConnectionStartOk "connection.start_ok" = 10 . 11 { client_properties: Table<'a>, mechanism: ShortStr<'a>, response: LongStr<'a>, locale: ShortStr<'a> }
    ConnectionSecure "connection.secure" = 10 . 20 { challenge: LongStr<'a> }
    ConnectionSecureOk "connection.secure_ok" = 10 . 21 { response: LongStr<'a> }
    ConnectionTune "connection.tune" = 10 . 30 { channel_max: u16, frame_max: u32, heartbeat: u16 }
    ConnectionTuneOk "connection.tune_ok" = 10 . 31 { channel_max: u16, frame_max: u32, heartbeat: u16 }
    ConnectionOpen "connection.open" = 10 . 40 { virtual_host: ShortStr<'a>, capabilities: ShortStr<'a>, insist: bool }
    ConnectionOpenOk "connection.open_ok" = 10 . 41 { known_hosts: ShortStr<'a> }
    ConnectionClose "connection.close" = 10 . 50 { reply_code: u16, reply_text: ShortStr<'a>, class_id: u16, method_id: u16 }
    ConnectionCloseOk "connection.close_ok" = 10 . 51 {}
    ConnectionBlocked "connection.blocked" = 10 . 60 { reason: ShortStr<'a> }
    ConnectionUnblocked "connection.unblocked" = 10 . 61 {}
    ConnectionUpdateSecret "connection.update_secret" = 10 . 70 { new_secret: LongStr<'a>, reason: ShortStr<'a> }
    ConnectionUpdateSecretOk "connection.update_secret_ok" = 10 . 71 {}

    ChannelOpen "channel.open" = 20 . 10 { out_of_band: ShortStr<'a> }
    ChannelOpenOk "channel.open_ok" = 20 . 11 { channel_id: LongStr<'a> }
    ChannelFlow "channel.flow" = 20 . 20 { active: bool }
    ChannelFlowOk "channel.flow_ok" = 20 . 21 { active: bool }
    ChannelClose "channel.close" = 20 . 40 { reply_code: u16, reply_text: ShortStr<'a>, class_id: u16, method_id: u16 }
    ChannelCloseOk "channel.close_ok" = 20 . 41 {}

    AccessRequest "access.request" = 30 . 10 { realm: ShortStr<'a>, exclusive: bool, passive: bool, active: bool, write: bool, read: bool }
    AccessRequestOk "access.request_ok" = 30 . 11 { ticket: u16 }

    ExchangeDeclare "exchange.declare" = 40 . 10 { ticket: u16, exchange: ShortStr<'a>, kind: ShortStr<'a>, passive: bool, durable: bool, auto_delete: bool, internal: bool, nowait: bool, arguments: Table<'a> }
    ExchangeDeclareOk "exchange.declare_ok" = 40 . 11 {}
    ExchangeDelete "exchange.delete" = 40 . 20 { ticket: u16, exchange: ShortStr<'a>, if_unused: bool, nowait: bool }
    ExchangeDeleteOk "exchange.delete_ok" = 40 . 21 {}
    ExchangeBind "exchange.bind" = 40 . 30 { ticket: u16, destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>, nowait: bool, arguments: Table<'a> }
    ExchangeBindOk "exchange.bind_ok" = 40 . 31 {}
    ExchangeUnbind "exchange.unbind" = 40 . 40 { ticket: u16, destination: ShortStr<'a>, source: ShortStr<'a>, routing_key: ShortStr<'a>, nowait: bool, arguments: Table<'a> }
    ExchangeUnbindOk "exchange.unbind_ok" = 40 . 51 {}

    QueueDeclare "queue.declare" = 50 . 10 { ticket: u16, queue: ShortStr<'a>, passive: bool, durable: bool, exclusive: bool, auto_delete: bool, nowait: bool, arguments: Table<'a> }
    QueueDeclareOk "queue.declare_ok" = 50 . 11 { queue: ShortStr<'a>, message_count: u32, consumer_count: u32 }
    QueueBind "queue.bind" = 50 . 20 { ticket: u16, queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>, nowait: bool, arguments: Table<'a> }
    QueueBindOk "queue.bind_ok" = 50 . 21 {}
    QueuePurge "queue.purge" = 50 . 30 { ticket: u16, queue: ShortStr<'a>, nowait: bool }
    QueuePurgeOk "queue.purge_ok" = 50 . 31 { message_count: u32 }
    QueueDelete "queue.delete" = 50 . 40 { ticket: u16, queue: ShortStr<'a>, if_unused: bool, if_empty: bool, nowait: bool }
    QueueDeleteOk "queue.delete_ok" = 50 . 41 { message_count: u32 }
    QueueUnbind "queue.unbind" = 50 . 50 { ticket: u16, queue: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a>, arguments: Table<'a> }
    QueueUnbindOk "queue.unbind_ok" = 50 . 51 {}

    BasicQos "basic.qos" = 60 . 10 { prefetch_size: u32, prefetch_count: u16, global: bool }
    BasicQosOk "basic.qos_ok" = 60 . 11 {}
    BasicConsume "basic.consume" = 60 . 20 { ticket: u16, queue: ShortStr<'a>, consumer_tag: ShortStr<'a>, no_local: bool, no_ack: bool, exclusive: bool, nowait: bool, arguments: Table<'a> }
    BasicConsumeOk "basic.consume_ok" = 60 . 21 { consumer_tag: ShortStr<'a> }
    BasicCancel "basic.cancel" = 60 . 30 { consumer_tag: ShortStr<'a>, nowait: bool }
    BasicCancelOk "basic.cancel_ok" = 60 . 31 { consumer_tag: ShortStr<'a> }
    BasicPublish "basic.publish" = 60 . 40 { ticket: u16, exchange: ShortStr<'a>, routing_key: ShortStr<'a>, mandatory: bool, immediate: bool }
    BasicReturn "basic.return" = 60 . 50 { reply_code: u16, reply_text: ShortStr<'a>, exchange: ShortStr<'a>, routing_key: ShortStr<'a> }
    BasicDeliver "basic.deliver" = 60 . 60 { consumer_tag: ShortStr<'a>, delivery_tag: u64, redelivered: bool, exchange: ShortStr<'a>, routing_key: ShortStr<'a> }
    BasicGet "basic.get" = 60 . 70 { ticket: u16, queue: ShortStr<'a>, no_ack: bool }
    BasicGetOk "basic.get_ok" = 60 . 71 { delivery_tag: u64, redelivered: bool, exchange: ShortStr<'a>, routing_key: ShortStr<'a>, message_count: u32 }
    BasicGetEmpty "basic.get_empty" = 60 . 72 { cluster_id: ShortStr<'a> }
    BasicAck "basic.ack" = 60 . 80 { delivery_tag: u64, multiple: bool }
    BasicReject "basic.reject" = 60 . 90 { delivery_tag: u64, requeue: bool }
    BasicRecoverAsync "basic.recover_async" = 60 . 100 { requeue: bool }
    BasicRecover "basic.recover" = 60 . 110 { requeue: bool }
    BasicRecoverOk "basic.recover_ok" = 60 . 111 {}
    BasicNack "basic.nack" = 60 . 120 { delivery_tag: u64, multiple: bool, requeue: bool }

    ConfirmSelect "confirm.select" = 85 . 10 { nowait: bool }
    ConfirmSelectOk "confirm.select_ok" = 85 . 11 {}

    TxSelect "tx.select" = 90 . 10 {}
    TxSelectOk "tx.select_ok" = 90 . 11 {}
    TxCommit "tx.commit" = 90 . 20 {}
    TxCommitOk "tx.commit_ok" = 90 . 21 {}
    TxRollback "tx.rollback" = 90 . 30 {}
    TxRollbackOk "tx.rollback_ok" = 90 . 31 {}
}
