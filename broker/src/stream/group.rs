//! Consumer groups of the classic protocol: who is a member, which generation they agree on, what they have committed.
//!
//! ```text
//!              join                      all joined, or time is up            the leader syncs
//!  Empty ──────────────▶ PreparingRebalance ──────────────▶ CompletingRebalance ──────────────▶ Stable
//!    ▲                          ▲   │ nobody joined                │ join, leave, expiry           │ join, leave, expiry
//!    └──────────────────────────┼───┘                              │                               │
//!                               └──────────────────────────────────┴───────────────────────────────┘
//! ```
//! Members are sessions: they are gone after a restart and join again. Committed offsets are rows. Time only passes when
//! somebody asks ([`Group::expire`]): a waiting connection does so when its deadline comes.

mod member;
mod offsets;

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;
use storage::{Engine, Error};
use uuid::Uuid;

pub use member::{Answer, Join, JoinAnswer, MemberView, Protocol, SyncAnswer, Ticket};
pub use offsets::{Committed, commit, delete_group, delete_offsets, is_registered};
pub(super) use offsets::{Offsets, commit_later, settle};

use self::member::Member;
use crate::{Locked, Millis, Slot};

/// Why a group refuses a request. Each is one of Kafka's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupError {
    #[error("The coordinator is not aware of this member.")]
    UnknownMember,
    #[error("Specified group generation id is not valid.")]
    IllegalGeneration,
    #[error(
        "The group member's supported protocols are incompatible with those of existing members."
    )]
    InconsistentProtocol,
    #[error("The group is rebalancing, so a rejoin is needed.")]
    Rebalancing,
    /// The client shall join again with the member id that comes with this error.
    #[error(
        "The group member needs to have a valid member id before actually entering a consumer group."
    )]
    MemberIdRequired,
    #[error(
        "The broker rejected this static consumer since another consumer with the same group.instance.id has registered with a different member.id."
    )]
    Fenced,
    #[error("The group is not empty.")]
    NotEmpty,
    #[error("The group id does not exist.")]
    NotFound,
}

/// Where a group stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Empty,
    PreparingRebalance,
    CompletingRebalance,
    Stable,
    /// Deleted.
    Dead,
}

impl State {
    /// Kafka's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::Empty => "Empty",
            Self::PreparingRebalance => "PreparingRebalance",
            Self::CompletingRebalance => "CompletingRebalance",
            Self::Stable => "Stable",
            Self::Dead => "Dead",
        }
    }
}

/// One consumer group.
#[derive(Debug)]
pub struct Group {
    name: Arc<str>,
    pub state: State,
    pub generation: i32,
    /// "consumer", "connect", …: whatever the members call it. Empty while there is no member.
    pub protocol_type: String,
    /// What the members of this generation agreed on.
    pub protocol: Option<String>,
    leader: Option<String>,
    /// By member id; ordered, so that leaders and votes do not depend on chance.
    members: BTreeMap<String, Member>,
    /// Member ids that were handed out and not used yet, with their expiry.
    pending: BTreeMap<String, Millis>,
    /// Member id of each `group.instance.id`.
    instances: HashMap<String, String, foldhash::fast::RandomState>,
    /// When waiting for members to join or to sync ends.
    rebalance_deadline: Option<Millis>,
    /// `None`: not read from the tables yet.
    offsets: Option<Offsets>,
    /// What transactions are going to commit, by their producer ids. Read from the tables with `offsets`.
    undecided: BTreeMap<i64, Offsets>,
    /// The catalog has a row of it.
    registered: bool,
}

/// What became of a join or sync.
#[derive(Debug)]
pub enum Outcome<T> {
    Now(T),
    /// The answer will come to the ticket's mailbox.
    Later,
}

/// The slot of a group.
pub fn slot(name: &str) -> Slot {
    Slot::of(name.as_bytes())
}

/// Makes known which groups have rows.
pub(super) fn load(all: &mut Locked<'_>) {
    for name in std::mem::take(&mut all.catalog().streams.groups) {
        let group = Group {
            registered: true,
            offsets: None,
            ..Group::new(Arc::clone(&name))
        };
        all.shard(slot(&name).shard())
            .streams
            .groups
            .insert(name, group);
    }
}

