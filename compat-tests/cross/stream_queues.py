#!/usr/bin/env python3
"""Stream queues that are topics, as pika, confluent-kafka and redis-py meet them side by side: what messages look like as records and records as
messages, compressed batches, filters, retention as topic configurations, deletion from either side, users who may use one face, a slow consumer,
and SIGKILL. Its own oracle (filters: RabbitMQ 3.13's documentation): exits non-zero at the first answer that is not as it should be."""

import datetime
import gzip
import hashlib
import os
import socket
import struct
import subprocess
import time
import uuid

import confluent_kafka
import confluent_kafka.admin
import pika
import redis
from lib import servers
from lib.steps import equal, same, split, step, until
from pika import exceptions

PASSWORD = "battery staple"
STREAM = {"x-queue-type": "stream"}
CODECS = ("none", "gzip", "snappy", "lz4", "zstd")


class Guarded(servers.FlowMesh):
    def __init__(self):
        super().__init__(extra=["--user=root", "--password=s3cret", servers.CHECK_LAW])


def amqp(server, user="root", password="s3cret"):
    host, port = split(server.addresses["amqp"])
    parameters = pika.ConnectionParameters(host, port, credentials=pika.PlainCredentials(user, password), blocked_connection_timeout=10)
    return pika.BlockingConnection(parameters)


def kafka(server, user="root", password="s3cret", **more):
    return {"bootstrap.servers": server.addresses["kafka"], "security.protocol": "SASL_PLAINTEXT", "sasl.mechanism": "PLAIN",
            "sasl.username": user, "sasl.password": password, "log_level": 0, **more}


def cli(server, *words, stdin=""):
    env = dict(os.environ, FLOWMESH_USER="root", FLOWMESH_PASSWORD="s3cret", FLOWMESH_HTTP_ADDR=server.addresses["http"])
    done = subprocess.run([server.command()[0], *words], input=stdin, env=env, cwd=server.dir, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stdout}{done.stderr}")


class Amqp:
    """A connection with a channel that confirms."""

    def __init__(self, server, **login):
        self.connection = amqp(server, **login)
        self.channel = self.connection.channel()
        self.channel.confirm_delivery()

    def stream(self, name, **arguments):
        named = {k.replace("_", "-"): v for k, v in arguments.items()}
        return self.channel.queue_declare(name, durable=True, arguments={**STREAM, **named}).method

    def publish(self, queue, body, exchange="", **properties):
        self.channel.basic_publish(exchange, queue, body, pika.BasicProperties(**properties))

    def count(self, name):
        return self.channel.queue_declare(name, passive=True).method.message_count

    def refused(self, call, text, kind=exceptions.ChannelClosedByBroker):
        channel = self.connection.channel()
        try:
            call(channel)
        except kind as error:
            if text not in str(error):
                raise SystemExit(f"refused with {error!r}, wanted {text!r}") from error
            print(text)
            return
        raise SystemExit(f"allowed, wanted {text!r}")


class Consumer:
    """What one consumer of a stream gets, on a channel of its own."""

    def __init__(self, client, queue, offset="first", prefetch=500, ack=True, **arguments):
        self.got, self.cancelled, self.connection = [], [], client.connection
        self.channel = client.connection.channel()
        self.channel.basic_qos(prefetch_count=prefetch)
        self.channel.add_on_cancel_callback(lambda frame: self.cancelled.append(frame.method.consumer_tag))
        self.ack = ack
        self.channel.basic_consume(queue, self.take, arguments={"x-stream-offset": offset, **{k.replace("_", "-"): v for k, v in arguments.items()}})

    def take(self, channel, method, properties, body):
        self.got.append((properties.headers["x-stream-offset"], method, properties, body))
        if self.ack:
            channel.basic_ack(method.delivery_tag)

    def wait(self, count, seconds=20):
        deadline = time.monotonic() + seconds
        while len(self.got) < count:
            self.connection.process_data_events(0.02)
            if time.monotonic() > deadline:
                raise SystemExit(f"{len(self.got)} messages of {count}: {self.got[-1:]}")
        return self.got

    def bodies(self, count):
        return [(offset, body.decode()) for offset, _, _, body in self.wait(count)]

    def quiet(self, seconds=0.3):
        before = len(self.got)
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.connection.process_data_events(0.02)
        equal(len(self.got), before)

    def close(self):
        self.channel.close()


