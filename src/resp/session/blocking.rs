//! Commands that wait: for an item, for their time to be up, or for `CLIENT UNBLOCK`.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use broker::cache::{Name, Served, Waiter, Want};
use broker::{Effects, Locked, Need};
use protocol_resp::{Args, Encoder};

use super::transaction::Queued;
use super::{Replies, Session};
use crate::resp::commands;
use crate::resp::exec::Block;
use crate::resp::fail::Fail;
use crate::resp::spec::{Run, Spec};

#[derive(Debug)]
pub(super) struct Blocked {
    pub(super) waiter: Arc<Waiter>,
    pub(super) block: Block,
    pub(super) until: Option<Instant>,
    /// The command itself, to run again when its keys live in several shards.
    pub(super) command: Queued,
}

impl Blocked {
    /// Bytes that it takes, about: the command, and each key here and where it waits.
    pub(super) fn held(&self) -> usize {
        const KEY: usize = 128;
        let keys: usize = self.block.keys.iter().map(|key| 2 * key.len() + KEY).sum();
        self.command.held() + keys
    }
}

impl Session {
    /// Registers under the same locks that saw nothing, so that nothing is missed.
    pub(super) fn block(
        &mut self,
        block: Block,
        spec: &'static Spec,
        args: &Args<'_>,
        locked: &mut Locked<'_>,
    ) {
        let receiver = Arc::clone(&self.client);
        let waiter = Waiter::new(block.want.clone(), receiver);
        for key in &block.keys {
            let shard = Name::new(key).slot.shard();
            locked
                .shard(shard)
                .keys(self.db, self.ctx.now, &mut self.fx)
                .wait(key, &waiter);
        }
        let until = block
            .timeout_ms
            .and_then(|ms| Instant::now().checked_add(Duration::from_millis(ms)));
        let mut command = Queued::new(self.db, spec, args);
        if let Want::Read { after, .. } = &block.want {
            // By the time it runs again, `$` would be another entry.
            let ids: Vec<String> = after.iter().map(|(_, id)| id.to_string()).collect();
            command.end_with(&ids);
        }
        self.hub.blocked.fetch_add(1, Ordering::Relaxed);
        self.client.facts.lock().blocked = true;
        self.blocked = Some(Blocked {
            waiter,
            block,
            until,
            command,
        });
    }

    /// Stops waiting, wherever it was registered.
    pub(super) fn unblock(&mut self) -> Option<Blocked> {
        let blocked = self.blocked.take()?;
        self.hub.blocked.fetch_sub(1, Ordering::Relaxed);
        self.client.facts.lock().blocked = false;
        let mut fx = Effects::new();
        for key in &blocked.block.keys {
            let shard = Name::new(key).slot.shard();
            let mut locked = self.node.broker.lock_one(shard);
            locked
                .shard(shard)
                .keys(blocked.command.db, self.ctx.now, &mut fx)
                .unwait(key, &blocked.waiter);
        }
        Some(blocked)
    }

    pub(super) fn served(&mut self, served: Served, lsn: broker::Lsn, out: &mut Vec<u8>) {
        if self.blocked.is_none() {
            return;
        }
        if served == Served::Retry {
            self.retry(out);
            return;
        }
        let Some(blocked) = self.unblock() else {
            return;
        };
        self.need = self.need.merge(Need::of(lsn, self.hub.durability()));
        let mark = out.len();
        let mut out_ = Encoder::new(out, self.version);
        let nested = blocked.block.nested;
        match served {
            Served::Items { key, items } => commands::list::popped(&mut out_, &key, &items, nested),
            Served::Members { key, members } => {
                commands::zset::popped(&mut out_, &key, &members, nested)
            }
            Served::Moved(item) => out_.bulk(&item),
            Served::Entries(streams) => commands::stream::read::served(&mut out_, &streams),
            Served::NoGroup { key } => {
                let group = match &blocked.block.want {
                    Want::ReadGroup { group, .. } => group.as_slice(),
                    _ => b"",
                };
                out_.error(commands::stream::read::no_group(&key, group).text());
            }
            Served::WrongType => out_.error(Fail::WrongType.text()),
            Served::Retry => {}
        }
        if self.replies != Replies::On {
            self.silence(mark, out);
        }
    }

    /// Ends a blocked command without a result, unless it has one by now.
    pub(super) fn time_is_up(&mut self, error: bool, out: &mut Vec<u8>) {
        let Some(blocked) = &mut self.blocked else {
            return;
        };
        if !blocked.waiter.claim() {
            // Served by another thread in the same moment. What it was served is on its way and ends the wait.
            blocked.until = None;
            return;
        }
        self.unblock();
        let mark = out.len();
        let mut encoder = Encoder::new(out, self.version);
        if error {
            encoder.error("UNBLOCKED client unblocked via CLIENT UNBLOCK");
        } else {
            encoder.null_array();
        }
        if self.replies != Replies::On {
            self.silence(mark, out);
        }
    }

    /// Runs a blocked command again; it blocks again when there is still nothing.
    fn retry(&mut self, out: &mut Vec<u8>) {
        let Some(blocked) = self.unblock() else {
            return;
        };
        // Served meanwhile: then the delivery is in the mailbox behind this event and would be dropped.
        if !blocked.waiter.claim() {
            self.hub.blocked.fetch_add(1, Ordering::Relaxed);
            self.client.facts.lock().blocked = true;
            self.blocked = Some(blocked);
            return;
        }
        let (db, until) = (self.db, blocked.until);
        self.db = blocked.command.db;
        let args = blocked.command.args();
        if let Run::Keys(run) = blocked.command.spec.run {
            self.on_keys(blocked.command.spec, run, &args, out);
        }
        self.db = db;
        if let Some(again) = &mut self.blocked {
            again.until = until;
        }
    }
}
