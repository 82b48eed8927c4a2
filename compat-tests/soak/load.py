"""Loads of the soak: load.py redis|amqp|kafka|churn SECONDS. Each keeps what is stored within bounds, prints how much it did,
and exits non-zero when an answer is wrong or does not come."""

import os
import random
import sys
import threading
import time

import pika
import redis
from confluent_kafka import Consumer, Producer
from confluent_kafka.admin import AdminClient, NewTopic

WHAT, SECONDS = sys.argv[1], float(sys.argv[2])
END = time.monotonic() + SECONDS
HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
AMQP_HOST, AMQP_PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)
KAFKA = {"bootstrap.servers": os.environ["KAFKA_ADDR"]}
MIB = 1 << 20
BODY = random.Random(1).randbytes(1024)


def going():
    return time.monotonic() < END


def cache():
    return redis.Redis(HOST, int(PORT), socket_timeout=60)


def broker():
    return pika.BlockingConnection(pika.ConnectionParameters(AMQP_HOST, int(AMQP_PORT), heartbeat=60))


def redis_load():
    """All types within 20,000 keys, with deadlines, transactions, a script and a trimmed stream with its group."""
    r, rng, done = cache(), random.Random(2), 0
    r.xgroup_create("soak:stream", "g", mkstream=True)
    script = r.register_script("redis.call('incrby', KEYS[1], ARGV[1]) return redis.call('get', KEYS[1])")
    while going():
        pipe = r.pipeline(transaction=done % 3 == 0)
        for _ in range(100):
            n = rng.randrange(20_000)
            pipe.set(f"soak:s:{n}", BODY[: n % 1024 + 1], ex=rng.choice((None, 1, 60)))
            pipe.get(f"soak:s:{rng.randrange(20_000)}")
            pipe.hset(f"soak:h:{n % 50}", f"f{rng.randrange(2_000)}", n)
            pipe.zadd(f"soak:z:{n % 50}", {f"m{rng.randrange(2_000)}": n})
            pipe.sadd(f"soak:set:{n % 50}", rng.randrange(2_000))
            pipe.lpush(f"soak:l:{n % 50}", BODY[:100]).ltrim(f"soak:l:{n % 50}", 0, 500)
            pipe.xadd("soak:stream", {"n": n}, maxlen=5_000)
            if n % 100 == 0:
                pipe.delete(f"soak:h:{n % 50}", f"soak:z:{n % 50}", f"soak:set:{n % 50}")
        pipe.execute()
        if script(keys=["soak:count"], args=[1]) is None:
            sys.exit("the script lost its counter")
        for _, entries in r.xreadgroup("g", "c", {"soak:stream": ">"}, count=200):
            r.xack("soak:stream", "g", *(entry for entry, _ in entries))
        done += 1
    print(f"redis: {done * 800} commands")


def amqp_load():
    """One queue with a publisher that waits for confirms in its own connection, a consumer that acknowledges."""
    failed, sent, taken = [], 0, 0

    def consume():
        nonlocal taken
        try:
            connection = broker()
            channel = connection.channel()
            channel.basic_qos(prefetch_count=200)
            for method, _, body in channel.consume("soak.q", inactivity_timeout=1):
                if method is not None:
                    if body != BODY:
                        raise ValueError("another body")
                    channel.basic_ack(method.delivery_tag)
                    taken += 1
                if not going() and method is None:
                    break
            connection.close()
        except Exception as error:  # whatever it was, the load failed
            failed.append(error)

    connection = broker()
    channel = connection.channel()
    channel.queue_declare("soak.q", durable=True)
    channel.confirm_delivery()
    reader = threading.Thread(target=consume)
    reader.start()
    while going() and not failed:
        channel.basic_publish("", "soak.q", BODY, pika.BasicProperties(delivery_mode=2))
        sent += 1
    connection.close()
    reader.join(120)
    if failed or taken < sent:
        sys.exit(f"amqp: {failed}, {sent} confirmed, {taken} taken")
    print(f"amqp: {sent} messages")


def kafka_load():
    """A topic bounded by its retention, an idempotent producer, a group that commits."""
    topic, taken, failed = "soak", 0, []
    settings = {"retention.bytes": str(64 * MIB), "segment.bytes": str(16 * MIB)}
    admin = AdminClient(KAFKA)  # its futures die with it
    admin.create_topics([NewTopic(topic, 4, 1, config=settings)])[topic].result(30)
    done = threading.Event()

    def consume():
        nonlocal taken
        consumer = Consumer({**KAFKA, "group.id": "soak", "auto.offset.reset": "earliest", "auto.commit.interval.ms": 1000})
        consumer.subscribe([topic])
        while not done.is_set():
            message = consumer.poll(0.5)
            if message is None:
                continue
            if message.error():
                failed.append(message.error())
                break
            taken += 1
        consumer.close()

    def report(error, _):
        if error is not None:
            failed.append(error)

    reader = threading.Thread(target=consume)
    reader.start()
    producer, sent = Producer({**KAFKA, "enable.idempotence": True, "linger.ms": 5}), 0
    while going() and not failed:
        producer.produce(topic, value=BODY, on_delivery=report)
        producer.poll(0)
        sent += 1
        if sent % 500 == 0:
            producer.flush(60)
            time.sleep(0.05)  # some 5 MB/s: the retention is exercised, the disk left to others
    producer.flush(60)
    time.sleep(2)
    done.set()
    reader.join(60)
    if failed or not taken:
        sys.exit(f"kafka: {failed[:3]}, {sent} sent, {taken} taken")
    print(f"kafka: {sent} records, {taken} read")


def churn_load():
    """Clients that come and go, with all that belongs to them."""
    rounds = 0
    while going():
        r = cache()
        p = r.pubsub()
        p.subscribe("soak:channel")
        p.psubscribe("soak:*")
        r.publish("soak:channel", "x")
        p.close()
        r.set(f"soak:churn:{rounds}", BODY, px=500)
        r.close()
        connection = broker()
        channel = connection.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.exchange_declare(f"soak.x.{rounds}", "topic", auto_delete=True)
        channel.queue_bind(queue, f"soak.x.{rounds}", "a.#")
        channel.basic_publish(f"soak.x.{rounds}", "a.b", BODY)
        for _ in range(20):
            if channel.basic_get(queue, auto_ack=True)[0] is not None:
                break
            time.sleep(0.05)
        else:
            sys.exit("a routed message did not come")
        connection.close()
        if rounds % 5 == 0:
            topic = f"soak-{rounds}"
            admin = AdminClient(KAFKA)
            admin.create_topics([NewTopic(topic, 2, 1)])[topic].result(30)
            producer = Producer(KAFKA)
            producer.produce(topic, value=BODY)
            producer.flush(30)
            consumer = Consumer({**KAFKA, "group.id": topic, "auto.offset.reset": "earliest"})
            consumer.subscribe([topic])
            deadline = time.monotonic() + 60
            while consumer.poll(1) is None:
                if time.monotonic() > deadline:
                    sys.exit("a record did not come")
            consumer.close()
            admin.delete_topics([topic])[topic].result(30)
            admin.delete_consumer_groups([topic])[topic].exception(30)  # its member may not be gone yet
        rounds += 1
    print(f"churn: {rounds} rounds")


{"redis": redis_load, "amqp": amqp_load, "kafka": kafka_load, "churn": churn_load}[WHAT]()
