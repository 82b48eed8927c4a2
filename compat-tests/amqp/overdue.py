"""pika: messages that a client keeps for too long. What happens is RabbitMQ 3.13's documentation of consumer timeouts, the text was measured on 3.10.8."""

import os
import time

import pika
from lib.steps import equal

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)
connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), heartbeat=0))
channel = connection.channel()
for name, arguments in (("late.q", {"x-consumer-timeout": 300}), ("late.free", {})):
    channel.queue_delete(name)
    channel.queue_declare(name, durable=True, arguments=arguments)
    channel.confirm_delivery()
    channel.basic_publish("", name, b"one")
    channel.basic_publish("", name, b"two")


def closed(what, take, seconds=10):
    """How long the channel lives, and what it dies of."""
    print(f"> {what}")
    late = connection.channel()
    take(late)
    begin = time.monotonic()
    while late.is_open and time.monotonic() < begin + seconds:
        connection.process_data_events(0.05)
    number, reason = late.channel_number, late._impl._closing_reason
    equal((reason.reply_code, reason.reply_text), (406, f"PRECONDITION_FAILED - delivery acknowledgement on channel {number} timed out. Timeout value used: 300 ms. This timeout value can be configured, see consumers doc guide to learn more"))
    assert time.monotonic() - begin >= 0.3, time.monotonic() - begin


got = []
closed("a consumer", lambda ch: ch.basic_consume("late.q", lambda *a: got.append(a[3])))
equal(got, [b"one", b"two"])
closed("basic.get", lambda ch: ch.basic_get("late.q"))
print("> what it kept is back, first, and marked")
again = [channel.basic_get("late.q", auto_ack=True) for _ in range(2)]
equal([(body, method.redelivered) for method, _, body in again], [(b"one", True), (b"two", True)])
for name in ("late.q", "late.free", "late.free"):
    channel.basic_publish("", name, b"again")
closed("behind others that may be kept", lambda ch: [ch.basic_get(name) for name in ("late.free", "late.q", "late.free")])
equal(channel.basic_get("late.q", auto_ack=True)[2], b"again")
print("> who acknowledges in time, and other queues, are left alone")
channel.basic_publish("", "late.q", b"three")
slow = connection.channel()
method, _, _ = slow.basic_get("late.free")
for _ in range(3):
    time.sleep(0.15)
    method, _, _ = slow.basic_get("late.q")
    connection.process_data_events(0.05)
    slow.basic_ack(method.delivery_tag)
    channel.basic_publish("", "late.q", b"next")
    connection.process_data_events(0.2)
equal(slow.is_open, True)
print("> what was unacknowledged in a queue that is gone")
for name in ("late.q", "late.free"):
    channel.queue_delete(name)
slow.close()
connection.close()
