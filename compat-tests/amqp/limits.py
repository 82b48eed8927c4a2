"""pika: queues that drop messages by themselves, and where those go: TTL, length limits, rejection, dead letters, expiry."""

import os
import time

import pika
from pika import exceptions

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)
connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), blocked_connection_timeout=10))
channel = connection.channel()


def step(text):
    print(f"> {text}", flush=True)


def fresh(name, **arguments):
    channel.queue_delete(name)
    channel.queue_declare(name, durable=True, arguments={k.replace("_", "-"): v for k, v in arguments.items()})


def publish(queue, body, exchange="", **properties):
    channel.basic_publish(exchange, queue, body.encode(), pika.BasicProperties(**properties))


def take(queue, seconds=5):
    """The next message, waited for."""
    until = time.monotonic() + seconds
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method or time.monotonic() > until:
            return method, properties, body
        time.sleep(0.01)


def show(queue):
    method, properties, body = take(queue)
    if not method:
        print("nothing")
        return
    print(body.decode(), f"exchange={method.exchange!r} key={method.routing_key!r} expiration={properties.expiration}")
    headers = properties.headers or {}
    for death in headers.get("x-death", []):
        print("  death", {k: v for k, v in sorted(death.items()) if k != "time"})
    print("  first", {k: v for k, v in sorted(headers.items()) if k.startswith("x-first")}, {k: v for k, v in headers.items() if not k.startswith("x-")})


