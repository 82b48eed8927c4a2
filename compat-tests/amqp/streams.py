"""pika: queues of type stream: what they take and refuse, where consumers begin, credit, what is kept of a message, purge, get and deletion."""

import datetime
import os
import time

import pika
from pika import exceptions

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), blocked_connection_timeout=10))


connection = connect()
channel = connection.channel()
channel.confirm_delivery()


def step(text):
    print(f"> {text}", flush=True)


def arguments(given):
    return {"x-queue-type": "stream", **{k.replace("_", "-"): v for k, v in given.items()}}


def fresh(name, **given):
    channel.queue_delete(name)
    return channel.queue_declare(name, durable=True, arguments=arguments(given)).method


def publish(queue, body, exchange="", **properties):
    channel.basic_publish(exchange, queue, body.encode(), pika.BasicProperties(**properties))


def until(condition, seconds=10, on=None):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        (on or connection).process_data_events(0.02)


def tried(text, action):
    """On a connection of its own: some of it ends connections."""
    step(text)
    probe = connect()
    try:
        ch = probe.channel()
        result = action(ch)
        ch.queue_declare("streams.barrier")
        print("accepted" if result is None else result)
    except exceptions.ChannelClosedByBroker as error:
        print("channel", error.reply_code, error.reply_text)
    except exceptions.ConnectionClosedByBroker as error:
        print("connection", error.reply_code, error.reply_text)
    if probe.is_open:
        probe.close()


def declared(name="s.tried", durable=True, exclusive=False, auto_delete=False, **given):
    def action(ch):
        ch.queue_declare(name, durable=durable, exclusive=exclusive, auto_delete=auto_delete, arguments=arguments(given))
        ch.queue_delete(name)
    return action


def consumed(queue, prefetch=10, auto_ack=False, exclusive=False, **given):
    def action(ch):
        if prefetch:
            ch.basic_qos(prefetch_count=prefetch)
        ch.basic_consume(queue, lambda *a: None, auto_ack=auto_ack, exclusive=exclusive, arguments={k.replace("_", "-"): v for k, v in given.items()} or None)
    return action


class Consumer:
    """What a consumer gets, as (offset, body); acknowledges while told to."""

    def __init__(self, queue, offset=None, prefetch=100, ack=True):
        self.got, self.tags, self.ack, self.cancelled = [], [], ack, []
        self.channel = connection.channel()
        self.channel.basic_qos(prefetch_count=prefetch)
        self.channel.add_on_cancel_callback(lambda frame: self.cancelled.append(frame.method.consumer_tag))
        given = {} if offset is None else {"x-stream-offset": offset}
        self.tag = self.channel.basic_consume(queue, self.take, arguments=given)

    def take(self, ch, method, properties, body):
        self.got.append((properties.headers["x-stream-offset"], body.decode()))
        self.tags.append((method.delivery_tag, method.redelivered))
        if self.ack:
            ch.basic_ack(method.delivery_tag)

    def wait(self, count, seconds=10):
        until(lambda: len(self.got) >= count, seconds)
        return self.got

    def close(self):
        self.channel.close()


step("declared: an empty stream, twice, and passively")
ok = fresh("s.plain")
print(ok.queue, ok.message_count)
print(channel.queue_declare("s.plain", durable=True, arguments=arguments({})).method.message_count)
print(channel.queue_declare("s.plain", passive=True).method.message_count)

