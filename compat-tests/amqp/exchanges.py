"""pika: the exchange types of RabbitMQ's plugins, alternate and internal exchanges, and what refuses to be declared or bound."""

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
exchanges, queues = set(), set()


def step(text):
    print(f"> {text}", flush=True)


def exchange(name, kind, **arguments):
    channel.exchange_delete(name)
    channel.exchange_declare(name, kind, durable=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()})
    exchanges.add(name)


def queue(name):
    channel.queue_delete(name)
    channel.queue_declare(name, durable=True)
    queues.add(name)


def publish(name, key, body=b"x", mandatory=False, **properties):
    try:
        channel.basic_publish(name, key, body, pika.BasicProperties(**properties), mandatory=mandatory)
        return "confirmed"
    except exceptions.UnroutableError as error:
        return f"returned {error.messages[0].method.reply_code}"


def drain(name):
    out = []
    while True:
        method, properties, body = channel.basic_get(name, auto_ack=True)
        if not method:
            return out
        out.append((method.exchange, method.routing_key, body.decode(), properties.headers))


def count(name):
    return channel.queue_declare(name, passive=True).method.message_count


def refused(text, action):
    global connection, channel
    step(text)
    if connection.is_closed:
        connection = connect()
        channel = connection.channel()
        channel.confirm_delivery()
    probe = connection.channel()
    try:
        action(probe)
        probe.queue_declare("ex.barrier", auto_delete=True)
        print("accepted")
    except exceptions.ChannelClosedByBroker as error:
        print("channel", error.reply_code, error.reply_text)
    except exceptions.ConnectionClosedByBroker as error:
        print("connection", error.reply_code, error.reply_text)
    if probe.is_open:
        probe.close()


step("consistent hash: the same key always goes to the same queue, all to one, shares by weight")
exchange("ex.hash", "x-consistent-hash")
for name in ("ex.h1", "ex.h2", "ex.h3"):
    queue(name)
for name, weight in (("ex.h1", "1"), ("ex.h2", "1"), ("ex.h3", "2")):
    channel.queue_bind(name, "ex.hash", weight)
for index in range(400):
    publish("ex.hash", f"key {index}")
counts = [count(name) for name in ("ex.h1", "ex.h2", "ex.h3")]
print(sum(counts), [60 <= counts[0] <= 140, 60 <= counts[1] <= 140, 150 <= counts[2] <= 250])
where = {key: name for name in ("ex.h1", "ex.h2", "ex.h3") for _, key, _, _ in drain(name)}
for index in range(400):
    publish("ex.hash", f"key {index}")
print(all(where[key] == name for name in ("ex.h1", "ex.h2", "ex.h3") for _, key, _, _ in drain(name)))
channel.queue_unbind("ex.h3", "ex.hash", "2")
for index in range(100):
    publish("ex.hash", f"key {index}")
print([count(name) for name in ("ex.h3",)], all(where[key] in (name, "ex.h3") for name in ("ex.h1", "ex.h2") for _, key, _, _ in drain(name)))
step("consistent hash by a header")
exchange("ex.hash.header", "x-consistent-hash", hash_header="user")
for name in ("ex.h1", "ex.h2"):
    channel.queue_bind(name, "ex.hash.header", "10")
for index in range(40):
    publish("ex.hash.header", f"key {index}", headers={"user": f"u{index % 8}"})
users = [{h["user"] for _, _, _, h in drain(name)} for name in ("ex.h1", "ex.h2")]
print(sorted(users[0] | users[1]), users[0] & users[1])
print(publish("ex.hash.header", "k", mandatory=True), count("ex.h1") + count("ex.h2"))
for name in ("ex.h1", "ex.h2"):
    channel.queue_purge(name)
step("consistent hash by a property")
exchange("ex.hash.id", "x-consistent-hash", hash_property="message_id")
for name in ("ex.h1", "ex.h2"):
    channel.queue_bind(name, "ex.hash.id", "5")
for index in range(40):
    publish("ex.hash.id", f"key {index}", message_id=f"m{index % 8}", body=b"m%d" % (index % 8))
