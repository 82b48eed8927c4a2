//! The messages of one queue with one priority, and where they stand. A queue without priorities has one lane.
//!
//! A queue that keeps its dead letters until they can be passed on has a lane for each reason; what is in there is not ready.
//!
//! Sequence numbers carry the priority in their highest octet, so each lane's rows lie together, in order, and one number
//! names a message of the whole queue.

use std::collections::BTreeMap;

use storage::{Engine, Keyspace, Lsn, ShardId};

use super::definition::Definition;
use super::done::Done;
use super::expiry::{self, Expiry};
use super::message::Message;
use super::paged::{Found, PAGE_MESSAGES, Source};
use super::ready::{Entry, PENDING, Ready};
use super::row;
use crate::rows::{self, Tag};
use crate::{Effects, Millis};

/// The delivered mark moves so far ahead of deliveries: after a crash at most so many messages are called redelivered
/// that were not.
const MARK_STEP: u64 = 1000;

const PRIORITY_SHIFT: u32 = 56;

/// The priority of the lane that a message is in.
pub(super) const fn priority_of(seq: u64) -> u8 {
    let [priority, ..] = seq.to_be_bytes();
    priority
}

#[derive(Debug)]
pub(super) struct Lane {
    pub(super) priority: u8,
    pub(super) ready: Ready,
    pub(super) next_seq: u64,
    /// Octets of the bodies of unacknowledged messages, of those that a restart brings back.
    unacked_bytes: u64,
    /// Deliveries of messages below were perhaps tried.
    mark: u64,
    /// The record that says so.
    mark_lsn: Lsn,
    /// The same as this run found it: of what it reads back, only these were tried by an earlier one.
    tried_before: u64,
    /// Transient messages below, if the tables have any, are from an earlier run.
    dead_below: u64,
    /// Persistent messages with a row, unacknowledged ones included.
    pub(super) stored: u64,
    pub(super) done: Done,
    /// Messages here may expire.
    pub(super) timed: bool,
    /// When the last one of those here expires; `u64::MAX`: one never does.
    latest: u64,
    /// Where the next look for dead letters that may go on begins.
    walked: u64,
    /// The definitions at the beginning of this round of looks, and of the last whole one.
    round: [u64; 2],
    /// The state row must be written.
    pub(super) dirty: bool,
    /// Deliveries of an earlier run that were returned, of messages that were not read since.
    pub(super) attempts: BTreeMap<u64, u16>,
}

impl Lane {
    pub(super) fn new(priority: u8) -> Self {
        let first = (u64::from(priority) << PRIORITY_SHIFT) + 1;
        Self {
            priority,
            ready: Ready::default(),
            next_seq: first,
            unacked_bytes: 0,
            mark: 0,
            mark_lsn: Lsn(0),
            tried_before: 0,
            dead_below: 0,
            stored: 0,
            done: Done::new(first),
            timed: false,
            latest: 0,
            walked: 0,
            round: [0; 2],
            dirty: false,
            attempts: BTreeMap::new(),
        }
    }

    /// Nothing was ever put in here.
    pub(super) fn is_new(&self) -> bool {
        self.next_seq == Self::new(self.priority).next_seq
    }

    /// As the state row says it was; the messages are in the tables.
    fn read(priority: u8, row: &[u8]) -> Self {
        let mut words = row
            .chunks_exact(8)
            .map(|word| <[u8; 8]>::try_from(word).map_or(0, u64::from_le_bytes));
        let mut word = || words.next().unwrap_or(0);
        // The octets count what was unacknowledged too: it is ready again now.
        let (stored, mark, head, next, bytes, timed) =
            (word(), word(), word(), word(), word(), word());
        // Behind the mark, so that new messages are not taken for delivered ones by a later start.
        let next_seq = next.max(mark);
        Self {
            stored,
            mark,
            tried_before: mark,
            next_seq,
            dead_below: next_seq,
            done: Done::new(head),
            ready: Ready::stored(head, stored, bytes),
            timed: timed != 0,
            latest: u64::MAX,
            ..Self::new(priority)
        }
    }

    /// The lanes of a queue that have a state row, lowest priority first.
    pub(super) fn load(
        definition: &Definition,
        engine: &Engine,
    ) -> Result<Vec<Self>, storage::Error> {
        let mut lanes = Vec::new();
        let prefix = rows::object_prefix(definition.slot, Tag::QueueState, definition.id);
        if definition.limits.max_priority.is_none() && !definition.limits.keeps_dead() {
            if let Some(row) = engine.get(Keyspace::Rows, &prefix)? {
                lanes.push(Self::read(0, &row));
            }
            return Ok(lanes);
        }
        rows::each(engine, &prefix, &mut |key, row| {
            let priority = key.get(prefix.len()).copied().unwrap_or(0);
            lanes.push(Self::read(priority, row));
            true
        })?;
        Ok(lanes)
    }

