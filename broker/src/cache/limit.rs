//! How much memory keys may take before some are deleted: Redis' `maxmemory`, for the keys of a database or with a prefix, and
//! for all the others.
//!
//! ```text
//! key ─▶ the first rule that means it, else "the rest" ─▶ Limit: max, policy, bytes in use ─▶ over: candidates ─▶ pool ─▶ deleted
//! ```
//! Every key has exactly one limit. The rest's bytes are what all keys take without those of the rules, so nothing is counted
//! per key while there are no rules; with rules each shard notes whose key it works on ([`Scopes`]). Markers of deletions that
//! the tables do not know of yet count for none: deleting must make room.
//!
//! Without a maximum nothing is ever deleted: values leave memory for the tables when the budget asks for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};

use parking_lot::{Mutex, RwLock};

use super::slab::Uses;
use super::space::{DATABASES, Db, Space};
use crate::{Budget, DATA_SHARDS, Locked};

/// Rules of one server: each is asked about each key that a command touches.
pub const RULES_MAX: usize = 32;

/// Among which keys, and by what, those to be deleted are chosen; the names are Redis'.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Policy {
    /// None: what needs room is refused.
    #[default]
    NoEviction,
    AllKeysLru,
    AllKeysLfu,
    AllKeysRandom,
    VolatileLru,
    VolatileLfu,
    VolatileRandom,
    VolatileTtl,
}

impl Policy {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileRandom,
        Self::VolatileTtl,
        Self::AllKeysLru,
        Self::AllKeysLfu,
        Self::AllKeysRandom,
        Self::NoEviction,
    ];

    /// The name in `maxmemory-policy`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::NoEviction => "noeviction",
            Self::AllKeysLru => "allkeys-lru",
            Self::AllKeysLfu => "allkeys-lfu",
            Self::AllKeysRandom => "allkeys-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileTtl => "volatile-ttl",
        }
    }

    /// The policy of that name, in any case.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        let mut all = Self::ALL.into_iter();
        all.find(|policy| policy.name().eq_ignore_ascii_case(name))
    }

    /// It counts uses instead of looking at the last one.
    #[must_use]
    pub const fn is_lfu(self) -> bool {
        matches!(self, Self::AllKeysLfu | Self::VolatileLfu)
    }

    /// Only keys with a deadline are deleted.
    const fn is_volatile(self) -> bool {
        matches!(
            self,
            Self::VolatileLru | Self::VolatileLfu | Self::VolatileRandom | Self::VolatileTtl
        )
    }

    const fn is_random(self) -> bool {
        matches!(self, Self::AllKeysRandom | Self::VolatileRandom)
    }
}

/// How much, and what then.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Bounds {
    /// In bytes; 0: no end.
    pub max_bytes: u64,
    pub policy: Policy,
}

/// A limit of its own for some keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Of this database; `None`: of all.
    pub db: Option<usize>,
    /// Whose names begin so.
    pub prefix: Vec<u8>,
    pub bounds: Bounds,
}

impl Rule {
    #[inline]
    fn means(&self, db: usize, key: &[u8]) -> bool {
        self.db.is_none_or(|own| own == db) && key.starts_with(&self.prefix)
    }

    /// Every key that the other one means is meant by this one.
    #[must_use]
    pub fn covers(&self, other: &Self) -> bool {
        let same_db = self.db.is_none() || self.db == other.db;
        same_db && other.prefix.starts_with(&self.prefix)
    }
}

/// All that can be set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LimitSettings {
    /// Of the keys that no rule means.
    pub rest: Bounds,
    /// At most [`RULES_MAX`].
    pub rules: Vec<Rule>,
    /// Keys looked at to find one that should go.
    pub samples: u32,
    /// How much less than before a further use counts (Redis' `lfu-log-factor`).
    pub lfu_log_factor: u32,
    /// Minutes after which a use is forgotten (Redis' `lfu-decay-time`); 0: never.
    pub lfu_decay_minutes: u32,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            rest: Bounds::default(),
            rules: Vec::new(),
            samples: 5,
            lfu_log_factor: 10,
            lfu_decay_minutes: 1,
        }
    }
}

