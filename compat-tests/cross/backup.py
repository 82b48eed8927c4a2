#!/usr/bin/env python3
"""A backup in the middle of writing: redis-py, pika and confluent-kafka write throughout, `flowmesh backup` runs, `flowmesh restore`
makes an empty directory of it, and a new server is read by the same clients. Everything acknowledged before the backup began is
there; what is there of each face is a prefix of what was written; a transaction over the three faces is there as a whole or
not at all. Its own oracle: exits non-zero at the first answer that is not as it should be."""

import subprocess
import threading
import time

import confluent_kafka
import pika
import redis
from lib import servers
from lib.steps import same, split, step

WAIT = 30


def resp(server):
    return redis.Redis(*split(server.addresses["resp"]), decode_responses=True, socket_timeout=WAIT)


def amqp(server):
    host, port = split(server.addresses["amqp"])
    return pika.BlockingConnection(pika.ConnectionParameters(host, port, socket_timeout=WAIT))


class Writer(threading.Thread):
    """Writes 0, 1, 2 … until told to stop; `acked` is how many were acknowledged."""

    def __init__(self, server):
        super().__init__(daemon=True)
        self.server, self.acked, self.stopping, self.error = server, 0, False, None

    def run(self):
        try:
            self.write()
        except Exception as error:  # told by the main thread
            self.error = error

    def turns(self):
        n = 0
        while not self.stopping:
            yield n
            n += 1


class Keys(Writer):
    """One list and one counter, each command answered."""

    def write(self):
        r = resp(self.server)
        for n in self.turns():
            r.rpush("list", n)
            r.set("last", n)
            self.acked = n + 1


class Messages(Writer):
    """Persistent messages, each confirmed."""

    def write(self):
        connection = amqp(self.server)
        channel = connection.channel()
        channel.queue_declare("q", durable=True)
        channel.confirm_delivery()
        for n in self.turns():
            channel.basic_publish("", "q", str(n), pika.BasicProperties(delivery_mode=2))
            self.acked = n + 1
        connection.close()


class Records(Writer):
    """An idempotent producer; what was delivered is counted."""

    def write(self):
        producer = confluent_kafka.Producer({"bootstrap.servers": self.server.addresses["kafka"], "enable.idempotence": True, "linger.ms": 2, "log_level": 0})

        def delivered(error, _):
            if error:
                raise RuntimeError(error)
            self.acked += 1

        for n in self.turns():
            producer.produce("t", str(n), partition=0, on_delivery=delivered)
            while len(producer) > 200:
                producer.poll(0.05)
        if producer.flush(WAIT):
            raise RuntimeError("not delivered")


class Transactions(Writer):
    """A key, a message and a record in one MULTI."""

    def write(self):
        r = resp(self.server)
        connection = amqp(self.server)
        connection.channel().queue_declare("tq", durable=True)
        connection.close()
        for n in self.turns():
            with r.pipeline(transaction=True) as tx:
                tx.set("tkey", n)
                tx.execute_command("FM.PUBLISH", "", "tq", str(n))
                tx.execute_command("FM.PRODUCE", "tt", "k", str(n))
                tx.execute()
            self.acked = n + 1


LIBRARY = """#!lua name=kept
redis.register_function{function_name='twice', callback=function(_, args) return args[1] * 2 end, flags={'no-writes'}, description='of numbers'}
"""


def messages(server, queue):
    connection = amqp(server)
    channel = connection.channel()
    count = channel.queue_declare(queue, passive=True).method.message_count
    found = []
    for _ in range(count):
        _, _, body = channel.basic_get(queue, auto_ack=True)
        found.append(int(body))
    connection.close()
    return found


def records(server, topic):
    consumer = confluent_kafka.Consumer({"bootstrap.servers": server.addresses["kafka"], "group.id": "check", "enable.auto.commit": False, "fetch.wait.max.ms": 50, "log_level": 0})
    low, high = consumer.get_watermark_offsets(confluent_kafka.TopicPartition(topic, 0), timeout=WAIT)
    consumer.assign([confluent_kafka.TopicPartition(topic, 0, low)])
    found, until = [], time.monotonic() + WAIT
    while len(found) < high - low and time.monotonic() < until:
        found += [int(message.value()) for message in consumer.consume(1000, 0.2)]
    consumer.close()
    return found


