"""pika: what MassTransit 8, NServiceBus.RabbitMQ 9 and Symfony Messenger 7 declare and how their messages go, replayed call by call. The
frameworks themselves need .NET and PHP's extension; what they ask of a broker is this."""

import os
import time

import pika

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)


def connect():
    connection = pika.BlockingConnection(pika.ConnectionParameters(HOST, int(PORT), heartbeat=0))
    channel = connection.channel()
    channel.confirm_delivery()
    return connection, channel


def step(text):
    print(f"> {text}", flush=True)


def take(channel, queue, seconds=10):
    until = time.monotonic() + seconds
    while True:
        method, properties, body = channel.basic_get(queue, auto_ack=True)
        if method or time.monotonic() > until:
            return method, properties, body
        time.sleep(0.01)


def show(found):
    method, properties, body = found
    if method is None:
        print("nothing")
        return
    print(body.decode(), f"exchange={method.exchange!r} key={method.routing_key!r} redelivered={method.redelivered}")
    headers = properties.headers or {}
    for death in headers.get("x-death", []):
        print("  death", {k: v for k, v in sorted(death.items()) if k != "time"})
    for name, value in sorted(headers.items()):
        if name != "x-death":
            print(f"  {name}: {value}")


connection, channel = connect()

# -- MassTransit: an exchange per message type and per endpoint, exchanges bound to exchanges, faults and skipped messages beside the queue.
EVENT, SUBMITTED, FAULT = "Contracts:OrderEvent", "Contracts:OrderSubmitted", "MassTransit:Fault--Contracts:OrderSubmitted--"
BUS = "worker_app_bus_oyyyyyd7n5bcgk"


def masstransit():
    for name in (EVENT, SUBMITTED, FAULT, "MassTransit:Fault"):
        channel.exchange_declare(name, "fanout", durable=True)
    channel.exchange_bind(EVENT, SUBMITTED, "")
    channel.exchange_bind("MassTransit:Fault", FAULT, "")
    for endpoint, arguments in (("submit-order", {"x-queue-type": "quorum"}), ("audit", {"x-max-priority": 4}), ("once-only", {"x-single-active-consumer": True})):
        channel.exchange_declare(endpoint, "fanout", durable=True)
        channel.queue_declare(endpoint, durable=True, arguments=arguments)
        channel.queue_bind(endpoint, endpoint, "")
    channel.exchange_bind("submit-order", SUBMITTED, "")
    channel.exchange_bind("audit", EVENT, "")
    for suffix in ("_error", "_skipped"):
        channel.exchange_declare("submit-order" + suffix, "fanout", durable=True)
        channel.queue_declare("submit-order" + suffix, durable=True)
        channel.queue_bind("submit-order" + suffix, "submit-order" + suffix, "")
    channel.exchange_declare(BUS, "fanout", auto_delete=True)
    channel.queue_declare(BUS, auto_delete=True, arguments={"x-expires": 60000})
    channel.queue_bind(BUS, BUS, "")


def publish(exchange, body, key="", **properties):
    shown = pika.BasicProperties(content_type="application/vnd.masstransit+json", delivery_mode=2, message_id=body, **properties)
    channel.basic_publish(exchange, key, body.encode(), shown, mandatory=True)


step("MassTransit: a published event reaches its endpoint and that of its base type")
masstransit()
masstransit()
publish(SUBMITTED, "order 1", headers={"MT-Host-Info": "{}"}, correlation_id="c1")
show(take(channel, "submit-order"))
show(take(channel, "audit"))
step("MassTransit: a command goes to one endpoint")
publish("submit-order", "order 2")
show(take(channel, "submit-order"))
show(take(channel, "audit", 0.2))
step("MassTransit: priorities")
for priority in (1, 4, 2):
    publish("audit", f"priority {priority}", priority=priority)
for _ in range(3):
    show(take(channel, "audit"))