/// A key that could be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Candidate {
    /// Which goes first: the greatest.
    score: u64,
    /// Its shard.
    pub shard: storage::ShardId,
    pub(super) db: usize,
    pub(super) index: u32,
    /// Of its key: the cell may be another's by the time.
    pub(super) hash: u32,
    /// Its clock when it was seen.
    pub(super) used: u32,
}

/// Where a walk over all keys of a limit goes on: the shard, the database, and a cell or a deadline's place.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Turn {
    shard: usize,
    db: usize,
    next: u32,
    /// Something was found since it began.
    found: bool,
}

/// The best candidates seen so far, worst first: what a few samples find is better for having seen those of before, too.
#[derive(Debug, Default)]
pub struct Pool {
    best: Vec<Candidate>,
    turn: Turn,
}

impl Pool {
    /// As Redis.
    const SIZE: usize = 16;

    pub(super) fn put(&mut self, candidate: Candidate) {
        let cell = |of: &Candidate| (of.shard, of.db, of.index);
        // What was seen there before may have changed.
        self.best.retain(|other| cell(other) != cell(&candidate));
        let place = (self.best).partition_point(|other| other.score < candidate.score);
        if self.best.len() < Self::SIZE {
            self.best.insert(place, candidate);
        } else if place > 0 {
            self.best.remove(0);
            self.best.insert(place - 1, candidate);
        }
    }

    /// The one that should go first.
    pub fn take(&mut self) -> Option<Candidate> {
        self.best.pop()
    }

    /// The shard in which the walk over all keys goes on.
    #[must_use]
    pub fn next_shard(&self) -> storage::ShardId {
        // Below 8.
        storage::ShardId(self.turn.shard as u8)
    }
}

/// One limit: of a rule, or of the rest.
#[derive(Debug)]
pub struct Limit {
    pub rule: Option<Rule>,
    pub bounds: Bounds,
    /// Of a rule's keys; nothing is noted for the rest.
    used: AtomicI64,
    /// Keys deleted since it was set.
    pub evicted: AtomicU64,
    /// Locked by whoever makes room.
    pub pool: Mutex<Pool>,
    /// Nothing could be deleted, and it is not worth looking before then; ms since the epoch.
    pub barren_until_ms: AtomicU64,
}

impl Limit {
    fn new(rule: Option<Rule>, bounds: Bounds) -> Self {
        Self {
            rule,
            bounds,
            used: AtomicI64::new(0),
            evicted: AtomicU64::new(0),
            pool: Mutex::default(),
            barren_until_ms: AtomicU64::new(0),
        }
    }
}

/// The limits as they are now: the rest's, then those of the rules.
#[derive(Debug)]
pub struct Limits {
    all: Vec<Limit>,
    settings: LimitSettings,
    /// Bytes that keys take besides themselves: the empty databases.
    base: u64,
}

impl Limits {
    fn new(settings: LimitSettings) -> Self {
        let rules = settings.rules.iter().take(RULES_MAX);
        let rest = Limit::new(None, settings.rest);
        let rules = rules.map(|rule| Limit::new(Some(rule.clone()), rule.bounds));
        Self {
            all: std::iter::once(rest).chain(rules).collect(),
            base: DATA_SHARDS as u64 * Space::EMPTY_BYTES,
            settings,
        }
    }

    #[must_use]
    pub fn settings(&self) -> &LimitSettings {
        &self.settings
    }

    /// The rest's first, then those of the rules in their order.
    #[must_use]
    pub fn all(&self) -> &[Limit] {
        &self.all
    }

    /// Which limit a key has.
    #[must_use]
    pub fn of(&self, db: usize, key: &[u8]) -> usize {
        let rules = self.settings.rules.iter();
        let mut rules = rules.take(RULES_MAX);
        rules
            .position(|rule| rule.means(db, key))
            .map_or(0, |place| place + 1)
    }