tried("not durable", declared(durable=False))
tried("exclusive", declared(exclusive=True))
tried("auto-delete", declared(auto_delete=True))
tried("named by the server", declared(name=""))
for name, values in {
    "x_max_length_bytes": (1000000, 0, -1, "5"),
    "x_max_age": ("7D", "1h", "30s", "12M", "1Y", "5m", "7d", "D", "1D2h", "-1D", "0s", 7, ""),
    "x_stream_max_segment_size_bytes": (1000000, 3000000000, 3000000001, -1, "5"),
    "x_initial_cluster_size": (1, 3, 0, -1, "1"),
    "x_queue_leader_locator": ("client-local", "balanced", "nowhere"),
    "x_max_length": (10,),
    "x_message_ttl": (1000,),
    "x_expires": (1000,),
    "x_dead_letter_exchange": ("",),
    "x_dead_letter_routing_key": ("k",),
    "x_dead_letter_strategy": ("at-most-once",),
    "x_overflow": ("drop-head", "reject-publish"),
    "x_max_priority": (5,),
    "x_delivery_limit": (3,),
    "x_single_active_consumer": (True,),
    "x_queue_mode": ("lazy",),
    "x_queue_version": (2,),
    "x_quorum_initial_group_size": (1,),
    "x_max_in_memory_length": (1,),
    "x_of_nobody": (1,),
}.items():
    for value in values:
        tried(f"{name.replace('_', '-')}: {value!r}", declared(**{name: value}))
for queue_type in ("classic", "quorum"):
    for name, value in {"x_max_age": "1h", "x_stream_max_segment_size_bytes": 1000000, "x_initial_cluster_size": 1}.items():
        tried(f"{name.replace('_', '-')} of a {queue_type} queue", declared(**{name: value, "x_queue_type": queue_type}))

fresh("s.aged", x_max_age="1h", x_max_length_bytes=1000000, x_stream_max_segment_size_bytes=500000)
tried("declared again as it is", lambda ch: ch.queue_declare("s.aged", durable=True, arguments=arguments({"x_max_age": "1h", "x_max_length_bytes": 1000000, "x_stream_max_segment_size_bytes": 500000})) and None)
tried("declared again with another age", lambda ch: ch.queue_declare("s.aged", durable=True, arguments=arguments({"x_max_age": "2h", "x_max_length_bytes": 1000000, "x_stream_max_segment_size_bytes": 500000})))
tried("declared again with another length", lambda ch: ch.queue_declare("s.aged", durable=True, arguments=arguments({"x_max_age": "1h", "x_max_length_bytes": 1, "x_stream_max_segment_size_bytes": 500000})))
tried("declared again with another segment size", lambda ch: ch.queue_declare("s.aged", durable=True, arguments=arguments({"x_max_age": "1h", "x_max_length_bytes": 1000000, "x_stream_max_segment_size_bytes": 1})) and None)
tried("declared again without arguments", lambda ch: ch.queue_declare("s.aged", durable=True, arguments=arguments({})))
tried("declared again as a classic queue", lambda ch: ch.queue_declare("s.aged", durable=True))
tried("declared again as a quorum queue", lambda ch: ch.queue_declare("s.aged", durable=True, arguments={"x-queue-type": "quorum"}))
tried("declared again, not durable", lambda ch: ch.queue_declare("s.aged", durable=False, arguments=arguments({})))
channel.queue_declare("s.classic", durable=True)
tried("a classic queue declared again as a stream", lambda ch: ch.queue_declare("s.classic", durable=True, arguments=arguments({})))
channel.queue_delete("s.classic")

tried("consume without a prefetch", consumed("s.plain", prefetch=0))
tried("consume without acknowledgements", consumed("s.plain", auto_ack=True))
tried("consume with a prefetch of the channel", lambda ch: (ch.basic_qos(prefetch_count=5, global_qos=True), ch.basic_consume("s.plain", lambda *a: None)) and None)
tried("consume with both kinds of prefetch", lambda ch: (ch.basic_qos(prefetch_count=5), ch.basic_qos(prefetch_count=5, global_qos=True), ch.basic_consume("s.plain", lambda *a: None)) and None)
tried("get", lambda ch: ch.basic_get("s.plain"))
tried("get without acknowledgement", lambda ch: ch.basic_get("s.plain", auto_ack=True))
tried("purge", lambda ch: ch.queue_purge("s.plain"))
for offset in ("first", "last", "next", 0, 5, "1h", "10m", datetime.datetime.fromtimestamp(1700000000, datetime.timezone.utc)):
    tried(f"x-stream-offset {offset!r}", consumed("s.plain", x_stream_offset=offset))
