"""Transactions with confluent-kafka (librdkafka): commit, abort, what readers of either kind see, offsets that go with them, fencing."""

import os
import re
import time

from confluent_kafka import Consumer, ConsumerGroupTopicPartitions, IsolationLevel, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic, OffsetSpec

SERVERS = {"bootstrap.servers": os.environ["KAFKA_ADDR"]}


def step(text, *values):
    print(f"> {text}", flush=True)
    for value in values:
        print(value)


def attempt(call, *args, **kwargs):
    try:
        return call(*args, **kwargs) or "done"
    except KafkaException as error:
        error = error.args[0]
        return f"{error.name()} fatal={error.fatal()} abort={error.txn_requires_abort()}"


def producer(name, **more):
    made = Producer({**SERVERS, "transactional.id": name, "transaction.timeout.ms": 60000, "linger.ms": 5, **more})
    made.init_transactions(30)
    return made


def write(made, topic, values, partitions=1):
    for at, value in enumerate(values):
        made.produce(topic, value=value, partition=at % partitions)
    made.flush(30)


def seen(topic, level, partition=0, start=0):
    """What a reader of this level sees to the end, with offsets."""
    reader = Consumer({**SERVERS, "group.id": "tx.reader", "isolation.level": level, "enable.auto.commit": False, "enable.partition.eof": True})
    reader.assign([TopicPartition(topic, partition, start)])
    found = []
    while True:
        message = reader.poll(20)
        if message is None or message.error():
            break
        found.append((message.offset(), message.value().decode()))
    reader.close()
    return found


def both(topic, partition=0):
    return [f"{level}: {seen(topic, level, partition)}" for level in ("read_committed", "read_uncommitted")]


def ends(admin, topic, partition=0):
    def end(level):
        wish = {TopicPartition(topic, partition): OffsetSpec.latest()}
        return next(iter(admin.list_offsets(wish, isolation_level=level).values())).result().offset

    return f"end committed {end(IsolationLevel.READ_COMMITTED)}, uncommitted {end(IsolationLevel.READ_UNCOMMITTED)}"


def settled(look, done):
    """Kafka answers a commit before its markers are written everywhere: what `look` gives once it is `done`, or at last."""
    until = time.monotonic() + 10
    while not done(found := look()) and time.monotonic() < until:
        time.sleep(0.05)
    return found


def decided(admin, topic):
    return settled(lambda: ends(admin, topic), lambda found: len(set(re.findall(r"\d+", found))) == 1)


admin = AdminClient(SERVERS)
for future in admin.create_topics([NewTopic(name, count, 1) for name, count in (("tx.one", 1), ("tx.three", 3), ("tx.source", 1))]).values():
    future.result()

step("commit")
first = producer("tx-1")
first.begin_transaction()
write(first, "tx.one", [f"a{n}" for n in range(3)])
print(ends(admin, "tx.one"), seen("tx.one", "read_uncommitted"))
print(attempt(first.commit_transaction, 30), decided(admin, "tx.one"), *both("tx.one"), sep="\n")

step("abort")
first.begin_transaction()
write(first, "tx.one", ["b0", "b1"])
print(attempt(first.abort_transaction, 30), decided(admin, "tx.one"), *both("tx.one"), sep="\n")

step("nothing in a transaction")
first.begin_transaction()
print(attempt(first.commit_transaction, 30), ends(admin, "tx.one"))
first.begin_transaction()
print(attempt(first.abort_transaction, 30), ends(admin, "tx.one"))

step("several partitions, aborted and committed in turn")
for turn in range(4):
    first.begin_transaction()
    write(first, "tx.three", [f"{turn}.{n}" for n in range(6)], 3)
    print(attempt(first.commit_transaction if turn % 2 else first.abort_transaction, 30))
decided(admin, "tx.three")
for partition in range(3):
    print(*both("tx.three", partition), sep="\n")

step("two producers, one open before the other")
second = producer("tx-2")
first.begin_transaction()
write(first, "tx.one", ["open"])
second.begin_transaction()
write(second, "tx.one", ["behind"])
print(attempt(second.commit_transaction, 30), settled(lambda: ends(admin, "tx.one"), lambda found: found.endswith("9")), seen("tx.one", "read_committed"), sep="\n")
plain = Producer(SERVERS)
write(plain, "tx.one", ["plain"])
print(ends(admin, "tx.one"))
print(attempt(first.commit_transaction, 30), decided(admin, "tx.one"), seen("tx.one", "read_committed"), sep="\n")

step("offsets with a transaction")
write(plain, "tx.source", [f"s{n}" for n in range(10)])
reader = Consumer({**SERVERS, "group.id": "tx.group", "enable.auto.commit": False, "auto.offset.reset": "earliest", "session.timeout.ms": 10000})
reader.subscribe(["tx.source"])
taken = [reader.poll(30).value().decode() for _ in range(4)]


def committed():
    found = admin.list_consumer_group_offsets([ConsumerGroupTopicPartitions("tx.group")], require_stable=False)["tx.group"].result()
    return [(found.topic, found.partition, found.offset, found.metadata) for found in found.topic_partitions]


for end in ("abort", "commit"):
    first.begin_transaction()
    write(first, "tx.three", [f"from {value} {end}" for value in taken])
    first.send_offsets_to_transaction([TopicPartition("tx.source", 0, len(taken), "note")], reader.consumer_group_metadata(), 30)
    print(end, "before:", committed(), attempt(first.commit_transaction if end == "commit" else first.abort_transaction, 30))
    print("after:", settled(committed, lambda found: bool(found) == (end == "commit")))
decided(admin, "tx.three")
print(seen("tx.three", "read_committed")[-4:])
reader.close()

step("a newer producer of the same id fences the older one")
first.begin_transaction()
write(first, "tx.one", ["of the old one"])
newer = producer("tx-1")
print(decided(admin, "tx.one"))
first.produce("tx.one", value=b"too late")
print(attempt(first.commit_transaction, 30))
newer.begin_transaction()
write(newer, "tx.one", ["of the new one"])
print(attempt(newer.commit_transaction, 30), decided(admin, "tx.one"), *both("tx.one"), sep="\n")

step("wrong use")
print(attempt(Producer({**SERVERS, "transactional.id": "tx-3", "transaction.timeout.ms": 900001}).init_transactions, 30))
print(attempt(newer.commit_transaction, 10))
