"""kafka-python (pure Python): its own encodings of produce, fetch, groups, offsets; admin; compression."""

import os
import time

import kafka
from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer, TopicPartition
from kafka.admin import NewTopic
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

SERVER = os.environ["KAFKA_ADDR"]


def step(text, *values):
    print(f"> {text}", flush=True)
    for value in values:
        print(value)


admin = KafkaAdminClient(bootstrap_servers=SERVER)
step("create topics")
admin.create_topics([NewTopic("kp.three", 3, 1, topic_configs={"retention.ms": "-1"}), NewTopic("kp.other", 1, 1)])
try:
    admin.create_topics([NewTopic("kp.three", 3, 1)])
except KafkaError as error:
    print(type(error).__name__)
print(sorted(name for name in admin.list_topics() if str(name).startswith("kp.")))

for codec in (None, "gzip", "snappy", "lz4", "zstd"):
    producer = KafkaProducer(bootstrap_servers=SERVER, compression_type=codec, acks="all", linger_ms=20)
    futures = [producer.send("kp.three", key=b"k%d" % i, value=f"{codec} {i}".encode(), partition=i % 3, headers=[("i", b"%d" % i)], timestamp_ms=1600000000000 + i) for i in range(60)]
    producer.flush()
    done = [f.get(10) for f in futures]
    step(f"produce with {codec}", [(m.partition, m.offset) for m in done][-3:])
    producer.close()

step("consume by assignment")
reader = KafkaConsumer(bootstrap_servers=SERVER, auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=10000)
parts = [TopicPartition("kp.three", p) for p in range(3)]
reader.assign(parts)
reader.seek_to_beginning()
got = []
for record in reader:
    got.append(record)
    if len(got) == 300:
        break
print(len(got), [r.value for r in got if r.partition == 0][::20], got[0].headers, got[0].timestamp)
step("offsets", [sorted((p.partition, o) for p, o in reader.beginning_offsets(parts).items()), sorted((p.partition, o) for p, o in reader.end_offsets(parts).items())])
step("offset for a time", reader.offsets_for_times({parts[1]: 1600000000031})[parts[1]].offset)
step("partitions", sorted(reader.partitions_for_topic("kp.three")))
reader.close()

step("group with manual commits")
group = KafkaConsumer("kp.three", bootstrap_servers=SERVER, group_id="kp.group", auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=15000)
count = 0
for record in group:
    count += 1
    if count == 300:
        break
group.commit()
print(count, [group.committed(p) for p in parts])
group.commit({parts[0]: OffsetAndMetadata(7, "seven", -1)})
print(group.committed(parts[0]))
group.close()
step("the group goes on where it stopped")
again = KafkaConsumer("kp.three", bootstrap_servers=SERVER, group_id="kp.group", auto_offset_reset="earliest", enable_auto_commit=False, consumer_timeout_ms=15000)
first = next(again)
print(first.partition, first.offset)
step("long poll is answered when a record arrives")
for _ in range(1000):
    if not again.poll(timeout_ms=300):
        break
producer = KafkaProducer(bootstrap_servers=SERVER, acks=1)
start = time.monotonic()
producer.send("kp.three", b"late", partition=2)
producer.flush()
late = again.poll(timeout_ms=10000)
print([r.value for records in late.values() for r in records], time.monotonic() - start < 5)
again.close()
producer.close()
step("group offsets as the admin sees them")
offsets = admin.list_group_offsets("kp.group") if hasattr(admin, "list_group_offsets") else admin.list_consumer_group_offsets("kp.group")
offsets = offsets.get("kp.group", offsets) if isinstance(offsets, dict) else offsets
print(sorted((str(getattr(tp, "topic", tp)), getattr(tp, "partition", ""), o.offset) for tp, o in offsets.items()))
step("delete")
admin.delete_topics(["kp.other"])
print(kafka.__version__.split(".")[0])
admin.close()
