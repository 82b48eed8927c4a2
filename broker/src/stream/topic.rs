//! Topics: their definitions in the catalog, and the view of them that everybody reads without the catalog's lock.
//!
//! Rows, all of the catalog and behind `Tag::Topic`; topic names cannot hold a zero byte, so the parts of one topic sort
//! right behind its own row:
//! ```text
//! name                        → version u8, uuid, created u64
//! name 0x00 'p' index u32     → partition id u64, slot u16
//! name 0x00 'c' config        → value
//! 0x00 partition id u64       → slot u16: the partition's topic is gone, its rows are still to be swept
//! 0x01                        → cluster id (uuid)
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

use hashbrown::HashMap;
use parking_lot::RwLock;
use storage::{Durability, Effects, Engine, Error, ShardId};
use uuid::Uuid;

use super::TopicConfig;
use super::retention::Grave;
use super::transaction;
use crate::rows::{self, Tag};
use crate::{Ctx, DATA_SHARDS, Locked, Millis, ShardSet, Slot, stream_queue};

const VERSION: u8 = 1;
const PARTITION: &[u8] = &[0, b'p'];
const CONFIG: &[u8] = &[0, b'c'];
const SWEEP: u8 = 0;
const CLUSTER_ID: &[u8] = &[1];
/// Kafka's limit: the name was a directory's.
const NAME_MAX: usize = 249;
/// Partitions of one topic, so that a client's typing error does not fill the memory.
pub const PARTITIONS_MAX: usize = 200_000;

/// Where one partition lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PartitionRef {
    /// Never used for another partition.
    pub id: u64,
    pub slot: Slot,
}

impl PartitionRef {
    /// The shard that owns the partition.
    pub fn shard(&self) -> ShardId {
        self.slot.shard()
    }
}

/// A topic as it was when it was looked up. Changes make a new one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    pub name: Arc<str>,
    pub id: Uuid,
    pub created: Millis,
    pub partitions: Vec<PartitionRef>,
    pub config: TopicConfig,
}

impl Topic {
    /// Whether only the server writes it.
    pub fn is_reserved(&self) -> bool {
        self.name.starts_with(RESERVED)
    }

    /// The partition with this index, as a peer sends it.
    pub fn partition(&self, index: i32) -> Option<PartitionRef> {
        self.partitions.get(usize::try_from(index).ok()?).copied()
    }
}

/// Why a topic is not made or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TopicError {
    #[error("Topic '{0}' already exists.")]
    Exists(Arc<str>),
    #[error("This server does not host this topic-partition.")]
    Unknown,
    #[error("{0}")]
    InvalidName(String),
    #[error("{0}")]
    InvalidPartitions(String),
    #[error("{0}")]
    InvalidConfig(String),
}

/// All topics, and what decides how new ones are made. Read by everybody, changed under the catalog's lock.
#[derive(Debug)]
pub struct Topics {
    maps: RwLock<Maps>,
    /// Grows with every change, so that a session knows when the topics that it remembers are old.
    generation: AtomicU64,
    /// The class of `acks=all`, and what readers may see: see [`Topics::durability`].
    durability: AtomicU8,
    default_partitions: AtomicU32,
    cluster_id: Uuid,
}

#[derive(Debug, Default)]
struct Maps {
    by_name: HashMap<Arc<str>, Arc<Topic>, foldhash::fast::RandomState>,
    by_id: HashMap<Uuid, Arc<Topic>, foldhash::fast::RandomState>,
}

impl Topics {
    fn new(cluster_id: Uuid) -> Self {
        Self {
            maps: RwLock::default(),
            generation: AtomicU64::new(1),
            durability: AtomicU8::new(Durability::Sync as u8),
            default_partitions: AtomicU32::new(1),
            cluster_id,
        }
    }

    /// The topic with this name.
    pub fn get(&self, name: &str) -> Option<Arc<Topic>> {
        self.maps.read().by_name.get(name).cloned()
    }

    /// The topic with this id.
    pub fn by_id(&self, id: Uuid) -> Option<Arc<Topic>> {
        self.maps.read().by_id.get(&id).cloned()
    }

    /// All topics, by name.
    pub fn all(&self) -> Vec<Arc<Topic>> {
        let mut all: Vec<_> = self.maps.read().by_name.values().cloned().collect();
        all.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        all
    }

    /// Number of topics.
    pub fn len(&self) -> usize {
        self.maps.read().by_name.len()
    }

