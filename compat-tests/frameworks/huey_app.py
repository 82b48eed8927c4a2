"""huey with two of its storages (lists and a results hash; sorted sets and expiring results): results, retries, schedule, pipelines, chords, locks, limits."""

import logging
import os
import time
from datetime import datetime, timedelta

import redis
from huey import PriorityRedisExpireHuey, RedisHuey, chord, group
from huey.exceptions import HueyException, TaskException
from lib import steps

URL = f"redis://{os.environ['RESP_ADDR']}/6"
show, until = steps.show, steps.until
r = redis.Redis.from_url(URL)
logging.disable(logging.CRITICAL)


def outcome(result, **kwargs):
    try:
        return result.get(blocking=True, timeout=15, **kwargs)
    except (TaskException, HueyException) as error:
        return f"{type(error).__name__}: {error}"


def main(huey, priorities):
    r.flushall()

    @huey.task()
    def add(*numbers):
        return sum(numbers)

    @huey.task()
    def total(numbers):
        return sum(numbers)

    @huey.task()
    def fails():
        raise ValueError("on purpose")

    @huey.task(retries=3, retry_delay=0)
    def flaky():
        count = r.incr("flaky")
        if count < 3:
            raise ValueError("not yet")
        return count

    @huey.task()
    def mark(name):
        r.rpush("marks", name)

    @huey.task()
    @huey.lock_task("door")
    def locked():
        until(lambda: r.get("open"))
        return "was inside"

    @huey.task()
    @huey.rate_limit("limited", limit=2, per=3600, retry=False)
    def limited():
        return "ran"

    def marks(count):
        until(lambda: r.llen("marks") == count)
        return [x.decode() for x in r.lrange("marks", 0, -1)]

    show(f"-- {type(huey).__name__}: pending", [mark(f"n{i}", **({"priority": i} if priorities else {})) and None for i in range(4)], huey.pending_count(), [t.args for t in huey.pending()])
    revoked = mark("revoked")
    revoked.revoke()
    show("revoked", revoked.is_revoked(), huey.pending_count())
    consumer = huey.create_consumer(workers=1, periodic=False, initial_delay=0.01, max_delay=0.1)
    consumer.start()
    show("in order", marks(4), until(lambda: not revoked.is_revoked()))
    consumer.stop(graceful=True)
    consumer = huey.create_consumer(workers=4, initial_delay=0.01, max_delay=0.1)
    consumer.start()
    result = add(1, 2, 3)
    show("result", outcome(result, preserve=True), huey.result_count() > 0, huey.result(result.id))
    show("failure", outcome(fails()))
    flaky()
    show("retries", until(lambda: r.get("flaky") == b"3"))
    start = time.monotonic()
    late, cancelled = add.schedule((4, 5), delay=2), mark.schedule(("never",), delay=3600)
    show("scheduled", until(lambda: huey.scheduled_count() == 2), outcome(late), time.monotonic() - start >= 1.9, huey.scheduled_count())
    cancelled.revoke()
    cancelled.reschedule(eta=datetime.now() + timedelta(milliseconds=100))
    show("rescheduled", until(lambda: r.llen("marks") == 5))
    piped = huey.enqueue(add.s(1, 2).then(add, 10).then(add, 100))
    show("pipeline", piped.get(blocking=True, timeout=15))
    show("group", sorted(huey.enqueue(group([add.s(i) for i in range(5)])).get(blocking=True, timeout=15)))
    show("chord", huey.enqueue(chord([add.s(i, i) for i in range(5)], total.s())).get(blocking=True, timeout=15))
    many = add.map([(i, i) for i in range(100)])
    show("a hundred", sum(many.get(blocking=True, timeout=15)))
    inside = locked()
    until(lambda: huey.is_locked("door"))
    show("locked out", outcome(locked()))
    r.set("open", 1)
    show("inside", outcome(inside), huey.is_locked("door"))
    show("limit", [outcome(limited()).split(":")[0] for _ in range(3)])
    show("put once", huey.put_if_empty("k", b"v"), huey.put_if_empty("k", b"w"), huey.get_raw("k"))
    mark.revoke(revoke_until=datetime.now() + timedelta(hours=1))
    mark("not while revoked")
    outcome(add(0))
    mark.restore()
    show("a task revoked and restored", mark.is_revoked(), r.llen("marks"))
    consumer.stop(graceful=True)
    show("kinds of keys", sorted({".".join(key.decode().split(".")[:3]) for key in r.scan_iter("huey.*", count=1000)}))
    huey.flush()
    show("flushed", huey.pending_count(), huey.scheduled_count(), huey.result_count())


main(RedisHuey("plain", url=URL, notify_result=True), False)
main(PriorityRedisExpireHuey("ordered", url=URL, expire_time=60, notify_result=True), True)
