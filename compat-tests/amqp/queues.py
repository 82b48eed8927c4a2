"""pika: what queue arguments promise: priorities, one active consumer, consumer priorities, quorum queues and their delivery limit,
arguments that are kept or refused."""

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
used = []


def step(text):
    print(f"> {text}", flush=True)


def fresh(name, durable=True, **arguments):
    channel.queue_delete(name)
    channel.queue_declare(name, durable=durable, arguments={k.replace("_", "-"): v for k, v in arguments.items()})
    used.append(name)


def publish(queue, body, exchange="", **properties):
    try:
        channel.basic_publish(exchange, queue, body.encode(), pika.BasicProperties(**properties))
        return "acked"
    except exceptions.NackError:
        return "nacked"


def take(queue, seconds=5, auto_ack=True, on=None):
    """The next message, waited for."""
    until = time.monotonic() + seconds
    while True:
        method, properties, body = (on or channel).basic_get(queue, auto_ack=auto_ack)
        if method or time.monotonic() > until:
            return method, properties, body
        time.sleep(0.01)


def bodies(queue, count, auto_ack=True):
    return [take(queue, auto_ack=auto_ack)[2].decode() for _ in range(count)]


def until(condition, seconds=5):
    end = time.monotonic() + seconds
    while not condition() and time.monotonic() < end:
        connection.process_data_events(0.02)


def refused(text, action):
    step(text)
    probe = connection.channel()
    try:
        action(probe)
        probe.queue_declare("queues.barrier")
        print("accepted")
    except exceptions.ChannelClosedByBroker as error:
        print(error.reply_code, error.reply_text)
    if probe.is_open:
        probe.close()


def declared(name, durable=True, exclusive=False, auto_delete=False, **arguments):
    arguments = {k.replace("_", "-"): v for k, v in arguments.items()}
    return lambda ch: (ch.queue_declare(name, durable=durable, exclusive=exclusive, auto_delete=auto_delete, arguments=arguments), ch.queue_delete(name))


step("priorities: higher ones first, equals in order, none is 0, too high is the highest")
fresh("q.prio", x_max_priority=5)
for body, priority in [("none", None), ("0", 0), ("5", 5), ("3", 3), ("9", 9), ("5 again", 5), ("3 again", 3), ("255", 255), ("none again", None)]:
    publish("q.prio", body, priority=priority, delivery_mode=2)
print(channel.queue_declare("q.prio", passive=True).method.message_count, bodies("q.prio", 9))

step("priorities: what is given back stands before its equals, behind what is higher")
for body, priority in [("low", 1), ("mid 1", 2), ("mid 2", 2)]:
    publish("q.prio", body, priority=priority)
other = connection.channel()
held = take("q.prio", auto_ack=False, on=other)
publish("q.prio", "high", priority=3)
other.basic_nack(held[0].delivery_tag)
print([(m.redelivered, b.decode()) for m, _, b in (take("q.prio") for _ in range(4))])
step("priorities: consumers get them in that order, too")
for body, priority in [("a", 0), ("b", 4), ("c", 4), ("d", 2)]:
    publish("q.prio", body, priority=priority)
got = []
other = connection.channel()
other.basic_qos(prefetch_count=1)
other.basic_consume("q.prio", lambda ch, m, p, b: (got.append((b.decode(), p.priority)), ch.basic_ack(m.delivery_tag)))
until(lambda: len(got) == 4)
print(got)
other.close()
step("priorities: purge")
for priority in (None, 2, 5):
    publish("q.prio", "x", priority=priority)
print(channel.queue_purge("q.prio").method.message_count, channel.queue_declare("q.prio", passive=True).method.message_count)
step("priorities and a length: the head goes, which is the most important one")
fresh("q.prio.len", x_max_priority=3, x_max_length=2)
for body, priority in [("one", 1), ("three", 3), ("two", 2)]:
    publish("q.prio.len", body, priority=priority)
print(bodies("q.prio.len", 2))
step("priorities and dead letters")
fresh("q.dead")
fresh("q.prio.dlx", x_max_priority=3, x_dead_letter_exchange="", x_dead_letter_routing_key="q.dead", x_message_ttl=50)
publish("q.prio.dlx", "one", priority=1)
publish("q.prio.dlx", "three", priority=3)
found = [take("q.dead") for _ in range(2)]
print(sorted((b.decode(), p.priority, p.headers["x-death"][0]["reason"]) for _, p, b in found))
for value in (1, 255):
    refused(f"max-priority {value}", declared(f"q.max.{value}", x_max_priority=value))
for value in (-1, 0, 256, "5", True):
    refused(f"max-priority {value!r}", declared("q.max", x_max_priority=value))