def produce(config, topic, records, **more):
    """Records are (key, value, headers); returns their offsets."""
    producer = confluent_kafka.Producer({**config, "linger.ms": 20, **more})
    told = []
    for key, value, headers in records:
        producer.produce(topic, value, key, headers=headers, on_delivery=lambda error, message: told.append(error or message.offset()))
    producer.flush(30)
    return told


def fetch(config, topic, count, start=0):
    """(offset, key, value, headers) of so many records."""
    consumer = confluent_kafka.Consumer({**config, "group.id": uuid.uuid4().hex, "enable.auto.commit": False})
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, start)])
    found = []
    while len(found) < count:
        message = consumer.poll(20)
        if message is None or message.error():
            raise SystemExit(f"{len(found)} records of {count}: {message and message.error()}")
        found.append((message.offset(), message.key(), message.value(), message.headers() or []))
    consumer.close()
    return found


def configs(admin, topic):
    resource = confluent_kafka.admin.ConfigResource("topic", topic)
    found = next(iter(admin.describe_configs([resource]).values())).result()
    return {name: entry.value for name, entry in found.items()}


def messages_and_records(server, client):
    config = kafka(server)
    step("a message with everything, as a record and back")
    client.stream("s.rich")
    client.channel.exchange_declare("s.topic", "topic", durable=True)
    client.channel.queue_bind("s.rich", "s.topic", "eu.#")
    when = datetime.datetime.fromtimestamp(1700000000, datetime.timezone.utc)
    headers = {"text": "ä", "int": 5, "yes": True, "list": ["a", 1, {"deep": [None]}], "table": {"k": "v", "n": {"m": 2 ** 40}}, "time": when, "none": None, "octets": b"\xff\x00"}
    client.publish("eu.new", b"body", "s.topic", content_type="text/plain", delivery_mode=2, priority=7, correlation_id="c", reply_to="r", expiration="9", message_id="m", timestamp=5,
                   type="t", user_id="root", app_id="a", headers=headers)
    client.publish("eu.plain", b"", "s.topic", headers={"a": "1", "b": ""})
    client.publish("s.rich", b"bare")
    (_, key, value, found), (_, key2, value2, found2), (_, key3, value3, found3) = fetch(config, "s.rich", 3)
    same((key, value, key2, value2, key3, value3), (b"eu.new", b"body", b"eu.plain", b"", b"s.rich", b"bare"))
    found = dict(found)
    same({name: value for name, value in found.items() if name.startswith("amqp.") and name != "amqp.headers"}, {
        "amqp.exchange": b"s.topic", "amqp.content_type": b"text/plain", "amqp.delivery_mode": b"2", "amqp.priority": b"7", "amqp.correlation_id": b"c", "amqp.reply_to": b"r",
        "amqp.expiration": b"9", "amqp.message_id": b"m", "amqp.timestamp": b"5", "amqp.type": b"t", "amqp.user_id": b"root", "amqp.app_id": b"a"})
    same({name: value for name, value in found.items() if not name.startswith("amqp.")}, {"text": "ä".encode(), "int": b"5", "yes": b"true", "time": b"1700000000", "octets": b"\xff\x00"})
    same((found2, found3), ([("amqp.exchange", b"s.topic"), ("a", b"1"), ("b", b"")], [("amqp.exchange", b"")]))
    consumer = Consumer(client, "s.rich")
    (offset, method, properties, body), (_, method2, properties2, _), (_, method3, properties3, _) = consumer.wait(3)
    same((offset, method.exchange, method.routing_key, method.redelivered, body), (0, "s.topic", "eu.new", False, b"body"))
    octets = properties.headers.pop("octets")
    equal(octets if isinstance(octets, bytes) else octets.encode("utf-8", "surrogateescape"), b"\xff\x00")
    del headers["octets"]
    equal(properties.headers, {**headers, "x-stream-offset": 0})
    equal((properties.content_type, properties.delivery_mode, properties.priority, properties.correlation_id, properties.reply_to, properties.expiration, properties.message_id,
           properties.timestamp, properties.type, properties.user_id, properties.app_id), ("text/plain", 2, 7, "c", "r", "9", "m", 5, "t", "root", "a"))
    same((method2.routing_key, properties2.headers, method3.exchange, method3.routing_key, properties3.headers),
         ("eu.plain", {"a": "1", "b": "", "x-stream-offset": 1}, "", "s.rich", {"x-stream-offset": 2}))
    consumer.close()

    step("records of a producer as messages")
    produce(config, "s.rich", [(b"us", b"v", [("trace", b"1"), ("amqp.content_type", b"application/json"), ("amqp.priority", b"nonsense"), ("amqp.headers", b"\x05junk"), ("null", None)]),
                               (None, None, None), (b"\xff\xfe", b"odd key", None), (b"k" * 300, b"long key", None), (b"many", b"", [(f"h{n}", b"x" * 1000) for n in range(800)])])
    consumer = Consumer(client, "s.rich", 3)
    got = consumer.wait(5)
    same([(offset, method.exchange, method.routing_key, body) for offset, method, _, body in got],
         [(3, "", "us", b"v"), (4, "", "s.rich", b""), (5, "", "s.rich", b"odd key"), (6, "", "s.rich", b"long key"), (7, "", "many", b"")])
    same((got[0][2].headers, got[0][2].content_type, got[0][2].priority), ({"trace": "1", "null": None, "x-stream-offset": 3}, "application/json", None))
    same(len(got[3][2].headers["kafka.key"]), 300)
    # What fits a frame.
    same(100 < len(got[4][2].headers) < 200, True)
    consumer.close()


