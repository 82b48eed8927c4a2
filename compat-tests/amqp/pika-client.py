"""pika: what an application does: routing, confirms, returns, prefetch, redelivery, order, cancel, exclusive queues."""

import os
import threading
import time

import pika
from pika import exceptions

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)


def connect(**more):
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), **more))


def ignore(*_):
    """A consumer's callback; what it gets is not the point here."""


def step(text):
    print(f"> {text}", flush=True)


def until(condition, connection, seconds=10):
    """Let the connection read until something came, then a little longer, so that too much is seen as well."""
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        connection.process_data_events(0.05)
    connection.process_data_events(0.2)


def drain(ch, queue, auto_ack=True):
    out = []
    while True:
        method, properties, body = ch.basic_get(queue, auto_ack=auto_ack)
        if method is None:
            return out
        out.append((method, properties, body))


def bodies(ch, queue):
    return [body.decode() for _, _, body in drain(ch, queue)]


connection = connect()
ch = connection.channel()

step("server-named queue")
name = ch.queue_declare("", exclusive=True).method.queue
print(name.startswith("amq.gen-"), len(name))
step("a queue's counts")
ch.queue_declare("pika.q", durable=True)
for i in range(5):
    ch.basic_publish("", "pika.q", b"%d" % i, pika.BasicProperties(delivery_mode=2))
for _ in range(1000):  # without confirms the peer counts a little later
    method = ch.queue_declare("pika.q", durable=True).method
    if method.message_count == 5:
        break
print(method.message_count, method.consumer_count)
print(ch.queue_purge("pika.q").method.message_count)

step("direct routing")
for queue in ("d1", "d2"):
    ch.queue_declare(queue)
ch.exchange_declare("px.direct", "direct")
ch.queue_bind("d1", "px.direct", "red")
ch.queue_bind("d2", "px.direct", "red")
ch.queue_bind("d2", "px.direct", "blue")
ch.queue_bind("d2", "px.direct", "blue")
for key in ("red", "blue", "green"):
    ch.basic_publish("px.direct", key, key.encode())
print(bodies(ch, "d1"), bodies(ch, "d2"))
ch.queue_unbind("d2", "px.direct", "red")
ch.basic_publish("px.direct", "red", b"after unbind")
print(bodies(ch, "d1"), bodies(ch, "d2"))

step("fanout")
ch.exchange_declare("px.fanout", "fanout")
for queue in ("d1", "d2"):
    ch.queue_bind(queue, "px.fanout", "ignored")
ch.basic_publish("px.fanout", "any", b"all")
print(bodies(ch, "d1"), bodies(ch, "d2"))

step("topic routing")
ch.exchange_declare("px.topic", "topic")
PATTERNS = ["*.orange.*", "*.*.rabbit", "lazy.#", "#", "*", "a.#.b", "#.end", "*.#", "a..b", ""]
for i, pattern in enumerate(PATTERNS):
    ch.queue_declare(f"t{i}")
    ch.queue_bind(f"t{i}", "px.topic", pattern)
KEYS = ["quick.orange.rabbit", "lazy.orange.elephant", "quick.orange.fox", "lazy", "lazy.a.b.c", "orange", "", "a.b", "a.x.b", "a.x.y.b", "a..b", "x.end", "end", "."]
for key in KEYS:
    ch.basic_publish("px.topic", key, b"[" + key.encode() + b"]")
for i, pattern in enumerate(PATTERNS):
    print(repr(pattern), bodies(ch, f"t{i}"))

step("exchange to exchange")
ch.exchange_declare("px.source", "topic")
ch.exchange_bind("px.fanout", "px.source", "eu.#")
ch.basic_publish("px.source", "eu.de", b"e2e")
ch.basic_publish("px.source", "us", b"no")
print(bodies(ch, "d1"), bodies(ch, "d2"))

