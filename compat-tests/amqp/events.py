"""pika: what is told of queues, exchanges, bindings, consumers, channels and connections on the event exchange, and of messages on the trace exchange."""

import os
import time

import pika

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)
# What differs from server to server, or from run to run: only its type is shown.
VARYING = {
    "pid", "connection", "channel", "owner_pid", "node", "timestamp_in_ms", "host", "port", "peer_host", "peer_port", "name", "connected_at", "auth_mechanism",
    "client_properties", "reason", "connection_name", "client_properties", "channel_max", "frame_max", "ssl", "consumer_tag", "timeout", "duration",
}


def connect():
    return pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), heartbeat=0))


listener = connect()
ear = listener.channel()
ear.queue_declare("ev.heard", exclusive=True)
ear.queue_bind("ev.heard", "amq.rabbitmq.event", "#")
# Its own binding is heard, too.
time.sleep(0.5)
ear.queue_purge("ev.heard")


def shown(value):
    if isinstance(value, dict):
        return {key: shown(one) for key, one in sorted(value.items())}
    return value


def heard(text, *keys, rest=()):
    """Prints the events of a step, in the order of their names: they come from several processes."""
    print(f"> {text}", flush=True)
    found, quiet = [], time.monotonic() + 10
    while time.monotonic() < quiet and len([key for key, _ in found if key in keys]) < len(keys):
        method, properties, body = ear.basic_get("ev.heard", auto_ack=True)
        if not method:
            time.sleep(0.02)
            continue
        if method.routing_key in (*keys, *rest):
            found.append((method.routing_key, (properties, body, method.exchange)))
    for key, (properties, body, exchange) in sorted(found, key=lambda one: (one[0], str(shown({k: v for k, v in one[1][0].headers.items() if k not in VARYING or k == "name"})))):
        if key in rest:
            continue
        headers = properties.headers
        print(key, exchange, body, properties.delivery_mode, type(properties.timestamp).__name__)
        for name, value in sorted(headers.items()):
            if name == "name" and key.split(".")[0] in ("queue", "exchange"):
                print(f"  {name}: {value!r}")
            elif name in VARYING:
                print(f"  {name}: {type(value).__name__}")
            else:
                print(f"  {name}: {shown(value)!r}")


maker = connect()
heard("a connection opens", "connection.created", "user.authentication.success")
channel = maker.channel()
heard("a channel opens", "channel.created")
channel.queue_declare("ev.q", durable=True, arguments={"x-max-length": 5})
heard("a queue", "queue.created")
channel.queue_declare("ev.q", durable=True, arguments={"x-max-length": 5})
channel.queue_declare("ev.quorum", durable=True, arguments={"x-queue-type": "quorum"})
heard("a quorum queue; one that is there is no event", "queue.created")
channel.exchange_declare("ev.x", "topic", durable=True, arguments={"alternate-exchange": "amq.fanout"})
heard("an exchange", "exchange.created")
channel.queue_bind("ev.q", "ev.x", "a.#", {"k": "v"})
channel.queue_bind("ev.q", "ev.x", "a.#", {"k": "v"})
channel.exchange_bind("ev.x", "amq.direct", "key")
heard("bindings; one that is there is no event", "binding.created", "binding.created")
tag = channel.basic_consume("ev.q", lambda *a: None, arguments={"x-priority": 3})
heard("a consumer", "consumer.created")
channel.basic_cancel(tag)
heard("a consumer goes", "consumer.deleted")
channel.queue_unbind("ev.q", "ev.x", "a.#", {"k": "v"})
heard("a binding goes", "binding.deleted")
channel.queue_bind("ev.q", "ev.x", "again")
heard("a binding", "binding.created")
channel.exchange_delete("ev.x")
heard("an exchange goes with its bindings", "binding.deleted", "binding.deleted", "exchange.deleted")
channel.queue_bind("ev.q", "amq.topic", "again")
channel.basic_consume("ev.q", lambda *a: None, auto_ack=True, exclusive=True)
heard("a binding and a consumer", "binding.created", "consumer.created")
channel.queue_delete("ev.q")
heard("a queue goes with its consumers and bindings", "queue.deleted", "binding.deleted", rest=("consumer.deleted",))
channel.queue_delete("ev.quorum")
heard("a quorum queue goes", "queue.deleted")
channel.queue_declare("ev.auto", auto_delete=True)
tag = channel.basic_consume("ev.auto", lambda *a: None)
heard("a queue that goes with its last consumer", "queue.created", "consumer.created")
channel.basic_cancel(tag)
heard("it goes", "queue.deleted")
channel.queue_declare("ev.brief", arguments={"x-expires": 100})
heard("a queue that nobody uses", "queue.created", "queue.deleted")
channel.exchange_declare("ev.auto.x", "fanout", auto_delete=True)
channel.queue_declare("ev.own", exclusive=True)
channel.queue_bind("ev.own", "ev.auto.x")
heard("an exclusive queue, bound to an exchange that goes with it", "exchange.created", "queue.created", "binding.created")
channel.close()
heard("a channel closes", "channel.closed")
maker.close()
heard("a connection closes", "connection.closed", "queue.deleted", "binding.deleted", "exchange.deleted")
for name in ("nobody",):
    try:
        pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), credentials=pika.PlainCredentials(name, "wrong")))
    except pika.exceptions.AMQPError:
        pass
heard("a login is refused", "user.authentication.failure")
