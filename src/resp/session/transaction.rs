//! `MULTI`, `EXEC` and `WATCH`: commands that wait for each other, and then run as one.

use std::collections::HashSet;
use std::sync::Arc;

use broker::cache::{Cold, Name};
use broker::{Locked, ShardSet};
use protocol_resp::{Args, Encoder};

use super::Session;
use super::runner::busy;
use crate::node::Node;
use crate::resp::acl::log::Context;
use crate::resp::ahead;
use crate::resp::commands::fm::{After, Plan};
use crate::resp::commands::function::{self, Allowance};
use crate::resp::commands::generic::database;
use crate::resp::exec::Exec;
use crate::resp::fail::{Done, Fail, wrong_arity};
use crate::resp::spec::{Flags, Run, Spec};

/// Most bytes that one transaction may queue, or change: a record of the log is smaller than 4 GiB, and a single command may
/// change 1 GiB.
pub(in crate::resp) const TRANSACTION_MAX: usize = 1 << 30;

/// A command that `MULTI` keeps, with its arguments.
#[derive(Debug)]
pub(super) struct Queued {
    /// The database that it will see.
    pub(super) db: usize,
    pub(super) spec: &'static Spec,
    pub(super) data: Vec<u8>,
    pub(super) ranges: Vec<(u32, u32)>,
}

impl Queued {
    pub(super) fn new(db: usize, spec: &'static Spec, args: &Args<'_>) -> Self {
        let mut data = Vec::with_capacity(args.iter().map(<[u8]>::len).sum());
        let mut ranges = Vec::with_capacity(args.len());
        for arg in args.iter() {
            // A command is at most 1 GiB.
            ranges.push((data.len() as u32, arg.len() as u32));
            data.extend_from_slice(arg);
        }
        Self {
            db,
            spec,
            data,
            ranges,
        }
    }

    pub(super) fn args(&self) -> Args<'_> {
        Args::new(&self.data, &self.ranges)
    }

    /// Puts these words in place of as many at its end.
    pub(super) fn end_with(&mut self, words: &[String]) {
        let kept = self.ranges.len().saturating_sub(words.len());
        self.ranges.truncate(kept);
        let end = self
            .ranges
            .last()
            .map_or(0, |(start, length)| start + length);
        self.data.truncate(end as usize);
        for word in words {
            let start = self.data.len() as u32;
            self.ranges.push((start, word.len() as u32));
            self.data.extend_from_slice(word.as_bytes());
        }
    }

    /// Bytes that it takes, about.
    pub(super) fn held(&self) -> usize {
        held(self.data.len(), self.ranges.len())
    }
}

fn held(bytes: usize, args: usize) -> usize {
    bytes + args * size_of::<(u32, u32)>() + size_of::<Queued>()
}

#[derive(Debug, Default)]
pub(super) struct Multi {
    /// Where the next command will run: a queued `SELECT` moves those behind it.
    pub(super) db: usize,
    pub(super) queued: Vec<Queued>,
    /// What they take.
    bytes: usize,
    /// A command was refused: `EXEC` will be, too.
    pub(super) failed: bool,
}

impl Multi {
    /// Bytes that it takes, about.
    pub(super) fn held(&self) -> usize {
        self.bytes
    }

    /// One of the commands has this flag.
    pub(super) fn asks(&self, flag: Flags) -> bool {
        self.queued.iter().any(|queued| queued.spec.flags.has(flag))
    }
}