    /// The policy for a key.
    #[must_use]
    pub fn policy_of(&self, db: usize, key: &[u8]) -> Policy {
        let limit = self.all.get(self.of(db, key));
        limit.map_or_else(Policy::default, |limit| limit.bounds.policy)
    }

    fn has_rules(&self) -> bool {
        self.all.len() > 1
    }

    /// Bytes that keys take, those of all limits.
    #[must_use]
    pub fn used_by_all(&self, budget: &Budget) -> u64 {
        budget.used().saturating_sub(budget.markers()) + self.base
    }

    /// Bytes that the keys of a limit take.
    #[must_use]
    pub fn used(&self, which: usize, budget: &Budget) -> u64 {
        let of = |limit: &Limit| u64::try_from(limit.used.load(Relaxed)).unwrap_or(0);
        if which == 0 {
            let others = self.all.iter().skip(1).map(of).sum();
            self.used_by_all(budget).saturating_sub(others)
        } else {
            self.all.get(which).map_or(0, of)
        }
    }

    /// Bytes above a limit.
    #[must_use]
    pub fn excess(&self, which: usize, budget: &Budget) -> u64 {
        match self.all.get(which).map(|limit| limit.bounds.max_bytes) {
            None | Some(0) => 0,
            Some(max) => self.used(which, budget).saturating_sub(max),
        }
    }

    /// The limits that are passed, as bits.
    #[must_use]
    pub fn passed(&self, budget: &Budget) -> u64 {
        let places = 0..self.all.len();
        let passed = places.filter(|which| self.excess(*which, budget) > 0);
        passed.fold(0, |bits, which| bits | 1 << which)
    }

    /// The same keys have each limit.
    fn means_the_same(&self, other: &Self) -> bool {
        let meant = |limit: &Limit| {
            let rule = limit.rule.as_ref();
            rule.map(|rule| (rule.db, rule.prefix.clone()))
        };
        self.all.iter().map(meant).eq(other.all.iter().map(meant))
    }

    /// Goes on with what others, who mean the same, have counted.
    fn inherit(&self, other: &Self) {
        for (limit, old) in self.all.iter().zip(&other.all) {
            limit.used.store(old.used.load(Relaxed), Relaxed);
            limit.evicted.store(old.evicted.load(Relaxed), Relaxed);
        }
    }

    fn charge(&self, which: usize, delta_bytes: i64) {
        if which > 0
            && let Some(limit) = self.all.get(which)
        {
            limit.used.fetch_add(delta_bytes, Relaxed);
        }
    }

    /// What the clocks of a database's keys count.
    fn uses(&self, db: usize) -> Option<Uses> {
        let lfu = self.all.iter().any(|limit| {
            limit.bounds.policy.is_lfu()
                && (limit.rule.as_ref()).is_none_or(|rule| rule.db.is_none_or(|own| own == db))
        });
        lfu.then_some(Uses {
            log_factor: self.settings.lfu_log_factor,
            decay_minutes: self.settings.lfu_decay_minutes,
        })
    }

    /// Bytes that may be in memory before clean values must leave it, if memory is what the limits bound.
    fn resident_max(&self) -> u64 {
        if self.settings.rest.max_bytes == 0 {
            return 0;
        }
        let sum = (self.all.iter()).fold(0u64, |sum, limit| {
            sum.saturating_add(limit.bounds.max_bytes)
        });
        // Markers, and what comes before room is made for it.
        sum.saturating_add(sum / 8).saturating_add(1 << 20)
    }

    /// How many bytes a shard may keep to itself before it tells them: an error of a thousandth, for all shards.
    fn step(&self) -> i64 {
        const USUAL: u64 = 32 << 10;
        let least = match self.settings.rest.max_bytes {
            _ if self.has_rules() => 0,
            0 => USUAL,
            max => max / (1000 * DATA_SHARDS as u64),
        };
        i64::try_from(least.min(USUAL)).unwrap_or(0)
    }
}

/// The limits of a node, behind one look at whether there are any.
#[derive(Debug)]
pub struct Limiter {
    on: AtomicBool,
    now: RwLock<Arc<Limits>>,
    /// What the budget is without limits.
    usual_bytes: u64,
}

