//! One member of a group, and how it is answered.

use std::sync::Arc;

use bytes::Bytes;

use super::GroupError;
use crate::{Mailbox, Millis};

/// An assignment protocol that a member can follow, with the member's own part of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Protocol {
    pub name: String,
    pub metadata: Bytes,
}

/// A request to join.
#[derive(Debug, Clone)]
pub struct Join {
    /// Empty for a newcomer.
    pub member_id: String,
    /// The id that a newcomer gets.
    pub new_id: String,
    /// A newcomer must come again with its new id before it counts (JoinGroup 4 and later).
    pub needs_id: bool,
    pub instance_id: Option<String>,
    pub client_id: String,
    pub client_host: String,
    pub session_timeout_ms: u64,
    pub rebalance_timeout_ms: u64,
    pub protocol_type: String,
    pub protocols: Vec<Protocol>,
}

/// What a member learns when a generation begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JoinAnswer {
    pub generation: i32,
    pub protocol_type: String,
    pub protocol: String,
    pub leader: String,
    pub member_id: String,
    /// Member id, instance id, metadata of everybody; empty for all but the leader.
    pub members: Vec<(String, Option<String>, Bytes)>,
}

/// A member's share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyncAnswer {
    pub protocol_type: String,
    pub protocol: String,
    pub assignment: Bytes,
}

/// What comes to a waiting connection.
#[derive(Debug)]
pub enum Answer {
    /// With the member id that an error goes to.
    Join(u64, Result<JoinAnswer, (GroupError, String)>),
    Sync(u64, Result<SyncAnswer, GroupError>),
}

/// Where the answer to one request goes. The number tells the connection which request it answers.
#[derive(Debug, Clone)]
pub struct Ticket {
    pub mailbox: Arc<Mailbox<Answer>>,
    pub number: u64,
}

impl Ticket {
    fn is(&self, other: &Self) -> bool {
        self.number == other.number && Arc::ptr_eq(&self.mailbox, &other.mailbox)
    }
}

/// A member as descriptions show it.
#[derive(Debug, Clone, Copy)]
pub struct MemberView<'a> {
    pub id: &'a str,
    pub instance_id: Option<&'a str>,
    pub client_id: &'a str,
    pub client_host: &'a str,
    /// For the protocol that was agreed on.
    pub metadata: Option<&'a Bytes>,
    pub assignment: &'a Bytes,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) id: String,
    pub(super) instance_id: Option<String>,
    client_id: String,
    client_host: String,
    session_timeout_ms: u64,
    pub(super) rebalance_timeout_ms: u64,
    pub(super) protocols: Vec<Protocol>,
    pub(super) assignment: Bytes,
    /// When the member counts as gone, unless it is heard of.
    expiry: Millis,
    pub(super) joining: Option<Ticket>,
    pub(super) syncing: Option<Ticket>,
}

impl Member {
    pub(super) fn new(id: String, join: Join, now: Millis) -> Self {
        let mut member = Self {
            id,
            instance_id: None,
            client_id: String::new(),
            client_host: String::new(),
            session_timeout_ms: 0,
            rebalance_timeout_ms: 0,
            protocols: Vec::new(),
            assignment: Bytes::new(),
            expiry: now,
            joining: None,
            syncing: None,
        };
        member.update(join, now);
        member
    }

    pub(super) fn update(&mut self, join: Join, now: Millis) {
        self.instance_id = join.instance_id;
        self.client_id = join.client_id;
        self.client_host = join.client_host;
        self.session_timeout_ms = join.session_timeout_ms;
        self.rebalance_timeout_ms = join.rebalance_timeout_ms;
        self.protocols = join.protocols;
        self.touch(now);
    }

    /// It was heard of.
    pub(super) fn touch(&mut self, now: Millis) {
        self.expiry = Millis(now.0.saturating_add(self.session_timeout_ms));
    }

    /// When it counts as gone; never while we owe it an answer.
    pub(super) fn deadline(&self) -> Option<Millis> {
        (self.joining.is_none() && self.syncing.is_none()).then_some(self.expiry)
    }

    pub(super) fn has_protocols(&self, protocols: &[Protocol]) -> bool {
        self.protocols == protocols
    }

    pub(super) fn knows(&self, protocol: &str) -> bool {
        super::find(&self.protocols, protocol).is_some()
    }

    pub(super) fn metadata(&self, protocol: &str) -> Option<&Bytes> {
        super::find(&self.protocols, protocol)
    }

    pub(super) fn answer_join(&mut self, answer: Result<JoinAnswer, (GroupError, String)>) {
        if let Some(ticket) = self.joining.take() {
            ticket.mailbox.push(Answer::Join(ticket.number, answer));
        }
    }

    pub(super) fn answer_sync(&mut self, answer: Result<SyncAnswer, GroupError>) {
        if let Some(ticket) = self.syncing.take() {
            ticket.mailbox.push(Answer::Sync(ticket.number, answer));
        }
    }

    pub(super) fn hang_up(&mut self, ticket: &Ticket, now: Millis) {
        for waiting in [&mut self.joining, &mut self.syncing] {
            if waiting.as_ref().is_some_and(|other| other.is(ticket)) {
                *waiting = None;
                self.expiry = Millis(now.0.saturating_add(self.session_timeout_ms));
            }
        }
    }

    pub(super) fn view(&self, protocol: Option<&str>) -> MemberView<'_> {
        MemberView {
            id: &self.id,
            instance_id: self.instance_id.as_deref(),
            client_id: &self.client_id,
            client_host: &self.client_host,
            metadata: protocol.and_then(|protocol| self.metadata(protocol)),
            assignment: &self.assignment,
        }
    }
}