def ready(queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def rejecting(queue):
    method, _, _ = take_unacked(queue)
    channel.basic_reject(method.delivery_tag, requeue=False)


def take_unacked(queue, seconds=5):
    until = time.monotonic() + seconds
    while True:
        found = channel.basic_get(queue)
        if found[0] or time.monotonic() > until:
            return found
        time.sleep(0.01)


fresh("lim.dead")

step("a queue's TTL")
fresh("lim.ttl", x_message_ttl=100, x_dead_letter_exchange="", x_dead_letter_routing_key="lim.dead")
publish("lim.ttl", "one", delivery_mode=2, headers={"mine": 1})
show("lim.dead")
print("left", ready("lim.ttl"))

step("a message's expiration is shorter than the queue's TTL")
fresh("lim.both", x_message_ttl=60000, x_dead_letter_exchange="", x_dead_letter_routing_key="lim.dead")
publish("lim.both", "two", expiration="80")
show("lim.dead")

step("only the head expires")
fresh("lim.head", x_dead_letter_exchange="", x_dead_letter_routing_key="lim.dead")
publish("lim.head", "slow", expiration="600")
publish("lim.head", "fast", expiration="1")
show("lim.dead")
show("lim.dead")

step("TTL 0 without a consumer")
fresh("lim.zero", x_message_ttl=0, x_dead_letter_exchange="", x_dead_letter_routing_key="lim.dead")
publish("lim.zero", "now or never")
show("lim.dead")

step("length: the oldest goes")
fresh("lim.length", x_max_length=2, x_dead_letter_exchange="amq.direct", x_dead_letter_routing_key="lim.dropped")
channel.queue_bind("lim.dead", "amq.direct", "lim.dropped")
for body in ("a", "b", "c"):
    publish("lim.length", body)
show("lim.dead")
print("left", ready("lim.length"), take("lim.length")[2])

step("octets: the oldest goes")
fresh("lim.bytes", x_max_length_bytes=10)
for body in ("12345", "67890", "x"):
    publish("lim.bytes", body)
print("left", [take("lim.bytes", 0.3)[2] for _ in range(3)])

step("length: the new one is refused")
fresh("lim.refuse", x_max_length=1, x_overflow="reject-publish")
confirming = connection.channel()
confirming.confirm_delivery()
for body in (b"fits", b"does not"):
    try:
        confirming.basic_publish("", "lim.refuse", body)
        print("acked")
    except exceptions.NackError:
        print("nacked")
print("left", ready("lim.refuse"), take("lim.refuse")[2])

step("rejected, with the message's own key")
channel.exchange_declare("lim.dlx", "topic")
channel.queue_bind("lim.dead", "lim.dlx", "lim.*")
fresh("lim.reject", x_dead_letter_exchange="lim.dlx")
publish("lim.reject", "unwanted", headers={"CC": ["lim.copy"]})
rejecting("lim.reject")
show("lim.dead")

step("rejected twice by the same queue is counted")
fresh("lim.again", x_dead_letter_exchange="", x_dead_letter_routing_key="lim.again")
publish("lim.again", "again")
rejecting("lim.again")
rejecting("lim.again")
show("lim.again")

step("a circle without a rejection ends")
fresh("lim.circle", x_message_ttl=50, x_dead_letter_exchange="", x_dead_letter_routing_key="lim.circle")
publish("lim.circle", "round")
time.sleep(1)  # several times around, if it went on
# it goes around once and is dropped then
print("left", ready("lim.circle"))

step("a missing dead-letter exchange loses the message")
fresh("lim.lost", x_dead_letter_exchange="lim.nowhere")
publish("lim.lost", "lost")
rejecting("lim.lost")
print("left", ready("lim.lost"))

step("nack multiple")
fresh("lim.many", x_dead_letter_exchange="", x_dead_letter_routing_key="lim.dead")
for body in ("m1", "m2", "m3"):
    publish("lim.many", body)
last = [take_unacked("lim.many") for _ in range(3)][-1]
channel.basic_nack(last[0].delivery_tag, multiple=True, requeue=False)
print(sorted(take("lim.dead")[2] for _ in range(3)))

step("an unused queue goes")
fresh("lim.expires", x_expires=150)
until = time.monotonic() + 5
gone = False
while not gone and time.monotonic() < until:
    time.sleep(0.4)
    probe = connection.channel()
    try:
        probe.queue_declare("lim.expires", passive=True)
    except exceptions.ChannelClosedByBroker as error:
        gone = True
        print(error.reply_code)

step("single active consumer")
fresh("lim.single", x_single_active_consumer=True)
got = []
first, second = connection.channel(), connection.channel()
one = first.basic_consume("lim.single", lambda *a: got.append(("one", a[3])), auto_ack=True)
second.basic_consume("lim.single", lambda *a: got.append(("two", a[3])), auto_ack=True)
for body in ("1", "2", "3"):
    publish("lim.single", body)
until = time.monotonic() + 5
while len(got) < 3 and time.monotonic() < until:
    connection.process_data_events(0.05)
first.basic_cancel(one)
publish("lim.single", "4")
while len(got) < 4 and time.monotonic() < until:
    connection.process_data_events(0.05)
print(got)

step("direct reply-to")
REPLY = "amq.rabbitmq.reply-to"
client, server = connection.channel(), connection.channel()
replies = []
tag = client.basic_consume(REPLY, lambda *a: replies.append((a[1].routing_key.startswith(REPLY + "."), a[3])), auto_ack=True)
client.queue_declare("lim.rpc")
client.basic_publish("", "lim.rpc", b"question", pika.BasicProperties(reply_to=REPLY))
_, asked, _ = take("lim.rpc")
print(asked.reply_to.startswith(REPLY + "."), asked.reply_to != REPLY)
found = server.queue_declare(asked.reply_to, passive=True).method
print(found.queue == asked.reply_to, found.message_count, found.consumer_count)
server.basic_publish("", asked.reply_to, b"answer")
while not replies and time.monotonic() < until + 5:
    connection.process_data_events(0.05)
print(replies)
print(server.queue_declare(REPLY, passive=True).method.consumer_count)
for what, action in [
    ("with acknowledgements", lambda ch: ch.basic_consume(REPLY, lambda *a: None)),
    ("publish without a consumer", lambda ch: (ch.basic_publish("", "lim.rpc", b"x", pika.BasicProperties(reply_to=REPLY)), ch.queue_declare("lim.rpc"))),
    ("nobody there", lambda ch: ch.queue_declare(REPLY + ".nobody", passive=True)),
]:
    probe = connection.channel()
    try:
        action(probe)
        print(what, "accepted")
    except exceptions.ChannelClosedByBroker as error:
        print(what, error.reply_code, error.reply_text)

for name in ("rpc", "ttl", "both", "head", "zero", "length", "bytes", "refuse", "reject", "again", "circle", "lost", "many", "single", "dead"):
    channel.queue_delete(f"lim.{name}")
channel.exchange_delete("lim.dlx")
connection.close()