    /// Whether there is no topic.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Another number than before whenever a topic was made, changed or deleted.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// How safe a batch must be before `acks=all` is answered, and before any reader sees it.
    pub fn durability(&self) -> Durability {
        match self.durability.load(Ordering::Relaxed) {
            0 => Durability::Os,
            1 => Durability::Interval,
            _ => Durability::Sync,
        }
    }

    /// See [`Topics::durability`]; to be set before the first client comes.
    pub fn set_durability(&self, durability: Durability) {
        self.durability.store(durability as u8, Ordering::Relaxed);
    }

    /// Partitions of a topic whose creator leaves it to the server.
    pub fn default_partitions(&self) -> u32 {
        self.default_partitions.load(Ordering::Relaxed)
    }

    /// See [`Topics::default_partitions`].
    pub fn set_default_partitions(&self, count: u32) {
        self.default_partitions
            .store(count.max(1), Ordering::Relaxed);
    }

    /// Made at the first start, the same ever after.
    pub fn cluster_id(&self) -> Uuid {
        self.cluster_id
    }

    fn insert(&self, topic: Arc<Topic>) {
        let mut maps = self.maps.write();
        maps.by_id.insert(topic.id, Arc::clone(&topic));
        maps.by_name.insert(Arc::clone(&topic.name), topic);
        self.generation.fetch_add(1, Ordering::Release);
    }

    fn remove(&self, topic: &Topic) {
        let mut maps = self.maps.write();
        maps.by_id.remove(&topic.id);
        maps.by_name.remove(&topic.name);
        self.generation.fetch_add(1, Ordering::Release);
    }
}

/// The catalog's part of the streams.
#[derive(Debug)]
pub struct Catalog {
    topics: Arc<Topics>,
    /// Partitions whose topics were deleted and whose rows are not swept yet.
    pub(super) graves: Vec<Grave>,
    /// The names of all groups that have rows.
    pub(super) groups: Vec<Arc<str>>,
    pub(super) transactions: transaction::Transactions,
    new_cluster_id: bool,
}

impl Catalog {
    /// Reads the definitions.
    ///
    /// # Errors
    /// When the tables cannot be read, or hold rows that this version does not know.
    pub fn load(engine: &Engine) -> Result<Self, Error> {
        let mut topics: BTreeMap<Arc<str>, Topic> = BTreeMap::new();
        let mut graves = Vec::new();
        let mut cluster_id = None;
        let prefix = rows::prefix(Slot::CATALOG, Tag::Topic);
        rows::each_in_catalog(engine, Tag::Topic, &mut |key, value| {
            let key = key.get(prefix.len()..).unwrap_or_default();
            if key == CLUSTER_ID {
                cluster_id = Uuid::from_slice(value).ok();
            } else if let Some((&SWEEP, id)) = key.split_first() {
                let id = id.first_chunk().map(|id| u64::from_be_bytes(*id));
                graves.extend(
                    id.zip(slot(value))
                        .map(|(id, slot)| Grave::new(PartitionRef { id, slot }, 0)),
                );
            } else {
                let (name, part) = key.split_at(memchr::memchr(0, key).unwrap_or(key.len()));
                let Ok(name) = std::str::from_utf8(name) else {
                    return true;
                };
                if part.is_empty() {
                    if let Some((id, created)) = decode(value) {
                        let name: Arc<str> = name.into();
                        let topic = Topic {
                            name: Arc::clone(&name),
                            id,
                            created,
                            partitions: Vec::new(),
                            config: TopicConfig::default(),
                        };
                        topics.insert(name, topic);
                    }
                } else if let Some(topic) = topics.get_mut(name) {
                    load_part(topic, part, value);
                }
            }
            true
        })?;
        let topics_view = Topics::new(cluster_id.unwrap_or_else(Uuid::new_v4));
        for topic in topics.into_values() {
            let config = TopicConfig::new(topic.config.overrides.clone());
            topics_view.insert(Arc::new(Topic { config, ..topic }));
        }
        let mut groups = Vec::new();
        let prefix = rows::prefix(Slot::CATALOG, Tag::Group);
        rows::each_in_catalog(engine, Tag::Group, &mut |key, _| {
            let name = key
                .get(prefix.len()..)
                .and_then(|name| std::str::from_utf8(name).ok());
            groups.extend(name.map(Arc::from));
            true
        })?;
        Ok(Self {
            topics: Arc::new(topics_view),
            graves,
            groups,
            transactions: transaction::load(engine)?,
            new_cluster_id: cluster_id.is_none(),
        })
    }

    /// The view that this catalog publishes.
    #[must_use]
    pub fn topics(&self) -> Arc<Topics> {
        Arc::clone(&self.topics)
    }

