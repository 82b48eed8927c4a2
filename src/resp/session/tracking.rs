//! A connection that keeps what it reads: it is noted where it reads, and told where keys change.

use std::sync::Arc;

use broker::cache::{Name, Track};
use broker::{Locked, ShardSet};
use bytes::Bytes;
use protocol_resp::{Args, Encoder, Version};

use super::Session;
use super::runner::busy;
use crate::resp::fail::Done;
use crate::resp::spec::{Flags, Run, Spec};
use crate::resp::tracking::{Asked, Choice};

/// Where Redis tells clients that cannot take pushes, over a connection that subscribes to it.
const CHANNEL: &[u8] = b"__redis__:invalidate";

/// The connection's own side of `CLIENT TRACKING`.
#[derive(Debug, Clone)]
pub(in crate::resp) struct Tracks {
    client: Arc<dyn Track>,
    choice: Choice,
    /// `CLIENT CACHING` was said, and the command that it is about has not run.
    chosen: bool,
}

impl Tracks {
    /// What the command that runs now reads is noted.
    fn notes(&self) -> bool {
        match self.choice {
            Choice::Read => true,
            Choice::OptIn => self.chosen,
            Choice::OptOut => !self.chosen,
            Choice::Prefixes => false,
        }
    }
}

impl Session {
    /// From here on; `prefixes` are those that are new.
    pub(in crate::resp) fn start_tracking(
        &mut self,
        asked: Asked,
        prefixes: &[Bytes],
        held: Option<&mut Locked<'_>>,
    ) -> Done {
        let node = Arc::clone(&self.node);
        let client = Arc::clone(&self.client) as Arc<dyn Track>;
        let choice = asked.choice;
        let begin = |locked: &mut Locked<'_>| {
            self.client.tracking.set(Some(asked));
            node.broker.tracking.register(locked, &client, prefixes);
        };
        match held {
            Some(held) => begin(held),
            None => {
                let locked = (node.broker).lock_unless(ShardSet::DATA, &|| node.scripts.is_busy());
                begin(&mut locked.ok_or_else(|| busy(&node))?);
            }
        }
        self.tracks = Some(Box::new(Tracks {
            client,
            choice,
            chosen: false,
        }));
        Ok(())
    }

    pub(in crate::resp) fn stop_tracking(&mut self) {
        if self.tracks.take().is_some() {
            self.client.tracking.set(None);
            self.node.broker.tracking.unregister(self.client.id);
        }
    }

    /// `CLIENT CACHING` in the mode that it is for.
    pub(in crate::resp) fn choose_caching(&mut self) {
        if let Some(tracks) = &mut self.tracks {
            tracks.chosen = true;
        }
    }

    pub(in crate::resp) fn chose_caching(&self) -> bool {
        self.tracks.as_ref().is_some_and(|tracks| tracks.chosen)
    }

    /// Notes the keys of a command that reads, under its locks.
    #[cold]
    pub(super) fn note_reads(&self, spec: &Spec, args: &Args<'_>, locked: &mut Locked<'_>) {
        let Some(tracks) = self.tracks.as_ref().filter(|tracks| tracks.notes()) else {
            return;
        };
        // Of a script the commands that it calls.
        if !spec.flags.has(Flags::READ) || matches!(spec.run, Run::Script(_)) {
            return;
        }
        let set = locked.set();
        spec.each_key(args, &mut |place| {
            let name = Name::new(args.at(place));
            let shard = name.slot.shard();
            if set.contains(shard) {
                locked
                    .shard(shard)
                    .cache
                    .read_by(name.bytes, &tracks.client);
            }
        });
    }

    /// After a command of a connection that tracks.
    #[cold]
    pub(super) fn after_tracked(&mut self, spec: Option<&Spec>, out: &mut Vec<u8>) {
        let about_itself = spec.is_some_and(|spec| spec.name.starts_with("client|"));
        if let Some(tracks) = &mut self.tracks
            && self.multi.is_none()
            && !about_itself
        {
            tracks.chosen = false;
        }
        // What it has changed itself is told behind the reply.
        self.take_events(out);
    }

    /// Keys that this connection, or one that it listens for, keeps have changed.
    pub(super) fn changed(&self, keys: Option<&[Bytes]>, redirected: bool, out: &mut Vec<u8>) {
        let mut out = Encoder::new(out, self.version);
        if self.version == Version::Resp3 {
            out.push(2);
            out.bulk(b"invalidate");
        } else if redirected && self.subscriptions() > 0 {
            out.push(3);
            out.bulk(b"message");
            out.bulk(CHANNEL);
        } else {
            return;
        }
        match keys {
            None => out.null(),
            Some(keys) => {
                out.array(keys.len());
                keys.iter().for_each(|key| out.bulk(key));
            }
        }
    }

    pub(super) fn redirect_is_broken(&self, id: u64, out: &mut Vec<u8>) {
        if self.version == Version::Resp3 {
            let mut out = Encoder::new(out, self.version);
            out.push(2);
            out.bulk(b"tracking-redir-broken");
            out.integer(i64::try_from(id).unwrap_or(i64::MAX));
        }
    }
}
