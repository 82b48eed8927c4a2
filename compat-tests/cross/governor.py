#!/usr/bin/env python3
"""A server short of disk, then one short of memory, as real clients meet it: redis-py (error classes), pika (blocked and
unblocked callbacks), confluent-kafka (late answers, throttle callback), and all of them going on by themselves when there is
room again. Its own oracle: exits non-zero at the first answer that is not as it should be."""

import os
import time

import confluent_kafka
import confluent_kafka.admin
import pika
import redis
from lib import servers
from lib.steps import same, step
from redis.backoff import NoBackoff
from redis.retry import Retry


class SmallDisk(servers.FlowMesh):
    """Its data directory is a file system of 64 MiB, which only the server's own mount namespace has."""

    def __init__(self):
        super().__init__(extra=["--disk-free-limit=16MiB", "--memory-limit=128MiB", servers.CHECK_LAW])
        self.data.mkdir()

    def command(self):
        mount = 'mount -t tmpfs -o size=64m none "$0" && exec "$@"'
        return ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", mount, str(self.data), *super().command()]

    def inside(self, name):
        return f"/proc/{self.pid}/root{self.data}/{name}"


def refused(kind, text, call):
    try:
        call()
    except redis.exceptions.RedisError as error:
        same((type(error), str(error).startswith(text)), (kind, True))
        return
    raise SystemExit(f"allowed, wanted {text!r}")


def until(what, is_so, seconds=20):
    deadline = time.monotonic() + seconds
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"never: {what}")
        time.sleep(0.02)


def redis_client(server):
    host, port = server.addresses["resp"].rsplit(":", 1)
    return redis.Redis(host=host, port=int(port), retry=Retry(NoBackoff(), 0))


def rabbit(server):
    host, port = server.addresses["amqp"].rsplit(":", 1)
    return pika.BlockingConnection(pika.ConnectionParameters(host=host, port=int(port), blocked_connection_timeout=60))


def fill(path):
    with open(path, "wb", buffering=0) as file:
        size = 1 << 20
        while size:
            try:
                file.write(b"x" * size)
            except OSError:
                size //= 2


class Publisher:
    def __init__(self, server):
        self.heard = []
        self.connection = rabbit(server)
        self.connection.add_on_connection_blocked_callback(lambda _, frame: self.heard.append(frame.method.reason))
        self.connection.add_on_connection_unblocked_callback(lambda _, frame: self.heard.append("unblocked"))
        self.channel = self.connection.channel()
        self.channel.queue_declare("q", durable=True)

    def publish(self, body):
        self.channel.basic_publish("", "q", body, pika.BasicProperties(delivery_mode=2))

    def hears(self, *wanted):
        def is_so():
            self.connection.process_data_events(0.02)
            return len(self.heard) >= len(wanted)

        until(f"{wanted}", is_so)
        same(tuple(self.heard), wanted)