impl Limiter {
    pub(crate) fn new(usual_bytes: u64) -> Self {
        Self {
            on: AtomicBool::new(false),
            now: RwLock::new(Arc::new(Limits::new(LimitSettings::default()))),
            usual_bytes,
        }
    }

    /// Something is limited.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.on.load(Relaxed)
    }

    /// As they are now.
    pub fn now(&self) -> Arc<Limits> {
        Arc::clone(&self.now.read())
    }
}

/// Sets the limits of all keys. All data shards must be locked.
pub fn set_limits(all: &mut Locked<'_>, settings: LimitSettings) {
    let broker = all.broker();
    let limits = Arc::new(Limits::new(settings));
    let budget = &broker.budgets.cache;
    let limiter = &broker.limiter;
    let before = limiter.now();
    let shards = || all.set().iter().filter(|id| id.index() < DATA_SHARDS);
    let shards: Vec<_> = shards().collect();
    for &id in &shards {
        all.shard(id).cache.settle_all(budget);
    }
    let known = limits.means_the_same(&before);
    if known {
        limits.inherit(&before);
    }
    for &id in &shards {
        all.shard(id).cache.limit(&limits, known);
    }
    budget.set_limit(limiter.usual_bytes.max(limits.resident_max()));
    let on = limits.has_rules() || limits.settings.rest.max_bytes > 0;
    *limiter.now.write() = limits;
    limiter.on.store(on, Relaxed);
}

/// Whose key a shard works on, while there are rules.
#[derive(Debug)]
pub(super) struct Scopes {
    limits: Arc<Limits>,
    which: usize,
    db: usize,
}

impl Space {
    /// Tells all that was not told yet.
    fn settle_all(&mut self, budget: &Budget) {
        for number in 0..self.dbs.len() {
            self.settle(number, budget);
        }
        self.tell(budget);
    }

    /// Takes new limits: clocks, how exactly memory is told, and, unless it is `known`, what the keys of each rule take. All is
    /// told.
    fn limit(&mut self, limits: &Arc<Limits>, known: bool) {
        self.scopes = None;
        self.step = limits.step();
        for (number, db) in self.dbs.iter_mut().enumerate() {
            db.slab.count_uses(limits.uses(number));
        }
        if limits.has_rules() {
            self.scopes = Some(Box::new(Scopes {
                limits: Arc::clone(limits),
                which: 0,
                db: 0,
            }));
            let dbs = if known { 0 } else { self.dbs.len() };
            for number in 0..dbs {
                self.weigh(number, 1);
            }
        }
    }

    /// Adds (1) or takes away (-1) what the keys of a database count for rules.
    pub(super) fn weigh(&mut self, number: usize, sign: i64) {
        let Some(scopes) = &self.scopes else { return };
        let Some(db) = self.dbs.get(number) else {
            return;
        };
        let mut sums = [0; RULES_MAX + 1];
        db.each_weight(&mut |key, weight, marker| {
            if !marker && let Some(sum) = sums.get_mut(scopes.limits.of(number, key)) {
                *sum += weight;
            }
        });
        for (which, sum) in sums.into_iter().enumerate() {
            scopes.limits.charge(which, sign * sum);
        }
    }

    /// A database's keys are gone all at once.
    pub(super) fn forget_weights(&mut self, number: usize, old: &Db, budget: &Budget) {
        let mut sums = [0; RULES_MAX + 1];
        let (mut all, mut markers) = (0, 0);
        old.each_weight(&mut |key, weight, marker| {
            all += weight;
            if marker {
                markers += weight;
            } else if let Some(scopes) = &self.scopes
                && let Some(sum) = sums.get_mut(scopes.limits.of(number, key))
            {
                *sum += weight;
            }
        });
        if let Some(scopes) = &self.scopes {
            for (which, sum) in sums.into_iter().enumerate() {
                scopes.limits.charge(which, -sum);
            }
        }
        budget.charge_marker(-markers);
        // What was not told yet is in the weights.
        budget.charge(old.slab.charge - all);
    }