refused("max-priority of a quorum queue", declared("q.max.q", x_max_priority=5, x_queue_type="quorum"))
refused("another max-priority", lambda ch: ch.queue_declare("q.prio", durable=True, arguments={"x-max-priority": 6}))

step("one active consumer: the next takes over when it goes, whatever their priorities")
fresh("q.single", x_single_active_consumer=True)
got = []
consumers = [connection.channel() for _ in range(3)]
for number, (ch, priority) in enumerate(zip(consumers, (0, 5, 9))):
    ch.basic_qos(prefetch_count=2)
    ch.basic_consume("q.single", lambda c, m, p, b, number=number: (got.append((number, b.decode(), m.redelivered)), b.startswith(b"ok") and c.basic_ack(m.delivery_tag)), arguments={"x-priority": priority})
for body in ("ok 1", "ok 2", "kept 1", "kept 2", "waits"):
    publish("q.single", body)
until(lambda: len(got) == 4)
print(got)
got.clear()
consumers[0].close()
until(lambda: len(got) >= 2)
print(got)
for ch in consumers[1:]:
    ch.close()
refused("exclusive consumer of a queue with one active consumer", lambda ch: ch.basic_consume("q.single", lambda *a: None, exclusive=True))
refused("one active consumer, not a boolean", declared("q.single.2", x_single_active_consumer="yes"))
step("an exclusive consumer")
fresh("q.exclusive")
first = connection.channel()
tag = first.basic_consume("q.exclusive", lambda *a: None, exclusive=True)
refused("a second one", lambda ch: ch.basic_consume("q.exclusive", lambda *a: None))
first.basic_cancel(tag)
refused("when it is gone", lambda ch: ch.basic_consume("q.exclusive", lambda *a: None))

step("consumer priorities: the highest while it has room, then the next, equals in turn")
fresh("q.cons")
got = []
for number, (priority, prefetch) in enumerate([(None, 0), (7, 2), (3, 1), (3, 1)]):
    ch = connection.channel()
    ch.basic_qos(prefetch_count=prefetch)
    arguments = {} if priority is None else {"x-priority": priority}
    ch.basic_consume("q.cons", lambda c, m, p, b, number=number: got.append((number, b.decode())), arguments=arguments)
    consumers.append(ch)
for index in range(6):
    publish("q.cons", str(index))
until(lambda: len(got) == 6)
print(sorted(got))
for ch in consumers[3:]:
    ch.close()
refused("consumer priority, not a number", lambda ch: ch.basic_consume("q.cons", lambda *a: None, arguments={"x-priority": "high"}))
refused("consumer priority beyond 32 bits", lambda ch: ch.basic_consume("q.cons", lambda *a: None, arguments={"x-priority": 1 << 40}))

step("a quorum queue counts deliveries")
fresh("q.quorum", x_queue_type="quorum", x_delivery_limit=2, x_dead_letter_exchange="", x_dead_letter_routing_key="q.dead")
publish("q.quorum", "poison", delivery_mode=2, headers={"mine": "yes"})
for _ in range(4):
    method, properties, body = take("q.quorum", seconds=1, auto_ack=False)
    if not method:
        print("gone")
        break
    print(method.redelivered, body.decode(), sorted(properties.headers.items()))
    channel.basic_nack(method.delivery_tag, requeue=True)
method, properties, body = take("q.dead")
death = properties.headers["x-death"][0]
print(body.decode(), {k: v for k, v in sorted(death.items()) if k != "time"}, sorted(k for k in properties.headers))
print(properties.headers.get("x-first-death-reason"), properties.headers.get("x-delivery-count"))
step("a quorum queue without a limit counts, too")
fresh("q.quorum.free", x_queue_type="quorum")
publish("q.quorum.free", "again")
for _ in range(3):
    method, properties, body = take("q.quorum.free", auto_ack=False)
    print(method.redelivered, properties.headers)
    channel.basic_reject(method.delivery_tag, requeue=True)
step("and when a channel closes")
other = connection.channel()
method, properties, body = take("q.quorum.free", auto_ack=False, on=other)
print(method.redelivered, properties.headers)
other.close()
method, properties, body = take("q.quorum.free")
print(method.redelivered, properties.headers)
step("a quorum queue's dead letters, at least once")
fresh("q.quorum.least", x_queue_type="quorum", x_dead_letter_exchange="", x_dead_letter_routing_key="q.dead", x_dead_letter_strategy="at-least-once", x_overflow="reject-publish")
publish("q.quorum.least", "unwanted")
method, _, _ = take("q.quorum.least", auto_ack=False)
channel.basic_reject(method.delivery_tag, requeue=False)
_, properties, body = take("q.dead")
print(body.decode(), {k: v for k, v in sorted(properties.headers["x-death"][0].items()) if k != "time"})
step("a negative delivery limit")
fresh("q.quorum.negative", x_queue_type="quorum", x_delivery_limit=-1)
publish("q.quorum.negative", "returned")
for _ in range(25):
    method, properties, _ = take("q.quorum.negative", auto_ack=False)
    if method is None:
        print("gone")
        break
    channel.basic_nack(method.delivery_tag, requeue=True)
