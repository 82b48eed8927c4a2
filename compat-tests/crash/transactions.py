"""Crash-test worker of Kafka's transactions (confluent-kafka): each writes to three partitions and commits an offset of a group; all of
it is there or none, nothing of an aborted one."""

import os
import socket
import sys
import threading
import time

from confluent_kafka import Consumer, KafkaError, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from lib.journal import Journal

SERVERS = {"bootstrap.servers": os.environ["KAFKA_ADDR"], "log_level": 0}
ACTION, JOURNAL, ROUND = sys.argv[1], Journal(*sys.argv[2:5]), int(sys.argv[3])
PARTITIONS = 3


def names(number):
    """Topic, topic whose offsets are committed, group and transactional id."""
    return f"crash-tx-{number}", f"crash-tx-source-{number}", f"crash-tx-group-{number}", f"crash-tx-id-{number}"


def producer(number, **more):
    return Producer({**SERVERS, "transactional.id": names(number)[3], "linger.ms": 1, "message.timeout.ms": 3000, "transaction.timeout.ms": 60000, **more})


def end_with_server(journal):
    """librdkafka would wait for a coordinator that is gone: the process ends without a farewell."""
    host, port = os.environ["KAFKA_ADDR"].rsplit(":", 1)
    while True:
        try:
            socket.create_connection((host, int(port)), 5).close()
        except OSError:
            journal.file.flush()
            os._exit(0)
        time.sleep(0.1)


def write():
    journal = JOURNAL.open()
    topic, source, group, _ = names(ROUND)
    admin = AdminClient(SERVERS)
    for future in admin.create_topics([NewTopic(topic, PARTITIONS, 1), NewTopic(source, 1, 1)]).values():
        future.result(20)
    writer = producer(ROUND)
    writer.init_transactions(20)
    threading.Thread(target=end_with_server, args=(journal,), daemon=True).start()
    # Without subscription: a producer may commit for a group that has no members.
    metadata = Consumer({**SERVERS, "group.id": group}).consumer_group_metadata()
    JOURNAL.started()
    i, limit = 0, time.monotonic() + 60
    try:
        while time.monotonic() < limit:
            journal.write("begin", i)
            writer.begin_transaction()
            for partition in range(PARTITIONS):
                writer.produce(topic, key=str(i).encode(), value=b"z" * (i % 7 * 100), partition=partition)
            writer.send_offsets_to_transaction([TopicPartition(source, 0, i + 1)], metadata, 3)
            if i % 4 == 3:
                writer.flush(3)
                writer.abort_transaction(3)
                journal.write("aborted", i)
            else:
                writer.commit_transaction(3)
                journal.write("committed", i)
            i += 1
    except (KafkaException, BufferError):
        pass
    journal.file.flush()
    os._exit(0)


def read(topic, level):
    """(partition, key) of all records that such a reader sees, in order; and the ends."""
    consumer = Consumer({**SERVERS, "group.id": topic, "enable.auto.commit": False, "auto.offset.reset": "error", "isolation.level": level, "enable.partition.eof": True,
                         "fetch.wait.max.ms": 50})
    parts = [TopicPartition(topic, p, 0) for p in range(PARTITIONS)]
    consumer.assign(parts)
    found, at_end = [], set()
    deadline = time.monotonic() + 60
    while len(at_end) < PARTITIONS and time.monotonic() < deadline:
        for message in consumer.consume(500, 0.2):
            if message.error() and message.error().code() == KafkaError._PARTITION_EOF:
                at_end.add(message.partition())
            elif message.error():
                raise KafkaException(message.error())
            else:
                found.append((message.partition(), int(message.key()), len(message.value())))
    consumer.close()
    return found, len(at_end) == PARTITIONS


def check():
    problems = []
    total = 0
    for number, lines in JOURNAL.rounds():
        topic, source, group, _ = names(number)
        begun, committed, aborted = ({int(w[1]) for w in lines if w[0] == what} for what in ("begin", "committed", "aborted"))
        total += len(committed)
        # What the killed producer had open ends here.
        producer(number).init_transactions(20)
        found, whole = read(topic, "read_committed")
        if not whole:
            problems.append(f"round {number}: no end for readers of committed records")
        seen = [{key for part, key, _ in found if part == p} for p in range(PARTITIONS)]
        if any(one != seen[0] for one in seen):
            problems.append(f"round {number}: torn transactions {sorted(set.union(*seen) - set.intersection(*seen))[:5]}")
        if committed - seen[0]:
            problems.append(f"round {number}: {len(committed - seen[0])} committed transactions lost, first {min(committed - seen[0])}")
        if seen[0] & aborted or seen[0] - begun:
            problems.append(f"round {number}: seen though aborted {sorted(seen[0] & aborted)[:5]}")
        for p in range(PARTITIONS):
            order = [key for part, key, _ in found if part == p]
            if order != sorted(set(order)):
                problems.append(f"round {number}: partition {p} has records twice or out of order")
        if any(size != key % 7 * 100 for _, key, size in found):
            problems.append(f"round {number}: a value changed its length")
        consumer = Consumer({**SERVERS, "group.id": group})
        offset = consumer.committed([TopicPartition(source, 0)], timeout=20)[0].offset
        consumer.close()
        want = max(seen[0]) + 1 if seen[0] else None
        if want is not None and offset != want or want is None and offset > 0:
            problems.append(f"round {number}: the group's offset is {offset}, the last transaction wanted {want}")
    print("\n".join(problems))
    print(f"transactions {total} committed")
    sys.exit(bool(problems))


write() if ACTION == "write" else check()
