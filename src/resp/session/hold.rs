//! A connection that waits for no key: for the end of `CLIENT PAUSE`, of a sleep, for the disk, or for work on another thread.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use broker::{Durability, Effects, Locked, Lsn, Millis, Need, ShardSet};
use protocol_resp::Args;

use super::runner::busy;
use super::{Replies, Session};
use crate::resp::commands;
use crate::resp::commands::fm::After;
use crate::resp::fail::{Done, Fail};
use crate::resp::hub::Event;
use crate::resp::spec::{Flags, Run, Spec};

/// What it waits for.
#[derive(Debug)]
pub(super) enum Held {
    /// `CLIENT PAUSE`: the next command stays unread.
    Paused,
    /// `DEBUG SLEEP`.
    Asleep(Instant),
    /// `WAITAOF`: the disk has the log up to here, or time is up. `replicas`: they are waited for, and there are none.
    Disk {
        lsn: Lsn,
        until: Option<Instant>,
        replicas: bool,
    },
    /// Its command runs on another thread.
    Away,
}

pub(in crate::resp) const NESTED: Fail = Fail::Text("ERR Command not allowed inside a transaction");

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
            // A script that is not there, or is not one, is refused. Whether there is room is asked when it runs.
            let program = self.program_of(how, args, None);
            return !how.read_only && program.is_ok_and(|(program, _)| !program.no_writes());
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
            Held::Paused => Some(
                self.hub
                    .pause
                    .now()
                    .map_or(self.used, |paused| paused.until),
            ),
            Held::Asleep(until) => Some(*until),
            Held::Disk { until, .. } => *until,
            Held::Away => None,
        }
    }

    /// Ends the wait if what it is for has come.
    pub(super) fn look_at_hold(&mut self, out: &mut Vec<u8>) {
        let now = Instant::now();
        let engine = &self.node.broker.engine;
        let answer = match &self.held {
            Some(Held::Paused) if self.hub.pause.now().is_none() => Some(Vec::new()),
            Some(Held::Asleep(until)) if *until <= now => Some(b"+OK\r\n".to_vec()),
            Some(Held::Disk {
                lsn,
                until,
                replicas,
            }) => {
                let need = Need::of(*lsn, Durability::Sync);
                let late = until.is_some_and(|until| until <= now);
                let settled = engine.is_durable(need);
                if !settled && !late {
                    engine.notify(need, &self.client.handle.waker());
                }
                (late || (settled && !replicas)).then(|| on_disk(settled))
            }
            _ => None,
        };
        if let Some(answer) = answer {
            self.answer_late(&answer, out);
        }
    }

    /// The answer of a command that waited.
    fn answer_late(&mut self, answer: &[u8], out: &mut Vec<u8>) {
        let paused = matches!(self.release(), Some(Held::Paused));
        let mark = out.len();
        out.extend_from_slice(answer);
        if !paused && self.replies != Replies::On {
            self.silence(mark, out);
        }
    }

    pub(in crate::resp) fn sleep(&mut self, until: Instant) {
        self.hold(Held::Asleep(until));
    }

    /// `WAITAOF`: answers when the disk has all that was logged before, or later.
    pub(in crate::resp) fn wait_for_disk(
        &mut self,
        local: bool,
        replicas: bool,
        until: Option<Instant>,
        out: &mut Vec<u8>,
    ) {
        let engine = &self.node.broker.engine;
        let lsn = engine.appended();
        let settled = engine.is_durable(Need::of(lsn, Durability::Sync));
        if self.nested || (!replicas && (settled || !local)) {
            out.extend_from_slice(&on_disk(settled));
            return;
        }
        engine.flush();
        self.hold(Held::Disk {
            lsn,
            until,
            replicas,
        });
        // Asks for the sync, or finds that it has been.
        let need = Need::of(lsn, Durability::Sync);
        if self
            .node
            .broker
            .engine
            .notify(need, &self.client.handle.waker())
        {
            self.client.handle.ring();
        }
    }

    /// Runs `work` on a thread of its own; its answer, or error, is this command's.
    pub(in crate::resp) fn away(
        &mut self,
        name: &str,
        work: impl FnOnce() -> Result<Vec<u8>, String> + Send + 'static,
    ) -> Done {
        let client = Arc::clone(&self.client);
        let thread = std::thread::Builder::new().name(name.into());
        let spawned = thread.spawn(move || client.mailbox.push(Event::Finished(work())));
        spawned.map_err(|_| Fail::Text("ERR cannot start a thread"))?;
        self.hold(Held::Away);
        Ok(())
    }

    pub(super) fn finished(&mut self, done: Result<Vec<u8>, String>, out: &mut Vec<u8>) {
        if !matches!(self.held, Some(Held::Away)) {
            return;
        }
        match done {
            Ok(answer) => self.answer_late(&answer, out),
            Err(error) => {
                let mut answer = Vec::new();
                self.refuse(&Fail::Owned(format!("ERR {error}")), &mut answer);
                self.answer_late(&answer, out);
            }
        }
    }

    /// Works on keys under the locks of these shards, and commits. Not within a transaction or script, which has its locks.
    pub(in crate::resp) fn with_keys<R>(
        &mut self,
        set: ShardSet,
        work: impl FnOnce(&mut Locked<'_>, Millis, &mut Effects) -> Result<R, Fail>,
    ) -> Result<R, Fail> {
        if self.nested {
            return Err(NESTED);
        }
        let node = Arc::clone(&self.node);
        let locked = node.broker.lock_unless(set, &|| node.scripts.is_busy());
        let mut locked = locked.ok_or_else(|| busy(&node))?;
        locked.set_client(self.client.id);
        let done = work(&mut locked, self.ctx.now, &mut self.fx);
        self.commit(&mut locked, &After::default());
        done
    }
}

/// What `WAITAOF` answers: here, and on replicas.
fn on_disk(settled: bool) -> Vec<u8> {
    format!("*2\r\n:{}\r\n:0\r\n", i32::from(settled)).into_bytes()
}