else:
    print("still there")
for text, arguments in [
    ("delivery limit 0", {"x_delivery_limit": 0}), ("delivery limit -1", {"x_delivery_limit": -1}), ("delivery limit, a string", {"x_delivery_limit": "3"}),
    ("strategy", {"x_dead_letter_strategy": "at-most-once"}), ("strategy without an exchange", {"x_dead_letter_strategy": "at-least-once"}),
    ("unknown strategy", {"x_dead_letter_strategy": "perhaps", "x_dead_letter_exchange": ""}), ("overflow drop-head", {"x_overflow": "drop-head"}),
    ("overflow reject-publish", {"x_overflow": "reject-publish"}), ("overflow reject-publish-dlx", {"x_overflow": "reject-publish-dlx"}),
    ("message ttl", {"x_message_ttl": 60000}), ("expires", {"x_expires": 60000}), ("queue mode", {"x_queue_mode": "lazy"}), ("single active consumer", {"x_single_active_consumer": True}),
    ("initial group size", {"x_quorum_initial_group_size": 1}), ("max in-memory length", {"x_max_in_memory_length": 10}), ("leader locator", {"x_queue_leader_locator": "balanced"}),
    ("unknown", {"x_whatever": 1}),
]:
    refused(f"quorum: {text}", declared("q.quorum.args", x_queue_type="quorum", **arguments))
refused("quorum: not durable", declared("q.quorum.args", durable=False, x_queue_type="quorum"))
refused("quorum: exclusive", declared("q.quorum.args", exclusive=True, x_queue_type="quorum"))
refused("quorum: auto-delete", declared("q.quorum.args", auto_delete=True, x_queue_type="quorum"))
step("quorum: global prefetch")
try:
    other = connect().channel()
    other.basic_qos(prefetch_count=1, global_qos=True)
    other.basic_consume("q.quorum.free", lambda *a: None)
except exceptions.ConnectionClosedByBroker as error:
    print("connection", error.reply_code, error.reply_text)

for text, arguments in [
    ("queue mode lazy", {"x_queue_mode": "lazy"}), ("queue mode default", {"x_queue_mode": "default"}), ("queue mode unheard of", {"x_queue_mode": "swift"}), ("queue mode, a number", {"x_queue_mode": 1}),
    ("queue version 2", {"x_queue_version": 2}), ("queue version 3", {"x_queue_version": 3}), ("queue version, a string", {"x_queue_version": "2"}),
    ("delivery limit", {"x_delivery_limit": 3}), ("strategy", {"x_dead_letter_strategy": "at-least-once", "x_dead_letter_exchange": ""}),
    ("master locator", {"x_queue_master_locator": "min-masters"}), ("queue type, a number", {"x_queue_type": 1}), ("overflow, a number", {"x_overflow": 1}),
    ("dead letter exchange, a number", {"x_dead_letter_exchange": 1}), ("consumer timeout", {"x_consumer_timeout": 60000}),
    ("expires beyond 32 bits", {"x_expires": 1 << 33}), ("ttl beyond 32 bits", {"x_message_ttl": 1 << 33}), ("length, a boolean", {"x_max_length": True}),
]:
    refused(f"classic: {text}", declared("q.classic.args", **arguments))

step("a full queue refuses and passes on")
fresh("q.dlx.over", x_max_length=1, x_overflow="reject-publish-dlx", x_dead_letter_exchange="", x_dead_letter_routing_key="q.dead")
print(publish("q.dlx.over", "fits"), publish("q.dlx.over", "does not"))
_, properties, body = take("q.dead")
print(body.decode(), properties.headers["x-death"][0]["reason"], take("q.dlx.over")[2])
step("what is given back by a closed channel stands where it stood")
fresh("q.order")
for index in range(5):
    publish("q.order", str(index))
other = connection.channel()
for _ in range(3):
    take("q.order", auto_ack=False, on=other)
method, _, body = take("q.order", auto_ack=False)
other.close()
channel.basic_reject(method.delivery_tag, requeue=True)
print([(b.decode(), m.redelivered) for m, _, b in (take("q.order") for _ in range(5))])

for name in [*used, "queues.barrier"]:
    channel.queue_delete(name)
connection.close()