    /// Whether the cluster's id has a row: before, the next start makes another one.
    pub(super) fn has_cluster_id(&self) -> bool {
        !self.new_cluster_id
    }

    /// Records the cluster's id at the first start.
    pub(super) fn keep_cluster_id(&mut self, fx: &mut Effects) {
        if std::mem::take(&mut self.new_cluster_id) {
            put(fx, &[CLUSTER_ID], &[self.topics.cluster_id.as_bytes()]);
        }
    }
}

fn decode(value: &[u8]) -> Option<(Uuid, Millis)> {
    let (&VERSION, rest) = value.split_first()? else {
        return None;
    };
    let (id, created) = rest.split_at_checked(16)?;
    Some((
        Uuid::from_slice(id).ok()?,
        Millis(u64::from_be_bytes(*created.first_chunk()?)),
    ))
}

fn slot(value: &[u8]) -> Option<Slot> {
    Slot::from_raw(u16::from_be_bytes(*value.first_chunk()?))
}

fn load_part(topic: &mut Topic, part: &[u8], value: &[u8]) {
    if let Some(config) = part.strip_prefix(CONFIG) {
        if let (Ok(name), Ok(value)) = (std::str::from_utf8(config), std::str::from_utf8(value)) {
            topic.config.overrides.insert(name.into(), value.into());
        }
    } else if part.starts_with(PARTITION)
        && let Some((id, rest)) = value.split_first_chunk()
        && let Some(slot) = slot(rest)
    {
        // Their indexes are dense and sort in order.
        topic.partitions.push(PartitionRef {
            id: u64::from_be_bytes(*id),
            slot,
        });
    }
}

fn put(fx: &mut Effects, key: &[&[u8]], value: &[&[u8]]) {
    let prefix = rows::prefix(Slot::CATALOG, Tag::Topic);
    let mut parts = smallvec::SmallVec::<[&[u8]; 6]>::from_slice(&[&prefix]);
    parts.extend_from_slice(key);
    fx.put_parts(ShardId::CATALOG, &parts, value);
}

fn del(fx: &mut Effects, key: &[&[u8]]) {
    let prefix = rows::prefix(Slot::CATALOG, Tag::Topic);
    let mut parts = smallvec::SmallVec::<[&[u8]; 6]>::from_slice(&[&prefix]);
    parts.extend_from_slice(key);
    fx.del_parts(ShardId::CATALOG, &parts);
}

/// What a new topic shall be.
#[derive(Debug, Clone, Default)]
pub struct NewTopic {
    pub name: String,
    /// `None`: the server's default.
    pub partitions: Option<u32>,
    pub configs: Vec<(String, String)>,
}

/// The locks that [`delete`] needs; everything else here needs the catalog alone.
pub const DELETE_LOCKS: ShardSet = ShardSet::ALL;

/// Checks a topic's name in Kafka's words.
pub fn check_name(name: &str) -> Result<(), TopicError> {
    let invalid = |text: String| Err(TopicError::InvalidName(text));
    if name.is_empty() {
        return invalid("Topic name is invalid: the empty string is not allowed".to_owned());
    }
    if name == "." || name == ".." {
        return invalid("Topic name is invalid: '.' or '..' is not allowed".to_owned());
    }
    if name.len() > NAME_MAX {
        return invalid(format!(
            "Topic name is invalid: the length of '{name}' is longer than the max allowed length {NAME_MAX}"
        ));
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte))
    {
        return invalid(format!(
            "Topic name is invalid: '{name}' contains one or more characters other than ASCII alphanumerics, '.', '_' and '-'"
        ));
    }
    Ok(())
}

/// Topics with such names are written by the server; see [`crate::keyspace`].
pub(crate) const RESERVED: &str = "__keyspace.";

/// Checks everything about a new topic that does not depend on the other topics but its name.
pub fn check_new(topics: &Topics, new: &NewTopic) -> Result<TopicConfig, TopicError> {
    if new.name.starts_with(RESERVED) {
        return Err(TopicError::InvalidName(format!(
            "Topic name is invalid: names that begin with '{RESERVED}' are the server's own, see keyspace-topics"
        )));
    }
    check_any(topics, new)
}

fn check_any(topics: &Topics, new: &NewTopic) -> Result<TopicConfig, TopicError> {
    check_name(&new.name)?;
    if let Some(topic) = topics.get(&new.name) {
        return Err(TopicError::Exists(Arc::clone(&topic.name)));
    }
    let count = new
        .partitions
        .unwrap_or_else(|| topics.default_partitions()) as usize;
    if count == 0 {
        return Err(TopicError::InvalidPartitions(
            "Number of partitions was set to an invalid non-positive value.".to_owned(),
        ));
    }
    if count > PARTITIONS_MAX {
        return Err(TopicError::InvalidPartitions(format!(
            "Number of partitions is above the limit of {PARTITIONS_MAX}."
        )));
    }
    check_configs(
        new.configs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )
}

