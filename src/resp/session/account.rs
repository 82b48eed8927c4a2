//! How long commands take, and who watches them.
//!
//! Reading the clock costs as much as a small command. So commands that cannot take long and stand together in a pipeline
//! share the time that all of them took; one that may take long, and one that came alone, is timed on its own.

use std::sync::Arc;
use std::time::Instant;

use protocol_resp::Args;
use smallvec::SmallVec;

use super::Session;
use crate::resp::monitors::{self, Source};
use crate::resp::slowlog::{Slow, shortened};
use crate::resp::spec::{Flags, Run, Spec};
use crate::resp::tally::Block;

/// Different commands that share their time.
const KINDS: usize = 4;

/// See the module.
#[derive(Debug)]
pub(super) struct Account {
    block: Arc<Block>,
    /// When the first command since began that is not counted yet.
    mark: Instant,
    /// Commands that share their time: number and calls.
    run: SmallVec<[(u16, u32); KINDS]>,
    /// The command that runs now came as far as its handler.
    pub(super) ran: bool,
    /// It was answered with an error.
    pub(super) failed: bool,
}

impl Account {
    pub(super) fn new(block: Arc<Block>, now: Instant) -> Self {
        Self {
            block,
            mark: now,
            run: SmallVec::new(),
            ran: false,
            failed: false,
        }
    }

    /// A turn begins.
    #[inline]
    pub(super) fn begin(&mut self, now: Instant) {
        self.mark = now;
    }

    #[inline]
    fn add(&mut self, number: u16) {
        if let Some((_, calls)) = self.run.iter_mut().find(|(of, _)| *of == number) {
            *calls += 1;
        } else {
            if self.run.len() == KINDS {
                self.close();
            }
            self.run.push((number, 1));
        }
    }

    /// Counts those that share their time.
    #[inline]
    pub(super) fn close(&mut self) {
        if !self.run.is_empty() {
            self.close_at(Instant::now());
        }
    }

    fn close_at(&mut self, now: Instant) {
        let calls: u32 = self.run.iter().map(|(_, calls)| calls).sum();
        let nanos = nanos(now - self.mark) / u64::from(calls.max(1));
        for (number, calls) in self.run.drain(..) {
            self.block.ran(number, u64::from(calls), nanos);
        }
        self.mark = now;
    }
}

fn nanos(time: std::time::Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Its work does not grow with what it works on.
fn is_quick(spec: &Spec) -> bool {
    spec.flags.has(Flags::FAST) || spec.name == "set"
}

impl Session {
    /// Before a command; true: it is timed on its own. `alone`: nothing stands behind it.
    #[inline]
    pub(super) fn before(&mut self, spec: &Spec, alone: bool) -> bool {
        self.account.ran = false;
        self.account.failed = false;
        let exact = !is_quick(spec) || (alone && self.account.run.is_empty());
        if exact {
            self.account.close();
        }
        exact
    }

    /// Behind it.
    #[inline]
    pub(super) fn after(&mut self, spec: &'static Spec, args: &Args<'_>, exact: bool) {
        if self.account.failed {
            self.account.block.went_wrong(spec.number, self.account.ran);
        }
        if self.account.ran {
            if exact && self.elsewhere.is_none() {
                let now = Instant::now();
                let took = nanos(now - self.account.mark);
                self.account.mark = now;
                self.took(spec, args, took);
            } else if !exact {
                self.account.add(spec.number);
            }
        }
    }

    /// A command took so long.
    fn took(&mut self, spec: &'static Spec, args: &Args<'_>, nanos: u64) {
        self.account.block.ran(spec.number, 1, nanos);
        if self.hub.slowlog.wants(nanos / 1000) && !matches!(spec.name, "exec" | "monitor") {
            self.note_slow(args, nanos / 1000);
        }
        let ms = nanos / 1_000_000;
        if self.hub.latency.wants(ms) {
            let event = if spec.flags.has(Flags::FAST) {
                "fast-command"
            } else {
                "command"
            };
            self.hub.latency.add(event, self.ctx.now.0 / 1000, ms);
        }
    }

    #[cold]
    fn note_slow(&self, args: &Args<'_>, took_us: u64) {
        self.hub.slowlog.add(Slow {
            id: 0,
            at_s: self.ctx.now.0 / 1000,
            took_us,
            args: shortened(args, monitors::hidden(args)),
            peer: self.client.peer_name(),
            name: self.client.facts.lock().name.clone(),
        });
    }

    /// One command of a transaction or script.
    pub(super) fn counted(
        &mut self,
        spec: &'static Spec,
        args: &Args<'_>,
        run: impl FnOnce(&mut Self) -> super::Done,
    ) -> super::Done {
        let began = Instant::now();
        let done = run(self);
        if done.is_err() {
            self.account.block.went_wrong(spec.number, true);
        }
        self.took(spec, args, nanos(began.elapsed()));
        done
    }

    /// Shows a command to those who monitor. Those of administrators are not shown, as in Redis.
    #[cold]
    pub(super) fn monitor(&self, spec: &Spec, args: &Args<'_>, in_script: bool) {
        if spec.flags.has(Flags::ADMIN) {
            return;
        }
        let source = if in_script {
            Source::Script
        } else {
            Source::Client(&self.client)
        };
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        let now_us = now.map_or(0, |now| u64::try_from(now.as_micros()).unwrap_or(u64::MAX));
        self.hub.monitors.show(source, self.db, args, now_us);
    }

    /// Runs a command and shows it to those who monitor: a script before it runs, since what it calls comes behind it.
    #[inline]
    pub(super) fn shown(
        &mut self,
        spec: &Spec,
        args: &Args<'_>,
        run: impl FnOnce(&mut Self) -> super::Done,
    ) -> super::Done {
        let seen = !self.hub.monitors.is_empty();
        let first = matches!(spec.run, Run::Script(_));
        if seen && first {
            self.monitor(spec, args, false);
        }
        let done = run(self);
        if seen && !first {
            self.monitor(spec, args, false);
        }
        done
    }

    /// `MONITOR`. False: it does already.
    pub(in crate::resp) fn begin_monitoring(&mut self) -> bool {
        let new = !std::mem::replace(&mut self.monitors, true);
        if new {
            self.client.facts.lock().monitors = true;
            self.hub.monitors.add(&self.client);
        }
        new
    }

    pub(in crate::resp) fn end_monitoring(&mut self) {
        if std::mem::take(&mut self.monitors) {
            self.client.facts.lock().monitors = false;
            self.hub.monitors.remove(self.client.id);
        }
    }
}