step("MassTransit: a request's answer to the bus endpoint")
publish("submit-order", "request", reply_to=f"rabbitmq://localhost/{BUS}?temporary=true", expiration="30000")
_, properties, _ = take(channel, "submit-order")
print(properties.reply_to, properties.expiration)
publish(BUS, "answer", correlation_id="r1")
show(take(channel, BUS))
step("MassTransit: a fault is moved aside")
publish("submit-order_error", "order 3", headers={"MT-Reason": "fault", "MT-Fault-RetryCount": 3, "MT-Fault-Message": "no"})
channel.basic_publish(FAULT, "", b"fault of order 3", pika.BasicProperties(delivery_mode=2))
show(take(channel, "submit-order_error"))
step("MassTransit: what nobody wants is returned")
channel.exchange_unbind(EVENT, SUBMITTED, "")
channel.exchange_unbind("submit-order", SUBMITTED, "")
try:
    publish(SUBMITTED, "order 4")
    print("confirmed")
except pika.exceptions.UnroutableError as error:
    print("returned", error.messages[0].method.reply_code, error.messages[0].method.reply_text)
step("MassTransit: one consumer at a time")
both = [connect() for _ in range(2)]
got = [[], []]
for (_, each), into in zip(both, got):
    each.basic_qos(prefetch_count=1)
    each.basic_consume("once-only", lambda ch, method, properties, body, into=into: (into.append(body.decode()), ch.basic_ack(method.delivery_tag)))
for index in range(4):
    publish("once-only", f"one {index}")
until = time.monotonic() + 10
while sum(map(len, got)) < 4 and time.monotonic() < until:
    for other, _ in both:
        other.process_data_events(0.01)
print(got)
both[0][0].close()
publish("once-only", "after the first left")
while not got[1] and time.monotonic() < until:
    both[1][0].process_data_events(0.01)
print(got[1])
both[1][0].close()

# -- NServiceBus: conventional routing, and 28 levels of delay, each a topic exchange and a quorum queue whose messages fall to the next one.
LEVELS = 28


def level(number):
    return f"nsb.v2.delay-level-{number:02}"


def nservicebus(endpoint, delivery="nsb.v2.delay-delivery"):
    key = "1.#"
    for number in reversed(range(LEVELS)):
        channel.exchange_declare(level(number), "topic", durable=True)
        arguments = {
            "x-queue-type": "quorum", "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish", "x-message-ttl": (1 << number) * 1000,
            "x-dead-letter-exchange": level(number - 1) if number > 0 else delivery}
        channel.queue_declare(level(number), durable=True, arguments=arguments)
        channel.queue_bind(level(number), level(number), key)
        key = "*." + key
    key = "0.#"
    for number in reversed(range(1, LEVELS)):
        channel.exchange_bind(level(number - 1), level(number), key)
        key = "*." + key
    channel.exchange_declare(delivery, "topic", durable=True)
    channel.exchange_bind(delivery, level(0), key)
    for name in (endpoint, "error"):
        channel.queue_declare(name, durable=True, arguments={"x-queue-type": "quorum"})
        channel.exchange_declare(name, "fanout", durable=True)
        channel.queue_bind(name, name, "")
    channel.exchange_bind(endpoint, delivery, f"#.{endpoint}")
    for event in ("Sales:OrderPlaced", "Sales:IEvent"):
        channel.exchange_declare(event, "fanout", durable=True)
    channel.exchange_bind("Sales:IEvent", "Sales:OrderPlaced", "")
    channel.exchange_bind(endpoint, "Sales:OrderPlaced", "")


def delayed(endpoint, seconds, body):
    bits = [seconds >> number & 1 for number in reversed(range(LEVELS))]
    start = max((number for number in range(LEVELS) if seconds >> number & 1), default=0)
    key = ".".join(map(str, bits)) + "." + endpoint
    headers = {"NServiceBus.Transport.RabbitMQ.DelayInSeconds": seconds, "NServiceBus.EnclosedMessageTypes": "Sales.OrderPlaced"}
    channel.basic_publish(level(start), key, body.encode(), pika.BasicProperties(delivery_mode=2, message_id=body, headers=headers), mandatory=True)


