"""confluent-kafka (librdkafka 2.16): admin, delivery reports, groups, rebalance, seek, commits, timestamps."""

import os
import time

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

SERVERS = {"bootstrap.servers": os.environ["KAFKA_ADDR"]}


def step(text, *values):
    print(f"> {text}", flush=True)
    for value in values:
        print(value)


def outcome(future):
    try:
        return future.result() or "done"
    except KafkaException as error:
        return f"{error.args[0].name()} {error.args[0].str()}"


admin = AdminClient(SERVERS)
step("create topics")
for future in admin.create_topics([NewTopic("cf.three", 3, 1, config={"retention.ms": "-1"}), NewTopic("cf.one", 1, 1, config={"retention.ms": "3600000"})]).values():
    print(outcome(future))
for text, topic in [("again", NewTopic("cf.three", 3, 1)), ("with a bad name", NewTopic("bad/name", 1, 1)), ("with no partitions", NewTopic("cf.zero", 0, 1)),
                    ("with too many replicas", NewTopic("cf.replicas", 1, 3)), ("with an unknown config", NewTopic("cf.conf", 1, 1, config={"no.such": "1"})),
                    ("with a bad value", NewTopic("cf.conf", 1, 1, config={"retention.ms": "soon"}))]:
    future = admin.create_topics([topic])[topic.topic]
    try:
        future.result()
        print(text, "created")
    except KafkaException as error:
        print(text, error.args[0].name())
step("metadata", sorted((name, len(t.partitions)) for name, t in admin.list_topics(timeout=10).topics.items() if name.startswith("cf.")))

step("produce with delivery reports")
reports = []
producer = Producer({**SERVERS, "enable.idempotence": True, "linger.ms": 5})
for i in range(300):
    producer.produce("cf.three", value=b"v%d" % i, key=b"k%d" % (i % 10), partition=i % 3, timestamp=1700000000000 + i,
                     headers=[("n", str(i).encode()), ("none", None)], on_delivery=lambda error, message: reports.append((error, message.partition(), message.offset())))
print(producer.flush(20), len(reports), all(error is None for error, _, _ in reports))
print([sorted(o for _, p, o in reports if p == part)[-1] for part in range(3)])
step("produce to a partition that does not exist")
failures = []
plain = Producer({**SERVERS, "message.timeout.ms": 3000})
try:
    plain.produce("cf.one", value=b"x", partition=7, on_delivery=lambda error, message: failures.append(error))
    plain.flush(10)
except KafkaException as error:
    failures.append(error.args[0])
print([error.name() for error in failures])


def consumer(group, **more):
    return Consumer({**SERVERS, "group.id": group, "auto.offset.reset": "earliest", "enable.auto.commit": False, "session.timeout.ms": 10000, **more})


def take(source, count, seconds=30):
    got, deadline = [], time.monotonic() + seconds
    while len(got) < count and time.monotonic() < deadline:
        message = source.poll(0.2)
        if message is not None:
            if message.error():
                raise KafkaException(message.error())
            got.append(message)
    return got


step("a group reads everything, in order per partition")
first = consumer("cf.group")
first.subscribe(["cf.three"])
got = take(first, 300)
print(len(got), all([m.offset() for m in got if m.partition() == p] == list(range(100)) for p in range(3)))
sample = next(m for m in got if m.partition() == 1 and m.offset() == 33)
print(sample.key(), sample.value(), sample.headers(), sample.timestamp())
step("commit and committed")
first.commit(asynchronous=False)
print([(p.partition, p.offset) for p in first.committed([TopicPartition("cf.three", p) for p in range(3)])])
first.commit(offsets=[TopicPartition("cf.three", 0, 42, metadata="note")], asynchronous=False)
print([(p.partition, p.offset, p.metadata) for p in first.committed([TopicPartition("cf.three", 0)])])
print([p.offset for p in first.committed([TopicPartition("cf.one", 0)])])
first.close()
step("a new member goes on where the group stopped")
second = consumer("cf.group")
second.subscribe(["cf.three"])
got = take(second, 58)
print(len(got), sorted({(m.partition(), m.offset()) for m in got})[0])
step("two members share the partitions")
third = consumer("cf.group")
third.subscribe(["cf.three"])
deadline = time.monotonic() + 30
while time.monotonic() < deadline and not (second.assignment() and third.assignment() and len(second.assignment()) + len(third.assignment()) == 3):
    second.poll(0.1)
    third.poll(0.1)
print(sorted(len(c.assignment()) for c in (second, third)))
second.close()
deadline = time.monotonic() + 30
while time.monotonic() < deadline and len(third.assignment()) < 3:
    third.poll(0.2)
print(len(third.assignment()))
third.close()

step("assign, seek, watermarks, offsets for times")
free = consumer("cf.free")
free.assign([TopicPartition("cf.three", 2, 95)])
print([m.offset() for m in take(free, 5)])
free.seek(TopicPartition("cf.three", 2, 10))
print(take(free, 1)[0].offset())
print(free.get_watermark_offsets(TopicPartition("cf.three", 2), timeout=10))
for at in (0, 1700000000150, 1700000000151, 1700000009999):
    print(at, [p.offset for p in free.offsets_for_times([TopicPartition("cf.three", 0, at)], timeout=10)])
free.close()
step("offset out of range resets")
reset = consumer("cf.reset")
reset.assign([TopicPartition("cf.three", 0, 5000)])
print(take(reset, 1)[0].offset())
reset.close()
step("a missing topic")
missing = consumer("cf.missing", **{"allow.auto.create.topics": False})
missing.subscribe(["cf.nothing"])
try:
    take(missing, 1, 5)
    print("nothing")
except KafkaException as error:
    print(error.args[0].name())
missing.close()

step("groups as the admin sees them")
groups = admin.list_consumer_groups().result()
print(sorted(g.group_id for g in groups.valid if g.group_id.startswith("cf.")))
described = admin.describe_consumer_groups(["cf.group", "cf.unknown"])
print([(name, f.result().state.name, len(f.result().members)) for name, f in described.items()][:1])
step("read committed sees what was produced outside a transaction")
committed = consumer("cf.rc", **{"isolation.level": "read_committed"})
committed.assign([TopicPartition("cf.three", 1, OFFSET_BEGINNING)])
print(len(take(committed, 100)))
committed.close()
step("delete a topic")
print(outcome(admin.delete_topics(["cf.one"])["cf.one"]), outcome(admin.delete_topics(["cf.unknown"])["cf.unknown"]))
for _ in range(50):
    if "cf.one" not in admin.list_topics(timeout=10).topics:
        break
    time.sleep(0.1)
print("cf.one" in admin.list_topics(timeout=10).topics)
