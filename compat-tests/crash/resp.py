"""Crash-test worker of the Redis face (redis-py)."""

import os
import sys

import redis

from lib.journal import Journal

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
ACTION, JOURNAL, ROUND = sys.argv[1], Journal(*sys.argv[2:5]), int(sys.argv[3])
BATCH = 20


def connect():
    return redis.Redis(HOST, int(PORT), decode_responses=True, socket_timeout=10, retry=None)


def write():
    journal = JOURNAL.open()
    r = connect()
    r.ping()
    JOURNAL.started()
    i = 0
    stream = f"{ROUND}:stream"
    try:
        r.xgroup_create(stream, "g", id="0", mkstream=True)
        while True:
            journal.write("try", i)
            pipe = r.pipeline(transaction=False)
            for n in range(i, i + BATCH):
                pipe.set(f"{ROUND}:s:{n}", f"v{n}")
            pipe.incrby(f"{ROUND}:count", BATCH)
            pipe.rpush(f"{ROUND}:list", *range(i, i + BATCH))
            pipe.hset(f"{ROUND}:hash", mapping={f"f{n}": n for n in range(i, i + BATCH)})
            pipe.zadd(f"{ROUND}:zset", {f"m{n}": n for n in range(i, i + BATCH)})
            for n in range(i, i + BATCH):
                pipe.xadd(stream, {"n": n}, id=f"{n + 1}-1")
            pipe.xreadgroup("g", "c", {stream: ">"}, count=BATCH)
            pipe.xack(stream, "g", *(f"{n + 1}-1" for n in range(i, i + BATCH, 2)))
            pipe.execute()
            with r.pipeline(transaction=True) as tx:
                tx.set(f"{ROUND}:tx:a", i)
                tx.rpush(f"{ROUND}:tx:b", i)
                tx.set(f"{ROUND}:tx:c", i)
                tx.execute()
            if i % 5 == 0:
                r.delete(f"{ROUND}:s:{i}")
            journal.write("ok", i)
            i += BATCH
    except redis.RedisError:
        pass


def check():
    r = connect()
    problems = []
    total = 0
    for number, lines in JOURNAL.rounds():
        acked = [int(w[1]) for w in lines if w[0] == "ok"]
        tried = [int(w[1]) for w in lines if w[0] == "try"]
        sure = (acked[-1] + BATCH) if acked else 0
        maybe = (tried[-1] + BATCH) if tried else 0
        total += sure
        deleted = {i for i in acked if i % 5 == 0}
        want = [None if n in deleted else f"v{n}" for n in range(sure)]
        got = r.mget([f"{number}:s:{n}" for n in range(sure)]) if sure else []
        wrong = [n for n in range(sure) if got[n] != want[n]]
        if wrong:
            problems.append(f"round {number}: {len(wrong)} strings wrong, first {wrong[0]}: {got[wrong[0]]!r} for {want[wrong[0]]!r}")
        count = int(r.get(f"{number}:count") or 0)
        if not sure <= count <= maybe:
            problems.append(f"round {number}: count {count}, acknowledged {sure}, tried {maybe}")
        items = [int(v) for v in r.lrange(f"{number}:list", 0, -1)]
        if items != list(range(len(items))) or not sure <= len(items) <= maybe or len(items) % BATCH:
            problems.append(f"round {number}: list of {len(items)} items ends {items[-3:]}, acknowledged {sure}")
        fields = r.hgetall(f"{number}:hash")
        if not sure <= len(fields) <= maybe or any(fields.get(f"f{n}") != str(n) for n in range(sure)):
            problems.append(f"round {number}: hash of {len(fields)}, acknowledged {sure}")
        scores = r.zrange(f"{number}:zset", 0, -1, withscores=True)
        if not sure <= len(scores) <= maybe or any(score != n or member != f"m{n}" for n, (member, score) in enumerate(scores)):
            problems.append(f"round {number}: sorted set of {len(scores)}, acknowledged {sure}")
        entries = r.xrange(f"{number}:stream")
        if not sure <= len(entries) <= maybe or any(entry != (f"{n + 1}-1", {"n": str(n)}) for n, entry in enumerate(entries)):
            problems.append(f"round {number}: stream of {len(entries)}, acknowledged {sure}")
        pending = {p["message_id"] for p in r.xpending_range(f"{number}:stream", "g", "-", f"{sure}-1", maybe)} if sure else set()
        if pending != {f"{n + 1}-1" for n in range(1, sure, 2)}:
            problems.append(f"round {number}: {len(pending)} entries are pending, acknowledged {sure}")
        a, b, c = r.get(f"{number}:tx:a"), r.lrange(f"{number}:tx:b", -1, -1), r.get(f"{number}:tx:c")
        if (a, c) != (b[0] if b else None, a) or int(a if a is not None else -1) < (acked[-1] if acked else -1):
            problems.append(f"round {number}: torn transaction: {a}, {b}, {c}; acknowledged {acked[-1:]}")
    print("\n".join(problems))
    print(f"resp {total} writes")
    sys.exit(bool(problems))


write() if ACTION == "write" else check()