def compressed(server, client):
    step("compressed batches, with the same offsets from both sides")
    config = kafka(server)
    client.stream("s.packed")
    expected = []
    for codec in CODECS:
        records = [(f"{codec}.{n}".encode(), (b"%d " % n) * (n % 40 + 1), [("codec", codec.encode())]) for n in range(300)]
        told = produce(config, "s.packed", records, **{"compression.type": codec, "linger.ms": 100})
        equal(all(isinstance(offset, int) for offset in told), True)
        expected += [(key, value) for key, value, _ in records]
        client.publish("s.packed", b"between")
        expected.append((b"s.packed", b"between"))
    consumer = Consumer(client, "s.packed", prefetch=7)
    got = consumer.wait(len(expected))
    equal([(method.routing_key.encode(), body) for _, method, _, body in got], expected)
    equal([(key, value) for _, key, value, _ in fetch(config, "s.packed", len(expected))], expected)
    same([offset for offset, *_ in got] == list(range(len(expected))), True)
    consumer.close()
    step("a consumer that begins within a compressed batch")
    for start in (5, 150, 450, 755, 1060, 1360, len(expected) - 1):
        consumer = Consumer(client, "s.packed", start)
        offset, method, _, body = consumer.wait(1)[0]
        equal((offset, method.routing_key.encode(), body), (start, *expected[start]))
        consumer.close()
    step("a record that unpacks to far more than it takes")
    produce(config, "s.packed", [(b"zeros", bytes(900_000), None)] * 20, **{"compression.type": "zstd", "linger.ms": 200, "batch.size": 50_000_000})
    consumer = Consumer(client, "s.packed", len(expected))
    same({len(body) for *_, body in consumer.wait(20)}, {900_000})
    consumer.close()