for offset in ("nonsense", "1w", "0h", -1, True):
    tried(f"x-stream-offset {offset!r}", consumed("s.plain", x_stream_offset=offset))
tried("consumer priority", consumed("s.plain", x_priority=5))
tried("consumer priority, not a number", consumed("s.plain", x_priority="high"))

step("everything of a message is kept, and its offset is added")
channel.exchange_declare("s.topic", "topic", durable=True)
channel.queue_bind("s.plain", "s.topic", "eu.#")
stamp = 1700000000
publish("eu.new", "rich", exchange="s.topic", content_type="text/plain", content_encoding="utf-8", delivery_mode=1, priority=7, correlation_id="c-1", reply_to="r", expiration="100000",
        message_id="m-1", timestamp=stamp, type="t", user_id="guest", app_id="app", headers={
            "text": "ä", "int": 5, "big": 2 ** 40, "negative": -3, "yes": True, "no": False, "time": datetime.datetime.fromtimestamp(stamp, datetime.timezone.utc)})
publish("s.plain", "bare")
seen = []
reader = connection.channel()
reader.basic_qos(prefetch_count=10)
reader.basic_consume("s.plain", lambda ch, m, p, b: seen.append((m, p, b)), arguments={"x-stream-offset": "first"})
until(lambda: len(seen) == 2)
for method, properties, body in seen:
    print(repr(method.exchange), method.routing_key, method.redelivered, method.delivery_tag, body.decode())
    for name in ("content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to", "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id"):
        if getattr(properties, name) is not None:
            print("", name, getattr(properties, name))
    for name, value in sorted(properties.headers.items()):
        print("", name, repr(value))
reader.close()

step("bodies: empty, and large")
fresh("s.bodies")
for size in (0, 1, 1023, 1024, 4096, 70000, 300000):
    publish("s.bodies", "x" * size)
consumer = Consumer("s.bodies", "first")
print([(offset, len(body)) for offset, body in consumer.wait(7)])
consumer.close()

step("nothing is removed: two consumers, one after the other and beside each other, get all of it")
fresh("s.many")
for index in range(20):
    publish("s.many", f"m{index}")
one = Consumer("s.many", "first")
print(len(one.wait(20)), one.got[0], one.got[-1])
one.close()
both = [Consumer("s.many", "first"), Consumer("s.many", 15)]
print([(len(consumer.wait(count)), consumer.got[0], consumer.got[-1]) for consumer, count in zip(both, (20, 5))])
publish("s.many", "m20")
print([consumer.wait(count)[-1] for consumer, count in zip(both, (21, 6))])
for consumer in both:
    consumer.close()

step("where a consumer begins")
for offset, count in ((0, 21), (20, 1), ("first", 21), ("1h", 21), (datetime.datetime.fromtimestamp(1700000000, datetime.timezone.utc), 21)):
    consumer = Consumer("s.many", offset)
    print(offset if not isinstance(offset, datetime.datetime) else "a time in the past", consumer.wait(count)[0], len(consumer.got))
    consumer.close()
for offset in ("next", None, datetime.datetime.fromtimestamp(int(time.time()) + 3600, datetime.timezone.utc)):
    consumer = Consumer("s.many", offset)
    publish("s.many", f"after {len(consumer.got)}")
    print("a time to come" if isinstance(offset, datetime.datetime) else offset, [body for _, body in consumer.wait(1)])
    consumer.close()

step("an offset that is not there yet: nothing comes before it")
consumer = Consumer("s.many", 26)
for index in range(24, 28):
    publish("s.many", f"m{index}")
print(consumer.wait(2))
consumer.close()

step("last: the newest message is among what comes first")
fresh("s.last")
for index in range(3):
    publish("s.last", f"m{index}")
consumer = Consumer("s.last", "last")
until(lambda: any(body == "m2" for _, body in consumer.got))
print(consumer.got[-1])
consumer.close()

step("acknowledgements give credit, one for one")
fresh("s.credit")
for index in range(12):
    publish("s.credit", f"m{index}")
