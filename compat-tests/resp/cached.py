"""redis-py keeps what it reads (client-side caching): its own cache, told by the server."""

import os
import time

import redis
from redis.cache import CacheConfig
from redis.connection import CacheProxyConnection

from lib.steps import equal, same, split, step

HOST, PORT = split(os.environ["RESP_ADDR"])


def main():
    # Of Redis 7.4 on, says redis-py; the server announces the version whose commands it has.
    CacheProxyConnection.MIN_ALLOWED_VERSION = "7.2.0"
    keeps = redis.Redis(HOST, PORT, protocol=3, cache_config=CacheConfig(), decode_responses=True)
    writes = redis.Redis(HOST, PORT, decode_responses=True)
    writes.flushall()
    calls = lambda: int(writes.info("commandstats").get("cmdstat_get", {}).get("calls", 0))

    def until(wanted, read):
        for _ in range(200):
            if read() == wanted:
                break
            time.sleep(0.01)
        same(read(), wanted)

    step("a value is read once")
    writes.set("k", "1")
    before = calls()
    for _ in range(100):
        equal(keeps.get("k"), "1")
    same(calls() - before, 1)
    step("a change by another client is seen")
    writes.set("k", "2")
    until("2", lambda: keeps.get("k"))
    step("its own change is seen")
    keeps.set("k", "3")
    until("3", lambda: keeps.get("k"))
    step("a hash, several keys, a deletion")
    writes.hset("h", "f", "1")
    same(keeps.hget("h", "f"), "1")
    writes.hset("h", "f", "2")
    until("2", lambda: keeps.hget("h", "f"))
    same(keeps.mget("k", "nokey"), ["3", None])
    writes.set("nokey", "now")
    until(["3", "now"], lambda: keeps.mget("k", "nokey"))
    writes.delete("k")
    until(None, lambda: keeps.get("k"))
    step("expiry")
    writes.set("e", "1", px=100)
    same(keeps.get("e"), "1")
    until(None, lambda: keeps.get("e"))
    step("flush")
    writes.set("k", "4")
    until("4", lambda: keeps.get("k"))
    writes.flushall()
    until(None, lambda: keeps.get("k"))
    step("a transaction")
    writes.set("k", "5")
    until("5", lambda: keeps.get("k"))
    with writes.pipeline() as pipe:
        pipe.set("k", "6").set("j", "7").execute()
    until("6", lambda: keeps.get("k"))
    keeps.close()


main()