step("one copy per queue whatever the number of matching bindings")
ch.queue_bind("d1", "px.topic", "multi.*")
ch.queue_bind("d1", "px.topic", "*.match")
ch.basic_publish("px.topic", "multi.match", b"once")
print(bodies(ch, "d1"))

step("all properties and header types come back")
sent = pika.BasicProperties(
    content_type="application/json", content_encoding="utf-8", delivery_mode=2, priority=7, correlation_id="corr", reply_to="rk",
    expiration="600000", message_id="id-1", timestamp=1700000000, type="kind", user_id="guest", app_id="app", cluster_id="c",
    headers={"int": 42, "big": 1 << 40, "neg": -5, "str": "text", "bytes": b"\x00\xff", "bool": True, "none": None,
             "list": [1, "two", [3]], "table": {"inner": {"deep": "yes"}}})
ch.basic_publish("", "d1", b"\x00\x01\xff", sent)
_, got, body = ch.basic_get("d1", auto_ack=True)
print(body, sorted((k, v) for k, v in vars(got).items() if k != "headers"))
print(sorted(got.headers.items()))

step("an empty and a large body")
ch.basic_publish("", "d1", b"")
large = bytes(range(256)) * 8192
ch.basic_publish("", "d1", large)
got = drain(ch, "d1")
print([len(body) for _, _, body in got], got[1][2] == large)

step("get: delivery fields and counts")
for i in range(3):
    ch.basic_publish("px.direct", "blue", b"%d" % i)
method, _, _ = ch.basic_get("d2")
print(method.delivery_tag > 0, method.redelivered, method.exchange, method.routing_key, method.message_count)
ch.basic_reject(method.delivery_tag, requeue=True)
method, _, body = ch.basic_get("d2")
print("again first:", body, method.redelivered, method.message_count)
ch.basic_ack(method.delivery_tag)
print(bodies(ch, "d2"))

step("confirms and unroutable")
confirming = connection.channel()
confirming.confirm_delivery()
confirming.basic_publish("", "pika.q", b"ok", pika.BasicProperties(delivery_mode=2), mandatory=True)
print("confirmed")
try:
    confirming.basic_publish("", "no-such-queue", b"lost", mandatory=True)
except exceptions.UnroutableError as error:
    for returned in error.messages:
        print(returned.method.reply_code, returned.method.reply_text, repr(returned.method.exchange), returned.method.routing_key, returned.body)
confirming.basic_publish("", "no-such-queue", b"dropped")
print("confirmed though dropped")
ch.queue_purge("pika.q")

step("prefetch holds back, acknowledging lets go")
for i in range(10):
    ch.basic_publish("", "pika.q", b"%d" % i)
consuming = connection.channel()
consuming.basic_qos(prefetch_count=3)
received = []
tag = consuming.basic_consume("pika.q", lambda c, m, p, b: received.append((m.delivery_tag, b)), consumer_tag="limited")
until(lambda: len(received) >= 3, connection)
print(tag, received)
consuming.basic_ack(2, multiple=True)
until(lambda: len(received) >= 5, connection)
print(received)
method = ch.queue_declare("pika.q", durable=True).method
print(method.message_count, method.consumer_count)

step("closing the channel returns what was not acknowledged, in order and marked")
consuming.close()
print([(m.redelivered, b) for m, _, b in drain(ch, "pika.q")])

step("nack with requeue keeps the place")
for i in range(4):
    ch.basic_publish("", "pika.q", b"%d" % i)
held = [ch.basic_get("pika.q")[0].delivery_tag for _ in range(3)]
ch.basic_nack(held[1], requeue=True)
ch.basic_nack(held[0], requeue=True)
ch.basic_ack(held[2])
print([(m.redelivered, b) for m, _, b in drain(ch, "pika.q")])

step("nack multiple without requeue drops")
for i in range(4):
    ch.basic_publish("", "pika.q", b"%d" % i)
tags = [ch.basic_get("pika.q")[0].delivery_tag for _ in range(3)]
ch.basic_nack(tags[-1], multiple=True, requeue=False)
print(bodies(ch, "pika.q"))