    /// A rule means this key.
    pub(super) fn is_ruled(&self, number: usize, key: &[u8]) -> bool {
        let scopes = self.scopes.as_ref();
        scopes.is_some_and(|scopes| scopes.limits.of(number, key) > 0)
    }

    /// Two databases have changed places, and what their keys counted was taken away before.
    pub(super) fn swapped(&mut self, one: usize, other: usize) {
        if let (Some(a), Some(b)) = (self.dbs.get(one), self.dbs.get(other)) {
            let (a, b) = (a.slab.uses(), b.slab.uses());
            self.dbs[one].slab.count_uses(b);
            self.dbs[other].slab.count_uses(a);
        }
        self.weigh(one, 1);
        self.weigh(other, 1);
    }

    /// From now on a key of this database is worked on.
    #[inline]
    pub(super) fn attend(&mut self, number: usize, key: &[u8], budget: &Budget) {
        if self.scopes.is_some() {
            self.attend_to(number, |_| Some(key), budget);
        }
    }

    /// The same for one that is known by its number.
    #[inline]
    pub(super) fn attend_entry(&mut self, number: usize, index: u32, budget: &Budget) {
        if self.scopes.is_some() {
            let key = |space: &Self| {
                let entry = space.dbs.get(number)?.slab.get(index)?;
                Some(entry.key.to_vec())
            };
            self.attend_to(number, key, budget);
        }
    }

    #[cold]
    fn attend_to<K: AsRef<[u8]>>(
        &mut self,
        number: usize,
        key: impl FnOnce(&Self) -> Option<K>,
        budget: &Budget,
    ) {
        if let Some(last) = self.scopes.as_ref().map(|scopes| scopes.db) {
            self.settle(last, budget);
        }
        let key = key(self);
        if let (Some(key), Some(scopes)) = (key, &mut self.scopes) {
            scopes.which = scopes.limits.of(number, key.as_ref());
            scopes.db = number;
        }
    }

    /// Tells budget and limits what changed.
    #[cold]
    pub(super) fn tell(&mut self, budget: &Budget) {
        let charge = std::mem::take(&mut self.charge);
        if let Some(scopes) = &self.scopes {
            scopes.limits.charge(scopes.which, charge);
        }
        budget.charge(charge);
        if self.markers != 0 {
            budget.charge_marker(std::mem::take(&mut self.markers));
        }
    }

    /// A marker of a deletion has come (1) or gone (-1): whatever limit its key had, it does not count there.
    pub(super) fn mark_deleted(&mut self, number: usize, index: u32, sign: i64, budget: &Budget) {
        let Some(db) = self.dbs.get(number) else {
            return;
        };
        let weight = sign * db.slab.weight(index);
        // Told with what else changed.
        self.markers += weight;
        if self.scopes.is_some() {
            self.attend_entry(number, index, budget);
        }
        if let Some(scopes) = &self.scopes {
            scopes.limits.charge(scopes.which, -weight);
        }
    }

    /// Gives a key to the pool if it may be deleted; false: it may not.
    fn consider(&self, search: &Search<'_>, number: usize, index: u32, pool: &mut Pool) -> bool {
        let (limits, policy) = (search.limits, search.policy);
        let Some(db) = self.dbs.get(number) else {
            return false;
        };
        let Some(entry) = db.slab.get(index) else {
            return false;
        };
        if entry.is_absent()
            || (policy.is_volatile() && entry.expire_ms == 0)
            || (limits.has_rules() && limits.of(number, entry.key) != search.which)
        {
            return false;
        }
        let score = match policy {
            _ if policy.is_random() => 0,
            Policy::VolatileTtl => u64::MAX - entry.expire_ms,
            _ if policy.is_lfu() => 255 - u64::from(db.slab.uses_of(&entry, search.now_ms)),
            _ => u64::from(db.slab.idle_of(&entry, search.now_ms)),
        };
        pool.put(Candidate {
            score,
            shard: search.shard,
            db: number,
            index,
            hash: self.hash(entry.key),
            used: entry.used(),
        });
        true
    }

