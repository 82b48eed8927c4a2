//! Topic configurations: their names, defaults and bounds, and the few that change what the broker does.

use std::collections::BTreeMap;
use std::sync::Arc;

/// What values a configuration takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Bool,
    Int {
        min: i64,
    },
    Long {
        min: i64,
    },
    Ratio,
    /// One of these.
    Choice(&'static [&'static str]),
    /// Any of these, separated by commas.
    List {
        values: &'static [&'static str],
        /// Those of them that this broker cannot do: to take them would promise what does not happen.
        refused: &'static [&'static str],
    },
    Text,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
pub struct Spec {
    pub name: &'static str,
    pub default: &'static str,
    pub kind: Kind,
    pub doc: &'static str,
}

const fn row(name: &'static str, default: &'static str, kind: Kind, doc: &'static str) -> Spec {
    Spec {
        name,
        default,
        kind,
        doc,
    }
}

const FOREVER: &str = "9223372036854775807";

/// Every configuration that Kafka 4 clients and tools may set, with Kafka's defaults; the documentation says which have no effect here.
pub const SPECS: &[Spec] = &[
    row(
        "cleanup.policy",
        "delete",
        Kind::List {
            values: &["delete", "compact"],
            refused: &["compact"],
        },
        "What happens to old records. compact is refused: there is no compaction yet.",
    ),
    row(
        "compression.type",
        "producer",
        Kind::Choice(&["uncompressed", "zstd", "lz4", "snappy", "gzip", "producer"]),
        "Batches are stored as the producer compressed them.",
    ),
    row(
        "delete.retention.ms",
        "86400000",
        Kind::Long { min: 0 },
        "No effect without compaction.",
    ),
    row(
        "file.delete.delay.ms",
        "60000",
        Kind::Long { min: 0 },
        "No effect: a partition has no files.",
    ),
    row(
        "flowmesh.colocate",
        "",
        Kind::Text,
        "Partitions with the same text live in one shard with the keys whose hash tag it is. Set at creation.",
    ),
    row(
        "flush.messages",
        FOREVER,
        Kind::Long { min: 1 },
        "No effect: durability is the server's setting.",
    ),
    row(
        "flush.ms",
        FOREVER,
        Kind::Long { min: 0 },
        "No effect: durability is the server's setting.",
    ),
    row(
        "follower.replication.throttled.replicas",
        "",
        Kind::Text,
        "No effect on one node.",
    ),
    row(
        "index.interval.bytes",
        "4096",
        Kind::Int { min: 0 },
        "No effect.",
    ),
    row(
        "leader.replication.throttled.replicas",
        "",
        Kind::Text,
        "No effect on one node.",
    ),
    row(
        "local.retention.bytes",
        "-2",
        Kind::Long { min: -2 },
        "No effect without tiered storage.",
    ),
    row(
        "local.retention.ms",
        "-2",
        Kind::Long { min: -2 },
        "No effect without tiered storage.",
    ),
    row(
        "max.compaction.lag.ms",
        FOREVER,
        Kind::Long { min: 1 },
        "No effect without compaction.",
    ),
    row(
        "max.message.bytes",
        "1048588",
        Kind::Int { min: 0 },
        "Largest batch in bytes, as it is stored.",
    ),
    row(
        "message.timestamp.after.max.ms",
        "3600000",
        Kind::Long { min: 0 },
        "How far in the future a record's timestamp may be.",
    ),
    row(
        "message.timestamp.before.max.ms",
        FOREVER,
        Kind::Long { min: 0 },
        "How far in the past a record's timestamp may be.",
    ),
    row(
        "message.timestamp.type",
        "CreateTime",
        Kind::Choice(&["CreateTime", "LogAppendTime"]),
        "Whose clock a record's timestamp is from.",
    ),
    row(
        "min.cleanable.dirty.ratio",
        "0.5",
        Kind::Ratio,
        "No effect without compaction.",
    ),
    row(
        "min.compaction.lag.ms",
        "0",
        Kind::Long { min: 0 },
        "No effect without compaction.",
    ),
    row(
        "min.insync.replicas",
        "1",
        Kind::Int { min: 1 },
        "No effect on one node.",
    ),
    row(
        "preallocate",
        "false",
        Kind::Bool,
        "No effect: a partition has no files.",
    ),
    row(
        "remote.log.copy.disable",
        "false",
        Kind::Bool,
        "No effect without tiered storage.",
    ),
    row(
        "remote.log.delete.on.disable",
        "false",
        Kind::Bool,
        "No effect without tiered storage.",
    ),
    row(
        "remote.storage.enable",
        "false",
        Kind::Bool,
        "No effect without tiered storage.",
    ),
    row(
        "retention.bytes",
        "-1",
        Kind::Long { min: -1 },
        "Size of a partition in bytes above which its oldest records go; -1: no limit.",
    ),
    row(
        "retention.ms",
        "604800000",
        Kind::Long { min: -1 },
        "Age in milliseconds above which records go; -1: no limit.",
    ),
    row(
        "segment.bytes",
        "1073741824",
        Kind::Int { min: 14 },
        "No effect: a partition has no files.",
    ),
    row(
        "segment.index.bytes",
        "10485760",
        Kind::Int { min: 4 },
        "No effect: a partition has no files.",
    ),
    row(
        "segment.jitter.ms",
        "0",
        Kind::Long { min: 0 },
        "No effect: a partition has no files.",
    ),
    row(
        "segment.ms",
        "604800000",
        Kind::Long { min: 1 },
        "No effect: a partition has no files.",
    ),
    row(
        "unclean.leader.election.enable",
        "false",
        Kind::Bool,
        "No effect on one node.",
    ),
];