step("NServiceBus: 28 levels, declared twice")
nservicebus("Sales.Orders")
nservicebus("Sales.Orders")
print(channel.queue_declare(level(27), passive=True).method.queue)
step("NServiceBus: an event")
channel.basic_publish("Sales:OrderPlaced", "", b"placed", pika.BasicProperties(delivery_mode=2, headers={"NServiceBus.MessageIntent": "Publish"}), mandatory=True)
show(take(channel, "Sales.Orders"))
step("NServiceBus: delays of 3, 1, 2 and 0 seconds come in the order of their time")
begin = time.monotonic()
for seconds in (3, 1, 2, 0):
    delayed("Sales.Orders", seconds, f"after {seconds} s")
for seconds in (0, 1, 2, 3):
    show(take(channel, "Sales.Orders"))
    assert time.monotonic() - begin >= seconds, (time.monotonic() - begin, seconds)
step("NServiceBus: a delay of years waits on its level")
delayed("Sales.Orders", (1 << 28) - 1, "at the end")
until = time.monotonic() + 10
while channel.queue_declare(level(27), passive=True).method.message_count != 1 and time.monotonic() < until:
    time.sleep(0.01)
print(channel.queue_declare(level(27), passive=True).method.message_count)
step("NServiceBus: what fails goes to the error queue")
channel.basic_publish("error", "", b"failed", pika.BasicProperties(delivery_mode=2, headers={"NServiceBus.FailedQ": "Sales.Orders"}), mandatory=True)
show(take(channel, "error"))

# -- Symfony Messenger: a fanout exchange, and for each delay a queue that is declared again with each message and goes when nobody uses it.


def symfony_delay(delay, key, retry):
    name = f"delay_messages_{key}_{delay}" + ("_retry" if retry else "_delay")
    channel.queue_declare(name, durable=True, arguments={
        "x-message-ttl": delay, "x-expires": delay + 10000, "x-dead-letter-exchange": "" if retry else "messages", "x-dead-letter-routing-key": key})
    channel.queue_bind(name, "delays", name)
    return name


def symfony_send(exchange, key, body, retries=0):
    headers = {"type": "App\\Message\\Hello", "Content-Type": "application/json"}
    if retries:
        headers["X-Message-Stamp-Retry"] = str(retries)
    channel.basic_publish(exchange, key, body.encode(), pika.BasicProperties(delivery_mode=2, timestamp=1700000000, content_type="text/plain", headers=headers))


step("Symfony: set up, sent and taken")
for _ in range(2):
    channel.exchange_declare("messages", "fanout", durable=True)
    channel.queue_declare("messages", durable=True)
    channel.queue_bind("messages", "messages", "")
    channel.exchange_declare("delays", "direct", durable=True)
symfony_send("messages", "", "hello")
show(take(channel, "messages"))
step("Symfony: delayed, through queues of their own")
for delay in (400, 100, 400):
    symfony_send("delays", symfony_delay(delay, "", False), f"after {delay} ms")
for _ in range(3):
    show(take(channel, "messages"))
step("Symfony: tried again, by its queue alone")
method, _, _ = None, None, None
symfony_send("messages", "", "will fail")
found = take(channel, "messages")
print(found[2].decode())
symfony_send("delays", symfony_delay(200, "messages", True), "will fail", retries=1)
show(take(channel, "messages"))
step("Symfony: given up")
channel.exchange_declare("failed", "fanout", durable=True)
channel.queue_declare("failed", durable=True)
channel.queue_bind("failed", "failed", "")
symfony_send("failed", "", "will fail", retries=3)
show(take(channel, "failed"))
connection.close()