def flowmesh(server, *words):
    done = subprocess.run([server.command()[0], *words], cwd=server.dir, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        raise SystemExit(f"{words}: {done.stdout}{done.stderr}")


def prefix(what, found, before, after):
    if found != list(range(len(found))):
        raise SystemExit(f"{what}: not what was written, in order: {found[:5]} … {found[-5:]}")
    if not before <= len(found) <= after:
        raise SystemExit(f"{what}: {len(found)} of {before} acknowledged before and {after} at the end")
    print(f"{what}: a prefix with all that was acknowledged before")
    return len(found)


def main():
    # Small folds, so that some run meanwhile.
    server = servers.FlowMesh(extra=["--fold-size=256KiB", servers.CHECK_LAW])
    restored = None
    try:
        server.start()
        step("three faces and a transaction over them write; a backup is made")
        functions = resp(server)
        functions.function_load(LIBRARY)
        dumped = redis.Redis(*split(server.addresses["resp"])).function_dump()
        functions.xadd("once", {"f": "v"})
        functions.execute_command("XCFGSET", "once", "IDMP-DURATION", "86400")
        added = functions.execute_command("XADD", "once", "IDMP", "producer", "1", "*", "f", "v")
        writers = [kind(server) for kind in (Keys, Messages, Records, Transactions)]
        for writer in writers:
            writer.start()

        def until(enough):
            deadline = time.monotonic() + WAIT
            while not all(enough(writer) for writer in writers) and time.monotonic() < deadline:
                broken = [writer.error for writer in writers if writer.error]
                if broken:
                    raise SystemExit(f"{broken}")
                time.sleep(0.01)

        until(lambda writer: writer.acked >= 200)
        before = [writer.acked for writer in writers]
        flowmesh(server, "backup", "copy", f"--data-dir={server.data}", f"--http-addr={server.addresses['http']}")
        at_end = [writer.acked for writer in writers]
        # Writing goes on afterwards: what the backup holds is not simply everything.
        until(lambda writer: writer.acked >= at_end[writers.index(writer)] + 50)
        for writer in writers:
            writer.stopping = True
        for writer in writers:
            writer.join(WAIT)
        same([writer.error for writer in writers], [None] * 4)
        after = [writer.acked for writer in writers]
        same(server.stop(), 0)

        step("restored into an empty directory and read by the same clients")
        restored = servers.FlowMesh(extra=[servers.CHECK_LAW])
        flowmesh(restored, "restore", str(server.dir / "copy"), f"--data-dir={restored.data}")
        restored.start()
        r = resp(restored)
        items = [int(item) for item in r.lrange("list", 0, -1)]
        kept = prefix("list", items, before[0], after[0])
        same(int(r.get("last")) in (kept - 1, kept - 2), True)
        prefix("queue", messages(restored, "q"), before[1], after[1])
        prefix("topic", records(restored, "t"), before[2], after[2])
        done = int(r.get("tkey")) + 1
        prefix("transactions' queue", messages(restored, "tq"), before[3], after[3])
        prefix("transactions' topic", records(restored, "tt"), before[3], after[3])
        same(len(records(restored, "tt")) == done, True)

        step("functions, and what a stream knows of its producers")
        same(r.fcall("twice", 0, 21), 42)
        same(redis.Redis(*split(restored.addresses["resp"])).function_dump() == dumped, True)
        same(r.execute_command("XADD", "once", "IDMP", "producer", "1", "*", "f", "v") == added, True)

        step("it goes on writing")
        r.rpush("list", kept)
        same(int(r.lindex("list", -1)) == kept, True)
        connection = amqp(restored)
        channel = connection.channel()
        channel.confirm_delivery()
        channel.basic_publish("", "tq", "more", pika.BasicProperties(delivery_mode=2))
        same(channel.basic_get("tq", auto_ack=True)[2], b"more")
        connection.close()
        r.execute_command("FM.PRODUCE", "tt", "k", str(done))
        same(records(restored, "tt")[-1] == done, True)
        same(restored.stop(), 0)
    finally:
        for one in (server, restored):
            if one:
                one.kill()
                one.clean()


main()
