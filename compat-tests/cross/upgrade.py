#!/usr/bin/env python3
"""Data directories that earlier versions wrote, opened by this one. `upgrade.py` unpacks each of compat-tests/fixtures, reads every
value of it with redis-py, pika and confluent-kafka, writes more, restarts, and reads both. `upgrade.py write FILE` makes such a file
with the binary of FLOWMESH_BIN (scripts/upgrade-fixture.sh builds the one of a commit). Its own oracle: exits non-zero at the first
answer that is not as it should be."""

import os
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

import confluent_kafka
import confluent_kafka.admin
import pika
import redis
from lib import servers
from lib.steps import equal as same, split, step

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
WAIT = 30
#: A superuser, and one who may read some keys, in versions that have users.
OWNER = ("owner", "battery staple")
READER = ("reader", "a horse, correct")
#: A date that the server will not see.
FAR = 4102444800
LONG = bytes(range(256)) * 40
ITEMS = [f"item-{n}" for n in range(300)]
SCORES = {f"m{n}": n / 4 for n in range(200)}
SCORES |= {"inf": float("inf")}


class Kept(servers.FlowMesh):
    """`login` of all clients, as soon as there are users."""

    login = None


def resp(server, login=None, **more):
    name, password = login or server.login or (None, None)
    return redis.Redis(*split(server.addresses["resp"]), socket_timeout=WAIT, username=name, password=password, **more)


def amqp(server):
    host, port = split(server.addresses["amqp"])
    login = pika.PlainCredentials(*(server.login or ("guest", "guest")))
    return pika.BlockingConnection(pika.ConnectionParameters(host, port, credentials=login, socket_timeout=WAIT))


def flowmesh(server, *words, stdin=""):
    """The command line, as the superuser."""
    env = dict(os.environ, FLOWMESH_USER=OWNER[0], FLOWMESH_PASSWORD=OWNER[1], FLOWMESH_HTTP_ADDR=server.addresses["http"])
    done = subprocess.run([server.binary(), *words], input=stdin, env=env, capture_output=True, text=True, timeout=WAIT, check=False)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stdout}{done.stderr}")
    return done.stdout


def users(server):
    """From here on everybody logs in."""
    flowmesh(server, "user", "add", "--superuser", OWNER[0], stdin=f"{OWNER[1]}\n")
    server.login = OWNER
    flowmesh(server, "user", "add", READER[0], stdin=f"{READER[1]}\n")
    flowmesh(server, "grant", "add", READER[0], "key", "str*", "read")


def check_users(server):
    """Whether the fixture has users shows by whether a command is refused without a login."""
    try:
        resp(server).ping()
        return
    except redis.AuthenticationError:
        server.login = OWNER
    reader = resp(server, READER)
    same(reader.get("string"), b"value")
    for forbidden in (lambda: reader.set("string", "x"), lambda: reader.get("integer")):
        try:
            forbidden()
        except redis.exceptions.NoPermissionError:
            continue
        raise SystemExit("a reader did what it may not do")
    same([line.split()[0] for line in flowmesh(server, "user", "list").splitlines()], [OWNER[0], READER[0]])
    flowmesh(server, "audit", "verify")


def keys(server):
    r = resp(server)
    r.set("string", "value")
    r.set("integer", 41)
    r.incr("integer")
    r.set("long", LONG)
    r.setrange("long", 5000, "changed")
    r.set("empty", "")
    r.set(b"\xff\x00", b"\x00\xff")
    r.set("deadline", "v")
    r.expireat("deadline", FAR)
    r.set("gone", "v")
    r.delete("gone")
    r.hset("hash", mapping={f"f{n}": f"v{n}" for n in range(200)})
    r.hdel("hash", "f7")
    r.rpush("list", *ITEMS)
    r.lpush("list", "first")
    r.lrem("list", 1, "item-5")
    r.sadd("set", *range(500), "text")
    r.srem("set", 3)
    r.zadd("zset", SCORES)
    r.zrem("zset", "m1")
    r.rename("set", "renamed")
    resp(server, db=5).set("five", "5")
    other = resp(server, db=6)
    other.set("flushed", "v")
    other.flushdb()