/// The group with this name, if anybody ever used it. Its shard is locked. Time is brought up to `now`.
pub fn get<'a>(locked: &'a mut Locked<'_>, name: &str, now: Millis) -> Option<&'a mut Group> {
    let group = locked
        .shard(slot(name).shard())
        .streams
        .groups
        .get_mut(name)?;
    group.expire(now);
    Some(group).filter(|group| group.state != State::Dead)
}

/// The group with this name, new if need be. Its shard is locked.
pub fn get_or_make<'a>(locked: &'a mut Locked<'_>, name: &str, now: Millis) -> &'a mut Group {
    let groups = &mut locked.shard(slot(name).shard()).streams.groups;
    if !groups.contains_key(name) {
        groups.insert(name.into(), Group::new(name.into()));
    }
    // Just made sure of; `entry` would need an owned key on every call.
    #[expect(clippy::expect_used, reason = "inserted above")]
    let group = groups.get_mut(name).expect("group is there");
    if group.state == State::Dead {
        group.state = State::Empty;
    }
    group.expire(now);
    group
}

/// All groups of a locked shard that exist, with time brought up to `now`.
pub fn all<'a>(
    locked: &'a mut Locked<'_>,
    shard: storage::ShardId,
    now: Millis,
) -> impl Iterator<Item = &'a Group> {
    locked
        .shard(shard)
        .streams
        .groups
        .values_mut()
        .filter_map(move |group| {
            group.expire(now);
            let lives =
                group.registered || !group.members.is_empty() || group.state != State::Empty;
            (lives && group.state != State::Dead).then_some(&*group)
        })
}

impl Group {
    fn new(name: Arc<str>) -> Self {
        Self {
            name,
            state: State::Empty,
            generation: 0,
            protocol_type: String::new(),
            protocol: None,
            leader: None,
            members: BTreeMap::new(),
            pending: BTreeMap::new(),
            instances: HashMap::default(),
            rebalance_deadline: None,
            offsets: Some(Offsets::default()),
            undecided: BTreeMap::new(),
            registered: false,
        }
    }

    pub fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// Whether the catalog has a row of it.
    pub(super) fn is_registered(&self) -> bool {
        self.registered
    }

    /// Whether anybody has ever joined or committed.
    pub fn exists(&self) -> bool {
        self.registered || !self.members.is_empty() || self.generation > 0
    }

