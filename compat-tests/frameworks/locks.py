"""Locks and shared structures: redis-py's Lock, python-redis-lock, pottery's Redlock over three databases, its ids, dicts, deques and counters."""

import os
import threading
import time

import redis
import redis_lock
from lib import steps
from pottery import NextID, RedisCounter, RedisDeque, RedisDict, RedisList, RedisSet, RedisSimpleQueue, Redlock, redis_cache, synchronize
from pottery.exceptions import ExtendUnlockedLock, ReleaseUnlockedLock

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
show, until = steps.show, steps.until


def connect(db=0):
    return redis.Redis(HOST, int(PORT), db=db)


def attempt(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except Exception as error:
        return f"{type(error).__name__}: {str(error).split('(')[0]}"


def count_inside(enter, workers=8, rounds=5):
    """Many threads inside by turns: (entries, most at once)."""
    inside, most, entries, guard = 0, 0, 0, threading.Lock()

    def work():
        nonlocal inside, most, entries
        for _ in range(rounds):
            with enter():
                with guard:
                    inside += 1
                    entries += 1
                    most = max(most, inside)
                time.sleep(0.001)
                with guard:
                    inside -= 1

    threads = [threading.Thread(target=work) for _ in range(workers)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return entries, most


r = connect()
r.flushall()
lock = r.lock("lock", timeout=5, thread_local=False)
show("redis-py Lock", lock.acquire(), lock.locked(), lock.owned(), r.lock("lock", timeout=5).acquire(blocking=False))
show("extended", lock.extend(10), 14000 < r.pttl("lock") <= 15000, lock.extend(3, replace_ttl=True), r.pttl("lock") <= 3000, lock.reacquire(), 4000 < r.pttl("lock") <= 5000)
r.delete("lock")
show("lost", attempt(lock.release), lock.owned())
show("by turns", count_inside(lambda: r.lock("lock", timeout=5, sleep=0.002)))

first, second = redis_lock.Lock(r, "rl", expire=5, id="one"), redis_lock.Lock(r, "rl", expire=5, id="two")
show("python-redis-lock", first.acquire(), second.acquire(blocking=False), second.get_owner_id(), attempt(first.acquire), attempt(second.release))
got = []
waiting = threading.Thread(target=lambda: got.append(second.acquire(timeout=4)))
waiting.start()
time.sleep(0.05)
first.release()
waiting.join()
show("woken by the release", got, first.get_owner_id(), second.extend(expire=20), 15 < r.ttl("lock:rl") <= 20)
second.release()
renewed = redis_lock.Lock(r, "renewed", expire=1, auto_renewal=True)
with renewed:
    time.sleep(1.2)
    show("renewed in time", renewed.locked())
show("given back", renewed.locked())
redis_lock.Lock(r, "left", expire=100).acquire()
redis_lock.reset_all(r)
show("all reset", redis_lock.Lock(r, "left").locked())
show("by turns", count_inside(lambda: redis_lock.Lock(r, "turns", expire=5)))

masters = {connect(db) for db in (1, 2, 3)}
redlock, other = Redlock(key="red", masters=masters, auto_release_time=5), Redlock(key="red", masters=masters, auto_release_time=5)
show("Redlock", redlock.acquire(), other.acquire(blocking=False), 4 < redlock.locked() <= 5, other.locked() > 0)
redlock.extend()
show("released", redlock.release(), attempt(redlock.release), redlock.locked(), other.acquire(timeout=5), other.release())
show("by turns", count_inside(lambda: Redlock(key="turns", masters=masters, auto_release_time=5), workers=3, rounds=2))


@synchronize(key="function", masters=masters, auto_release_time=5)
def inside():
    return "ran alone"


show("synchronized", inside())
ids = NextID(key="ids", masters=masters)
show("next id", next(ids), next(ids), next(NextID(key="ids", masters=masters)))


@redis_cache(redis=r, key="square")
def square(n):
    return n * n


show("cached function", square(3), square(3), square.cache_info().hits)
d = RedisDict({"a": 1, "b": [1, 2]}, redis=r, key="dict")
d["c"] = {"x": None}
show("dict", d["b"], len(d), sorted(d), d.pop("a"), attempt(d.__getitem__, "a"), RedisDict(redis=r, key="dict").to_dict())
s = RedisSet({1, "two"}, redis=r, key="set")
show("set", s.add("three"), len(s), "two" in s, s.isdisjoint({4}), s.remove(1), sorted(s))
items = RedisList([3, 1, 2], redis=r, key="list")
items.append(9)
items[0] = 5
show("list", list(items), items[1:3], items.index(2), items.pop(), list(items))
deque = RedisDeque([1, 2], maxlen=3, redis=r, key="deque")
deque.extend([3, 4])
deque.appendleft(0)
show("deque", list(deque), deque.popleft(), deque.rotate(1), list(deque))
c = RedisCounter("abracadabra", redis=r, key="counter")
c.update("aaz")
show("counter", c.most_common(2), c["none"], c.total() if hasattr(c, "total") else sum(c.values()))
q = RedisSimpleQueue(redis=r, key="queue")
threading.Thread(target=lambda: (time.sleep(0.05), q.put("late"))).start()
show("queue", q.get(timeout=10), q.qsize(), attempt(q.get, block=False))
