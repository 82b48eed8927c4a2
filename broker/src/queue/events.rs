//! What the server tells of itself, as messages of its own: of definitions here, of connections by their faces.
//!
//! A change of definitions notes what happened while it holds the catalog's lock, if somebody listens. Whoever made it takes
//! the notes before it lets go, so that each is told in the name of who asked for it.

use std::sync::Arc;

use super::definition::Definition;
use super::exchange::{Binding, ExchangeDefinition};
use super::message::Message;
use crate::{Broker, Effects, Locked, Millis};

/// The exchange that these go to.
pub const EXCHANGE: &str = "amq.rabbitmq.event";

/// What happened to definitions.
#[derive(Debug, Clone)]
pub enum Event {
    QueueCreated(Arc<Definition>),
    QueueDeleted(Arc<str>),
    ExchangeCreated(ExchangeDefinition),
    ExchangeDeleted(Arc<str>),
    BindingCreated(Arc<Binding>),
    BindingDeleted(Arc<Binding>),
}

#[derive(Debug)]
pub struct Note {
    pub event: Event,
    /// It followed from something else that was asked for.
    pub followed: bool,
}

impl Locked<'_> {
    /// What was noted under these locks.
    #[must_use]
    pub fn take_notes(&mut self) -> Vec<Note> {
        let routes = &self.broker().routes;
        if routes.is_heard() {
            routes.take_notes()
        } else {
            Vec::new()
        }
    }
}

/// Tells what `user` has done, or the server itself. Takes its own locks.
pub fn tell(broker: &Broker, notes: Vec<Note>, user: Option<&str>, now: Millis, fx: &mut Effects) {
    for note in notes {
        let user = user.filter(|_| !note.followed);
        if let Some(message) = broker.routes.describe(&note.event, user, now) {
            announce(broker, message, now, fx);
        }
    }
}

/// Publishes a message of the server's own. Takes its own locks.
pub fn announce(broker: &Broker, message: Message, now: Millis, fx: &mut Effects) {
    loop {
        // Without such an exchange there is nobody to tell.
        let route = broker.routes.route_own(&message).unwrap_or_default();
        if route.queues.is_empty() {
            return;
        }
        let mut locked = broker.lock(route.shards);
        if route.epoch == broker.routes.epoch() {
            super::deliver_apart(&mut locked, &route, message, now, fx);
            locked.commit(now, fx);
            return;
        }
    }
}