    /// Looks at some keys of a limit in one database and gives those that may be deleted to the pool.
    fn sample(
        &self,
        search: &Search<'_>,
        number: usize,
        chance: &mut dyn FnMut(u64) -> u64,
        pool: &mut Pool,
    ) {
        let Some(db) = self.dbs.get(number) else {
            return;
        };
        let policy = search.policy;
        let wanted = if policy.is_random() {
            1
        } else {
            search.limits.settings.samples
        };
        let (mut found, mut tried) = (0, 0);
        let mut look = |index: u32, pool: &mut Pool| {
            tried += 1;
            found += u32::from(self.consider(search, number, index, pool));
            found < wanted && tried < 8 * wanted
        };
        if policy == Policy::VolatileTtl {
            // The soonest is known.
            let mut all = db.deadlines.iter_from(0);
            while all.next().is_some_and(|index| look(index, pool)) {}
        } else if policy.is_volatile() {
            let len = db.deadlines.len() as u64;
            while len > 0
                && let Some(index) = db.deadlines.nth(chance(len))
                && look(index, pool)
            {}
        } else {
            let end = u64::from(db.slab.end());
            while end > 0 && look(chance(end) as u32, pool) {}
        }
    }

    /// Looks at `count` keys of one database from a place on; where to go on, `None` at its end, and at how many it has looked.
    fn walk(
        &self,
        search: &Search<'_>,
        number: usize,
        from: u32,
        count: u32,
        pool: &mut Pool,
    ) -> (Option<u32>, u32) {
        let Some(db) = self.dbs.get(number) else {
            return (None, 0);
        };
        let (end, volatile) = if search.policy.is_volatile() {
            (u32::try_from(db.deadlines.len()).unwrap_or(u32::MAX), true)
        } else {
            (db.slab.end(), false)
        };
        let to = end.min(from.saturating_add(count));
        if from < to && volatile {
            let deadlines = db.deadlines.iter_from(from as usize);
            for index in deadlines.take((to - from) as usize) {
                self.consider(search, number, index, pool);
            }
        } else {
            for index in from..to {
                self.consider(search, number, index, pool);
            }
        }
        ((to < end).then_some(to), to.saturating_sub(from))
    }
}

/// Which keys are looked for.
#[derive(Debug)]
pub(super) struct Search<'a> {
    limits: &'a Limits,
    /// Which of the limits.
    which: usize,
    policy: Policy,
    shard: storage::ShardId,
    now_ms: u64,
}

impl<'a> Search<'a> {
    fn new(view: &super::View<'_>, limits: &'a Limits, which: usize) -> Option<(Self, &'a Limit)> {
        let limit = limits.all.get(which)?;
        let search = Self {
            limits,
            which,
            policy: limit.bounds.policy,
            shard: view.shard,
            now_ms: view.now,
        };
        Some((search, limit))
    }
}

impl Limit {
    /// There may be keys of it in this database.
    fn may_mean(&self, number: usize) -> bool {
        let own = self.rule.as_ref().and_then(|rule| rule.db);
        own.is_none_or(|own| own == number)
    }
}

