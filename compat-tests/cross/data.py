#!/usr/bin/env python3
"""FlowMesh beside a live Valkey (and a Redis 7, where Debian's tools are installed, whose checker is its server): serialised values go from
each to the others, and commands made by chance are answered alike. Its own oracle: exits non-zero at the first difference.

    data.py [SEED]
"""

import os
import random
import shutil
import sys

from lib import respwire, servers
from lib.steps import equal, step


class Redis(servers.Valkey):
    """`redis-check-rdb` is the server's program, which looks at the name that it was called by."""

    name = "redis"

    @staticmethod
    def there():
        return shutil.which("redis-check-rdb")

    def command(self):
        self.data.mkdir(parents=True, exist_ok=True)
        port = self.addresses["resp"].rsplit(":", 1)[1]
        return ["bash", "-c", f"exec -a redis-server {self.there()} --port {port} --bind 127.0.0.1 --dir {self.data} --save '' --appendonly no"]


def text(word):
    return word if isinstance(word, bytes) else str(word).encode()


class Client:
    def __init__(self, server):
        self.name, self.wire = server.name, respwire.Wire(server.addresses["resp"])

    def __call__(self, *words):
        return self.wire.call(*(text(word) for word in words))

    def value(self, *words):
        kind, value = self(*words)
        assert kind != "-", (words, value)
        return value


def fill(client, chance):
    """Values of every type and encoding."""
    long = bytes(chance.randrange(256) for _ in range(50000))
    client("FLUSHALL")
    for name, value in {"s:empty": "", "s:8": -100, "s:16": 30000, "s:32": -2000000000, "s:64": 9223372036854775807, "s:not": "007", "s:long": long,
                        "s:packed": b"abcd" * 20000}.items():
        client("SET", name, value)
    client("APPEND", "s:grown", "abc")
    client("RPUSH", "l:few", "a", "", -1, 127, 128, -4096, 4095, 4096, 40000, 10000000, 3000000000, -9223372036854775808, "x" * 63, "x" * 64, "y" * 4095, "1.0")
    for n in range(600):
        client("RPUSH", "l:many", f"item-{n}" * (n % 40))
    client("RPUSH", "l:large", "a", long, "b", b"z" * 9000, "c")
    client("SADD", "t:16", *range(-5, 6))
    client("SADD", "t:32", 1, -70000)
    client("SADD", "t:64", 1, 1 << 60)
    client("SADD", "t:512", *range(1000, 1512))
    client("SADD", "t:513", *range(1000, 1513))
    client("SADD", "t:few", "a", "", "12", "x" * 64)
    client("SADD", "t:long", "a", "x" * 65)
    client("SADD", "t:many", *(f"m{n}" for n in range(129)))
    client("HSET", "h:few", "f", "v", "n", 12, "", "")
    client("HSET", "h:long", "f", "x" * 65)
    client("HSET", "h:512", *(word for n in range(512) for word in (f"f{n}", n)))
    client("HSET", "h:513", *(word for n in range(513) for word in (f"f{n}", n)))
    client("HSET", "h:lasting", "a", 1, "b", 2, "c", "x" * 100)
    if client("HPEXPIREAT", "h:lasting", 33177117420123, "FIELDS", 1, "b")[0] == "-":
        client("DEL", "h:lasting")
    client("ZADD", "z:few", 1, "a", 2.5, "b", "-inf", "c", "inf", "d", 1e300, "e", -0.1, "f", 0, "g", 1 << 53, "h")
    client("ZADD", "z:many", *(word for n in range(200) for word in (chance.randrange(10000) / 64, f"m{n}")))
    client("ZADD", "z:long", 1, "x" * 65)
    for n in range(1, 250):
        client("XADD", "x:many", f"{n * 7}-{n % 3}", "f", n, "g", "v" * (n % 60))
        if n % 50 == 0:
            client("XADD", "x:many", f"{n * 7 + 1}-0", "other", n)
    client("XDEL", "x:many", "14-2", "351-0")
    client("XGROUP", "CREATE", "x:many", "g", "21-0")
    client("XGROUP", "CREATE", "x:many", "all", "$")
    client("XREADGROUP", "GROUP", "g", "alice", "COUNT", 5, "STREAMS", "x:many", ">")
    client("XREADGROUP", "GROUP", "g", "bob", "COUNT", 150, "STREAMS", "x:many", ">")
    client("XACK", "x:many", "g", "28-1")
    client("XGROUP", "CREATECONSUMER", "x:many", "g", "carol")
    client("XADD", "x:none", "5-5", "a", "b")
    client("XDEL", "x:none", "5-5")
    client("XADD", "x:empty", "1-1", "", "")
    client("PFADD", "p", *range(50))
    client("PFADD", "p:dense", *range(5000))
    client("GEOADD", "g", 13.361389, 38.115556, "Palermo")