    /// For descriptions.
    pub fn members(&self) -> impl Iterator<Item = MemberView<'_>> {
        let protocol = self.protocol.as_deref();
        self.members
            .values()
            .map(move |member| member.view(protocol))
    }

    /// When [`Group::expire`] has something to do, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Millis> {
        let sessions = self.members.values().filter_map(Member::deadline);
        sessions
            .chain(self.rebalance_deadline)
            .chain(self.pending.values().copied())
            .min()
    }

    /// A member wants to be in the next generation.
    pub fn join(
        &mut self,
        join: Join,
        ticket: Ticket,
        now: Millis,
    ) -> Outcome<Result<JoinAnswer, (GroupError, String)>> {
        let fail = |error, id: &str| Outcome::Now(Err((error, id.to_owned())));
        if join.protocols.is_empty() || join.protocol_type.is_empty() || !self.accepts(&join) {
            return fail(GroupError::InconsistentProtocol, &join.member_id);
        }
        if join.member_id.is_empty() {
            if let Some(old) = join
                .instance_id
                .as_ref()
                .and_then(|instance| self.instances.get(instance))
                .cloned()
            {
                return self.replace(&old, join, ticket, now);
            }
            if join.instance_id.is_none() && join.needs_id {
                let expiry = Millis(now.0 + join.session_timeout_ms);
                self.pending.insert(join.new_id.clone(), expiry);
                return fail(GroupError::MemberIdRequired, &join.new_id);
            }
            let id = join.new_id.clone();
            return self.enter(id, join, ticket, now);
        }
        if let Some(instance) = &join.instance_id
            && let Some(id) = self.instances.get(instance)
            && *id != join.member_id
        {
            return fail(GroupError::Fenced, &join.member_id);
        }
        if self.pending.remove(&join.member_id).is_some() {
            let id = join.member_id.clone();
            return self.enter(id, join, ticket, now);
        }
        let id = join.member_id.clone();
        let leads = self.leader.as_deref() == Some(id.as_str());
        let Some(member) = self.members.get_mut(&id) else {
            return fail(GroupError::UnknownMember, &id);
        };
        let same = member.has_protocols(&join.protocols);
        member.update(join, now);
        match self.state {
            State::CompletingRebalance if same => Outcome::Now(Ok(self.join_answer(&id))),
            State::Stable if same && !leads => Outcome::Now(Ok(self.join_answer(&id))),
            State::PreparingRebalance | State::CompletingRebalance | State::Stable => {
                self.await_join(&id, ticket);
                self.rebalance(now)
            }
            State::Empty | State::Dead => fail(GroupError::UnknownMember, &id),
        }
    }

    /// Whether the newcomer has a protocol that every other member has.
    fn accepts(&self, join: &Join) -> bool {
        let mut others = self
            .members
            .values()
            .filter(|member| member.id != join.member_id)
            .peekable();
        if others.peek().is_none() {
            return true;
        }
        join.protocol_type == self.protocol_type
            && join
                .protocols
                .iter()
                .any(|protocol| others.clone().all(|member| member.knows(&protocol.name)))
    }

    fn enter(
        &mut self,
        id: String,
        join: Join,
        ticket: Ticket,
        now: Millis,
    ) -> Outcome<Result<JoinAnswer, (GroupError, String)>> {
        if self.members.is_empty() {
            self.protocol_type.clone_from(&join.protocol_type);
        }
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        self.members
            .insert(id.clone(), Member::new(id.clone(), join, now));
        self.await_join(&id, ticket);
        self.rebalance(now)
    }

    /// A static member has started again: it takes the place of its former self, without a rebalance if nothing else changed.
    fn replace(
        &mut self,
        old: &str,
        join: Join,
        ticket: Ticket,
        now: Millis,
    ) -> Outcome<Result<JoinAnswer, (GroupError, String)>> {
        let Some(mut member) = self.members.remove(old) else {
            let id = join.new_id.clone();
            return self.enter(id, join, ticket, now);
        };
        member.answer_join(Err((GroupError::Fenced, old.to_owned())));
        member.answer_sync(Err(GroupError::Fenced));
        let id = join.new_id.clone();
        let selected = self.protocol.clone();
        let same =
            selected.is_some_and(|name| member.metadata(&name) == find(&join.protocols, &name));
        let led = self.leader.as_deref() == Some(old);
        if let Some(instance) = &join.instance_id {
            self.instances.insert(instance.clone(), id.clone());
        }
        member.id.clone_from(&id);
        member.update(join, now);
        self.members.insert(id.clone(), member);
        if led {
            self.leader = Some(id.clone());
        }
        if self.state == State::Stable && same {
            let mut answer = self.join_answer(&id);
            if led {
                // Told that its former self leads, it does not assign partitions anew.
                answer.leader = old.to_owned();
                answer.members.clear();
            }
            return Outcome::Now(Ok(answer));
        }
        self.await_join(&id, ticket);
        self.rebalance(now)
    }

    fn await_join(&mut self, id: &str, ticket: Ticket) {
        if let Some(member) = self.members.get_mut(id) {
            member.joining = Some(ticket);
        }
    }

    /// Begins a rebalance unless one has begun, and completes it if everybody is there. The answer to whoever caused it comes
    /// by its ticket like everybody's.
    fn rebalance<T>(&mut self, now: Millis) -> Outcome<T> {
        self.prepare(now);
        Outcome::Later
    }

    fn prepare(&mut self, now: Millis) {
        if self.state != State::PreparingRebalance {
            for member in self.members.values_mut() {
                member.answer_sync(Err(GroupError::Rebalancing));
            }
            self.state = State::PreparingRebalance;
            let wait = self
                .members
                .values()
                .map(|member| member.rebalance_timeout_ms)
                .max()
                .unwrap_or(0);
            self.rebalance_deadline = Some(Millis(now.0.saturating_add(wait)));
        }
        self.try_complete(now);
    }

    fn try_complete(&mut self, now: Millis) {
        let waits = !self.pending.is_empty()
            || self.members.values().any(|member| member.joining.is_none());
        if self.state == State::PreparingRebalance && !waits {
            self.complete(now);
        }
    }

    /// Everybody who wants to be in the next generation has said so.
    fn complete(&mut self, now: Millis) {
        let absent = |member: &Member| member.joining.is_none() && member.instance_id.is_none();
        let gone: Vec<String> = self
            .members
            .values()
            .filter(|member| absent(member))
            .map(|m| m.id.clone())
            .collect();
        for id in gone {
            self.forget(&id);
        }
        self.generation = self.generation.checked_add(1).unwrap_or(1);
        if self.members.is_empty() {
            self.state = State::Empty;
            self.protocol = None;
            self.leader = None;
            self.rebalance_deadline = None;
            return;
        }
        self.protocol = self.vote();
        if self.leader.as_ref().is_none_or(|id| {
            self.members
                .get(id)
                .is_none_or(|member| member.joining.is_none())
        }) {
            let joined = self
                .members
                .values()
                .find(|member| member.joining.is_some());
            self.leader = joined
                .or(self.members.values().next())
                .map(|member| member.id.clone());
        }
        self.state = State::CompletingRebalance;
        let wait = self
            .members
            .values()
            .map(|member| member.rebalance_timeout_ms)
            .max()
            .unwrap_or(0);
        self.rebalance_deadline = Some(Millis(now.0.saturating_add(wait)));
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.join_answer(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = Bytes::new();
                member.touch(now);
                member.answer_join(Ok(answer));
            }
        }
    }

    /// The protocol that most members like best among those that all have.
    fn vote(&self) -> Option<String> {
        let mut votes: BTreeMap<&str, usize> = BTreeMap::new();
        for member in self.members.values() {
            let all_know = |name: &str| self.members.values().all(|other| other.knows(name));
            if let Some(choice) = member
                .protocols
                .iter()
                .map(|protocol| protocol.name.as_str())
                .find(|name| all_know(name))
            {
                *votes.entry(choice).or_default() += 1;
            }
        }
        votes
            .into_iter()
            .max_by_key(|(_, count)| *count)
            .map(|(name, _)| name.to_owned())
    }

    fn join_answer(&self, id: &str) -> JoinAnswer {
        let protocol = self.protocol.clone().unwrap_or_default();
        let members = if self.leader.as_deref() == Some(id) {
            self.members
                .values()
                .map(|member| {
                    (
                        member.id.clone(),
                        member.instance_id.clone(),
                        member.metadata(&protocol).cloned().unwrap_or_default(),
                    )
                })
                .collect()
        } else {
            Vec::new()
        };
        JoinAnswer {
            generation: self.generation,
            protocol_type: self.protocol_type.clone(),
            protocol,
            leader: self.leader.clone().unwrap_or_default(),
            member_id: id.to_owned(),
            members,
        }
    }

    /// Whether the member may act in this generation; it has shown that it lives.
    fn check(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        now: Millis,
    ) -> Result<(), GroupError> {
        self.check_identity(id, instance)?;
        let member = self.members.get_mut(id).ok_or(GroupError::UnknownMember)?;
        if generation != self.generation {
            return Err(GroupError::IllegalGeneration);
        }
        member.touch(now);
        Ok(())
    }

    fn check_identity(&self, id: &str, instance: Option<&str>) -> Result<(), GroupError> {
        match instance.map(|instance| self.instances.get(instance)) {
            Some(Some(known)) if known != id => Err(GroupError::Fenced),
            Some(None) => Err(GroupError::UnknownMember),
            _ => Ok(()),
        }
    }

    /// A member asks for its share; the leader brings everybody's.
    #[expect(clippy::too_many_arguments, reason = "the fields of one request")]
    pub fn sync(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        protocol_type: Option<&str>,
        protocol: Option<&str>,
        assignments: Vec<(String, Bytes)>,
        ticket: Ticket,
        now: Millis,
    ) -> Outcome<Result<SyncAnswer, GroupError>> {
        if let Err(error) = self.check(id, instance, generation, now) {
            return Outcome::Now(Err(error));
        }
        let differs = |said: Option<&str>, own: Option<&str>| said.is_some() && said != own;
        if differs(protocol_type, Some(&self.protocol_type))
            || differs(protocol, self.protocol.as_deref())
        {
            return Outcome::Now(Err(GroupError::InconsistentProtocol));
        }
        match self.state {
            State::Empty | State::Dead => Outcome::Now(Err(GroupError::UnknownMember)),
            State::PreparingRebalance => Outcome::Now(Err(GroupError::Rebalancing)),
            State::Stable => Outcome::Now(Ok(self.sync_answer(id))),
            State::CompletingRebalance => {
                if let Some(member) = self.members.get_mut(id) {
                    member.syncing = Some(ticket);
                }
                if self.leader.as_deref() == Some(id) {
                    self.assign(assignments, now);
                }
                Outcome::Later
            }
        }
    }

    fn assign(&mut self, assignments: Vec<(String, Bytes)>, now: Millis) {
        for (id, assignment) in assignments {
            if let Some(member) = self.members.get_mut(&id) {
                member.assignment = assignment;
            }
        }
        self.state = State::Stable;
        self.rebalance_deadline = None;
        let ids: Vec<String> = self.members.keys().cloned().collect();
        for id in ids {
            let answer = self.sync_answer(&id);
            if let Some(member) = self.members.get_mut(&id) {
                member.touch(now);
                member.answer_sync(Ok(answer));
            }
        }
    }

    fn sync_answer(&self, id: &str) -> SyncAnswer {
        SyncAnswer {
            protocol_type: self.protocol_type.clone(),
            protocol: self.protocol.clone().unwrap_or_default(),
            assignment: self
                .members
                .get(id)
                .map(|member| member.assignment.clone())
                .unwrap_or_default(),
        }
    }

    /// A member lives, and learns whether it must join again.
    pub fn heartbeat(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        now: Millis,
    ) -> Result<(), GroupError> {
        self.check(id, instance, generation, now)?;
        match self.state {
            State::PreparingRebalance => Err(GroupError::Rebalancing),
            State::Empty | State::Dead => Err(GroupError::UnknownMember),
            State::CompletingRebalance | State::Stable => Ok(()),
        }
    }

    /// A member goes. A static one may be named by its instance alone. Returns its member id.
    pub fn leave(
        &mut self,
        id: &str,
        instance: Option<&str>,
        now: Millis,
    ) -> Result<String, GroupError> {
        let id = match instance {
            Some(instance) => {
                let known = self
                    .instances
                    .get(instance)
                    .ok_or(GroupError::UnknownMember)?;
                if !id.is_empty() && id != known {
                    return Err(GroupError::Fenced);
                }
                known.clone()
            }
            None => id.to_owned(),
        };
        if self.pending.remove(&id).is_some() {
            self.try_complete(now);
            return Ok(id);
        }
        if !self.members.contains_key(&id) {
            return Err(GroupError::UnknownMember);
        }
        self.remove(&id, now);
        Ok(id)
    }

    /// The connection that waited with this ticket is gone; its member stays until its session ends.
    pub fn hang_up(&mut self, ticket: &Ticket, now: Millis) {
        for member in self.members.values_mut() {
            member.hang_up(ticket, now);
        }
    }

    fn remove(&mut self, id: &str, now: Millis) {
        self.forget(id);
        match self.state {
            State::Stable | State::CompletingRebalance => self.prepare(now),
            State::PreparingRebalance => self.try_complete(now),
            State::Empty | State::Dead => {}
        }
    }

    fn forget(&mut self, id: &str) {
        if let Some(mut member) = self.members.remove(id) {
            member.answer_join(Err((GroupError::UnknownMember, id.to_owned())));
            member.answer_sync(Err(GroupError::UnknownMember));
            if let Some(instance) = &member.instance_id {
                self.instances.remove(instance);
            }
            if self.leader.as_deref() == Some(id) {
                self.leader = None;
            }
        }
    }

    /// Brings the group up to `now`: sessions and rebalances whose time is up end.
    pub fn expire(&mut self, now: Millis) {
        if self.next_deadline().is_none_or(|deadline| deadline > now) {
            return;
        }
        self.pending.retain(|_, expiry| *expiry > now);
        let silent = |member: &&Member| member.deadline().is_some_and(|deadline| deadline <= now);
        let silent: Vec<String> = self
            .members
            .values()
            .filter(silent)
            .map(|member| member.id.clone())
            .collect();
        for id in silent {
            self.remove(&id, now);
        }
        if self
            .rebalance_deadline
            .is_some_and(|deadline| deadline <= now)
        {
            self.rebalance_deadline = None;
            match self.state {
                State::PreparingRebalance => {
                    self.pending.clear();
                    self.complete(now);
                }
                State::CompletingRebalance => {
                    // Whoever has not asked for its share by now is not there.
                    let absent: Vec<String> = self
                        .members
                        .values()
                        .filter(|member| member.syncing.is_none())
                        .map(|member| member.id.clone())
                        .collect();
                    for id in absent {
                        self.remove(&id, now);
                    }
                }
                State::Empty | State::Stable | State::Dead => {}
            }
        } else {
            self.try_complete(now);
        }
    }

    /// Whether this member may commit offsets with a transaction now. A producer that does not tell of its consumer may, too.
    pub fn check_transactional(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        now: Millis,
    ) -> Result<(), GroupError> {
        if generation < 0 && id.is_empty() && instance.is_none() {
            return Ok(());
        }
        self.check(id, instance, generation, now)
    }

    /// Whether this member may commit offsets now.
    pub fn check_commit(
        &mut self,
        id: &str,
        instance: Option<&str>,
        generation: i32,
        now: Millis,
    ) -> Result<(), GroupError> {
        if generation < 0 && self.state == State::Empty {
            // A consumer that only keeps its offsets here and assigns partitions itself.
            return Ok(());
        }
        if self.state == State::Empty
            && self.members.is_empty()
            && generation >= 0
            && !self.exists()
        {
            return Err(GroupError::IllegalGeneration);
        }
        self.check(id, instance, generation, now)?;
        if self.state == State::CompletingRebalance {
            return Err(GroupError::Rebalancing);
        }
        Ok(())
    }

    /// Reads the committed offsets from the tables if they are not in memory.
    ///
    /// # Errors
    /// When the tables cannot be read.
    pub fn load_offsets(&mut self, engine: &Engine) -> Result<(), Error> {
        if self.offsets.is_none() {
            self.undecided = offsets::load_undecided(&self.name, engine)?;
            self.offsets = Some(offsets::load(&self.name, engine)?);
        }
        Ok(())
    }

    /// Whether a transaction is going to commit an offset for this partition, so that the one that is there is not to be
    /// relied on. [`Group::load_offsets`] must have been called.
    pub fn is_undecided(&self, topic: Uuid, partition: i32) -> bool {
        let mut all = self.undecided.values();
        all.any(|offsets| offsets.contains_key(&(topic, partition)))
    }

    /// What transactions are going to commit.
    pub(super) fn all_undecided(&self) -> impl Iterator<Item = (i64, &(Uuid, i32), &Committed)> {
        self.undecided.iter().flat_map(|(producer, offsets)| {
            offsets
                .iter()
                .map(|(key, committed)| (*producer, key, committed))
        })
    }

    /// What was committed for a partition. [`Group::load_offsets`] must have been called.
    pub fn committed(&self, topic: Uuid, partition: i32) -> Option<&Committed> {
        self.offsets.as_ref()?.get(&(topic, partition))
    }

    /// Everything that was committed; see [`Group::committed`].
    pub fn all_committed(&self) -> impl Iterator<Item = (&(Uuid, i32), &Committed)> {
        self.offsets.iter().flatten()
    }
}

fn find<'a>(protocols: &'a [Protocol], name: &str) -> Option<&'a Bytes> {
    protocols
        .iter()
        .find(|protocol| protocol.name == name)
        .map(|protocol| &protocol.metadata)
}

#[cfg(test)]
mod tests;
