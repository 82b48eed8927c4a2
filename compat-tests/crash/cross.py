"""Crash-test worker across the faces: EXEC sets a key, publishes a message and appends a record, or does none of it."""

import os
import sys
import time

import pika
import redis
from confluent_kafka import Consumer, TopicPartition

from lib.journal import Journal

ACTION, JOURNAL, ROUND = sys.argv[1], Journal(*sys.argv[2:5]), int(sys.argv[3])
HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
AMQP_HOST, AMQP_PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)


def amqp():
    return pika.BlockingConnection(pika.ConnectionParameters(AMQP_HOST, int(AMQP_PORT), socket_timeout=10))


def write():
    journal = JOURNAL.open()
    connection = amqp()
    connection.channel().queue_declare(f"cross.{ROUND}", durable=True)
    connection.close()
    r = redis.Redis(HOST, int(PORT), decode_responses=True, socket_timeout=10, retry=None)
    r.execute_command("FM.PRODUCE", f"cross-{ROUND}", "start", "start")
    JOURNAL.started()
    i = 0
    try:
        while True:
            journal.write("try", i)
            with r.pipeline(transaction=True) as tx:
                tx.set(f"cross:{ROUND}", i)
                tx.execute_command("FM.PUBLISH", "", f"cross.{ROUND}", str(i))
                tx.execute_command("FM.PRODUCE", f"cross-{ROUND}", "k", str(i))
                tx.execute()
            journal.write("ok", i)
            i += 1
    except redis.RedisError:
        pass


def messages(channel, name):
    out = []
    while True:
        method, _, body = channel.basic_get(name)
        if method is None:
            return out
        out.append(int(body))


def records(topic):
    consumer = Consumer({"bootstrap.servers": os.environ["KAFKA_ADDR"], "group.id": "check", "enable.auto.commit": False, "fetch.wait.max.ms": 50, "log_level": 0})
    low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=20)
    consumer.assign([TopicPartition(topic, 0, low)])
    out = []
    deadline = time.monotonic() + 30
    while len(out) < high - low and time.monotonic() < deadline:
        for message in consumer.consume(500, 0.2):  # waits for all 500, or this long
            out.append(message.value().decode())
    consumer.close()
    return [int(value) for value in out if value != "start"]


def check():
    problems, total = [], 0
    r = redis.Redis(HOST, int(PORT), decode_responses=True, socket_timeout=10)
    connection = amqp()
    for number, lines in JOURNAL.rounds():
        acked = [int(w[1]) for w in lines if w[0] == "ok"]
        total += len(acked)
        value = r.get(f"cross:{number}")
        done = int(value) + 1 if value is not None else 0
        channel = connection.channel()
        queued, appended = messages(channel, f"cross.{number}"), records(f"cross-{number}")
        channel.close()
        if done < len(acked):
            problems.append(f"round {number}: {len(acked)} transactions acknowledged, key says {done}")
        if queued != list(range(done)) or appended != list(range(done)):
            problems.append(f"round {number}: torn: key {done}, queue {len(queued)} ({queued[-2:]}), topic {len(appended)} ({appended[-2:]})")
    print("\n".join(problems))
    print(f"cross {total} transactions")
    sys.exit(bool(problems))


write() if ACTION == "write" else check()