def short_of_disk():
    with SmallDisk() as server:
        client = redis_client(server)
        publisher, consumer = Publisher(server), rabbit(server).channel()
        throttled, delivered = [], []
        bootstrap = {"bootstrap.servers": server.addresses["kafka"]}
        admin = confluent_kafka.admin.AdminClient(bootstrap)
        for future in admin.create_topics([confluent_kafka.admin.NewTopic("t", 1, 1)]).values():
            future.result()
        producer = confluent_kafka.Producer({**bootstrap, "enable.idempotence": True, "linger.ms": 0, "throttle_cb": throttled.append})
        client.set("k", "before")
        client.rpush("l", 1, 2)
        publisher.publish(b"1")
        producer.produce("t", b"1", callback=lambda error, message: delivered.append((error, message.offset())))
        producer.flush(20)
        same(delivered, [(None, 0)])

        # What deletions live on when the disk is full is put aside soon after the start.
        until("a reserve", lambda: os.path.exists(server.inside("reserve")) and os.path.getsize(server.inside("reserve")) == 4 << 20)

        step("somebody fills the disk")
        fill(server.inside("of-somebody-else"))
        until("a full disk", lambda: client.info("governor")["flowmesh_disk_level"] == "stop")

        step("redis-py")
        refused(redis.exceptions.ResponseError, "MISCONF ", lambda: client.set("k", "after"))
        same(client.get("k"), b"before")
        same(client.rpop("l"), b"2")
        same(client.delete("l"), 1)

        step("pika")
        publisher.publish(b"2")
        publisher.hears("low on disk")
        method, _, body = consumer.basic_get("q")
        same(body, b"1")
        consumer.basic_ack(method.delivery_tag)

        step("confluent-kafka")
        producer.produce("t", b"2", callback=lambda error, message: delivered.append((error, message.offset())))
        same(producer.flush(1), 1)
        reader = confluent_kafka.Consumer({**bootstrap, "group.id": "g", "auto.offset.reset": "earliest"})
        reader.assign([confluent_kafka.TopicPartition("t", 0, 0)])
        same(reader.poll(20).value(), b"1")

        step("room again")
        os.remove(server.inside("of-somebody-else"))
        publisher.hears("low on disk", "unblocked")
        until("the message", lambda: consumer.basic_get("q", auto_ack=True)[2] == b"2")
        same(producer.flush(30), 0)
        same(delivered, [(None, 0), (None, 1)])
        until("throttle_cb", lambda: producer.poll(0.02) or any(event.throttle_time > 0 for event in throttled))
        same(reader.poll(20).value(), b"2")
        reader.close()
        until("a write", lambda: client.execute_command("PING") and set_is_taken(client))
        same(client.get("k"), b"after")
        publisher.connection.close()
        client.close()
        same(server.stop(), 0)


def set_is_taken(client):
    try:
        return client.set("k", "after")
    except redis.exceptions.ResponseError:
        return False


def short_of_memory():
    # Else the client that holds most is closed before.
    server = servers.FlowMesh(extra=["--memory-limit=16MiB", "--table-cache=8MiB", "--client-memory-limit=unlimited", servers.CHECK_LAW])
    with server:
        client = redis_client(server)
        client.set("k", "before")
        publisher = Publisher(server)
        step("a transaction that takes all memory")
        hoarder = redis_client(server).connection_pool.get_connection()
        hoarder.send_command("MULTI")
        same(hoarder.read_response(), b"OK")
        answers = []
        for _ in range(500):
            hoarder.send_command("SET", "big", b"x" * (1 << 20))
            try:
                answers.append(hoarder.read_response())
            except redis.exceptions.OutOfMemoryError:
                break
        else:
            raise SystemExit("never refused")
        same(set(answers), {b"QUEUED"})
        refused(redis.exceptions.OutOfMemoryError, "command not allowed when used memory > 'maxmemory'.", lambda: client.set("k", "after"))
        same(client.get("k"), b"before")
        same(client.delete("k"), 1)
        publisher.publish(b"1")
        publisher.hears("low on memory")

        step("room again")
        hoarder.disconnect()
        publisher.hears("low on memory", "unblocked")
        until("a write", lambda: set_is_taken(client))
        same(client.get("k"), b"after")
        publisher.connection.close()
        client.close()
        same(server.stop(), 0)


def a_string_too_long():
    """A command does not make one longer than a quarter of what the server may take, 1 MiB at least; nothing has changed then."""
    with servers.FlowMesh(extra=["--memory-limit=2MiB", servers.CHECK_LAW]) as server:
        step("a string that would outgrow memory")
        client = redis_client(server)
        oom = redis.exceptions.OutOfMemoryError, "command not allowed when used memory > 'maxmemory'."
        same(client.setrange("s", 1_000_000, "x"), 1_000_001)
        refused(*oom, lambda: client.setrange("s", 536_870_911, "x"))
        refused(*oom, lambda: client.setrange("none", 536_870_911, "x"))
        refused(*oom, lambda: client.setbit("s", 4_294_967_295, 1))
        refused(*oom, lambda: client.bitfield("s").set("u8", 4_000_000_000, 1).execute())
        refused(*oom, lambda: client.append("s", "x" * 100_000))
        same(client.strlen("s"), 1_000_001)
        same(client.exists("none"), 0)
        same((client.setrange("s", 5, "abc"), client.append("s", "y"), client.setbit("s", 80, 1)), (1_000_001, 1_000_002, 0))
        client.close()
        same(server.stop(), 0)


if __name__ == "__main__":
    short_of_disk()
    short_of_memory()
    a_string_too_long()
