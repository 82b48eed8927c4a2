"""Crash-test worker of the Kafka face (confluent-kafka): idempotent producer with reports, a group that commits."""

import os
import sys
import time

from confluent_kafka import Consumer, KafkaError, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from lib.journal import Journal

SERVERS = {"bootstrap.servers": os.environ["KAFKA_ADDR"], "log_level": 0}
ACTION, JOURNAL, ROUND = sys.argv[1], Journal(*sys.argv[2:5]), int(sys.argv[3])
PARTITIONS = 3


def write():
    journal = JOURNAL.open()
    topic = f"crash-{ROUND}"
    admin = AdminClient(SERVERS)  # its futures die with it
    admin.create_topics([NewTopic(topic, PARTITIONS, 1)])[topic].result(20)
    state = {"down": False}

    def report(error, message):
        if error is None:
            journal.write("ok", message.partition(), message.offset(), message.key().decode())
        else:
            state["down"] = True

    def fallen(error):
        if error.fatal() or error.code() == KafkaError._ALL_BROKERS_DOWN:
            state["down"] = True

    producer = Producer({**SERVERS, "enable.idempotence": True, "linger.ms": 2, "batch.num.messages": 50, "message.timeout.ms": 3000, "error_cb": fallen})

    def committed(error, partitions):
        for part in partitions:
            if error is None and part.error is None and part.offset >= 0:
                journal.write("committed", part.partition, part.offset)

    consumer = Consumer({**SERVERS, "group.id": topic, "auto.offset.reset": "earliest", "enable.auto.commit": False, "on_commit": committed})
    consumer.subscribe([topic])
    JOURNAL.started()
    i, limit = 0, time.monotonic() + 60
    while not state["down"] and time.monotonic() < limit:
        journal.write("try", i % PARTITIONS, i)
        try:
            producer.produce(topic, key=str(i).encode(), value=b"y" * (i % 11 * 200), partition=i % PARTITIONS, on_delivery=report)
        except BufferError:
            producer.poll(0.1)
            continue
        producer.poll(0)
        if i % 100 == 99:
            producer.flush(5)
            message = consumer.poll(0)
            if message is not None and not message.error():
                consumer.commit(message=message, asynchronous=True)
        i += 1
    producer.purge()
    producer.flush(1)
    # librdkafka would wait for a coordinator that is gone: the process ends without a farewell
    journal.file.flush()
    os._exit(0)


def check():
    problems = []
    total = 0
    for number, lines in JOURNAL.rounds():
        topic = f"crash-{number}"
        acked = {(int(w[1]), int(w[2])): w[3] for w in lines if w[0] == "ok"}
        tried = {w[2] for w in lines if w[0] == "try"}
        total += len(acked)
        consumer = Consumer({**SERVERS, "group.id": topic, "enable.auto.commit": False, "auto.offset.reset": "error", "fetch.wait.max.ms": 50})
        parts = [TopicPartition(topic, p) for p in range(PARTITIONS)]
        ends = [consumer.get_watermark_offsets(p, timeout=20) for p in parts]
        consumer.assign([TopicPartition(topic, p, low) for p, (low, _) in enumerate(ends)])
        want = sum(high - low for low, high in ends)
        found = {}
        deadline = time.monotonic() + 60
        while len(found) < want and time.monotonic() < deadline:
            for message in consumer.consume(500, 0.2):
                if message.error():
                    problems.append(f"round {number}: {message.error()}")
                    deadline = 0
                else:
                    found[message.partition(), message.offset()] = (message.key().decode(), len(message.value()))
        if len(found) != want:
            problems.append(f"round {number}: {len(found)} records readable of {want} (watermarks {ends})")
        lost = [at for at, key in acked.items() if found.get(at, ("", 0))[0] != key]
        if lost:
            problems.append(f"round {number}: {len(lost)} acknowledged records lost or moved, first {min(lost)}, watermarks {ends}")
        keys = [key for key, _ in found.values()]
        if len(set(keys)) != len(keys) or not set(keys) <= tried:
            problems.append(f"round {number}: {len(keys) - len(set(keys))} records twice")
        for p in range(PARTITIONS):
            order = [int(found[at][0]) for at in sorted(found) if at[0] == p]
            if order != sorted(order):
                problems.append(f"round {number}: partition {p} out of order")
        if any(size != int(key) % 11 * 200 for key, size in found.values()):
            problems.append(f"round {number}: a value changed its length")
        want_commit = {}
        for w in lines:
            if w[0] == "committed":
                want_commit[int(w[1])] = int(w[2])
        have = {p.partition: p.offset for p in consumer.committed(parts, timeout=20)}
        for p, offset in want_commit.items():
            if have.get(p, -1) < offset:
                problems.append(f"round {number}: committed offset {offset} of partition {p} is now {have.get(p)}")
        consumer.close()
    print("\n".join(problems))
    print(f"kafka {total} records")
    sys.exit(bool(problems))


write() if ACTION == "write" else check()