/// The row of a configuration.
pub fn spec(name: &str) -> Option<&'static Spec> {
    SPECS
        .binary_search_by_key(&name, |spec| spec.name)
        .ok()
        .and_then(|at| SPECS.get(at))
}

impl Spec {
    /// Checks a value as Kafka does, and says what is wrong in its words.
    pub fn check(&self, value: &str) -> Result<(), String> {
        let invalid = |why: &str| {
            Err(format!(
                "Invalid value {value} for configuration {}: {why}",
                self.name
            ))
        };
        let number = |min: i64, max: i64, what: &str| match value.trim().parse::<i64>() {
            Ok(number) if number < min => invalid(&format!("Value must be at least {min}")),
            Ok(number) if number <= max => Ok(()),
            _ => invalid(&format!("Not a number of type {what}")),
        };
        match self.kind {
            Kind::Int { min } => number(min, i64::from(i32::MAX), "INT"),
            Kind::Long { min } => number(min, i64::MAX, "LONG"),
            Kind::Bool => match value.trim().to_ascii_lowercase().as_str() {
                "true" | "false" => Ok(()),
                _ => invalid("Expected value to be either true or false"),
            },
            Kind::Ratio => match value.trim().parse::<f64>() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(()),
                Ok(_) => invalid("Value must be between 0 and 1"),
                Err(_) => invalid("Not a number of type DOUBLE"),
            },
            Kind::Choice(values) if values.contains(&value) => Ok(()),
            Kind::Choice(values) => {
                invalid(&format!("String must be one of: {}", values.join(", ")))
            }
            Kind::List { values, refused } => {
                let parts = || {
                    let parts = value.split(',').map(str::trim);
                    parts.filter(|part| !part.is_empty())
                };
                if parts().any(|part| !values.contains(&part)) {
                    return invalid(&format!("String must be one of: {}", values.join(", ")));
                }
                match parts().find(|part| refused.contains(part)) {
                    Some(part) => invalid(&format!("{part} is not supported by this server")),
                    None => Ok(()),
                }
            }
            Kind::Text => Ok(()),
        }
    }
}

/// The configurations that the broker reads on its paths, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicConfig {
    /// What was set, by name; everything else has its default.
    pub overrides: BTreeMap<Arc<str>, Arc<str>>,
    pub max_message_bytes: usize,
    /// `None`: kept for ever.
    pub retention_ms: Option<u64>,
    pub retention_bytes: Option<u64>,
    pub append_time: bool,
    pub timestamp_after_max_ms: u64,
    pub timestamp_before_max_ms: u64,
    pub compacted: bool,
}

impl Default for TopicConfig {
    fn default() -> Self {
        Self::new(BTreeMap::new())
    }
}

impl TopicConfig {
    /// Parses values that [`Spec::check`] has let through.
    pub fn new(overrides: BTreeMap<Arc<str>, Arc<str>>) -> Self {
        let text = |name: &str| {
            overrides
                .get(name)
                .map(|value| value.trim())
                .or_else(|| spec(name).map(|spec| spec.default))
                .unwrap_or_default()
        };
        let number = |name: &str| text(name).parse::<i64>().unwrap_or(-1);
        let policy = text("cleanup.policy");
        // Only compact: nothing goes by age or size.
        let deletes = policy.split(',').any(|part| part.trim() == "delete");
        let limit = |name: &str| u64::try_from(number(name)).ok().filter(|_| deletes);
        Self {
            max_message_bytes: usize::try_from(number("max.message.bytes")).unwrap_or(0),
            retention_ms: limit("retention.ms"),
            retention_bytes: limit("retention.bytes"),
            append_time: text("message.timestamp.type") == "LogAppendTime",
            timestamp_after_max_ms: u64::try_from(number("message.timestamp.after.max.ms"))
                .unwrap_or(0),
            timestamp_before_max_ms: u64::try_from(number("message.timestamp.before.max.ms"))
                .unwrap_or(0),
            compacted: policy.split(',').any(|part| part.trim() == "compact"),
            overrides,
        }
    }

    /// The value in force.
    pub fn get(&self, spec: &Spec) -> &str {
        self.overrides
            .get(spec.name)
            .map_or(spec.default, |value| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_its_defaults_are_valid() {
        assert!(SPECS.windows(2).all(|pair| pair[0].name < pair[1].name));
        for spec in SPECS {
            assert_eq!(spec.check(spec.default), Ok(()), "{}", spec.name);
        }
    }

    #[test]
    fn values_are_checked_in_kafkas_words() {
        let check = |name, value| spec(name).unwrap().check(value).unwrap_err();
        assert_eq!(
            check("retention.ms", "x"),
            "Invalid value x for configuration retention.ms: Not a number of type LONG"
        );
        assert_eq!(
            check("retention.ms", "-2"),
            "Invalid value -2 for configuration retention.ms: Value must be at least -1"
        );
        assert_eq!(
            check("cleanup.policy", "delete,burn"),
            "Invalid value delete,burn for configuration cleanup.policy: String must be one of: delete, compact"
        );
        assert_eq!(
            check("cleanup.policy", "delete, compact"),
            "Invalid value delete, compact for configuration cleanup.policy: compact is not supported by this server"
        );
        // A topic that an older version made keeps its records.
        let config = TopicConfig::new(BTreeMap::from([(
            "cleanup.policy".into(),
            "compact".into(),
        )]));
        assert_eq!((config.retention_ms, config.compacted), (None, true));
        assert_eq!(TopicConfig::default().retention_ms, Some(604_800_000));
    }
}
