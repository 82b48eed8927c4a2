//! What the tables are told of a key: its root row, and the rows of its elements.

use super::{DELETE_AT_ONCE, View};
use crate::Slot;
use crate::cache::Name;
use crate::cache::row::{self, Body, Root, Rows};
use crate::cache::slab::Content;
use crate::cache::space::Grave;
use crate::cache::stream::EntryId;
use crate::cache::value::{Buffer, Held, Value};
use crate::rows::Tag;

impl View<'_> {
    /// The element rows of an object that is gone are the sweeper's from here on.
    pub(in crate::cache) fn leave_orphans(&mut self, slot: Slot, tag: Tag, id: u64) {
        self.fx.put(
            self.shard,
            &row::dead_object_key(self.shard, slot, id),
            &[tag as u8],
        );
        self.space
            .graves
            .push_back((self.seq, Grave::Object { slot, tag, id }));
    }

    /// The same for the entries of a stream from an id to before another one.
    pub(in crate::cache) fn leave_front(&mut self, slot: Slot, id: u64, gone: (EntryId, EntryId)) {
        let key = row::dead_front_key(self.shard, slot, id, &gone.1.to_bytes());
        let value = [&[Tag::Stream as u8], &gone.0.to_bytes()[..]].concat();
        self.fx.put(self.shard, &key, &value);
        (self.space.graves).push_back((self.seq, Grave::Front { slot, id, gone }));
    }

    /// Removes the element rows of a value that is gone, at once or later.
    pub(super) fn bury(&mut self, slot: Slot, value: &Value) {
        let id = value.object();
        if id == 0 {
            return;
        }
        let tag = row::element_tag(value.kind());
        // The row that counts the elements of a partial one goes with its orphans.
        if value.elements() > DELETE_AT_ONCE || value.is_partial() {
            self.leave_orphans(slot, tag, id);
            return;
        }
        let mut rows = Rows::new(self.fx, (self.shard, self.seq), slot, tag, id);
        match value {
            Value::Hash(hash) => {
                hash.iter().for_each(|(field, _)| rows.del(field));
                hash.field_deadlines()
                    .for_each(|(field, _)| rows.del_deadline(field, false));
            }
            Value::Set(set) => set
                .iter()
                .for_each(|member| member.with(|member| rows.del(member))),
            Value::Zset(zset) => zset.iter().for_each(|(member, _)| rows.del(member)),
            Value::List(list) => list.rows().for_each(|(row, _)| rows.del(&row)),
            Value::Stream(stream) => stream.each_row(&mut |name, _| rows.del(name)),
            Value::Buffer(_) => {
                (0..value.elements() as u32).for_each(|page| rows.del(&page.to_be_bytes()))
            }
            Value::Int(_) => {}
        }
    }

    /// Writes all element rows of a value under its id.
    pub(super) fn write_elements(&mut self, slot: Slot, value: &Value) {
        let id = value.object();
        if id == 0 {
            return;
        }
        let mut rows = Rows::new(
            self.fx,
            (self.shard, self.seq),
            slot,
            row::element_tag(value.kind()),
            id,
        );
        each_element(value, &mut |name, value| rows.put(name, value));
        if let Value::Hash(hash) = value {
            hash.field_deadlines()
                .for_each(|(field, at_ms)| rows.put_deadline(field, at_ms));
        }
    }

    /// The value with a new object id (long strings and collections).
    pub(super) fn renumbered(&mut self, mut value: Value) -> Value {
        match &mut value {
            Value::Hash(hash) => hash.id = self.new_id(),
            Value::Set(set) => set.id = self.new_id(),
            Value::Zset(zset) => zset.id = self.new_id(),
            Value::List(list) => list.id = self.new_id(),
            Value::Stream(stream) => stream.id = self.new_id(),
            Value::Buffer(buffer) => {
                buffer.id = if buffer.bytes.len() > row::PAGE {
                    self.new_id()
                } else {
                    0
                };
            }
            Value::Int(_) => {}
        }
        value
    }

    /// Gives an object a new id and writes all of it anew. What the tables have of it, or will have when the fold has come
    /// so far, is nobody's then.
    pub(in crate::cache) fn renumber(&mut self, index: u32, slot: Slot) {
        let seq = self.seq;
        let slab = &mut self.db().slab;
        slab.mark(index, seq);
        let Some(place) = slab.object_mut(index) else {
            return;
        };
        let value = std::mem::replace(place, Value::Int(0));
        self.bury(slot, &value);
        let value = self.renumbered(value);
        self.write_elements(slot, &value);
        if let Some(place) = self.db().slab.object_mut(index) {
            *place = value;
        }
        self.write_root(index, slot);
    }

    /// Writes the root row of an entry as it is now.
    pub(super) fn write_root(&mut self, index: u32, slot: Slot) {
        let db = &self.space.dbs[self.number];
        let Some(entry) = db.slab.get(index) else {
            return;
        };
        let mut number = itoa::Buffer::new();
        let body = match entry.value {
            Held::Object(value) => body_of(value, &mut number),
            Held::Text(bytes) => Body::Inline(bytes),
            Held::Int(value) => Body::Inline(number.format(value).as_bytes()),
            Held::Absent => return,
        };
        let root = Root {
            expire_ms: entry.expire_ms,
            body,
        };
        row::put_root(
            self.fx,
            self.shard,
            &row::key_prefix(slot, db.id),
            entry.key,
            &root,
        );
    }

    #[inline]
    pub(super) fn root_row(&mut self, name: &Name<'_>, expire_ms: u64, body: &Body<'_>) {
        let prefix = row::key_prefix(name.slot, self.space.dbs[self.number].id);
        let body = *body;
        row::put_root(
            self.fx,
            self.shard,
            &prefix,
            name.bytes,
            &Root { expire_ms, body },
        );
    }
}

/// Name and value of each row of a value that has rows of elements.
pub(super) fn each_element(value: &Value, see: &mut dyn FnMut(&[u8], &[u8])) {
    match value {
        Value::Hash(hash) => hash.iter().for_each(|(field, value)| see(field, value)),
        Value::Set(set) => set
            .iter()
            .for_each(|member| member.with(|member| see(member, b""))),
        Value::Zset(zset) => zset
            .iter()
            .for_each(|(member, score)| see(member, &score.to_le_bytes())),
        Value::List(list) => list.rows().for_each(|(row, item)| see(&row, item)),
        Value::Stream(stream) => stream.each_row(see),
        Value::Buffer(buffer) => {
            for (page, bytes) in buffer.bytes.chunks(row::PAGE).enumerate() {
                see(&(page as u32).to_be_bytes(), bytes);
            }
        }
        Value::Int(_) => {}
    }
}

/// What the root row says of a value.
pub(super) fn body_of<'a>(value: &'a Value, number: &'a mut itoa::Buffer) -> Body<'a> {
    match value {
        Value::Buffer(buffer) if buffer.id != 0 => Body::Pages(buffer.id),
        Value::Buffer(buffer) => Body::Inline(&buffer.bytes),
        Value::Int(value) => Body::Inline(number.format(*value).as_bytes()),
        Value::Hash(hash) if hash.deadlines().is_some() => Body::Lasting(hash.id),
        object => Body::Object(object.kind(), object.object()),
    }
}

/// How a value is kept; the bytes of a short string stay in `short`.
pub(super) fn content_of(value: Value, short: &mut Option<Box<Buffer>>) -> Content<'_> {
    match value {
        Value::Int(value) => Content::Int(value),
        Value::Buffer(buffer) if buffer.id == 0 => Content::Text(&short.insert(buffer).bytes),
        object => Content::Object(object),
    }
}