ids = [{body for _, _, body, _ in drain(name)} for name in ("ex.h1", "ex.h2")]
print(sorted(ids[0] | ids[1]), ids[0] & ids[1])
step("consistent hash without bindings")
exchange("ex.hash.none", "x-consistent-hash")
print(publish("ex.hash.none", "k", mandatory=True))
refused("consistent hash: weight, no number", lambda ch: ch.queue_bind("ex.h1", "ex.hash", "heavy"))
refused("consistent hash: weight, empty", lambda ch: ch.queue_bind("ex.h1", "ex.hash", ""))
refused("consistent hash: weight 0", lambda ch: ch.queue_bind("ex.h1", "ex.hash", "0"))
refused("consistent hash: weight -1", lambda ch: ch.queue_bind("ex.h1", "ex.hash", "-1"))
refused("consistent hash: unknown property", lambda ch: ch.exchange_declare("ex.bad", "x-consistent-hash", arguments={"hash-property": "colour"}))
refused("consistent hash: header and property", lambda ch: ch.exchange_declare("ex.bad", "x-consistent-hash", arguments={"hash-property": "message_id", "hash-header": "h"}))
refused("consistent hash: every property", lambda ch: [(ch.exchange_declare(f"ex.{p}", "x-consistent-hash", arguments={"hash-property": p}), ch.exchange_delete(f"ex.{p}")) for p in ("correlation_id", "message_id", "timestamp")])

step("random: each message to one queue")
exchange("ex.random", "x-random")
for name in ("ex.h1", "ex.h2"):
    channel.queue_bind(name, "ex.random", "ignored")
for index in range(100):
    publish("ex.random", f"k{index}")
counts = [count(name) for name in ("ex.h1", "ex.h2")]
print(sum(counts), all(20 <= n <= 80 for n in counts))
for name in ("ex.h1", "ex.h2"):
    channel.queue_purge(name)

step("modulus hash: the same key always to the same queue")
exchange("ex.modulus", "x-modulus-hash")
for name in ("ex.h1", "ex.h2", "ex.h3"):
    channel.queue_bind(name, "ex.modulus", "ignored")
for _ in range(2):
    for index in range(60):
        publish("ex.modulus", f"key {index}")
keys = [[key for _, key, _, _ in drain(name)] for name in ("ex.h1", "ex.h2", "ex.h3")]
print(sum(map(len, keys)), all(found.count(key) == 2 for found in keys for key in found), all(len(found) > 8 for found in keys))

step("recent history: who binds gets the last 20")
exchange("ex.recent", "x-recent-history")
for index in range(25):
    publish("ex.recent", f"k{index}", b"%d" % index)
queue("ex.late")
channel.queue_bind("ex.late", "ex.recent", "")
time.sleep(0.2)
got = drain("ex.late")
print(len(got), got[0], got[-1])
publish("ex.recent", "live", b"live")
print(drain("ex.late"))
step("recent history: a length of its own, and messages that are not kept")
exchange("ex.recent.2", "x-recent-history", x_recent_history_length=2)
for index in range(4):
    publish("ex.recent.2", "k", b"%d" % index, headers={"x-recent-history-no-store": True} if index == 2 else None)
channel.queue_bind("ex.late", "ex.recent.2", "")
time.sleep(0.2)
print([body for _, _, body, _ in drain("ex.late")])
step("recent history: an exchange that is bound gets it, too")
exchange("ex.fanout", "fanout")
channel.queue_unbind("ex.late", "ex.recent.2", "")
channel.queue_bind("ex.late", "ex.fanout", "")
channel.exchange_bind("ex.fanout", "ex.recent.2", "")
time.sleep(0.2)
print([body for _, _, body, _ in drain("ex.late")])
for value in (0, -1, "5", True):
    refused(f"recent history: length {value!r}", lambda ch, value=value: ch.exchange_declare("ex.bad", "x-recent-history", arguments={"x-recent-history-length": value}))