consumer = Consumer("s.credit", "first", prefetch=3, ack=False)
consumer.wait(3)
until(lambda: False, 0.3)
print(consumer.got)
consumer.channel.basic_ack(consumer.tags[0][0])
print(consumer.wait(4)[3:])
consumer.channel.basic_ack(consumer.tags[2][0])
print(consumer.wait(5)[4:])
consumer.channel.basic_ack(consumer.tags[4][0], multiple=True)
consumer.wait(8)
until(lambda: False, 0.3)
print(consumer.got[5:], [tag for tag, _ in consumer.tags], any(redelivered for _, redelivered in consumer.tags))
consumer.close()
again = Consumer("s.credit", "first")
print(len(again.wait(12)), again.got[0])
again.close()



def taken(then):
    def action(ch):
        tags = []
        ch.basic_qos(prefetch_count=2)
        ch.basic_consume("s.credit", lambda c, m, p, b: tags.append(m.delivery_tag), arguments={"x-stream-offset": "first"})
        until(lambda: len(tags) == 2, on=ch.connection)
        then(ch, tags)
    return action


tried("given back", taken(lambda ch, tags: ch.basic_nack(tags[0], requeue=True)))
tried("rejected", taken(lambda ch, tags: ch.basic_reject(tags[0], requeue=False)))
tried("several rejected", taken(lambda ch, tags: ch.basic_nack(tags[1], multiple=True, requeue=False)))
tried("acknowledged twice", taken(lambda ch, tags: (ch.basic_ack(tags[0]), ch.basic_ack(tags[0]))))
tried("the prefetch of the channel changes later", taken(lambda ch, tags: ch.basic_qos(prefetch_count=1, global_qos=True)))

step("a consumer that is cancelled gets no more")
consumer = Consumer("s.credit", "next")
consumer.channel.basic_cancel(consumer.tag)
publish("s.credit", "unheard")
until(lambda: False, 0.3)
print(consumer.got)
consumer.close()

step("a transaction, and copies")
tx = connection.channel()
tx.tx_select()
fresh("s.tx")
tx.basic_publish("", "s.tx", b"rolled back")
tx.tx_rollback()
tx.basic_publish("", "s.tx", b"one")
tx.basic_publish("", "s.tx", b"two", pika.BasicProperties(headers={"CC": ["s.last"]}))
tx.tx_commit()
tx.close()
consumer = Consumer("s.tx", "first")
print(consumer.wait(2))
consumer.close()
consumer = Consumer("s.last", 3)
print(consumer.wait(1))
consumer.close()

step("fan-out to a stream, a classic and a quorum queue")
channel.exchange_declare("s.fanout", "fanout")
channel.queue_declare("s.fan.classic", durable=True)
channel.queue_declare("s.fan.quorum", durable=True, arguments={"x-queue-type": "quorum"})
fresh("s.fan")
for name in ("s.fan", "s.fan.classic", "s.fan.quorum"):
    channel.queue_bind(name, "s.fanout")
for index in range(3):
    publish("", f"f{index}", exchange="s.fanout")
consumer = Consumer("s.fan", "first")
print(consumer.wait(3))
consumer.close()
print([channel.basic_get(name, auto_ack=True)[2] for name in ("s.fan.classic", "s.fan.quorum") for _ in range(3)])
for name in ("s.fan.classic", "s.fan.quorum"):
    channel.queue_delete(name)

step("deleted: consumers hear of it, and a new one begins at 0")
consumer = Consumer("s.fan", "first")
consumer.wait(3)
channel.queue_delete("s.fan")
until(lambda: consumer.cancelled)
print(consumer.cancelled == [consumer.tag])
fresh("s.fan")
publish("s.fan", "new")
consumer = Consumer("s.fan", "first")
print(consumer.wait(1))
consumer.close()
tried("consume from a stream that is not there", consumed("s.none"))

for name in ("s.plain", "s.aged", "s.bodies", "s.many", "s.last", "s.credit", "s.tx", "s.fan", "streams.barrier"):
    channel.queue_delete(name)
for name in ("s.topic", "s.fanout"):
    channel.exchange_delete(name)
connection.close()
