"""pika: what a restart keeps of priorities, delivery counts, delayed messages, dead letters that wait and hash exchanges; once after SIGKILL, once after
a stop that checks the law. Its own oracle: RabbitMQ has no delays here, and takes half a minute to start."""

import time

import pika
from lib import servers
from lib.steps import equal, until


def connect(server):
    host, port = server.addresses["amqp"].rsplit(":", 1)
    connection = pika.BlockingConnection(pika.ConnectionParameters(host, int(port)))
    channel = connection.channel()
    channel.confirm_delivery()
    return connection, channel


def publish(channel, exchange, key, body, **properties):
    channel.basic_publish(exchange, key, body, pika.BasicProperties(delivery_mode=2, **properties))


def take(channel, queue, auto_ack=True):
    return until(lambda: (found := channel.basic_get(queue, auto_ack=auto_ack))[0] and found)


def count(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


def fill(channel):
    channel.queue_declare("re.prio", durable=True, arguments={"x-max-priority": 255})
    for index in range(400):
        # Large ones lie apart; some leave memory before others come.
        publish(channel, "", "re.prio", b"%d " % index + b"x" * (2000 if index % 9 == 0 else 10), priority=index % 7 * 42)
    channel.queue_declare("re.dead", durable=True)
    channel.queue_declare("re.count", durable=True, arguments={"x-queue-type": "quorum", "x-delivery-limit": 3, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": "re.dead"})
    publish(channel, "", "re.count", b"poison")
    for _ in range(2):
        method, _, _ = take(channel, "re.count", auto_ack=False)
        channel.basic_nack(method.delivery_tag)
    channel.queue_declare("re.least", durable=True, arguments={
        "x-queue-type": "quorum", "x-overflow": "reject-publish", "x-dead-letter-strategy": "at-least-once", "x-dead-letter-exchange": "re.later"})
    publish(channel, "", "re.least", b"unwanted")
    method, _, _ = take(channel, "re.least", auto_ack=False)
    channel.basic_reject(method.delivery_tag, requeue=False)
    channel.queue_declare("re.delayed", durable=True)
    for index in range(300):
        channel.basic_publish("", "re.delayed", b"%d" % index, pika.BasicProperties(headers={"x-delay": 7000 - index * 5}))
    channel.queue_declare("re.ttl", durable=True, arguments={"x-queue-type": "quorum"})
    publish(channel, "", "re.ttl", b"stays")
    for index in range(50):
        publish(channel, "", "re.ttl", b"goes", expiration="1500")
        publish(channel, "", "re.ttl", b"%d" % index, expiration=str(600000 - index))
    for name, arguments in (("re.once", {}), ("re.lately", {"x-cache-ttl": 600000, "x-cache-size": 1000})):
        channel.queue_declare(name, durable=True, arguments={"x-message-deduplication": True, **arguments})
        for identity in ("a", "b", "a", None, None):
            publish(channel, "", name, b"x", message_id=identity)
        for identity, header in (("c", "the same"), ("d", "the same"), ("c", "another")):
            publish(channel, "", name, b"x", message_id=identity, headers={"x-deduplication-header": header})
        equal(count(channel, name), 6)
        equal(take(channel, name)[1].message_id, "a")
    channel.exchange_declare("re.hash", "x-consistent-hash", durable=True)
    for index, name in enumerate(("re.h1", "re.h2", "re.h3")):
        channel.queue_declare(name, durable=True)
        channel.queue_bind(name, "re.hash", str(index + 1))


def where(channel):
    """The queue of each key."""
    found = {}
    for index in range(60):
        publish(channel, "re.hash", f"key {index}", b"x")
    for name in ("re.h1", "re.h2", "re.h3"):
        while (got := channel.basic_get(name, auto_ack=True))[0]:
            found[got[0].routing_key] = name
    return found


first = server = servers.FlowMesh(extra=[servers.CHECK_LAW]).start()
try:
    connection, channel = connect(server)
    fill(channel)
    led = where(channel)
    order = sorted(range(400), key=lambda index: (-(index % 7 * 42), index))
    # Two of the most important ones are with a client when the server dies.
    held = [int(take(channel, "re.prio", auto_ack=False)[2].split()[0]) for _ in range(2)]
    equal(held, order[:2])
    print("> killed")
    server.kill()
    server = server.again().start()
    connection, channel = connect(server)
    equal(count(channel, "re.prio"), 400)
    half = [take(channel, "re.prio") for _ in range(200)]
    equal([int(body.split()[0]) for _, _, body in half], order[:200])
    equal([method.redelivered for method, _, _ in half[:2]], [True, True])
    method, properties, _ = take(channel, "re.count", auto_ack=False)
    equal((method.redelivered, properties.headers["x-delivery-count"]), (True, 2))
    channel.basic_nack(method.delivery_tag)
    equal(where(channel), led)
    print("> what was published before")
    for name, left in (("re.once", 6), ("re.lately", 5)):
        for identity in ("a", "b"):
            publish(channel, "", name, b"x", message_id=identity)
        publish(channel, "", name, b"x", message_id="e", headers={"x-deduplication-header": "another"})
        equal(count(channel, name), left)
    print("> stopped")
    connection.close()
    equal(server.stop(), 0)
    server = server.again().start()
    connection, channel = connect(server)
    publish(channel, "", "re.prio", b"999 new", priority=255)
    rest = [take(channel, "re.prio")[2] for _ in range(201)]
    equal([int(body.split()[0]) for body in rest], [999, *order[200:]])
    method, properties, _ = take(channel, "re.count", auto_ack=False)
    equal(properties.headers["x-delivery-count"], 3)
    channel.basic_nack(method.delivery_tag)
    _, properties, body = take(channel, "re.dead")
    equal((body, properties.headers["x-death"][0]["reason"]), (b"poison", "delivery_limit"))
    equal(where(channel), led)
    print("> what has expired behind what has not")
    until(lambda: count(channel, "re.ttl") == 51)
    equal([take(channel, "re.ttl")[2] for _ in range(51)], [b"stays", *(b"%d" % index for index in range(50))])
    print("> a dead letter that waited")
    channel.exchange_declare("re.later", "fanout", durable=True)
    channel.queue_declare("re.late", durable=True)
    channel.queue_bind("re.late", "re.later", "")
    _, properties, body = take(channel, "re.late")
    equal((body, properties.headers["x-death"][0]["reason"], count(channel, "re.least")), (b"unwanted", "rejected", 0))
    print("> delayed messages, each once")
    equal(sorted(int(take(channel, "re.delayed")[2]) for _ in range(300)), list(range(300)))
    time.sleep(0.1)
    equal(count(channel, "re.delayed"), 0)
    connection.close()
    equal(server.stop(), 0)
finally:
    server.kill()
    server.clean()
    first.clean()