step("recover requeues")
for i in range(3):
    ch.basic_publish("", "pika.q", b"%d" % i)
ch.basic_get("pika.q")
ch.basic_get("pika.q")
ch.basic_recover(requeue=True)
print([(m.redelivered, b) for m, _, b in drain(ch, "pika.q")])

step("round robin between two consumers")
a, b = connection.channel(), connection.channel()
order = []
a.basic_qos(prefetch_count=1)
b.basic_qos(prefetch_count=1)
a.basic_consume("pika.q", lambda c, m, p, body: (order.append("a"), c.basic_ack(m.delivery_tag)))
b.basic_consume("pika.q", lambda c, m, p, body: (order.append("b"), c.basic_ack(m.delivery_tag)))
for i in range(10):
    ch.basic_publish("", "pika.q", b"%d" % i)
while len(order) < 10:
    connection.process_data_events(1)
print(len(order), order.count("a") > 0, order.count("b") > 0)
a.close()
b.close()

step("the consumer is told when its queue goes")
ch.queue_declare("doomed")
watcher = connection.channel()
cancelled = []
watcher.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
watcher.basic_consume("doomed", ignore, consumer_tag="watching")
print(ch.queue_delete("doomed").method.message_count)
until(lambda: cancelled, connection)
print(cancelled)
watcher.close()

step("auto-delete queue goes with its last consumer")
ch.queue_declare("fleeting", auto_delete=True)
temporary = connection.channel()
temporary.basic_consume("fleeting", ignore, consumer_tag="only")
temporary.basic_cancel("only")
probe = connection.channel()
try:
    probe.queue_declare("fleeting", passive=True)
    print("still there")
except exceptions.ChannelClosedByBroker as error:
    print(error.reply_code)

step("auto-delete exchange goes with its last binding")
ch.exchange_declare("px.fleeting", "fanout", auto_delete=True)
ch.queue_bind("d1", "px.fleeting", "")
ch.queue_unbind("d1", "px.fleeting", "")
probe = connection.channel()
try:
    probe.exchange_declare("px.fleeting", passive=True)
    print("still there")
except exceptions.ChannelClosedByBroker as error:
    print(error.reply_code)

step("exclusive queue goes with its connection")
short = connect()
short.channel().queue_declare("mine", exclusive=True)
short.close()
probe = connection.channel()
try:
    probe.queue_declare("mine", passive=True)
    print("still there")
except exceptions.ChannelClosedByBroker as error:
    print(error.reply_code)

step("no-ack delivery")
for i in range(3):
    ch.basic_publish("", "pika.q", b"%d" % i)
fast = connection.channel()
seen = []
fast.basic_consume("pika.q", lambda c, m, p, body: seen.append(body), auto_ack=True)
while len(seen) < 3:
    connection.process_data_events(1)
fast.close()
print(seen, ch.queue_declare("pika.q", durable=True).method.message_count)

step("order over 5000 confirmed messages from another connection")
done = []


def consume():
    mine = connect()
    channel = mine.channel()
    channel.basic_qos(prefetch_count=100)
    for method, _, body in channel.consume("pika.q"):
        done.append(int(body))
        channel.basic_ack(method.delivery_tag)
        if len(done) == 5000:
            break
    channel.cancel()
    mine.close()


thread = threading.Thread(target=consume)
thread.start()
for i in range(5000):
    ch.basic_publish("", "pika.q", b"%d" % i, pika.BasicProperties(delivery_mode=2))
thread.join(60)
print(len(done), done == list(range(5000)))

step("heartbeats keep an idle connection")
idle = connect(heartbeat=1)
idle.process_data_events(2.5)
print(idle.is_open, idle.channel().queue_declare("pika.q", durable=True).method.message_count)
idle.close()

step("closing")
print(ch.queue_delete("pika.q", if_unused=True, if_empty=True).method.message_count)
connection.close()
print(connection.is_closed)
