"""redis-py over RESP2 and RESP3: what an application sees."""

import os
import threading

import redis

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)


def step(text, *values):
    print(f"> {text}")
    for value in values:
        print(repr(value))


def attempt(call, *args, **kwargs):
    try:
        return call(*args, **kwargs)
    except redis.RedisError as error:
        return f"{type(error).__name__}: {error}"


for protocol in (2, 3):
    r = redis.Redis(HOST, int(PORT), protocol=protocol, decode_responses=True)
    r.flushall()
    step(f"redis-py protocol {protocol}: ping", r.ping())
    step("set and get", r.set("k", "v", ex=60), r.get("k"), r.get("none"), 58 < r.ttl("k") <= 60, r.set("k", "w", nx=True))
    step("mset and mget", r.mset({"a": 1, "b": 2}), r.mget("a", "none", "b"), r.incrbyfloat("a", 0.5))
    step("hash", r.hset("h", mapping={"x": 1, "y": "2"}), r.hgetall("h"), r.hmget("h", "x", "none"), r.hincrbyfloat("h", "x", 1.5))
    step("list", r.rpush("l", 1, 2, 3), r.lrange("l", 0, -1), r.blpop(["nolist", "l"], 1), r.lmove("l", "l2", "LEFT", "RIGHT"))
    step("set", r.sadd("s", "a", "b"), sorted(r.smembers("s")), r.sismember("s", "a"), r.smismember("s", "a", "c"))
    step("sorted set", r.zadd("z", {"a": 1.5, "b": 2}), r.zrange("z", 0, -1, withscores=True), r.zscore("z", "a"), r.zrank("z", "b"), r.zpopmin("z"))
    step("stream", r.xadd("st", {"a": 1, "b": "x"}, id="1-1"), r.xadd("st", {"a": 2}, id="1-*"), r.xadd("st", {"a": 3}, id="2-0", maxlen=2), r.xlen("st"),
         r.xrange("st"), r.xrevrange("st", count=1), r.xread({"st": "1-1"}), r.xread({"st": "$"}, block=1), r.xinfo_stream("st"))
    step("consumer group", r.xgroup_create("st", "g", id="0"), attempt(r.xgroup_create, "st", "g"), r.xreadgroup("g", "me", {"st": ">"}, count=1),
         r.xreadgroup("g", "me", {"st": "0"}), r.xpending("st", "g"), [(p["message_id"], p["consumer"], p["times_delivered"]) for p in r.xpending_range("st", "g", "-", "+", 9)],
         r.xclaim("st", "g", "you", 0, ["1-1", "2-0"]), r.xautoclaim("st", "g", "you", 0), r.xack("st", "g", "1-1"), r.xinfo_groups("st"), r.xgroup_delconsumer("st", "g", "you"))
    step("wrong type", attempt(r.lpush, "k", 1))
    with r.pipeline() as pipe:
        for i in range(1000):
            pipe.incr(f"n:{i % 7}")
        step("pipeline of 1000", pipe.execute()[-7:])
    with r.pipeline() as pipe:
        pipe.watch("k")
        r.set("k", "changed")
        pipe.multi()
        pipe.set("k", "never")
        step("watched key changed", attempt(pipe.execute), r.get("k"))
    step("SET NX as a lock", r.set("mutex", "me", nx=True, px=10000), r.set("mutex", "you", nx=True, px=10000))
    r.script_flush()
    pop = r.register_script("local v = redis.call('zrangebyscore', KEYS[1], '-inf', ARGV[1], 'LIMIT', 0, 1)[1] if v then redis.call('zrem', KEYS[1], v) end return v")
    step("a script that is loaded when it is not known", r.zadd("due", {"now": 1, "later": 9}), pop(keys=["due"], args=[5]), pop(keys=["due"], args=[5]))
    with r.pipeline() as pipe:
        pop(keys=["due"], args=[9], client=pipe)
        pipe.zcard("due")
        step("a script in a transaction", pipe.execute())
    with r.lock("resource", timeout=10) as lock:
        step("Lock", lock.owned(), lock.extend(5), attempt(r.lock("resource", timeout=10, blocking=False).acquire))
    step("Lock is given back", r.get("resource"))
    pubsub = r.pubsub()
    pubsub.subscribe("ch")
    pubsub.psubscribe("p*")
    step("subscribe", pubsub.get_message(timeout=5), pubsub.get_message(timeout=5))
    step("publish", r.publish("ch", "one"), pubsub.get_message(timeout=5), r.publish("pch", "two"), pubsub.get_message(timeout=5))
    pubsub.close()
    for i in range(2000):
        r.set(f"scan:{i}", i)
    step("scan_iter finds every key once or more", len(set(r.scan_iter("scan:*", count=100))))
    r.hset("bigh", mapping={f"f{i}": i for i in range(2000)})
    step("hscan_iter", len(dict(r.hscan_iter("bigh", count=100))))
    r.sadd("bigs", *range(2000))
    step("sscan_iter", len(set(r.sscan_iter("bigs", count=100))))
    r.zadd("bigz", {f"m{i}": i for i in range(2000)})
    step("zscan_iter", len(dict(r.zscan_iter("bigz", count=100))))
    blob = os.urandom(5_000_000)
    raw = redis.Redis(HOST, int(PORT), protocol=protocol)
    raw.set("blob", blob)
    step("5 MB value", raw.get("blob") == blob, raw.strlen("blob"), raw.getrange("blob", 4_999_990, 4_999_999) == blob[-10:])
    results = []
    thread = threading.Thread(target=lambda: results.append(redis.Redis(HOST, int(PORT), protocol=protocol, decode_responses=True).brpop("wait", 10)))
    thread.start()
    while not r.info("clients")["blocked_clients"]:
        pass
    r.lpush("wait", "served")
    thread.join()
    step("blocked client is served", results)
    info = r.info()
    step("info", info["redis_version"], info["role"], info["db0"]["keys"] == r.dbsize(), info["loading"])
    step("client", r.client_setname("me"), r.client_getname(), [c["name"] for c in r.client_list() if c["name"]])
    r.close()