impl Session {
    #[cold]
    pub(super) fn queue(
        &mut self,
        spec: &'static Spec,
        args: &Args<'_>,
        out: &mut Vec<u8>,
    ) -> Done {
        let Some(multi) = &mut self.multi else {
            return Ok(());
        };
        // A login may have to wait for its answer; nothing does within EXEC.
        if spec.flags.has(Flags::NO_MULTI) || matches!(spec.name, "auth" | "hello") {
            multi.failed = true;
            return Err(Fail::Text("ERR Command not allowed inside a transaction"));
        }
        if multi.failed {
            // It will not run: as in Redis nothing more is kept.
            out.extend_from_slice(b"+QUEUED\r\n");
            return Ok(());
        }
        multi.bytes += held(args.iter().map(<[u8]>::len).sum(), args.len());
        if multi.bytes > TRANSACTION_MAX {
            multi.failed = true;
            (multi.queued, multi.bytes) = (Vec::new(), 0);
            return Err(Fail::Text("ERR transaction exceeds the query buffer limit"));
        }
        multi.queued.push(Queued::new(multi.db, spec, args));
        if spec.name == "select" {
            let databases = match self.clustered {
                true => 1,
                false => usize::from(self.node.config.resp_databases),
            };
            // One that is not there is refused when it runs, and moves nothing.
            multi.db = database(args.at(1), databases).unwrap_or(multi.db);
        }
        out.extend_from_slice(b"+QUEUED\r\n");
        Ok(())
    }

    pub(in crate::resp) fn multi_begin(&mut self) -> Done {
        if self.multi.is_some() {
            return Err(Fail::Text("ERR MULTI calls can not be nested"));
        }
        self.multi = Some(Multi {
            db: self.db,
            ..Multi::default()
        });
        Ok(())
    }

    pub(in crate::resp) fn multi_discard(&mut self) -> Done {
        if self.multi.take().is_none() {
            return Err(Fail::Text("ERR DISCARD without MULTI"));
        }
        self.unwatch_all();
        Ok(())
    }

    /// Runs what was queued under all its locks, as one record.
    pub(in crate::resp) fn exec(&mut self, out: &mut Vec<u8>) -> Done {
        let Some(multi) = self.multi.take() else {
            return Err(Fail::Text("ERR EXEC without MULTI"));
        };
        if multi.failed {
            self.unwatch_all();
            return Err(Fail::Text(
                "EXECABORT Transaction discarded because of previous errors.",
            ));
        }
        let permitted = if self.is_restricted() {
            let mut queued = multi.queued.iter();
            queued.try_for_each(|queued| {
                self.permit(queued.db, queued.spec, &queued.args(), Context::Multi)
            })
        } else {
            Ok(())
        };
        let commands: Vec<_> = multi
            .queued
            .iter()
            .map(|queued| (queued.spec, queued.args()))
            .collect();
        match permitted.and_then(|()| self.atomically(&commands, true, out)) {
            Ok(()) => Ok(()),
            Err(fail) => {
                self.unwatch_all();
                Err(Fail::Owned(format!(
                    "EXECABORT Transaction discarded because of: {}",
                    fail.text()
                )))
            }
        }
    }