def filters(server, client):
    step("filters: by value, several, and with what has none")
    client.stream("s.filter", x_stream_filter_size_bytes=32)
    for number in range(30):
        region = ("eu", "us", None)[number % 3]
        client.publish("s.filter", b"%d" % number, headers={"x-stream-filter-value": region} if region else None)
    produce(kafka(server), "s.filter", [(None, b"30", [("x-stream-filter-value", b"eu")]), (None, b"31", None)])
    for arguments, wanted in (({"x-stream-filter": "eu"}, [*range(0, 30, 3), 30]), ({"x-stream-filter": ["us", "eu", "nobody"]}, [n for n in range(30) if n % 3 < 2] + [30]),
                              ({"x-stream-filter": "us", "x-stream-match-unfiltered": True}, [n for n in range(30) if n % 3] + [31]),
                              ({"x-stream-filter": [], "x-stream-match-unfiltered": False}, list(range(32)))):
        consumer = Consumer(client, "s.filter", prefetch=3, **arguments)
        equal([int(body) for *_, body in consumer.wait(len(wanted))], wanted)
        consumer.quiet(0.1)
        consumer.close()
    for size in (15, 256):
        client.refused(lambda ch, size=size: ch.queue_declare("s.tried", durable=True, arguments={**STREAM, "x-stream-filter-size-bytes": size}),
                       "PRECONDITION_FAILED - Invalid value for  x-stream-filter-size-bytes")
    client.refused(lambda ch: (ch.basic_qos(prefetch_count=1), ch.basic_consume("s.filter", print, arguments={"x-stream-filter": ["x"] * 2000})), "more than 1000 values")
    step("a filter that nothing passes does not hold others")
    for _ in range(20):
        client.publish("s.filter", b"x" * 100_000)
    deaf, other = Consumer(client, "s.filter", x_stream_filter="nobody"), Consumer(client, "s.filter", 51)
    client.publish("s.filter", b"heard")
    same((other.wait(2)[-1][3], deaf.got), (b"heard", []))
    deaf.close()
    other.close()


def retention(server, client):
    step("arguments are configurations of the topic")
    admin = confluent_kafka.admin.AdminClient(kafka(server))
    client.stream("s.kept", x_max_age="7D", x_max_length_bytes=5_000_000, x_stream_max_segment_size_bytes=1_000_000, x_initial_cluster_size=3, x_queue_leader_locator="client-local")
    found = configs(admin, "s.kept")
    same([found[name] for name in ("retention.ms", "retention.bytes", "segment.bytes", "cleanup.policy")], ["604800000", "5000000", "1000000", "delete"])
    client.stream("s.forever")
    found = configs(admin, "s.forever")
    same([found[name] for name in ("retention.ms", "retention.bytes")], ["-1", "-1"])
    step("a topic of one partition becomes a queue")
    for topic, partitions in (("t.one", 1), ("t.three", 3)):
        next(iter(admin.create_topics([confluent_kafka.admin.NewTopic(topic, partitions, 1, config={"retention.ms": "3600000"})]).values())).result()
    produce(kafka(server), "t.one", [(b"k", b"before", None)])
    declare = lambda name, **arguments: lambda ch: ch.queue_declare(name, durable=True, arguments={**STREAM, **{k.replace("_", "-"): v for k, v in arguments.items()}})
    client.refused(declare("t.three"), "topic 't.three' has 3 partitions, a stream has one")
    client.refused(declare("t.one", x_max_age="7D"), "topic 't.one' has retention.ms=3600000, not 604800000")
    client.refused(declare("no topic's name"), "cannot be a stream: Topic name is invalid")
    client.refused(declare("__keyspace.0"), "names that begin with '__keyspace.' are the server's own")
    same(client.stream("t.one", x_max_age="1h").message_count, 1)
    client.publish("t.one", b"after")
    consumer = Consumer(client, "t.one")
    same(consumer.bodies(2), [(0, "before"), (1, "after")])
    consumer.close()
    futures = admin.create_partitions([confluent_kafka.admin.NewPartitions("t.one", 2)])
    try:
        next(iter(futures.values())).result()
        raise SystemExit("a second partition was made")
    except confluent_kafka.KafkaException as error:
        same(error.args[0].str(), "The topic t.one is a stream queue, which has one partition.")
    step("too large for the topic: nacked, in other queues all the same")
    client.channel.queue_declare("s.beside", durable=True)
    for queue in ("t.one", "s.beside"):
        client.channel.queue_bind(queue, "amq.fanout")
    try:
        client.publish("", b"x" * 2_000_000, "amq.fanout")
        raise SystemExit("acknowledged")
    except exceptions.NackError:
        same((client.count("t.one"), client.count("s.beside")), (2, 1))
    client.channel.queue_delete("s.beside")


