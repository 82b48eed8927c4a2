#!/usr/bin/env python3
"""The changes of a Redis database read by Kafka clients: redis-py writes, confluent-kafka reads by assignment and in a group, over
a restart, and with the rights that it takes. Its own oracle: exits non-zero at the first answer that is not as it should be."""

import json
import os
import subprocess
import time

import confluent_kafka
import redis
from lib import servers
from lib.steps import same, step

PARTITIONS = 8


def consumer(server, group="k", **more):
    return confluent_kafka.Consumer({
        "bootstrap.servers": server.addresses["kafka"], "group.id": group, "auto.offset.reset": "earliest",
        "enable.auto.commit": False, "fetch.wait.max.ms": 50, "log_level": 0, **more})


def take(reader, count, seconds=30):
    found, until = [], time.monotonic() + seconds
    while len(found) < count:
        if time.monotonic() > until:
            raise SystemExit(f"{len(found)} of {count} records after {seconds} s: {found!r}")
        for message in reader.consume(500, 0.2):
            if message.error():
                raise SystemExit(str(message.error()))
            found.append((message.partition(), message.offset(), message.key(), json.loads(message.value())))
    return found


def assigned(server, topic, count, offsets=None):
    reader = consumer(server)
    reader.assign([confluent_kafka.TopicPartition(topic, p, (offsets or {}).get(p, 0)) for p in range(PARTITIONS)])
    try:
        return take(reader, count)
    finally:
        reader.close()


def connect(server, **more):
    host, port = server.addresses["resp"].rsplit(":", 1)
    return redis.Redis(host, int(port), **more)


def changes(server):
    step("changes of one key, in order, and what is not UTF-8")
    r = connect(server)
    r.hset(b"h", mapping={b"f": b"1", b"bin": b"\xff\x00"})
    r.hdel("h", "f")
    r.expire("h", 1000)
    r.persist("h")
    r.delete("h")
    found = assigned(server, "__keyspace.0", 5)
    same([key for *_, key, _ in found], [b"h"] * 5)
    found[2][3].pop("expires_ms")
    same([told for *_, told in found], [
        {"op": "hset", "fields": [["f", "1"], ["bin", {"base64": "/wA="}]]}, {"op": "hdel", "fields": ["f"]},
        {"op": "expire"}, {"op": "persist"}, {"op": "del"}])
    return {found[0][0]: 5}


def transaction(server, offsets):
    step("a transaction over many keys, and another database in its own topic")
    r = connect(server)
    with r.pipeline(transaction=True) as tx:
        for n in range(40):
            tx.set(f"k{n}", n)
        tx.execute()
    found = assigned(server, "__keyspace.0", 40, offsets)
    same(sorted(int(told["value"]) for *_, told in found) == list(range(40)), True)
    for partition, offset, *_ in found:
        offsets[partition] = max(offsets.get(partition, 0), offset + 1)
    connect(server, db=3).set("three", "3")
    same([(key, told) for *_, key, told in assigned(server, "__keyspace.3", 1)], [(b"three", {"op": "set", "value": "3"})])


def restart(server, offsets):
    step("a group goes on where it was, over SIGKILL")
    reader = consumer(server, "group")
    reader.subscribe(["__keyspace.0"])
    take(reader, 45)
    reader.commit(asynchronous=False)
    reader.close()
    server.kill()
    again = servers.FlowMesh(data=server.data, addresses=server.addresses, extra=server.extra)
    again.start()
    connect(again).set("after", "1")
    reader = consumer(again, "group")
    reader.subscribe(["__keyspace.0"])
    (partition, offset, key, told), = take(reader, 1)
    reader.close()
    same((offset == offsets.get(partition, 0), key, told), (True, b"after", {"op": "set", "value": "1"}))
    return again


def rights(server):
    step("a user with rights on keys alone cannot read the topic, one with the grant can")
    env = dict(os.environ, FLOWMESH_HTTP_ADDR=server.addresses["http"])

    def cli(*words, stdin=""):
        done = subprocess.run([server.command()[0], *words], input=stdin, env=env, cwd=server.dir, capture_output=True, text=True, timeout=30, check=False)
        if done.returncode:
            raise SystemExit(f"{words}: {done.stdout}{done.stderr}")

    cli("user", "add", "root", "--superuser", stdin="root\n")
    env.update(FLOWMESH_USER="root", FLOWMESH_PASSWORD="root")
    login = {"security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN"}
    for name, kind in (("keys", "key"), ("topics", "topic")):
        cli("user", "add", name, stdin=f"{name}\n")
        cli("grant", "add", name, kind, "*", "read,write")
        cli("grant", "add", name, "group", "*", "read")
    reader = consumer(server, "g2", **login, **{"sasl.username": "keys", "sasl.password": "keys"})
    reader.subscribe(["__keyspace.0"])
    message, until = None, time.monotonic() + 20
    while message is None and time.monotonic() < until:
        message = reader.poll(0.2)
    reader.close()
    same(message and message.error() and message.error().name(), "TOPIC_AUTHORIZATION_FAILED")
    reader = consumer(server, "g3", **login, **{"sasl.username": "topics", "sasl.password": "topics"})
    reader.assign([confluent_kafka.TopicPartition("__keyspace.0", p, 0) for p in range(PARTITIONS)])
    same(len(take(reader, 46)), 46)
    reader.close()


def main():
    server = servers.FlowMesh(extra=["--keyspace-topics=0,3", servers.CHECK_LAW])
    try:
        server.start()
        offsets = changes(server)
        transaction(server, offsets)
        server = restart(server, offsets)
        rights(server)
        same(server.stop(), 0)
    finally:
        server.kill()


main()
