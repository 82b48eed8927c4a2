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
}

pub(super) type Result<T = ()> = std::result::Result<T, Fault>;

impl Fault {
    pub(super) fn channel(code: ReplyCode, detail: impl Into<String>) -> Self {
        Self {
            scope: Scope::Channel,
            code,
            detail: detail.into(),
        }
    }

    pub(super) fn connection(code: ReplyCode, detail: impl Into<String>) -> Self {
        Self {
            scope: Scope::Connection,
            code,
            detail: detail.into(),
        }
    }

    pub(super) fn text(&self) -> String {
        format!("{} - {}", self.code.name(), self.detail)
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