def check_keys(server):
    r = resp(server)
    long = LONG[:5000] + b"changed" + LONG[5007:]
    for name, value in ((b"string", b"value"), (b"integer", b"42"), (b"long", long), (b"empty", b""), (b"\xff\x00", b"\x00\xff"), (b"deadline", b"v")):
        same(r.get(name), value)
    same(r.get("gone"), None)
    same(r.expiretime("deadline"), FAR)
    same(r.ttl("string"), -1)
    same(r.hgetall("hash"), {f"f{n}".encode(): f"v{n}".encode() for n in range(200) if n != 7})
    same(r.lrange("list", 0, -1), [b"first", *(item.encode() for item in ITEMS if item != "item-5")])
    same(r.smembers("renamed"), {b"text", *(str(n).encode() for n in range(500) if n != 3)})
    same(dict(r.zrange("zset", 0, -1, withscores=True)), {name.encode(): score for name, score in SCORES.items() if name != "m1"})
    same((resp(server, db=5).get("five"), resp(server, db=6).dbsize()), (b"5", 0))
    same(r.dbsize() - r.exists("new"), 10)


def messages(server):
    connection = amqp(server)
    channel = connection.channel()
    channel.confirm_delivery()
    channel.exchange_declare("logs", "topic", durable=True)
    channel.exchange_declare("all", "fanout", durable=True)
    channel.exchange_bind("all", "logs", "#")
    channel.queue_declare("errors", durable=True)
    channel.queue_declare("every", durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    channel.queue_declare("dead", durable=True)
    channel.queue_bind("errors", "logs", "*.error")
    channel.queue_bind("every", "all")
    for n in range(60):
        kind = "error" if n % 3 == 0 else "info"
        properties = pika.BasicProperties(delivery_mode=2, headers={"n": n}, content_type="text/plain")
        channel.basic_publish("logs", f"app.{kind}", f"message {n} " + "x" * (5000 if n == 30 else 0), properties)
    # Some are taken, one is rejected to the dead.
    for n in range(5):
        method, _, _ = channel.basic_get("every")
        if n == 4:
            channel.basic_reject(method.delivery_tag, requeue=False)
        else:
            channel.basic_ack(method.delivery_tag)
    connection.close()


def take(channel, queue):
    found = []
    while True:
        method, properties, body = channel.basic_get(queue)
        if method is None:
            return found
        found.append((properties.headers["n"], properties.delivery_mode, properties.content_type, body.decode().split(" x")[0].strip(), len(body)))


def check_messages(server):
    connection = amqp(server)
    channel = connection.channel()
    channel.exchange_declare("logs", "topic", durable=True)  # the same, or the channel closes
    channel.queue_declare("errors", durable=True)

    def wanted(numbers):
        return [(n, 2, "text/plain", f"message {n}", len(f"message {n} ") + (5000 if n == 30 else 0)) for n in numbers]

    same(take(channel, "errors"), wanted(range(0, 60, 3)))
    same(take(channel, "every"), wanted(range(5, 60)))
    same(take(channel, "dead"), wanted([4]))
    # Nothing was acknowledged: all of it comes back.
    connection.close()


def kafka(server):
    settings = {"bootstrap.servers": server.addresses["kafka"], "log_level": 0}
    if server.login:
        name, password = server.login
        settings |= {"security.protocol": "sasl_plaintext", "sasl.mechanism": "SCRAM-SHA-256", "sasl.username": name, "sasl.password": password}
    return settings


def records(server):
    admin = confluent_kafka.admin.AdminClient(kafka(server))
    topic = confluent_kafka.admin.NewTopic("topic", 2, 1, config={"retention.ms": "-1"})
    admin.create_topics([topic])["topic"].result(WAIT)
    producer = confluent_kafka.Producer({**kafka(server), "enable.idempotence": True, "compression.type": "lz4"})
    for n in range(400):
        producer.produce("topic", f"value-{n}", f"key-{n}", partition=n % 2, timestamp=1_700_000_000_000 + n, headers={"h": str(n)})
    same(producer.flush(WAIT), 0)
    consumer = confluent_kafka.Consumer({**kafka(server), "group.id": "readers", "enable.auto.commit": False})
    consumer.commit(offsets=[confluent_kafka.TopicPartition("topic", 0, 17), confluent_kafka.TopicPartition("topic", 1, 200)], asynchronous=False)
    consumer.close()
    resp(server).execute_command("FM.PRODUCE", "made-by-redis", "k", "v")


def read(server, topic, partition, count):
    consumer = confluent_kafka.Consumer({**kafka(server), "group.id": "check", "enable.auto.commit": False, "fetch.wait.max.ms": 50})
    consumer.assign([confluent_kafka.TopicPartition(topic, partition, 0)])
    found, until = [], time.monotonic() + WAIT
    while len(found) < count and time.monotonic() < until:
        found += consumer.consume(500, 0.2)
    consumer.close()
    return found


def check_records(server, more=0):
    for partition in range(2):
        found = read(server, "topic", partition, 200 + more)
        same(len(found), 200 + more)
        for at, message in enumerate(found[:200]):
            n = at * 2 + partition
            same((message.offset(), message.key(), message.value(), message.timestamp()[1], message.headers()),
                 (at, f"key-{n}".encode(), f"value-{n}".encode(), 1_700_000_000_000 + n, [("h", str(n).encode())]))
    same([m.value() for m in read(server, "made-by-redis", 0, 1)], [b"v"])
    consumer = confluent_kafka.Consumer({**kafka(server), "group.id": "readers"})
    committed = consumer.committed([confluent_kafka.TopicPartition("topic", p) for p in range(2)], timeout=WAIT)
    same([at.offset for at in committed], [17, 200])
    consumer.close()
    admin = confluent_kafka.admin.AdminClient(kafka(server))
    resource = confluent_kafka.admin.ConfigResource("topic", "topic")
    same(admin.describe_configs([resource])[resource].result(WAIT)["retention.ms"].value, "-1")


def write(path):
    """A directory that was stopped, and one that was killed with a log that is not folded."""
    kept = Path(tempfile.mkdtemp(prefix="fm-fixture-"))
    for name, extra in (("stopped", []), ("killed", ["--resp-durability=os"])):
        server = Kept(data=kept / name, extra=extra)
        server.start()
        keys(server)
        messages(server)
        records(server)
        users(server)
        if name == "stopped":
            same(server.stop(), 0)
        else:
            server.kill()
    subprocess.run(["tar", "--sort=name", "--owner=0", "--group=0", "--sparse", "-cJf", path, "-C", kept, "stopped", "killed"], check=True)
    print(f"{path}: {Path(path).stat().st_size} bytes")


def check(fixture):
    with tempfile.TemporaryDirectory(prefix="fm-upgrade-") as unpacked:
        with tarfile.open(fixture) as archive:
            archive.extractall(unpacked, filter="data")
        for name in ("stopped", "killed"):
            step(f"{fixture.stem.split('.')[0]}, {name}")
            data = Path(unpacked) / name
            for start in range(2):
                server = Kept(data=data, extra=[servers.CHECK_LAW])
                server.start()
                try:
                    check_users(server)
                    check_keys(server)
                    check_messages(server)
                    check_records(server, more=start)
                    if start == 0:
                        more(server)
                    else:
                        same(resp(server).get("new"), b"1")
                        connection = amqp(server)
                        same(connection.channel().basic_get("new", auto_ack=True)[2], b"1")
                        connection.close()
                    same(server.stop(), 0)
                finally:
                    server.kill()
                    server.clean()
            print("every value is there, and the server goes on")


def more(server):
    resp(server).set("new", "1")
    connection = amqp(server)
    channel = connection.channel()
    channel.queue_declare("new", durable=True)
    channel.confirm_delivery()
    channel.basic_publish("", "new", "1", pika.BasicProperties(delivery_mode=2))
    connection.close()
    producer = confluent_kafka.Producer(kafka(server))
    for partition in range(2):
        producer.produce("topic", "new", partition=partition)
    same(producer.flush(WAIT), 0)


if sys.argv[1:2] == ["write"]:
    write(sys.argv[2])
else:
    found = sorted(FIXTURES.glob("*.tar.xz"))
    same(bool(found), True)
    for one in found:
        check(one)
