//! Keys, queues and topics as metrics.

use broker::queue::{self, QueueRef};
use broker::{Broker, Budget, Effects, Millis, ShardSet, stream};

use super::metrics::{Encoder, Kind};

/// Queues or partitions with series of their own. Beyond it only totals are told: a scrape must stay small and quick.
const OBJECTS_MAX: usize = 1_000;

/// Keys of each database, summed over the shards.
pub fn keys_by_database(broker: &Broker, databases: u16, now: Millis) -> Vec<usize> {
    let mut counts = vec![0; usize::from(databases)];
    // Counting changes nothing; a view wants somewhere to write all the same.
    let mut fx = Effects::new();
    for shard in ShardSet::DATA.iter() {
        let mut locked = broker.lock_one(shard);
        for (number, count) in counts.iter_mut().enumerate() {
            *count += locked.shard(shard).keys(number, now, &mut fx).len();
        }
    }
    counts
}

/// Writes the families.
pub fn collect(out: &mut Encoder, broker: &Broker, databases: u16, now: Millis) {
    let mut keys = out.family(
        "flowmesh_keys",
        Kind::Gauge,
        "Keys per database; empty databases are left out.",
    );
    for (number, count) in keys_by_database(broker, databases, now)
        .into_iter()
        .enumerate()
    {
        if count > 0 || number == 0 {
            keys.sample(&[("db", &number.to_string())], count);
        }
    }

    let domains: [(&str, &Budget); 3] = [
        ("cache", &broker.budgets.cache),
        ("queue", &broker.budgets.queue),
        ("stream", &broker.budgets.stream),
    ];
    let mut used = out.family(
        "flowmesh_memory_used_bytes",
        Kind::Gauge,
        "Memory of resident data.",
    );
    for (domain, budget) in domains {
        used.sample(&[("domain", domain)], budget.used());
    }
    let mut limit = out.family(
        "flowmesh_memory_limit_bytes",
        Kind::Gauge,
        "Budget of resident data.",
    );
    for (domain, budget) in domains {
        limit.sample(&[("domain", domain)], budget.limit());
    }

    queues(out, broker);
    topics(out, broker);
}

fn queues(out: &mut Encoder, broker: &Broker) {
    let mut queues = broker.routes.queues();
    queues.sort_unstable_by(|a, b| a.name.cmp(&b.name));
    out.family("flowmesh_queues", Kind::Gauge, "Queues.")
        .sample(&[], queues.len());
    let counts: Vec<_> = queues
        .iter()
        .take(OBJECTS_MAX)
        .filter_map(|queue| {
            Some((
                queue,
                queue::counts(
                    broker,
                    QueueRef {
                        shard: queue.shard(),
                        id: queue.id,
                    },
                )?,
            ))
        })
        .collect();
    let mut ready = out.family(
        "flowmesh_queue_messages_ready",
        Kind::Gauge,
        "Messages that wait for a consumer.",
    );
    for (queue, counts) in &counts {
        ready.sample(&[("queue", &queue.name)], counts.ready);
    }
    let mut unacked = out.family(
        "flowmesh_queue_messages_unacked",
        Kind::Gauge,
        "Messages delivered and not acknowledged.",
    );
    for (queue, counts) in &counts {
        unacked.sample(&[("queue", &queue.name)], counts.unacked);
    }
    let mut consumers = out.family("flowmesh_queue_consumers", Kind::Gauge, "Consumers.");
    for (queue, counts) in &counts {
        consumers.sample(&[("queue", &queue.name)], counts.consumers);
    }
}

fn topics(out: &mut Encoder, broker: &Broker) {
    let topics = broker.topics.all();
    out.family("flowmesh_topics", Kind::Gauge, "Topics.")
        .sample(&[], topics.len());
    let bounds: Vec<_> = topics
        .iter()
        .flat_map(|topic| {
            topic
                .partitions
                .iter()
                .enumerate()
                .map(move |(index, at)| (topic, index, *at))
        })
        .take(OBJECTS_MAX)
        .filter_map(|(topic, index, at)| {
            // Tables that cannot be read are told of by whoever needs them.
            let bounds = stream::bounds(broker, at).ok()??;
            Some((&topic.name, index.to_string(), bounds))
        })
        .collect();
    let mut start = out.family(
        "flowmesh_partition_start_offset",
        Kind::Gauge,
        "First offset that is kept.",
    );
    for (topic, partition, bounds) in &bounds {
        start.sample(&[("topic", topic), ("partition", partition)], bounds.start);
    }
    let mut end = out.family(
        "flowmesh_partition_end_offset",
        Kind::Gauge,
        "Offset of the next record.",
    );
    for (topic, partition, bounds) in &bounds {
        end.sample(&[("topic", topic), ("partition", partition)], bounds.end);
    }
}
