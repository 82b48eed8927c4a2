//! What a command on keys works with: the locked shards, its record in the making, and where its reply goes.

use std::sync::Arc;

use broker::cache::{Name, View, Want};
use broker::functions::Libraries;
use broker::{Ctx, Effects, Locked, Need};
use protocol_resp::Encoder;

use super::hub::Hub;
use crate::node::Node;

/// See the module. One per command or transaction.
pub(crate) struct Exec<'a, 'l> {
    pub(crate) locked: &'a mut Locked<'l>,
    pub(crate) fx: &'a mut Effects,
    pub(crate) out: Encoder<'a>,
    pub(crate) ctx: &'a Ctx,
    pub(crate) node: &'a Node,
    pub(crate) hub: &'a Hub,
    pub(crate) db: usize,
    /// The first key, whose slot the lock needed already.
    pub(crate) first: Option<Name<'a>>,
    /// What the reply waits for besides its record.
    pub(crate) need: &'a mut Need,
    /// In a transaction nothing blocks.
    pub(crate) in_transaction: bool,
    /// Set by a command that found nothing and wants to wait.
    pub(crate) block: Option<Block>,
}

/// A command that waits.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) keys: Vec<Vec<u8>>,
    pub(crate) want: Want,
    pub(crate) timeout_ms: Option<u64>,
    /// The reply has the shape of `LMPOP` and `ZMPOP`, not of `BLPOP`.
    pub(crate) nested: bool,
}

impl<'a> Exec<'a, '_> {
    /// A pop found nothing: wait for `want` at any of `keys`; in a transaction answer nil instead.
    pub(crate) fn wait<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k [u8]>,
        want: Want,
        timeout_ms: Option<u64>,
        nested: bool,
    ) {
        if self.in_transaction {
            self.out.null_array();
            return;
        }
        self.block = Some(Block {
            keys: keys.map(<[u8]>::to_vec).collect(),
            want,
            timeout_ms,
            nested,
        });
    }

    #[inline]
    pub(crate) fn name<'k>(&self, key: &'k [u8]) -> Name<'k> {
        match self.first {
            Some(first) if std::ptr::eq(first.bytes, key) => Name {
                bytes: key,
                slot: first.slot,
            },
            _ => Name::new(key),
        }
    }

    /// The keys of the shard where `name` lives.
    #[inline]
    pub(crate) fn view(&mut self, name: &Name<'_>) -> View<'_> {
        self.locked
            .shard(name.slot.shard())
            .keys(self.db, self.ctx.now, self.fx)
    }

    /// The same for another database.
    pub(crate) fn view_in(&mut self, db: usize, name: &Name<'_>) -> View<'_> {
        self.locked
            .shard(name.slot.shard())
            .keys(db, self.ctx.now, self.fx)
    }

    /// A key, its shard, and the reply.
    #[inline]
    pub(crate) fn on<'s, 'k>(
        &'s mut self,
        key: &'k [u8],
    ) -> (Name<'k>, View<'s>, &'s mut Encoder<'a>) {
        let name = self.name(key);
        let view = self
            .locked
            .shard(name.slot.shard())
            .keys(self.db, self.ctx.now, self.fx);
        (name, view, &mut self.out)
    }

    /// All libraries of functions. The reply waits until what made them so is durable.
    pub(crate) fn libraries(&mut self) -> Arc<Libraries> {
        let functions = &self.node.broker.functions;
        let libraries = functions.now();
        let need = Need::of(functions.changed(), self.hub.durability());
        *self.need = self.need.merge(need);
        libraries
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.ctx.now.0
    }
}
