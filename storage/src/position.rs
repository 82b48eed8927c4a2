//! Where a change is in the log, what must be on disk before it may be told, and which shard it belongs to.

/// A byte position in the commit log: the end of a record. Grows for ever, over restarts too; never reused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(pub u64);

/// Where in the commit log a body (a value of [`Keyspace::Bodies`]) lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyAt {
    /// Position of its first byte.
    pub at: Lsn,
    /// Its bytes.
    pub length: u32,
}

impl BodyAt {
    /// Position after its last byte. The body can be read back once the log is written up to here.
    #[inline]
    pub fn end(self) -> u64 {
        self.at.0 + u64::from(self.length)
    }
}

/// Number of shards: eight of data and the catalog.
pub const SHARDS: usize = 9;

/// A shard: 0 to 7 hold data, 8 is the catalog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ShardId(pub u8);

impl ShardId {
    /// Databases, exchanges, topics, users, id allocators.
    pub const CATALOG: Self = Self(8);

    /// This shard's place in an array of [`SHARDS`].
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// How safe a change must be before its reply may leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Durability {
    /// In the page cache: a killed process loses nothing, a power cut may lose seconds.
    #[default]
    Os,
    /// As `Os`, and on disk within about a second ([`crate::Options::sync_interval`]).
    Interval,
    /// After an `fdatasync` that covers it: a power cut loses nothing.
    Sync,
}

/// Which of the two tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// Everything small.
    Rows,
    /// Values of 1 KiB and more: kept apart from their keys, so that compaction does not rewrite them.
    Bodies,
}

/// What must be on disk before a reply may leave. `Need::default()` needs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Need {
    /// The log must have been handed to the kernel up to here.
    pub written: Lsn,
    /// The log must be on the disk itself up to here.
    pub synced: Lsn,
}

impl Need {
    /// Needs nothing: always durable.
    #[inline]
    pub const fn none() -> Self {
        Self {
            written: Lsn(0),
            synced: Lsn(0),
        }
    }

    /// What a change at `lsn` needs at `durability`.
    #[inline]
    pub const fn of(lsn: Lsn, durability: Durability) -> Self {
        match durability {
            Durability::Os | Durability::Interval => Self {
                written: lsn,
                synced: Lsn(0),
            },
            Durability::Sync => Self {
                written: lsn,
                synced: lsn,
            },
        }
    }

    /// Both needs: the later position of each.
    #[inline]
    #[must_use]
    pub fn merge(self, other: Self) -> Self {
        Self {
            written: self.written.max(other.written),
            synced: self.synced.max(other.synced),
        }
    }

    /// Needs nothing?
    #[inline]
    pub fn is_none(self) -> bool {
        self == Self::none()
    }
}

/// What is known of a change after waiting for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Outcome {
    /// It survives what its class promises.
    Durable,
    /// The disk failed meanwhile: the change may or may not be there after a restart. Neither success nor a reason to retry.
    Unknown,
}