def retained(server, client):
    step("what has grown too old is passed over, by who was there before, too")
    client.stream("s.short", x_max_age="1s")
    for number in range(30):
        client.publish("s.short", b"%d" % number)
    before = Consumer(client, "s.short", prefetch=1, ack=False)
    equal(before.bodies(1), [(0, "0")])
    # Retention looks each minute.
    until(lambda: client.connection.process_data_events(0.5) or client.count("s.short") == 0, 150)
    client.publish("s.short", b"young")
    after = Consumer(client, "s.short", 3)
    same(after.bodies(1), [(30, "young")])
    before.ack = True
    before.channel.basic_ack(1)
    same(before.wait(2)[-1][0] in (1, 30), True)
    until(lambda: client.connection.process_data_events(0.02) or before.got[-1][0] == 30)
    for consumer in (before, after):
        consumer.close()


def deleted(server, client):
    admin = confluent_kafka.admin.AdminClient(kafka(server))
    step("DeleteTopics deletes the queue: its consumers are cancelled")
    client.stream("s.gone")
    client.channel.queue_bind("s.gone", "amq.fanout")
    client.publish("s.gone", b"x")
    consumer = Consumer(client, "s.gone")
    consumer.wait(1)
    next(iter(admin.delete_topics(["s.gone"]).values())).result()
    until(lambda: client.connection.process_data_events(0.02) or consumer.cancelled)
    client.refused(lambda ch: ch.queue_declare("s.gone", passive=True), "NOT_FOUND - no queue 's.gone' in vhost '/'")
    client.publish("", b"nowhere", "amq.fanout")
    step("queue.delete deletes the topic, and not while it is in use or has messages, if so asked")
    client.stream("s.gone")
    same(client.count("s.gone"), 0)
    client.publish("s.gone", b"x")
    consumer = Consumer(client, "s.gone")
    same([offset for offset, *_ in consumer.wait(1)], [0])
    client.refused(lambda ch: ch.queue_delete("s.gone", if_unused=True), "queue 's.gone' in vhost '/' in use")
    client.refused(lambda ch: ch.queue_delete("s.gone", if_empty=True), "queue 's.gone' in vhost '/' not empty")
    client.channel.queue_delete("s.gone")
    until(lambda: client.connection.process_data_events(0.02) or consumer.cancelled)
    same("s.gone" in admin.list_topics().topics, False)