impl super::View<'_> {
    /// Cells that one step of a walk looks at: a tenth of a millisecond under the shard's lock, about.
    const WALK: u32 = 2048;

    /// Looks at a few keys of this shard and gives those that a limit may delete to the pool.
    pub fn candidates(
        &self,
        limits: &Limits,
        which: usize,
        chance: &mut dyn FnMut(u64) -> u64,
        pool: &mut Pool,
    ) {
        let Some((search, limit)) = Search::new(self, limits, which) else {
            return;
        };
        for number in (0..DATABASES).filter(|number| limit.may_mean(*number)) {
            self.space.sample(&search, number, chance, pool);
        }
    }

    /// The next step of a walk over all keys, for few that may be deleted among many; this shard is [`Pool::next_shard`]. False:
    /// in the whole turn that ends here nothing was found.
    pub fn next_candidates(&self, limits: &Limits, which: usize, pool: &mut Pool) -> bool {
        let Some((search, limit)) = Search::new(self, limits, which) else {
            return false;
        };
        let mut left = Self::WALK;
        while left > 0 && pool.turn.db < DATABASES {
            let (number, from) = (pool.turn.db, pool.turn.next);
            let (next, looked) = if limit.may_mean(number) {
                self.space.walk(&search, number, from, left, pool)
            } else {
                (None, 0)
            };
            left -= looked.min(left);
            (pool.turn.db, pool.turn.next) = next.map_or((number + 1, 0), |next| (number, next));
        }
        pool.turn.found |= !pool.best.is_empty();
        if pool.turn.db < DATABASES {
            return true;
        }
        let (shard, found) = (pool.turn.shard + 1, pool.turn.found);
        let at_end = shard >= DATA_SHARDS;
        pool.turn = Turn {
            shard: if at_end { 0 } else { shard },
            found: found && !at_end,
            ..Turn::default()
        };
        found || !at_end
    }

    /// Deletes a candidate, if it is still what it was when it was seen, and may still be deleted.
    pub fn make_room(&mut self, limits: &Limits, which: usize, candidate: Candidate) -> bool {
        self.number = candidate.db;
        let Some(limit) = limits.all.get(which) else {
            return false;
        };
        let Some(entry) = self.space.dbs[candidate.db].slab.get(candidate.index) else {
            return false;
        };
        if entry.is_absent()
            || entry.used() != candidate.used
            || self.space.hash(entry.key) != candidate.hash
            || (limit.bounds.policy.is_volatile() && entry.expire_ms == 0)
            || (limits.has_rules() && limits.of(candidate.db, entry.key) != which)
        {
            return false;
        }
        let slot = crate::Slot::of(entry.key);
        self.evict_key(candidate.index, slot);
        limit.evicted.fetch_add(1, Relaxed);
        // Whoever asked wants to know now whether that was enough.
        self.space.tell(self.budget);
        true
    }

    /// The policy for a key of this database.
    #[must_use]
    pub fn policy_of(&self, limits: &Limits, key: &[u8]) -> Policy {
        limits.policy_of(self.number, key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn policies_have_redis_names() {
        for policy in Policy::ALL {
            assert_eq!(Policy::parse(policy.name()), Some(policy));
            let upper = policy.name().to_ascii_uppercase();
            assert_eq!(Policy::parse(&upper), Some(policy));
        }
        assert_eq!(Policy::parse("allkeys"), None);
    }

    #[test]
    fn a_key_has_the_first_rule_that_means_it() {
        let rule = |db, prefix: &str| Rule {
            db,
            prefix: prefix.as_bytes().to_vec(),
            bounds: Bounds {
                max_bytes: 1,
                policy: Policy::AllKeysLru,
            },
        };
        let limits = Limits::new(LimitSettings {
            rules: vec![rule(Some(1), "a:"), rule(None, "a:b"), rule(Some(2), "")],
            ..LimitSettings::default()
        });
        for (db, key, wanted) in [
            (0, "x", 0),
            (0, "a:", 0),
            (1, "a:b", 1),
            (0, "a:bc", 2),
            (2, "a:b", 2),
            (2, "x", 3),
        ] {
            assert_eq!(limits.of(db, key.as_bytes()), wanted, "{db} {key}");
        }
    }

    #[test]
    fn the_pool_keeps_the_best() {
        let candidate = |score: u64| Candidate {
            score,
            shard: storage::ShardId(0),
            db: 0,
            index: score as u32,
            hash: 0,
            used: 0,
        };
        let mut pool = Pool::default();
        for score in [5, 90, 3, 70, 5].into_iter().chain(10..40) {
            pool.put(candidate(score));
        }
        let mut scores = Vec::new();
        while let Some(best) = pool.take() {
            scores.push(best.score);
        }
        assert_eq!(scores.len(), Pool::SIZE);
        assert!(scores.starts_with(&[90, 70, 39, 38]) && scores.is_sorted_by(|a, b| a > b));
    }
}
