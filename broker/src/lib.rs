//! What a key, a queue and a topic *mean*: protocol-neutral, without sockets, clocks, randomness or async.
//!
//! Everything has a [`Slot`]; contiguous slots form a shard, and a shard is the unit of locking, ordering and memory.
//! A command takes the locks it needs ([`Broker::lock`]), changes the shards' memory, writes the same change as rows into
//! [`storage::Effects`], and [`Locked::commit`] appends those rows to the log before the locks are released.
//! Memory is the truth for what is resident; what is not resident is read from the tables.

pub mod access;
pub mod audit;
mod budget;
pub mod cache;
mod ctx;
pub mod functions;
mod id;
pub mod keyspace;
pub mod law;
mod locked;
pub mod queue;
pub mod rows;
mod shard;
pub mod stream;
pub mod stream_queue;
mod wake;

pub use budget::{Budget, Budgets};
pub use ctx::{Ctx, Millis};
pub use id::{DATA_SHARDS, ShardSet, Slot, crc16};
pub use locked::Locked;
pub use shard::{Broker, Catalog, Shard};
pub use wake::{Mailbox, Wake};

pub use storage::{Durability, Effects, Engine, Keyspace, Lsn, Need, ShardId};