def beside(server, client):
    step("dead letters, delayed messages and transactions of Redis clients end in streams")
    client.stream("s.all")
    client.channel.queue_declare("s.dying", durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "s.all", "x-message-ttl": 1})
    client.publish("s.dying", b"dead", delivery_mode=2)
    consumer = Consumer(client, "s.all")
    same([(body, properties.headers["x-death"][0]["queue"]) for _, _, properties, body in consumer.wait(1)], [(b"dead", "s.dying")])
    client.publish("s.all", b"late", headers={"x-delay": 50})
    same(consumer.bodies(2)[1:], [(1, "late")])
    host, port = split(server.addresses["resp"])
    resp = redis.Redis(host=host, port=port, username="root", password="s3cret")
    pipe = resp.pipeline(transaction=True)
    pipe.execute_command("FM.PUBLISH", "", "s.all", "published", "HEADERS", "1", "from", "redis")
    pipe.execute_command("FM.PRODUCE", "s.all", "k", "produced")
    same(pipe.execute(), [1, [0, 3]])
    got = consumer.wait(4)[2:]
    same([(offset, method.routing_key, body, properties.headers.get("from")) for offset, method, properties, body in got], [(2, "s.all", b"published", "redis"), (3, "k", b"produced", None)])
    consumer.close()
    step("a slow consumer holds nobody")
    client.stream("s.slow")
    for number in range(300):
        client.publish("s.slow", b"%d" % number * 2000)
    other = Amqp(server)
    slow, quick = Consumer(other, "s.slow", prefetch=1, ack=False), Consumer(client, "s.slow", prefetch=50)
    equal(len(quick.wait(300)), 300)
    same(len(slow.wait(1)), 1)
    slow.quiet()
    quick.close()
    other.connection.close()


def users(server, client):
    step("what one face denies, the other does not allow")
    client.stream("s.guarded")
    client.channel.exchange_declare("open", "fanout")
    client.channel.queue_bind("s.guarded", "open")
    client.publish("s.guarded", b"secret")
    everything = (("exchange", "*", "read,write,configure"), ("group", "*", "read"))
    for name, grants in {
        "queues": [("queue", "*", "read,write,configure")], "topics": [("topic", "*", "read,write,configure,delete")],
        "both": [("queue", "*", "read,write,configure"), ("topic", "*", "read,write,configure,delete")],
        "reader": [("queue", "*", "read"), ("topic", "*", "read")],
    }.items():
        cli(server, "user", "add", name, stdin=f"{PASSWORD}\n")
        for grant in (*grants, *everything):
            cli(server, "grant", "add", name, *grant)
    queues, reader, both = (Amqp(server, user=name, password=PASSWORD) for name in ("queues", "reader", "both"))
    consume = lambda ch: (ch.basic_qos(prefetch_count=1), ch.basic_consume("s.guarded", print))
    queues.refused(consume, "access to topic 's.guarded' in vhost '/' refused for user 'queues'")
    queues.refused(lambda ch: ch.queue_declare("s.guarded", passive=True), "access to topic 's.guarded'")
    queues.refused(lambda ch: ch.queue_declare("s.guarded", durable=True, arguments=STREAM), "access to topic 's.guarded'")
    queues.refused(lambda ch: ch.queue_declare("s.new", durable=True, arguments=STREAM), "access to topic 's.new'")
    queues.refused(lambda ch: ch.queue_delete("s.guarded"), "access to topic 's.guarded'")
    queues.refused(lambda ch: ch.queue_bind("s.guarded", "open", "again"), "access to topic 's.guarded'")
    for who, name in ((queues, "queues"), (reader, "reader")):
        for exchange, key in (("", "s.guarded"), ("open", "")):
            who.refused(lambda ch, exchange=exchange, key=key: (ch.confirm_delivery(), ch.basic_publish(exchange, key, b"x")), f"access to topic 's.guarded' in vhost '/' refused for user '{name}'")
        who.refused(lambda ch: (ch.tx_select(), ch.basic_publish("", "s.guarded", b"x"), ch.tx_commit()), "access to topic 's.guarded'")
    consumer = Consumer(reader, "s.guarded")
    same(consumer.bodies(1), [(0, "secret")])
    both.publish("s.guarded", b"more")
    same(consumer.bodies(2)[1:], [(1, "more")])
    step("consumers of a user who may not read the topic any more")
    closed = []
    consumer.channel._impl.add_on_close_callback(lambda *why: closed.append(str(why[-1])))
    cli(server, "grant", "remove", "reader", "topic", "*", "read")
    until(lambda: reader.connection.process_data_events(0.02) or closed)
    same("access to topic 's.guarded'" in closed[0], True)
    step("Kafka clients need the queue's grants, too")
    for name, may in (("topics", False), ("both", True)):
        config = kafka(server, name, PASSWORD)
        told = produce(config, "s.guarded", [(None, b"by kafka", None)])
        same(isinstance(told[0], int), may)
        consumer = confluent_kafka.Consumer({**config, "group.id": "g", "enable.auto.commit": False})
        consumer.assign([confluent_kafka.TopicPartition("s.guarded", 0, 0)])
        # To who may not, it is not there.
        message = consumer.poll(20 if may else 1)
        same(message is not None and message.error() is None, may)
        consumer.close()
        admin = confluent_kafka.admin.AdminClient(config)
        same("s.guarded" in admin.list_topics().topics, may)
    host, port = split(server.addresses["resp"])
    resp = redis.Redis(host=host, port=port, username="topics", password=PASSWORD)
    for words in (("FM.PRODUCE", "s.guarded", "k", "v"), ):
        try:
            resp.execute_command(*words)
            raise SystemExit("allowed")
        except redis.exceptions.NoPermissionError:
            print("refused")
    resp = redis.Redis(host=host, port=port, username="queues", password=PASSWORD)
    try:
        resp.execute_command("FM.PUBLISH", "open", "", "v")
        raise SystemExit("allowed")
    except redis.exceptions.NoPermissionError as error:
        print(error)
    for who in (queues, reader, both):
        who.connection.close()