    /// The key of its state row: the lowest lane has that of a queue without priorities.
    fn state_key(&self, definition: &Definition) -> ([u8; 12], usize) {
        let mut key = [self.priority; 12];
        let prefix = rows::object_prefix(definition.slot, Tag::QueueState, definition.id);
        for (place, octet) in key.iter_mut().zip(prefix) {
            *place = octet;
        }
        (key, if self.priority == 0 { 11 } else { 12 })
    }

    /// Writes the state row if it must be.
    #[inline]
    pub(super) fn put_state(&mut self, definition: &Definition, shard: ShardId, fx: &mut Effects) {
        if !std::mem::take(&mut self.dirty) || !definition.is_stored() {
            return;
        }
        let mut row = [0; 48];
        for (place, word) in row.chunks_exact_mut(8).zip([
            self.stored,
            self.mark,
            self.done.head(),
            self.next_seq,
            self.stored_bytes(),
            u64::from(self.timed),
        ]) {
            place.copy_from_slice(&word.to_le_bytes());
        }
        let (key, len) = self.state_key(definition);
        fx.put(shard, key.get(..len).unwrap_or(&key), &row);
    }

    pub(super) fn del_state(&self, definition: &Definition, shard: ShardId, fx: &mut Effects) {
        let (key, len) = self.state_key(definition);
        fx.del(shard, key.get(..len).unwrap_or(&key));
    }

    /// Octets of the bodies that a restart brings back, those included that consumers hold now.
    pub(super) fn stored_bytes(&self) -> u64 {
        (self.ready.body_bytes() + self.unacked_bytes).saturating_sub(self.ready.transient_bytes())
    }

    /// A client holds the message until it says what becomes of it.
    pub(super) fn lend(&mut self, entry: &Entry) {
        if entry.logged && entry.message.is_persistent() {
            self.unacked_bytes += entry.message.body().len() as u64;
        }
    }

    /// The client has said it.
    pub(super) fn release(&mut self, entry: &Entry) {
        if entry.logged && entry.message.is_persistent() {
            let octets = entry.message.body().len() as u64;
            self.unacked_bytes = self.unacked_bytes.saturating_sub(octets);
        }
    }

    /// A message is about to be put in; `alone`: nothing is here, and nothing that was can come back.
    #[inline]
    pub(super) fn enter(&mut self, message: &mut Message, alone: bool) {
        let deadline = message.deadline_ms();
        if alone {
            self.latest = 0;
        }
        self.timed |= deadline != 0;
        message.set_late(deadline != 0 && deadline < self.latest);
        self.latest = self
            .latest
            .max(if deadline == 0 { u64::MAX } else { deadline });
    }

