//! FlowMesh's storage engine: one commit log, folded into sorted tables.
//!
//! ```text
//! Effects ── append (memcpy) ──▶ group buffer ── flush (one write) ──▶ log ── fold (sorted ingestion) ──▶ tables
//! ```
//! Every change is appended to the commit log as one record of absolute row writes ([`Effects`]). The log is durable;
//! the tables are derived from it, a window at a time, by the fold. [`Engine::get`] and [`Engine::scan`] read tables
//! only: what the log holds and the tables do not yet, the caller holds in memory (see [`Engine::folded_seq`]).

#![cfg_attr(
    test,
    allow(
        clippy::duplicate_mod,
        reason = "the combiner is compiled again on shuttle's primitives"
    )
)]

mod backup;
mod effects;
mod engine;
mod error;
pub mod fault;
mod feed;
mod fold;
mod log;
mod mark;
mod options;
mod position;
mod repair;
pub mod space;
mod stats;
mod table;
mod trigger;

pub use backup::{Verified, restore, verify};
pub use effects::{Effects, MAX_KEY_LEN};
pub use engine::{Engine, appended_by_this_thread};
pub use error::Error;
pub use feed::Feed;
pub use fold::L0_RUNS;
pub use log::reader::LogReader;
pub use log::record::{Op, Record, Section};
pub use options::Options;
pub use position::{BodyAt, Durability, Keyspace, Lsn, Need, Outcome, SHARDS, ShardId};
pub use repair::{Damage, Repaired, repair};
pub use stats::{Pressure, Stats};