def shown(client, key):
    """What a key holds, in one form."""
    kind = client.value("TYPE", key)
    kind = kind if isinstance(kind, str) else kind.decode()
    if kind == "string":
        return client.value("GET", key)
    if kind == "list":
        return client.value("LRANGE", key, 0, -1)
    if kind == "set":
        return sorted(client.value("SMEMBERS", key))
    if kind == "hash":
        flat = client.value("HGETALL", key)
        names = [name for _, name in flat[::2]]
        deadlines = client("HPEXPIRETIME", key, "FIELDS", len(names), *names)
        return sorted(zip(flat[::2], flat[1::2])) + ([deadlines] if key.startswith(b"h:lasting") else [])
    if kind == "zset":
        return client.value("ZRANGE", key, 0, -1, "WITHSCORES")
    info = client.value("XINFO", "STREAM", key, "FULL", "COUNT", 0)
    # How the entries lie in memory is each server's own, and so is how long ago somebody was seen.
    return respwire.show(("*", [part for n, part in enumerate(info) if n // 2 not in (1, 2)]))


def keys(client):
    return sorted(value for _, value in client.value("KEYS", "*"))


def differ(what, got, wanted):
    """Exit with the first place where two values differ."""
    if got == wanted:
        return
    place = next((n for n, (a, b) in enumerate(zip(got, wanted)) if a != b), min(len(got), len(wanted)))
    raise SystemExit(f"{what} at {place} of {len(got)} and {len(wanted)}: got {got[place:place + 3]!r}, wanted {wanted[place:place + 3]!r}"[:1500])


def hand_over(source, target, like=None):
    """`like`: who shows a value as the target does, and has it; else it is the source."""
    names = keys(source)
    target("FLUSHALL")
    for key in names:
        _, payload = source("DUMP", key)
        reply = target("RESTORE", key, 0, payload)
        assert reply[0] == "+", f"{target.name} answers {reply} to {key.decode()} of {source.name}"
        differ(key.decode(), shown(target, key), shown(like or source, key))
    equal(keys(target), names)
    print(f"  {len(names)} keys from {source.name} to {target.name}", flush=True)


def both(ours, theirs, *words):
    a, b = ours(*words), theirs(*words)
    if respwire.show(a) != respwire.show(b):
        raise SystemExit(f"{[text(word)[:80] for word in words]}\nours   {respwire.show(a)[:2000]}\ntheirs {respwire.show(b)[:2000]}")


def bit_fields(ours, theirs, chance):
    for _ in range(3000):
        words = ["BITFIELD", f"b{chance.randrange(3)}"]
        for _ in range(chance.randrange(1, 5)):
            sign = chance.choice("iu")
            width = chance.randrange(1, 65 if sign == "i" else 64)
            place = chance.choice([chance.randrange(200), f"#{chance.randrange(9)}"])
            number = chance.choice([chance.randrange(-20, 20), chance.randrange(-(1 << 63), 1 << 63)])
            words += chance.choice([["GET", f"{sign}{width}", place], ["SET", f"{sign}{width}", place, number], ["INCRBY", f"{sign}{width}", place, number],
                                    ["OVERFLOW", chance.choice(["WRAP", "SAT", "FAIL"])]])
        both(ours, theirs, *words)
    for n in range(3):
        both(ours, theirs, "GET", f"b{n}")


def sketches(ours, theirs, chance):
    for _ in range(1500):
        key = f"p{chance.randrange(6)}"
        what = chance.randrange(10)
        if what < 6:
            both(ours, theirs, "PFADD", key, *(chance.randrange(1 << chance.randrange(2, 30)) for _ in range(chance.choice([1, 1, 2, 30]))))
        elif what < 7:
            both(ours, theirs, "PFCOUNT", key)
        elif what < 8:
            both(ours, theirs, "PFCOUNT", key, "p1", "p2")
        elif what < 9:
            both(ours, theirs, "PFMERGE", f"p{chance.randrange(6, 9)}", key, "p1")
        else:
            both(ours, theirs, "DEL", key)
        both(ours, theirs, "GET", key)
    for n in range(9):
        both(ours, theirs, "GET", f"p{n}")


def places(ours, theirs, chance):
    for round_ in range(40):
        spread = chance.choice([0.01, 1, 30, 180])
        middle = (chance.uniform(-180, 180), chance.uniform(-85, 85))
        for n in range(60):
            longitude = max(-180, min(180, middle[0] + chance.uniform(-spread, spread)))
            latitude = max(-85, min(85, middle[1] + chance.uniform(-spread, spread)))
            both(ours, theirs, "GEOADD", "g", longitude, latitude, f"m{n}")
        both(ours, theirs, "ZRANGE", "g", 0, -1, "WITHSCORES")
        both(ours, theirs, "GEOPOS", "g", *(f"m{n}" for n in range(60)))
        both(ours, theirs, "GEOHASH", "g", *(f"m{n}" for n in range(60)))
        for _ in range(60):
            a, b = chance.randrange(60), chance.randrange(60)
            both(ours, theirs, "GEODIST", "g", f"m{a}", f"m{b}", chance.choice(["m", "km", "ft", "mi"]))
            origin = chance.choice([["FROMMEMBER", f"m{a}"], ["FROMLONLAT", chance.uniform(-180, 180), chance.uniform(-85, 85)]])
            size = 10 ** chance.uniform(0, 7.4)
            shape = chance.choice([["BYRADIUS", size, "m"], ["BYBOX", size, size * chance.uniform(0.1, 3), "ft"]])
            more = chance.choice([[], ["COUNT", 5, "ANY"], ["WITHDIST", "WITHCOORD", "WITHHASH"]])
            both(ours, theirs, "GEOSEARCH", "g", *origin, *shape, *more)
            # Members at one place come in any order.
            more = chance.choice([["ASC"], ["DESC"], ["COUNT", 3], ["COUNT", 9, "DESC"]])
            words = ["GEOSEARCH", "g", *origin, *shape, *more, "WITHDIST"]
            a, b = ([pair[1][1] for pair in client.value(*words)] for client in (ours, theirs))
            differ(words, a, b)
        both(ours, theirs, "DEL", "g")


def orders(ours, theirs, chance):
    for _ in range(1000):
        key = chance.choice(["l", "s", "z"])
        word = chance.choice([chance.randrange(30), f"w{chance.randrange(30)}"])
        both(ours, theirs, *{"l": ["RPUSH", key, word], "s": ["SADD", key, word], "z": ["ZADD", key, chance.randrange(9), word]}[key])
        both(ours, theirs, "SET", f"weight:{chance.randrange(30)}", chance.randrange(9))
        both(ours, theirs, "HSET", f"hash:{chance.randrange(30)}", "f", chance.choice(["x", "y", "z"]))
        words = ["SORT", key]
        # What weighs the same has no order among texts.
        if chance.randrange(2):
            words += ["ALPHA"]
        elif chance.randrange(2):
            words += ["BY", "weight:*"]
        words += chance.choice([[], ["DESC"], ["ASC"]])
        words += chance.choice([[], ["LIMIT", chance.randrange(-2, 9), chance.randrange(-2, 9)]])
        words += chance.choice([[], ["GET", "#"], ["GET", "weight:*", "GET", "hash:*->f"], ["STORE", "d"]])
        both(ours, theirs, *words)
        both(ours, theirs, "LRANGE", "d", 0, -1)
        if chance.randrange(20) == 0:
            both(ours, theirs, "DEL", key)


def lasting_fields(ours, theirs, chance):
    """Deadlines long ago or far away, so that when they are looked at does not matter."""
    for _ in range(4000):
        key = f"h{chance.randrange(4)}"
        fields = [f"f{chance.randrange(12)}" for _ in range(chance.randrange(1, 4))]
        at = chance.choice([1, 33177117420000, 33177117420001, 33177117420002])
        counted = ["FIELDS", len(fields), *fields]
        pairs = ["FIELDS", len(fields), *(word for field in fields for word in (field, chance.randrange(99)))]
        words = chance.choice([
            ["HSET", key, *pairs[2:]], ["HDEL", key, *fields], ["HINCRBY", key, fields[0], 1], ["HSETNX", key, fields[0], 7],
            ["HPEXPIREAT", key, at, *chance.choice([[], ["NX"], ["XX"], ["GT"], ["LT"], ["XX", "GT"]]), *counted], ["HPERSIST", key, *counted],
            ["HGETEX", key, *chance.choice([[], ["PERSIST"], ["PXAT", at]]), *counted],
            ["HSETEX", key, *chance.choice([[], ["NX"], ["XX"], ["FNX"], ["FXX"]]), *chance.choice([[], ["KEEPTTL"], ["PXAT", at]]), *pairs],
            ["HGETDEL", key, *counted], ["COPY", key, f"h{chance.randrange(4)}", "REPLACE"], ["HGET", key, fields[0]], ["HLEN", key], ["EXISTS", key]])
        both(ours, theirs, *words)
        both(ours, theirs, "HPEXPIRETIME", key, "FIELDS", 12, *(f"f{n}" for n in range(12)))
        both(ours, theirs, "HMGET", key, *(f"f{n}" for n in range(12)))


def main():
    seed = int(sys.argv[1]) if len(sys.argv) > 1 else 20260501
    chance = random.Random(seed)
    print(f"> seed {seed}", flush=True)
    started = [servers.FlowMesh(extra=[servers.CHECK_LAW]), servers.Valkey(fsync="off")]
    if Redis.there():
        started.append(Redis())
    try:
        for server in started:
            server.start()
        ours, theirs, *old = (Client(server) for server in started)
        step("values that Valkey gave are taken, and given back")
        fill(theirs, chance)
        hand_over(theirs, ours)
        hand_over(ours, theirs)
        step("values of our own")
        fill(ours, chance)
        hand_over(ours, theirs)
        hand_over(theirs, ours)
        for redis in old:
            step("values that Redis 7.0 gave")
            fill(redis, chance)
            theirs("FLUSHALL")
            for key in keys(redis):
                equal(theirs("RESTORE", key, 0, redis.value("DUMP", key)), ("+", b"OK"))
            # It shows less of a stream.
            hand_over(redis, ours, like=theirs)
        for what in (bit_fields, sketches, places, orders, lasting_fields):
            step(f"{what.__name__.replace('_', ' ')} by chance")
            for client in (ours, theirs):
                client("FLUSHALL")
            what(ours, theirs, chance)
        step("a clean stop, which compares memory with log and tables")
        equal(started[0].stop(), 0)
    finally:
        for server in started:
            server.stop()
            server.clean()
    print("all as it should be", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
