//! A connection that waits for no key: for the end of `CLIENT PAUSE`, of a sleep, for the disk, or for work on another thread.

use std::sync::atomic::Ordering;
use std::time::Instant;

use protocol_resp::Args;

use super::Session;
use crate::resp::commands;
use crate::resp::spec::{Flags, Run, Spec};

/// What it waits for.
#[derive(Debug)]
pub(super) enum Held {
    /// `CLIENT PAUSE`: the next command stays unread.
    Paused,
}

impl Session {
    /// `CLIENT PAUSE` keeps this command waiting. What would be refused anyway does not wait, as in Redis.
    #[cold]
    pub(super) fn is_paused_by(&self, args: &Args<'_>) -> bool {
        let Some(paused) = self.hub.pause.now() else {
            return false;
        };
        let Some(spec) = commands::lookup(args).filter(|spec| spec.takes(args.len())) else {
            return false;
        };
        if !self.authenticated && !spec.flags.has(Flags::NO_AUTH) {
            return false;
        }
        paused.all || self.may_write(spec, args)
    }

    fn may_write(&self, spec: &Spec, args: &Args<'_>) -> bool {
        if let Run::Script(how) = spec.run {
            // A script that is not there, or is not one, is refused.
            let script = self.script_of(how, args);
            return !how.read_only && script.is_ok_and(|(script, _)| !script.header.no_writes);
        }
        spec.flags.has(Flags::WRITE)
            || matches!(spec.name, "publish" | "spublish" | "pfcount")
            || (spec.name == "exec"
                && self.multi.as_ref().is_some_and(|multi| {
                    let mut queued = multi.queued.iter();
                    queued.any(|queued| self.may_write(queued.spec, &queued.args()))
                }))
    }

    /// Begins to wait.
    pub(super) fn hold(&mut self, held: Held) {
        self.hub.blocked.fetch_add(1, Ordering::Relaxed);
        self.client.facts.lock().held = true;
        self.held = Some(held);
    }

    /// Waits no more.
    pub(super) fn release(&mut self) -> Option<Held> {
        let held = self.held.take()?;
        self.hub.blocked.fetch_sub(1, Ordering::Relaxed);
        self.client.facts.lock().held = false;
        Some(held)
    }

    /// When to look again at the latest.
    pub(super) fn hold_deadline(&self, held: &Held) -> Option<Instant> {
        match held {
            // Over: at once.
            Held::Paused => Some(self.hub.pause.now().map_or(self.used, |paused| paused.until)),
        }
    }

    /// Ends the wait if what it is for has come.
    pub(super) fn look_at_hold(&mut self) {
        match &self.held {
            Some(Held::Paused) if self.hub.pause.now().is_none() => {
                self.release();
            }
            _ => {}
        }
    }
}
