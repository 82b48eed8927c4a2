"""Caches and sessions of web frameworks: django-redis, Django's own Redis cache, Django's sessions in it, cachelib (Flask-Caching's and Flask-Session's base)."""

import os
import threading
import time

import django
import redis
from cachelib import RedisCache
from django.conf import settings
from lib import steps

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
show, until = steps.show, steps.until
URL = f"redis://{HOST}:{PORT}"
settings.configure(
    CACHES={
        "default": {"BACKEND": "django_redis.cache.RedisCache", "LOCATION": f"{URL}/7", "KEY_PREFIX": "shop",
                    "OPTIONS": {"COMPRESSOR": "django_redis.compressors.zlib.ZlibCompressor"}},
        "own": {"BACKEND": "django.core.cache.backends.redis.RedisCache", "LOCATION": f"{URL}/8", "TIMEOUT": 300},
    },
    SESSION_ENGINE="django.contrib.sessions.backends.cache", SESSION_CACHE_ALIAS="default", SECRET_KEY="x",
)
django.setup()
from django.contrib.sessions.backends.cache import SessionStore  # noqa: E402
from django.core.cache import caches  # noqa: E402


def attempt(call, *args):
    try:
        return call(*args)
    except ValueError as error:
        return f"ValueError: {error}"


def common(cache):
    show("set and get", cache.set("k", {"a": [1, 2]}, 60), cache.get("k"), cache.get("none", "default"), "k" in cache)
    show("add", cache.add("k", 1), cache.add("new", 1), cache.get("new"))
    show("counters", cache.incr("new"), cache.incr("new", 10), cache.decr("new", 5), attempt(cache.incr, "none"))
    show("many", cache.set_many({f"m{i}": i for i in range(100)}, 60), sum(cache.get_many([f"m{i}" for i in range(120)]).values()), cache.delete_many(["m1", "m2"]), cache.get("m1"))
    show("get or set", cache.get_or_set("made", lambda: "by a function", 60), cache.get("made"))
    show("touch", cache.touch("k", 100), cache.touch("none"))
    show("versions", cache.set("v", "one", version=1), cache.set("v", "two", version=2), cache.get("v"), cache.get("v", version=2), cache.incr_version("v", 2), cache.get("v", version=4))
    show("expires", cache.set("short", 1, 1), cache.set("never", 1, None), cache.set("at once", 1, 0), cache.get("at once"), until(lambda: cache.get("short") is None))


def main():
    redis.Redis(HOST, int(PORT)).flushall()
    cache = caches["default"]
    show("-- django-redis")
    common(cache)
    show("time to live", 90 < cache.ttl("k") <= 100, cache.ttl("never"), cache.ttl("none"), cache.persist("k"), cache.ttl("k"), cache.pexpire("k", 50000), 40000 < cache.pttl("k") <= 50000)
    show("keys", len(cache.keys("m*")), sorted(cache.iter_keys("n*")), cache.delete_pattern("m*"), cache.keys("m*"))
    show("set only if not there", cache.set("nx", 1, nx=True), cache.set("nx", 2, nx=True), cache.get("nx"))
    show("compressed", cache.set("large", "x" * 100_000), len(cache.get("large")), redis.Redis(HOST, int(PORT), db=7).strlen("shop:1:large") < 1000)
    show("sets", cache.sadd("s", 1, "two"), cache.scard("s"), cache.sismember("s", "two"), cache.smismember("s", 1, 2), sorted(map(str, cache.smembers("s"))), cache.srem("s", 1))
    show("hashes", cache.hset("h", "f", 1), cache.hlen("h"), cache.hkeys("h"), cache.hexists("h", "f"), cache.hdel("h", "f"))
    lock, held = cache.lock("door", timeout=10), []
    with lock:
        show("lock", cache.lock("door", timeout=10).acquire(blocking=False))
        waiting = threading.Thread(target=lambda: held.append(cache.lock("door", timeout=10).acquire(blocking_timeout=10)))
        waiting.start()
    waiting.join()
    show("handed on", held)

    session = SessionStore()
    session["cart"] = [1, 2, 3]
    session.set_expiry(100)
    session.create()
    again = SessionStore(session.session_key)
    show("session", again["cart"], again.exists(session.session_key), 90 < cache.ttl(again.cache_key) <= 100)
    again.cycle_key()
    show("new key at login", SessionStore(again.session_key)["cart"], session.exists(session.session_key))
    again.flush()
    show("logged out", again.exists(again.session_key), SessionStore(session.session_key).get("cart"))
    cache.clear()
    show("cleared", cache.keys("*"))

    show("-- Django's own")
    common(caches["own"])
    caches["own"].clear()
    show("cleared", caches["own"].get("never"))

    show("-- cachelib")
    flask = RedisCache(HOST, int(PORT), db=9, default_timeout=300, key_prefix="view//")
    show("set and get", flask.set("k", ("a", 1)), flask.get("k"), flask.get("none"), flask.has("k"), flask.add("k", 1), flask.add("n", 1))
    show("counters", flask.set("c", 1), flask.inc("c"), flask.inc("c", 5), flask.dec("c", 2), flask.get("c"))
    show("many", flask.set_many({f"m{i}": i for i in range(50)}), sum(flask.get_dict(*[f"m{i}" for i in range(50)]).values()), len(flask.delete_many("m1", "m2", "none")), flask.get_many("m1", "m3"))
    show("expires", flask.set("short", 1, timeout=1), until(lambda: flask.get("short") is None), flask.clear(), flask.get("k"))


main()