    /// Runs commands under all their locks, as one record. An error means that nothing has changed.
    #[cold]
    pub(super) fn atomically(
        &mut self,
        commands: &[(&'static Spec, Args<'_>)],
        in_transaction: bool,
        out: &mut Vec<u8>,
    ) -> Done {
        let node = Arc::clone(&self.node);
        let mut allowance = Allowance::new(if in_transaction {
            function::TRANSACTION_MAX
        } else {
            function::RESTORE_MAX
        });
        let mut plans = Vec::new();
        for (spec, args) in commands {
            plans.push(match spec.run {
                Run::Planned(plan) => {
                    let plan = plan(&node, &self.ctx, args, in_transaction)?;
                    plan.permit(&self.identity)?;
                    Some(plan)
                }
                Run::Loading(plan) => Some(plan(&node, args, in_transaction, &mut allowance)),
                Run::Script(how) if in_transaction => {
                    self.prepare(how, args, allowance.time());
                    None
                }
                _ => None,
            });
        }
        let (mut cold, mut read_ahead) = (None::<Cold>, false);
        let mut locked = loop {
            let mut set = ShardSet::EMPTY;
            for ((spec, args), plan) in commands.iter().zip(&plans) {
                set = match (spec.run, plan) {
                    (Run::Keys(_) | Run::Held(_) | Run::Script(_), _) => {
                        set.union(spec.shards(args).0)
                    }
                    (_, Some(plan)) => set.union(plan.shards()),
                    _ => set,
                };
            }
            for (_, key) in &self.watched {
                set = set.with(Name::new(key).slot.shard());
            }
            if set.is_empty() {
                set = ShardSet::of(broker::ShardId(0));
            }
            let locked = node.broker.lock_unless(set, &|| node.scripts.is_busy());
            let mut locked = locked.ok_or_else(|| busy(&node))?;
            locked.set_client(self.client.id);
            if plans.iter().flatten().all(|plan| plan.stands(&node)) {
                let (db, now) = (self.db, self.ctx.now);
                if let Some(read) = cold.take() {
                    // Its effects join the record, so the locks must not go any more.
                    read.install(&mut locked, now, &mut self.fx);
                    break locked;
                }
                let named = commands.iter().map(|(spec, args)| (*spec, args));
                match ahead::note(&mut locked, db, now, &mut self.fx, named) {
                    Some(mut missing) if !read_ahead => {
                        drop(locked);
                        read_ahead = true;
                        // What cannot be read is met again by its command, and told.
                        cold = missing.read(&node.broker.engine).ok().map(|()| missing);
                        continue;
                    }
                    _ => break locked,
                }
            }
            drop(locked);
            for plan in plans.iter_mut().flatten() {
                plan.renew(&node)?;
                plan.permit(&self.identity)?;
            }
        };
        if in_transaction {
            // A watched key that has expired since is a change, too.
            for (db, key) in &self.watched {
                let name = Name::new(key);
                let mut view =
                    locked
                        .shard(name.slot.shard())
                        .keys(*db, self.ctx.now, &mut self.fx);
                view.exists(&name)?;
            }
            let touched = self.watch.is_touched();
            self.forget_watches(&mut locked);
            if touched {
                Encoder::new(out, self.version).null_array();
                self.commit(&mut locked, &After::default());
                return Ok(());
            }
        }
        for plan in plans.iter().flatten() {
            if let Err(fail) = plan.check(&mut locked) {
                self.commit(&mut locked, &After::default());
                return Err(fail);
            }
        }
        if in_transaction {
            Encoder::new(out, self.version).array(commands.len());
        }
        let mut after = After::default();
        for ((spec, args), plan) in commands.iter().zip(plans) {
            let mark = out.len();
            self.commands += 1;
            let done = if self.fx.size() > TRANSACTION_MAX {
                Err(Fail::Text("ERR transaction changes too much at once"))
            } else if in_transaction {
                self.shown(spec, args, |session| {
                    session.counted(spec, args, |session| {
                        session.run_locked(spec, args, plan, &node, &mut locked, &mut after, out)
                    })
                })
            } else {
                self.run_locked(spec, args, plan, &node, &mut locked, &mut after, out)
            };
            if let Err(fail) = done {
                out.truncate(mark);
                self.refuse(&fail, out);
            }
        }
        self.commit(&mut locked, &after);
        Ok(())
    }