    fn source<'a>(&self, definition: &Definition, engine: &'a Engine) -> Source<'a> {
        Source {
            engine,
            slot: definition.slot,
            id: definition.id,
            end: (u64::from(self.priority) + 1).saturating_mul(1 << PRIORITY_SHIFT),
        }
    }

    /// Makes the oldest message available in memory, if there is one.
    #[inline]
    pub(super) fn read_ahead(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        engine: &Engine,
        fx: &mut Effects,
    ) -> Result<(), storage::Error> {
        while self.ready.wants_reading() {
            let all = &mut |_: &Message| true;
            for entry in self.take_paged(definition, shard, engine, PAGE_MESSAGES, all, fx)? {
                self.ready.extend_front(entry);
            }
        }
        Ok(())
    }

    /// Takes messages at the head that have expired, until they have `limit` octets. Those that are not in memory do not come there.
    pub(super) fn take_over(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        engine: &Engine,
        now: Millis,
        limit: usize,
        fx: &mut Effects,
    ) -> Result<Vec<Entry>, storage::Error> {
        let mut taken = Vec::new();
        // Few at first: of most queues that are looked at only the oldest message has expired.
        let mut page = 4;
        let mut octets = 0;
        while octets < limit {
            if !self.ready.wants_reading() {
                match self.ready.peek() {
                    Some(head) if head.message.is_over(now) => {
                        octets += head.message.weight();
                        taken.extend(self.ready.pop());
                    }
                    _ => break,
                }
                continue;
            }
            let known = self.ready.paged_deadline();
            if known.is_some_and(|deadline| deadline == 0 || deadline > now.0) {
                break;
            }
            let over = &mut |message: &Message| message.is_over(now);
            for entry in self.take_paged(definition, shard, engine, page, over, fx)? {
                self.ready.drop_paged(&entry.message);
                octets += entry.message.weight();
                taken.push(entry);
            }
            page = (page * 2).min(PAGE_MESSAGES);
        }
        Ok(taken)
    }

    fn take_paged(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        engine: &Engine,
        limit: usize,
        wanted: &mut dyn FnMut(&Message) -> bool,
        fx: &mut Effects,
    ) -> Result<Vec<Entry>, storage::Error> {
        let source = self.source(definition, engine);
        let (done, mut dead) = (&self.done, Vec::new());
        let found =
            self.ready
                .take_paged(source, limit, self.dead_below, done, &mut dead, wanted)?;
        for found in dead {
            self.drop_dead(definition, shard, &found, fx);
        }
        Ok(found.into_iter().map(|found| self.entry(found)).collect())
    }

    /// A transient message of an earlier run.
    fn drop_dead(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        found: &Found,
        fx: &mut Effects,
    ) {
        let message = &found.message;
        row::del(fx, shard, definition, found.seq, message.is_apart());
        if message.is_late() {
            expiry::del_row(fx, shard, (message.deadline_ms(), definition.id, found.seq));
        }
        if self.attempts.remove(&found.seq).is_some() {
            row::del_attempts(fx, shard, definition, found.seq);
        }
    }

    fn entry(&mut self, found: Found) -> Entry {
        Entry {
            lsn: found.lsn,
            logged: true,
            redelivered: found.seq < self.tried_before,
            attempts: if self.attempts.is_empty() {
                0
            } else {
                self.attempts.remove(&found.seq).unwrap_or(0)
            },
            ..Entry::new(found.seq, found.message)
        }
    }

    /// Takes a message from wherever it is; `None`: it is not here, a client has it, or it is done with.
    pub(super) fn remove(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        engine: &Engine,
        seq: u64,
        fx: &mut Effects,
    ) -> Result<Option<Entry>, storage::Error> {
        if self.done.has(seq) {
            return Ok(None);
        }
        if let Some(entry) = self.ready.remove(seq) {
            return Ok(Some(entry));
        }
        let source = self.source(definition, engine);
        let Some(found) = self.ready.remove_paged(source, seq, self.dead_below)? else {
            return Ok(None);
        };
        if !found.message.is_persistent() && seq < self.dead_below {
            self.drop_dead(definition, shard, &found, fx);
            return Ok(None);
        }
        Ok(Some(self.entry(found)))
    }

    /// Looks at about `limit` messages, from where the last look ended, and takes those that are `wanted`. `true`: all were
    /// looked at since the definitions are of this epoch.
    pub(super) fn pick(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        engine: &Engine,
        (limit, epoch): (usize, u64),
        wanted: &dyn Fn(&Message) -> bool,
        fx: &mut Effects,
    ) -> Result<(Vec<Entry>, bool), storage::Error> {
        let source = self.source(definition, engine);
        let [round, whole] = &mut self.round;
        if self.walked == 0 {
            *round = epoch;
        }
        let mut seqs = Vec::new();
        let visit = &mut |seq, message: &Message| {
            if wanted(message) {
                seqs.push(seq);
            }
        };
        let rest = self
            .ready
            .walk(source, self.walked, limit, &self.done, visit)?;
        self.walked = rest.unwrap_or(0);
        if rest.is_none() {
            *whole = *round;
        }
        let is_whole = *whole == epoch;
        let mut taken = Vec::with_capacity(seqs.len());
        for seq in seqs {
            taken.extend(self.remove(definition, shard, engine, seq, fx)?);
        }
        Ok((taken, is_whole))
    }

    /// The message will never be delivered again.
    #[inline]
    pub(super) fn forget(
        &mut self,
        definition: &Definition,
        shard: ShardId,
        entry: &Entry,
        expiry: &mut Expiry,
        fx: &mut Effects,
    ) {
        if entry.logged {
            let apart = entry.message.is_apart();
            row::del(fx, shard, definition, entry.seq, apart);
            if entry.message.is_late() {
                let deadline = entry.message.deadline_ms();
                expiry.remove(shard, (deadline, definition.id, entry.seq), fx);
            }
            if entry.attempts > 0 {
                row::del_attempts(fx, shard, definition, entry.seq);
            }
            if entry.message.is_persistent() && definition.is_stored() {
                self.stored = self.stored.saturating_sub(1);
            }
            self.dirty = true;
        }
        self.done.add(entry.seq);
    }

    /// The message is about to be shown: the delivered mark is beyond it, and it waits for the record that says so. `true`: that is
    /// the one being made.
    #[inline]
    pub(super) fn mark_past(&mut self, entry: &mut Entry) -> bool {
        let moves = entry.seq >= self.mark;
        if moves {
            self.mark = entry.seq + MARK_STEP;
            self.mark_lsn = PENDING;
            self.dirty = true;
        }
        entry.lsn = entry.lsn.max(self.mark_lsn);
        moves
    }

    /// The record is appended and ends at `lsn`.
    pub(super) fn committed(&mut self, lsn: Lsn) {
        if self.mark_lsn == PENDING {
            self.mark_lsn = lsn;
        }
    }
}