step("alternate exchange: what has no route goes there, through several")
exchange("ex.last", "fanout")
queue("ex.lost")
channel.queue_bind("ex.lost", "ex.last", "")
exchange("ex.middle", "direct", alternate_exchange="ex.last")
exchange("ex.first", "topic", alternate_exchange="ex.middle")
print(publish("ex.first", "nobody", mandatory=True), drain("ex.lost"))
channel.queue_bind("ex.late", "ex.first", "known.#")
print(publish("ex.first", "known.a", mandatory=True), len(drain("ex.late")), drain("ex.lost"))
exchange("ex.astray", "direct", alternate_exchange="ex.nowhere")
print(publish("ex.astray", "k", mandatory=True))
exchange("ex.circle", "direct", alternate_exchange="ex.circle")
print(publish("ex.circle", "k", mandatory=True))
step("a source with no match takes its own alternate, not that of the one before")
exchange("ex.outer", "fanout", alternate_exchange="ex.last")
channel.exchange_bind("ex.first", "ex.outer", "")
print(publish("ex.outer", "nobody", mandatory=True), len(drain("ex.lost")))
refused("alternate exchange, a number", lambda ch: ch.exchange_declare("ex.bad", "direct", arguments={"alternate-exchange": 5}))
refused("another alternate exchange", lambda ch: ch.exchange_declare("ex.first", "topic", durable=True, arguments={"alternate-exchange": "ex.other"}))

step("internal: only exchanges reach it")
channel.exchange_delete("ex.internal")
channel.exchange_declare("ex.internal", "fanout", internal=True)
exchanges.add("ex.internal")
channel.queue_bind("ex.lost", "ex.internal", "")
channel.exchange_bind("ex.internal", "ex.fanout", "")
print(publish("ex.fanout", "k"), len(drain("ex.lost")))
refused("published to by a client", lambda ch: ch.basic_publish("ex.internal", "k", b"x"))
refused("not internal any more", lambda ch: ch.exchange_declare("ex.internal", "fanout"))

step("exchange to exchange: circles end, copies are one")
exchange("ex.a", "fanout")
exchange("ex.b", "fanout")
channel.exchange_bind("ex.b", "ex.a", "")
channel.exchange_bind("ex.a", "ex.b", "")
for name in ("ex.a", "ex.b"):
    channel.queue_bind("ex.lost", name, "")
print(publish("ex.a", "k"), len(drain("ex.lost")))
step("an auto-delete exchange goes with its last binding")
channel.exchange_declare("ex.auto", "fanout", auto_delete=True)
channel.queue_bind("ex.lost", "ex.auto", "")
channel.queue_unbind("ex.lost", "ex.auto", "")
refused("it is gone", lambda ch: ch.exchange_declare("ex.auto", passive=True))
refused("delete if-unused with a binding", lambda ch: ch.exchange_delete("ex.a", if_unused=True))

step("headers: x-match in its four forms")
exchange("ex.headers", "headers")
rules = [("ex.all", {"x-match": "all", "a": 1, "b": "two"}), ("ex.any", {"x-match": "any", "a": 1, "b": "two"}), ("ex.none", {"a": 1}),
         ("ex.allx", {"x-match": "all-with-x", "x-a": 1, "b": "two"}), ("ex.anyx", {"x-match": "any-with-x", "x-a": 1, "c": None}), ("ex.empty", {"x-match": "all"}), ("ex.anyempty", {"x-match": "any"})]
for name, arguments in rules:
    queue(name)
    channel.queue_bind(name, "ex.headers", "", arguments=arguments)
for headers in ({"a": 1, "b": "two"}, {"a": 1}, {"b": "two"}, {"a": "1"}, {"x-a": 1, "b": "two"}, {"c": "anything"}, {"a": True}, {}):
    publish("ex.headers", "", headers=headers)
    print(headers, [name for name, _ in rules if drain(name)])
refused("x-match of no form", lambda ch: ch.queue_bind("ex.all", "ex.headers", "", arguments={"x-match": "some"}))
refused("x-match, a number", lambda ch: ch.queue_bind("ex.all", "ex.headers", "", arguments={"x-match": 1}))

for name in queues:
    channel.queue_delete(name)
for name in exchanges:
    channel.exchange_delete(name)
refused("an unknown type", lambda ch: ch.exchange_declare("ex.bad", "x-none-such"))