/// Parses configurations, or says what is wrong with them.
pub fn check_configs<'a>(
    configs: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<TopicConfig, TopicError> {
    let mut overrides = BTreeMap::new();
    for (name, value) in configs {
        let spec = super::config::spec(name).ok_or_else(|| {
            TopicError::InvalidConfig(format!("Unknown topic config name: {name}"))
        })?;
        spec.check(value).map_err(TopicError::InvalidConfig)?;
        overrides.insert(Arc::from(name), Arc::from(value));
    }
    Ok(TopicConfig::new(overrides))
}

/// Makes a topic. Needs the catalog's lock: its partitions come to life in their shards on first touch.
///
/// # Errors
/// Its name is taken or not allowed, its count of partitions or a configuration is; nothing has changed then.
pub fn create(
    locked: &mut Locked<'_>,
    ctx: &Ctx,
    fx: &mut Effects,
    new: &NewTopic,
) -> Result<Arc<Topic>, TopicError> {
    let topics = locked.catalog().streams.topics();
    let config = check_new(&topics, new)?;
    Ok(make(locked, ctx, fx, new, config))
}

/// As [`create`], for names that are reserved.
pub(crate) fn create_reserved(
    locked: &mut Locked<'_>,
    ctx: &Ctx,
    fx: &mut Effects,
    new: &NewTopic,
) -> Result<Arc<Topic>, TopicError> {
    let topics = locked.catalog().streams.topics();
    let config = check_any(&topics, new)?;
    Ok(make(locked, ctx, fx, new, config))
}

fn make(
    locked: &mut Locked<'_>,
    ctx: &Ctx,
    fx: &mut Effects,
    new: &NewTopic,
    config: TopicConfig,
) -> Arc<Topic> {
    let topics = locked.catalog().streams.topics();
    locked.catalog().streams.keep_cluster_id(fx);
    let count = new
        .partitions
        .unwrap_or_else(|| topics.default_partitions());
    let id = topic_id(ctx);
    let name: Arc<str> = new.name.as_str().into();
    put(
        fx,
        &[name.as_bytes()],
        &[&[VERSION], id.as_bytes(), &ctx.now.0.to_be_bytes()],
    );
    for (config, value) in &config.overrides {
        put(
            fx,
            &[name.as_bytes(), CONFIG, config.as_bytes()],
            &[value.as_bytes()],
        );
    }
    let mut topic = Topic {
        name,
        id,
        created: ctx.now,
        partitions: Vec::new(),
        config,
    };
    extend(locked, fx, &mut topic, count);
    let topic = Arc::new(topic);
    topics.insert(Arc::clone(&topic));
    topic
}

/// Version 4 as Kafka's own ids are, from the context's chance.
fn topic_id(ctx: &Ctx) -> Uuid {
    let (high, low) = (ctx.random(), ctx.random());
    uuid::Builder::from_random_bytes(((u128::from(high) << 64) | u128::from(low)).to_be_bytes())
        .into_uuid()
}

fn extend(locked: &mut Locked<'_>, fx: &mut Effects, topic: &mut Topic, count: u32) {
    for index in topic.partitions.len() as u32..count {
        let slot = match topic.config.overrides.get("flowmesh.colocate") {
            Some(tag) if !tag.is_empty() => Slot::of(tag.as_bytes()),
            // Partition n belongs to shard n, whose changes it holds.
            _ if topic.is_reserved() => {
                Slot::range_of(ShardId((index % DATA_SHARDS as u32) as u8)).0
            }
            _ => Slot::of(format!("{}/{index}", topic.name).as_bytes()),
        };
        let partition = PartitionRef {
            id: locked.new_id(ShardId::CATALOG),
            slot,
        };
        put(
            fx,
            &[topic.name.as_bytes(), PARTITION, &index.to_be_bytes()],
            &[&partition.id.to_be_bytes(), &slot.raw().to_be_bytes()],
        );
        topic.partitions.push(partition);
    }
}

