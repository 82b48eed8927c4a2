"""pika: delayed messages. RabbitMQ's plugin is not in Debian, so its documentation (v3.13) is the judge, and this program compares."""

import os
import sys
import time

import pika
from lib.steps import equal, until
from pika import exceptions

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), blocked_connection_timeout=10))


connection = connect()
channel = connection.channel()
channel.confirm_delivery()


def declare(exchange, kind, inner=None, **more):
    channel.exchange_delete(exchange)
    arguments = {"x-delayed-type": inner} if inner else {}
    channel.exchange_declare(exchange, kind, durable=True, arguments={**arguments, **more})


def queue(name, exchange=None, key="", **arguments):
    channel.queue_delete(name)
    channel.queue_declare(name, durable=True, arguments=arguments)
    if exchange:
        channel.queue_bind(name, exchange, key)


def publish(exchange, key, body, delay=None, on=None, mandatory=False, **properties):
    headers = {**properties.pop("headers", {}), **({} if delay is None else {"x-delay": delay})}
    (on or channel).basic_publish(exchange, key, body.encode(), pika.BasicProperties(headers=headers, **properties), mandatory=mandatory)


def get(name):
    return channel.basic_get(name, auto_ack=True)


def take(name):
    """The next message, waited for."""
    return until(lambda: (found := get(name))[0] and found)


def bodies(name, count):
    return [take(name)[2].decode() for _ in range(count)]


def refused(action):
    probe = connection.channel()
    try:
        action(probe)
        probe.queue_declare("delayed.q", passive=True)
        return "accepted"
    except exceptions.ChannelClosedByBroker as error:
        return f"{error.reply_code} {error.reply_text}"


print("> in the order of their time, by every type of exchange")
for inner in ("direct", "topic", "fanout", "headers", "x-random", "x-consistent-hash"):
    declare("delayed.x", "x-delayed-message", inner)
    queue("delayed.q", "delayed.x", "1" if inner == "x-consistent-hash" else "k")
    start = time.time()
    for body, delay in (("third", 300), ("second", 150), ("first", None), ("fourth", 450)):
        publish("delayed.x", "k", body, delay, delivery_mode=2)
    equal(bodies("delayed.q", 4), ["first", "second", "third", "fourth"])
    assert 0.45 <= time.time() - start, time.time() - start

print("> not before its time, with the delay in the header, negative")
start = time.time()
publish("delayed.x", "k", "later", 200, headers={"mine": "too"}, message_id="m1")
found = take("delayed.q")
assert time.time() - start >= 0.2
equal((found[1].headers, found[1].message_id, found[0].exchange, found[0].routing_key), ({"x-delay": -200, "mine": "too"}, "m1", "delayed.x", "k"))

print("> what is no delay is routed at once")
for delay in (0, -5, "soon", 1 << 32, None, True):
    publish("delayed.x", "k", str(delay), delay)
    equal(get("delayed.q")[2], str(delay).encode())
publish("delayed.x", "k", "text", "100")
equal(get("delayed.q")[0], None)
equal(bodies("delayed.q", 1), ["text"])

print("> bindings count when it is routed, not when it is published")
declare("delayed.x", "x-delayed-message", "direct")
publish("delayed.x", "late", "bound later", 200)
publish("delayed.x", "late", "with a copy", 250, headers={"CC": ["cc"], "BCC": ["bcc"]})
for name, key in (("delayed.q", "late"), ("delayed.cc", "cc"), ("delayed.bcc", "bcc")):
    queue(name, "delayed.x", key)
equal(bodies("delayed.q", 2), ["bound later", "with a copy"])
found = take("delayed.cc")
equal((found[1].headers, bodies("delayed.bcc", 1)), ({"CC": ["cc"], "x-delay": -250}, ["with a copy"]))

print("> a delayed message is not returned; without a route it is gone")
publish("delayed.x", "nowhere", "x", 50, mandatory=True)

print("> every exchange honours it, the default one too")
declare("delayed.plain", "topic")
queue("delayed.q", "delayed.plain", "a.#")
publish("delayed.plain", "a.b", "topic", 100)
publish("", "delayed.q", "default", 150)
publish("delayed.plain", "a", "now")
equal(bodies("delayed.q", 3), ["now", "topic", "default"])

print("> expiration and priority begin when it is routed")
queue("delayed.prio", None, "", **{"x-max-priority": 5})
publish("", "delayed.prio", "low", 100, expiration="60000")
publish("", "delayed.prio", "high", 100, priority=5)
until(lambda: channel.queue_declare("delayed.prio", passive=True).method.message_count == 2)
equal(bodies("delayed.prio", 2), ["high", "low"])
publish("", "delayed.prio", "short", 200, expiration="1000")
equal(bodies("delayed.prio", 1), ["short"])

print("> in a transaction, from its commit on")
tx = connection.channel()
tx.tx_select()
publish("", "delayed.q", "rolled back", 50, on=tx)
tx.tx_rollback()
publish("", "delayed.q", "committed", 100, on=tx)
tx.tx_commit()
equal(bodies("delayed.q", 1), ["committed"])
time.sleep(0.1)
equal(get("delayed.q")[0], None)

print("> what refuses")
equal(refused(lambda ch: ch.exchange_declare("delayed.bad", "x-delayed-message")), "406 PRECONDITION_FAILED - Invalid argument, 'x-delayed-type' must be an existing exchange type")
equal(refused(lambda ch: ch.exchange_declare("delayed.x", "x-delayed-message", durable=True, arguments={"x-delayed-type": "topic"})),
      "406 PRECONDITION_FAILED - inequivalent arg 'x-delayed-type' for exchange 'delayed.x' in vhost '/': received 'topic' but current is 'direct'")
equal(refused(lambda ch: ch.exchange_declare("delayed.x", "direct", durable=True)),
      "406 PRECONDITION_FAILED - inequivalent arg 'type' for exchange 'delayed.x' in vhost '/': received 'direct' but current is 'x-delayed-message'")
equal(refused(lambda ch: publish("delayed.none", "k", "x", 50, on=ch)), "404 NOT_FOUND - no exchange 'delayed.none' in vhost '/'")

print("> many, exactly once, in order")
queue("delayed.many")
bulk = connection.channel()
for index in range(2000):
    bulk.basic_publish("", "delayed.many", b"%d" % (index * 7 % 1000), pika.BasicProperties(headers={"x-delay": 1500 + index * 7 % 1000}))
got = bodies("delayed.many", 2000)
equal(sorted(got, key=int), sorted((str(index * 7 % 1000) for index in range(2000)), key=int))
for name in ("q", "cc", "bcc", "prio", "many"):
    channel.queue_delete(f"delayed.{name}")
for name in ("x", "plain"):
    channel.exchange_delete(f"delayed.{name}")
connection.close()
sys.exit(0)