    /// One command of a transaction or script, under its locks. Nothing of it is committed yet.
    #[expect(clippy::too_many_arguments, reason = "all of what a transaction has")]
    pub(super) fn run_locked(
        &mut self,
        spec: &'static Spec,
        args: &Args<'_>,
        plan: Option<Plan>,
        node: &Node,
        locked: &mut Locked<'_>,
        after: &mut After,
        out: &mut Vec<u8>,
    ) -> Done {
        if self.tracks.is_some() {
            // Before it runs: what the transaction then changes itself is told as well.
            self.note_reads(spec, args, locked);
        }
        match (spec.run, plan) {
            (Run::Keys(run), _) => {
                let before =
                    (self.hub.wanted.is_on()).then(|| self.before_events(spec, args, locked));
                let mark = out.len();
                let mut exec = Exec {
                    locked: &mut *locked,
                    fx: &mut self.fx,
                    out: Encoder::new(out, self.version),
                    ctx: &self.ctx,
                    node,
                    hub: &self.hub,
                    db: self.db,
                    first: None,
                    in_transaction: true,
                    need: &mut self.need,
                    block: None,
                };
                let done = run(&mut exec, args);
                if let Some(before) = before {
                    let reply = match &done {
                        Ok(()) => out.get(mark..).unwrap_or_default(),
                        Err(_) => b"-",
                    };
                    self.note_events(spec, args, before, locked, reply);
                }
                done
            }
            (_, Some(plan)) => {
                let mut reply = Encoder::new(out, self.version);
                plan.run(node, locked, &mut self.fx, &self.ctx, after, &mut reply)
            }
            (Run::Session(run), _) => {
                let nested = std::mem::replace(&mut self.nested, true);
                let done = run(self, args, out);
                self.nested = nested;
                done
            }
            (Run::Held(run), _) => {
                let nested = std::mem::replace(&mut self.nested, true);
                let done = run(self, args, Some(locked), out);
                self.nested = nested;
                done
            }
            (Run::Script(how), _) => self.evaluate(spec, how, args, locked, after, out),
            _ => Err(wrong_arity(spec.name)),
        }
    }

    pub(in crate::resp) fn watch(&mut self, args: &Args<'_>) -> Done {
        if self.multi.is_some() {
            return Err(Fail::Text("ERR WATCH inside MULTI is not allowed"));
        }
        let (db, watched) = (self.db, &self.watched);
        self.may_listen_to_more(args, |key| {
            watched
                .iter()
                .any(|(other_db, other)| *other_db == db && other == key)
        })?;
        for key in args.iter().skip(1) {
            if self
                .watched
                .iter()
                .any(|(db, other)| *db == self.db && other == key)
            {
                continue;
            }
            let name = Name::new(key);
            let node = Arc::clone(&self.node);
            let set = ShardSet::of(name.slot.shard());
            let locked = node.broker.lock_unless(set, &|| node.scripts.is_busy());
            let mut locked = locked.ok_or_else(|| busy(&node))?;
            locked
                .shard(name.slot.shard())
                .keys(self.db, self.ctx.now, &mut self.fx)
                .watch(&name, &self.watch)?;
            self.commit(&mut locked, &After::default());
            self.names_len += key.len();
            self.watched.push((self.db, key.to_vec()));
        }
        Ok(())
    }

    /// Names are kept for as long as the client likes. Those of a command that are not `known` are more.
    pub(in crate::resp) fn may_listen_to_more(
        &self,
        args: &Args<'_>,
        known: impl Fn(&[u8]) -> bool,
    ) -> Done {
        let heard = self.subscriptions() + self.watched.len();
        let config = &self.node.config;
        let room = config.resp_max_subscriptions.saturating_sub(heard);
        // Only who is near the limit pays for the count.
        if args.len() - 1 <= room {
            return Ok(());
        }
        let names = args.iter().skip(1).filter(|name| !known(name));
        if names.collect::<HashSet<_>>().len() <= room {
            return Ok(());
        }
        Err(Fail::Text(
            "ERR too many channels, patterns and watched keys in one connection",
        ))
    }

    pub(in crate::resp) fn unwatch_all(&mut self) {
        if self.watched.is_empty() {
            return;
        }
        let set = self
            .watched
            .iter()
            .map(|(_, key)| Name::new(key).slot.shard())
            .collect();
        let node = Arc::clone(&self.node);
        let mut locked = node.broker.lock(set);
        self.forget_watches(&mut locked);
    }

    fn forget_watches(&mut self, locked: &mut Locked<'_>) {
        for (db, key) in self.watched.drain(..) {
            self.names_len -= key.len();
            let shard = Name::new(&key).slot.shard();
            locked
                .shard(shard)
                .keys(db, self.ctx.now, &mut self.fx)
                .unwatch(&key, &self.watch);
        }
        self.watch.reset();
    }
}

pub(super) fn is_transaction_control(spec: &Spec) -> bool {
    matches!(
        spec.name,
        "exec" | "discard" | "multi" | "watch" | "quit" | "reset"
    )
}