/// Adds partitions until there are `count`. Needs the catalog's lock.
///
/// # Errors
/// The topic is unknown, or has that many partitions or more already.
pub fn add_partitions(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
    count: i32,
    validate_only: bool,
) -> Result<Arc<Topic>, TopicError> {
    let topics = locked.catalog().streams.topics();
    let old = topics.get(name).ok_or(TopicError::Unknown)?;
    let has = old.partitions.len();
    let invalid = |text| Err(TopicError::InvalidPartitions(text));
    if stream_queue::of_topic(locked.broker(), &old).is_some() {
        return invalid(format!(
            "The topic {name} is a stream queue, which has one partition."
        ));
    }
    match usize::try_from(count) {
        Ok(count) if count == has => invalid(format!("Topic already has {has} partition(s).")),
        Ok(count) if count > PARTITIONS_MAX => invalid(format!(
            "Number of partitions is above the limit of {PARTITIONS_MAX}."
        )),
        Ok(count) if count > has => {
            if validate_only {
                return Ok(old);
            }
            let mut topic = (*old).clone();
            extend(locked, fx, &mut topic, count as u32);
            let topic = Arc::new(topic);
            topics.insert(Arc::clone(&topic));
            Ok(topic)
        }
        _ => invalid(format!(
            "The topic {name} currently has {has} partition(s); {count} would not be an increase."
        )),
    }
}

/// Replaces a topic's configurations. Needs the catalog's lock. `flowmesh.colocate` stays as it was made.
///
/// # Errors
/// The topic or a configuration is unknown, or a value is not allowed.
pub fn configure(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
    configs: &[(String, String)],
    validate_only: bool,
) -> Result<(), TopicError> {
    let topics = locked.catalog().streams.topics();
    let old = topics.get(name).ok_or(TopicError::Unknown)?;
    let config = check_configs(
        configs
            .iter()
            .map(|(name, value)| (name.as_str(), value.as_str())),
    )?;
    let colocate = |config: &TopicConfig| config.overrides.get("flowmesh.colocate").cloned();
    if colocate(&config).is_some() && colocate(&config) != colocate(&old.config) {
        return Err(TopicError::InvalidConfig(
            "flowmesh.colocate can only be set when the topic is created".to_owned(),
        ));
    }
    if validate_only {
        return Ok(());
    }
    for name in old
        .config
        .overrides
        .keys()
        .filter(|name| !config.overrides.contains_key(*name))
    {
        del(fx, &[old.name.as_bytes(), CONFIG, name.as_bytes()]);
    }
    for (name, value) in &config.overrides {
        put(
            fx,
            &[old.name.as_bytes(), CONFIG, name.as_bytes()],
            &[value.as_bytes()],
        );
    }
    topics.insert(Arc::new(Topic {
        config,
        ..(*old).clone()
    }));
    Ok(())
}

/// Deletes a topic, and the queue that it is: its name is free at once, its rows go with later sweeps. Needs [`DELETE_LOCKS`].
///
/// # Errors
/// There is no such topic.
pub fn delete(
    locked: &mut Locked<'_>,
    fx: &mut Effects,
    name: &str,
) -> Result<Arc<Topic>, TopicError> {
    let topics = locked.catalog().streams.topics();
    let topic = topics.get(name).ok_or(TopicError::Unknown)?;
    if topic.is_reserved() && crate::keyspace::writes(locked, name) {
        return Err(TopicError::InvalidName(format!(
            "The topic '{name}' is being written by the server: take its database out of keyspace-topics first"
        )));
    }
    if let Some(queue) = stream_queue::of_topic(locked.broker(), &topic) {
        crate::queue::remove(locked, &queue, fx);
    }
    del(fx, &[topic.name.as_bytes()]);
    for config in topic.config.overrides.keys() {
        del(fx, &[topic.name.as_bytes(), CONFIG, config.as_bytes()]);
    }
    for (index, partition) in topic.partitions.iter().enumerate() {
        del(
            fx,
            &[
                topic.name.as_bytes(),
                PARTITION,
                &(index as u32).to_be_bytes(),
            ],
        );
        put(
            fx,
            &[&[SWEEP], &partition.id.to_be_bytes()],
            &[&partition.slot.raw().to_be_bytes()],
        );
        let seq = locked.next_seq(partition.shard());
        let shard = locked.shard(partition.shard());
        shard.streams.bury(partition.id, &shard.budgets.stream);
        let grave = Grave::new(*partition, seq - 1);
        locked.catalog().streams.graves.push(grave);
    }
    topics.remove(&topic);
    Ok(topic)
}

/// Forgets a deleted partition whose rows are all gone.
pub(super) fn swept(fx: &mut Effects, partition: PartitionRef) {
    del(fx, &[&[SWEEP], &partition.id.to_be_bytes()]);
}
