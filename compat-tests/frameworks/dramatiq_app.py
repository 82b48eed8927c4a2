"""dramatiq: results, retries, delays, priorities, groups and pipelines, limits, barriers, the dead letter queue, a worker that vanished."""

import os
import time

import dramatiq
import redis
from dramatiq import group, pipeline
from dramatiq.brokers.redis import RedisBroker
from dramatiq.middleware import GroupCallbacks
from dramatiq.rate_limits import Barrier, BucketRateLimiter, ConcurrentRateLimiter, WindowRateLimiter
from dramatiq.rate_limits.backends import RedisBackend as LimitBackend
from dramatiq.results import ResultFailure, Results
from dramatiq.results.backends import RedisBackend as ResultBackend
from lib import steps

URL = f"redis://{os.environ['RESP_ADDR']}/5"
show, until = steps.show, steps.until
r = redis.Redis.from_url(URL)
r.flushall()

# Maintenance at every call, so that a vanished worker's messages are found in the time of a test.
broker = RedisBroker(url=URL, maintenance_chance=1_000_000, heartbeat_timeout=1000)
results, limits = ResultBackend(url=URL), LimitBackend(url=URL)
broker.add_middleware(Results(backend=results))
broker.add_middleware(GroupCallbacks(limits))
dramatiq.set_broker(broker)


@dramatiq.actor(store_results=True, max_retries=0)
def add(a, b):
    return a + b


@dramatiq.actor(store_results=True, max_retries=0, throws=(ValueError,))
def fails():
    raise ValueError("on purpose")


@dramatiq.actor(store_results=True, max_retries=3, min_backoff=20, max_backoff=40)
def flaky():
    count = r.incr("flaky")
    if count < 3:
        raise ValueError("not yet")
    return count


@dramatiq.actor(max_retries=1, min_backoff=10, max_backoff=10)
def dies():
    raise ValueError("never works")


def mark(name):
    r.rpush("marks", name)


low = dramatiq.actor(mark, actor_name="low", priority=10)
high = dramatiq.actor(mark, actor_name="high", priority=0)
other = dramatiq.actor(mark, actor_name="other", queue_name="other")


@dramatiq.actor
def done(name):
    r.rpush("marks", name)


def start(threads=2, queues=None):
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=50, queues=queues)
    worker.start()
    return worker


def marks(count):
    until(lambda: r.llen("marks") == count)
    values = [x.decode() for x in r.lrange("marks", 0, -1)]
    r.delete("marks")
    return values


import logging  # noqa: E402

logging.disable(logging.CRITICAL)
for i in range(3):
    low.send(f"low {i}")
    high.send(f"high {i}")
other.send("in the other queue")
show("queued", broker.do_qsize("default"), broker.do_qsize("other"))
worker = start(threads=1, queues={"default"})
show("all of both priorities", sorted(marks(6)))  # their order depends on what the worker has fetched ahead
worker.stop()
worker = start()
show("the other queue", marks(1))

message = add.send(1, 2)
show("a result", message.get_result(block=True), results.get_result(message))
try:
    fails.send().get_result(block=True)
except ResultFailure as error:
    show("a failure", str(error))
show("retried", flaky.send().get_result(block=True, timeout=10000), r.get("flaky"))
dies.send()
broker.join(dies.queue_name)
dead = until(lambda: r.hvals("dramatiq:default.XQ.msgs"))
show("dead letters", sorted(m.actor_name for m in map(dramatiq.Message.decode, dead)), r.zcard("dramatiq:default.XQ"))
start_time = time.monotonic()
late = add.send_with_options(args=(4, 5), delay=300)
show("delayed", late.get_result(block=True), time.monotonic() - start_time >= 0.29)
show("pipeline", pipeline([add.message(1, 2), add.message(10), add.message(100)]).run().get_result(block=True))
several = group([add.message(i, i) for i in range(10)])
several.add_completion_callback(done.message("group done"))
several.run()
show("group", list(several.get_results(block=True)), marks(1))

mutex = ConcurrentRateLimiter(limits, "mutex", limit=1)
with mutex.acquire() as first, mutex.acquire(raise_on_failure=False) as second:
    show("one at a time", first, second)
with mutex.acquire(raise_on_failure=False) as again:
    show("and again", again)
bucket = BucketRateLimiter(limits, "bucket", limit=3, bucket=3_600_000)
show("bucket", [taken for _ in range(5) for taken in [bucket._acquire()]])
window = WindowRateLimiter(limits, "window", limit=2, window=60)
show("window", [taken for _ in range(4) for taken in [window._acquire()]])
barrier = Barrier(limits, "barrier")
show("barrier", barrier.create(2), barrier.create(2), barrier.wait(block=False), barrier.wait(block=False), barrier.wait(block=True, timeout=1000))

many = [add.send(i, 1) for i in range(200)]
show("two hundred", sum(m.get_result(block=True) for m in many))
broker.join("default")
worker.stop()
for i in range(3):
    low.send(f"left {i}")
vanished = RedisBroker(url=URL)
vanished.declare_queue("default")
taken = next(vanished.consume("default", prefetch=3))
show("a worker takes three and vanishes", taken.actor_name, r.llen("dramatiq:default"))
time.sleep(1.1)
worker = start(threads=1)
show("another finds them", sorted(marks(3)))
broker.join("default")
worker.stop()
broker.flush_all()
show("flushed", broker.do_qsize("default"), r.exists("dramatiq:default", "dramatiq:default.msgs"))