def crc32c(data):
    """Castagnoli's, as batches have it."""
    sum_ = 0xffffffff
    for octet in data:
        sum_ ^= octet
        for _ in range(8):
            sum_ = sum_ >> 1 ^ (0x82f63b78 if sum_ & 1 else 0)
    return sum_ ^ 0xffffffff


def batch(codec, records, count=1):
    """A record batch that is sound outside; what its records are nobody has looked at."""
    body = struct.pack(">hiqqqhii", codec, count - 1, 1, 1, -1, -1, -1, count) + records
    return struct.pack(">qiib", 0, len(body) + 9, 0, 2) + struct.pack(">I", crc32c(body)) + body


def send_raw(server, topic, batches):
    """Produces batches that no library makes."""
    def call(api, version, body):
        data = struct.pack(">hhih", api, version, 1, 1) + b"t" + body
        sock.sendall(struct.pack(">i", len(data)) + data)
        return stream.read(struct.unpack(">i", stream.read(4))[0])

    with socket.create_connection(split(server.addresses["kafka"]), 10) as sock, sock.makefile("rb") as stream:
        call(17, 1, struct.pack(">h", 5) + b"PLAIN")
        login = b"\0root\0s3cret"
        call(36, 0, struct.pack(">i", len(login)) + login)
        name = struct.pack(">h", len(topic)) + topic.encode()
        for one in batches:
            answer = call(0, 3, struct.pack(">hhii", -1, -1, 10_000, 1) + name + struct.pack(">iii", 1, 0, len(one)) + one)
            equal(struct.unpack(">h", answer[4 + 4 + len(name) + 4 + 4:][:2])[0], 0)


