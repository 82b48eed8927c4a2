//! What went wrong, in RabbitMQ's codes and texts.

use std::fmt::Display;

use broker::queue::Definition;
use protocol_amqp::ReplyCode;

/// How far a fault reaches (AMQP 0-9-1 §2.2.5: soft and hard errors).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    Channel,
    Connection,
}

/// An error that closes a channel or the connection. The text goes out as `NAME - detail`.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) scope: Scope,
    pub(super) code: ReplyCode,
    pub(super) detail: String,
    /// Class and method that the close names, when not those of the frame at hand.
    pub(super) method: Option<(u16, u16)>,
}

pub(super) type Result<T = ()> = std::result::Result<T, Fault>;

impl Fault {
    pub(super) fn channel(code: ReplyCode, detail: impl Into<String>) -> Self {
        Self {
            scope: Scope::Channel,
            code,
            detail: detail.into(),
            method: None,
        }
    }

    pub(super) fn connection(code: ReplyCode, detail: impl Into<String>) -> Self {
        Self {
            scope: Scope::Connection,
            code,
            detail: detail.into(),
            method: None,
        }
    }

    pub(super) fn text(&self) -> String {
        format!("{} - {}", self.code.name(), self.detail)
    }

    /// The close names this class and method.
    pub(super) fn about(mut self, class: u16, method: u16) -> Self {
        self.method = Some((class, method));
        self
    }

    pub(super) fn no_queue(name: impl Display) -> Self {
        Self::channel(
            ReplyCode::NotFound,
            format!("no queue '{name}' in vhost '/'"),
        )
    }

    pub(super) fn no_exchange(name: impl Display) -> Self {
        Self::channel(
            ReplyCode::NotFound,
            format!("no exchange '{name}' in vhost '/'"),
        )
    }

    pub(super) fn precondition(detail: impl Into<String>) -> Self {
        Self::channel(ReplyCode::PreconditionFailed, detail)
    }

    pub(super) fn refused(detail: impl Into<String>) -> Self {
        Self::channel(ReplyCode::AccessRefused, detail)
    }

    pub(super) fn default_exchange() -> Self {
        Self::refused("operation not permitted on the default exchange")
    }

    pub(super) fn locked(queue: &Definition) -> Self {
        Self::channel(
            ReplyCode::ResourceLocked,
            format!(
                "cannot obtain exclusive access to locked queue '{}' in vhost '/'. It could be originally declared on \
                 another connection or the exclusive property value does not match that of the original declaration.",
                queue.name
            ),
        )
    }

    pub(super) fn not_implemented(detail: impl Into<String>) -> Self {
        Self::connection(ReplyCode::NotImplemented, detail)
    }
}

/// Octets as Erlang prints a binary: clients' authors know RabbitMQ's texts.
pub(super) fn binary(octets: &[u8]) -> String {
    let printable = |octet: &u8| matches!(octet, 0x20..=0x7e | 0xa0..=0xff | 8..=13 | 27);
    if octets.is_empty() {
        return "<<>>".into();
    }
    if octets.iter().all(printable) {
        let text: String = octets.iter().map(|octet| char::from(*octet)).collect();
        return format!("<<{text:?}>>");
    }
    let numbers: Vec<String> = octets.iter().map(u8::to_string).collect();
    format!("<<{}>>", numbers.join(","))
}

/// The part of a frame that RabbitMQ's texts show.
pub(super) fn snippet(payload: &[u8]) -> String {
    match payload.get(..16) {
        Some(first) if payload.len() > 16 => format!("first 16 octets = {}", binary(first)),
        _ => format!("all octets = {}", binary(payload)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octets_as_erlang_prints_them() {
        assert_eq!(binary(b"x"), "<<\"x\">>");
        assert_eq!(binary(&[0, 50]), "<<0,50>>");
        assert_eq!(
            snippet(&[1; 20]),
            "first 16 octets = <<1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1>>"
        );
    }
}
