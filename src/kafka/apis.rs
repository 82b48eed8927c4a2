//! The requests that are served: one row each, from which ApiVersions is answered.

mod admin;
mod fetch;
mod group;
mod metadata;
mod offsets;
mod produce;
mod sasl;
mod topics;
mod transactions;
mod versions;

use protocol_kafka::Api;

use super::{Failure, KafkaSession, Request};
use crate::net::Outbox;

pub(super) use fetch::{FetchWork, resume as resume_fetch};
pub(super) use group::{GroupWait, hang_up, resume as resume_group};
pub(super) use produce::{ProduceWait, ProduceWork, resume as resume_produce};
pub(super) use sasl::{LoginWait, Sasl, resume as resume_login};
pub(super) use versions::unsupported_version;

type Run = fn(&mut KafkaSession, &mut Request, &mut Outbox) -> Result<(), Failure>;

/// A request that is served.
#[derive(Clone, Copy)]
pub struct Row {
    /// Kafka's key of the request.
    pub key: i16,
    /// Lowest version that clients are told.
    pub min: i16,
    /// Highest version.
    pub max: i16,
    /// Lowest version that is really served; only Produce differs.
    pub served_from: i16,
    /// Answered before the client has logged in.
    pub before_login: bool,
    pub(super) run: Run,
}

impl Row {
    /// The request's name in Kafka's protocol guide.
    pub fn name(&self) -> &'static str {
        Api::find(self.key).map_or("", |api| api.name)
    }

    pub(super) fn serves(&self, version: i16) -> bool {
        (self.served_from..=self.max).contains(&version)
    }
}

impl std::fmt::Debug for Row {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}-{}", self.name(), self.min, self.max)
    }
}

const fn row(key: i16, min: i16, max: i16, run: Run) -> Row {
    Row {
        key,
        min,
        max,
        served_from: min,
        before_login: false,
        run,
    }
}

/// Every request that is served, by key.
pub const API_TABLE: &[Row] = &[
    // Advertised from 0, as Kafka does: librdkafka before 2.8 takes a higher minimum for a broker that cannot compress.
    Row {
        served_from: 3,
        ..row(0, 0, 13, produce::produce)
    },
    row(1, 4, 18, fetch::fetch),
    row(2, 1, 10, offsets::list_offsets),
    row(3, 0, 13, metadata::metadata),
    row(8, 2, 9, offsets::commit),
    row(9, 1, 9, offsets::fetch),
    row(10, 0, 6, metadata::find_coordinator),
    row(11, 0, 9, group::join),
    row(12, 0, 4, group::heartbeat),
    row(13, 0, 5, group::leave),
    row(14, 0, 5, group::sync),
    row(15, 0, 6, group::describe),
    row(16, 0, 5, group::list),
    Row {
        before_login: true,
        ..row(17, 0, 1, sasl::handshake)
    },
    Row {
        before_login: true,
        ..row(18, 0, 4, versions::versions)
    },
    row(19, 2, 7, topics::create),
    row(20, 1, 6, topics::delete),
    row(21, 0, 2, topics::delete_records),
    row(22, 0, 5, transactions::init_producer_id),
    row(23, 2, 4, offsets::for_leader_epoch),
    row(24, 0, 5, transactions::add_partitions),
    row(25, 0, 4, transactions::add_offsets),
    row(26, 0, 5, transactions::end),
    row(28, 0, 5, transactions::commit_offsets),
    row(32, 1, 4, admin::describe_configs),
    row(33, 0, 2, admin::alter_configs),
    row(35, 1, 4, admin::describe_log_dirs),
    Row {
        before_login: true,
        ..row(36, 0, 2, sasl::authenticate)
    },
    row(37, 0, 3, topics::add_partitions),
    row(42, 0, 2, group::delete),
    row(44, 0, 1, admin::incremental_alter_configs),
    row(46, 0, 0, admin::list_reassignments),
    row(47, 0, 0, offsets::delete),
    row(60, 0, 2, metadata::describe_cluster),
    row(61, 0, 0, transactions::describe_producers),
    row(65, 0, 0, transactions::describe),
    row(66, 0, 1, transactions::list),
];

/// The row of a request.
pub(super) fn find(key: i16) -> Option<&'static Row> {
    API_TABLE
        .binary_search_by_key(&key, |row| row.key)
        .ok()
        .and_then(|at| API_TABLE.get(at))
}