def bad_input(server, client):
    step("batches that cannot be unpacked are passed over, and nobody else notices")
    client.stream("s.bad")
    junk = bytes(range(256)) * 4
    good = b"\x10\0\0\0\x01\x04ok\0"
    zstd = b"\x28\xb5\x2f\xfd"
    send_raw(server, "s.bad", [
        *(batch(codec, junk) for codec in range(5)), *(batch(codec, b"") for codec in range(5)),
        batch(0, good, count=2_000_000_000), batch(0, b"\xff" * 20), batch(0, b"\x10\0\0\0\x01\xfe\xff\xff\xff\x0f"), batch(0, b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\x01"),
        batch(4, zstd + b"\0\xa8" + junk), batch(4, zstd + b"\xe0" + b"\xff" * 8 + junk), batch(2, b"\xff\xff\xff\xff\x0f" + junk), batch(2, b"\x82SNAPPY\0" + bytes(8) + b"\x7f\xff\xff\xff"),
        batch(1, gzip.compress(b"\xfe\xff\xff\xff\x0f" + bytes(50_000_000))), batch(3, b"\x04\x22\x4d\x18\x60\x70\x73" + b"\xff" * 9), batch(0, good)])
    client.publish("s.bad", b"at the end")
    consumer = Consumer(client, "s.bad", prefetch=1)
    got = consumer.wait(3)
    same([body for *_, body in got], [b"ok", b"ok", b"at the end"])
    consumer.close()
    step("offsets and filters out of range")
    for offset, wanted in ((2 ** 62, []), (-5, [b"ok"]), (datetime.datetime.fromtimestamp(2 ** 35, datetime.timezone.utc), []), ("999999999999Y", [b"ok"])):
        consumer = Consumer(client, "s.bad", offset, prefetch=1, ack=False)
        consumer.wait(len(wanted))
        consumer.quiet(0.1)
        same([body for *_, body in consumer.got], wanted)
        consumer.close()
    client.refused(lambda ch: (ch.basic_qos(prefetch_count=1), ch.basic_consume("s.bad", print, arguments={"x-stream-offset": "9" * 400 + "Y"})), "invalid_stream_offset_arg")


def killed(server, client):
    step("SIGKILL: what was confirmed is there, at the same offsets from both sides")
    client.stream("s.killed", x_max_age="1h")
    client.channel.queue_bind("s.killed", "s.topic", "k.#")
    digest = hashlib.sha256()
    for number in range(500):
        body = b"%d " % number * (number % 60 + 1)
        client.publish("k.%d" % number, body, "s.topic", headers={"n": number})
        digest.update(body)
    produce(kafka(server), "s.killed", [(b"last", b"by kafka", None)], **{"compression.type": "zstd"})
    server.kill()
    again = server.again().start()
    client = Amqp(again)
    same(client.stream("s.killed", x_max_age="1h").message_count, 501)
    client.publish("k.next", b"after", "s.topic")
    consumer = Consumer(client, "s.killed")
    got = consumer.wait(502)
    equal([offset for offset, *_ in got], list(range(502)))
    found = hashlib.sha256()
    for number, (_, method, properties, body) in enumerate(got[:500]):
        equal((method.exchange, method.routing_key, properties.headers["n"]), ("s.topic", f"k.{number}", number))
        found.update(body)
    equal(found.hexdigest(), digest.hexdigest())
    same([body for *_, body in got[500:]], [b"by kafka", b"after"])
    equal([value for _, _, value, _ in fetch(kafka(again), "s.killed", 502)], [body for *_, body in got])
    consumer.close()
    client.connection.close()
    return again


class Rooted(Guarded):
    def again(self):
        again = Rooted()
        again.data, again.addresses, again.log = self.data, self.addresses, self.log
        return again


def main():
    server = Rooted().start()
    try:
        client = Amqp(server)
        slow = (retained,) if os.environ.get("RUN_SLOW_TESTS") else ()
        for part in (messages_and_records, compressed, filters, retention, *slow, deleted, beside, bad_input, users):
            part(server, client)
        first, server = server, killed(server, client)
        same(server.stop(), 0)
        errors = [line for line in server.log.read_text().splitlines() if "ERROR" in line]
        equal(errors, [])
    finally:
        server.kill()
    first.clean()
    server.clean()


if __name__ == "__main__":
    main()
