"""redis-py on asyncio: pools, pipelines, many tasks at once, blocking reads that are cancelled, pub/sub, locks, streams, RESP2 and RESP3."""

import asyncio
import os

import redis.asyncio as redis
from lib import steps
from redis.exceptions import RedisError, WatchError

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
show = steps.show


async def attempt(awaitable):
    try:
        return await awaitable
    except (RedisError, asyncio.TimeoutError) as error:
        return f"{type(error).__name__}: {error}"


async def until(condition):
    for _ in range(1000):
        value = await condition()
        if value:
            return value
        await asyncio.sleep(0.01)
    raise SystemExit(f"never: line {condition.__code__.co_firstlineno}")


async def main(protocol):
    pool = redis.BlockingConnectionPool.from_url(f"redis://{HOST}:{PORT}/0?protocol={protocol}", decode_responses=True, max_connections=30)
    r = redis.Redis.from_pool(pool)
    await r.flushall()
    show(f"redis-py asyncio, protocol {protocol}", await r.ping(), await r.set("k", "v", ex=60), await r.get("k"), await r.mget("k", "none"))
    show("five hundred tasks", len(set(await asyncio.gather(*(r.incr("n") for _ in range(500))))))
    async with r.pipeline(transaction=True) as pipe:
        show("transaction", await pipe.set("a", 1).incr("a").hset("h", mapping={"x": 1}).hgetall("h").execute())
    async with r.pipeline(transaction=False) as pipe:
        for i in range(1000):
            pipe.zadd("z", {f"m{i}": i})
        show("pipeline", sum(await pipe.execute()), await r.zcard("z"), await r.zrange("z", 5, 7, withscores=True))
    async with r.pipeline() as pipe:
        await pipe.watch("k")
        await r.set("k", "changed")
        pipe.multi()
        pipe.set("k", "never")
        try:
            await pipe.execute()
        except WatchError as error:
            show("watched key changed", str(error), await r.get("k"))

    async def add(pipe):
        value = int(await pipe.get("counter") or 0)
        pipe.multi()
        pipe.set("counter", value + 1)

    await asyncio.gather(*(r.transaction(add, "counter") for _ in range(10)))
    show("ten optimistic increments", await r.get("counter"))
    waiting = [asyncio.ensure_future(r.blpop(f"wait:{i}", 10)) for i in range(5)]
    await until(lambda: blocked(r, 5))
    for i in range(5):
        await r.rpush(f"wait:{i}", i)
    show("five blocked tasks", await asyncio.gather(*waiting))
    cancelled = asyncio.ensure_future(r.blpop("never", 0))
    await until(lambda: blocked(r, 1))
    cancelled.cancel()
    await asyncio.gather(cancelled, return_exceptions=True)
    await until(lambda: blocked(r, 0))
    show("a cancelled one takes nothing", await r.rpush("never", "kept"), await r.lrange("never", 0, -1))

    got = []
    async with r.pubsub() as pubsub:
        await pubsub.subscribe("ch")
        await pubsub.psubscribe(**{"p*": lambda message: got.append(message["data"])})

        async def listen():
            async for message in pubsub.listen():
                if message["type"] == "message":
                    got.append(message["data"])
                    if message["data"] == "stop":
                        return

        listener = asyncio.ensure_future(listen())
        await until(lambda: r.pubsub_numpat())
        await r.publish("ch", "one")
        await r.publish("pch", "pattern")
        await r.publish("ch", "stop")
        await asyncio.wait_for(listener, 10)
        show("listened", got)
    inside, most = 0, 0

    async def enter():
        nonlocal inside, most
        async with r.lock("lock", timeout=10, sleep=0.002):
            inside += 1
            most = max(most, inside)
            await asyncio.sleep(0.001)
            inside -= 1

    await asyncio.gather(*(enter() for _ in range(20)))
    show("twenty tasks, one lock", most, await r.exists("lock"))

    await r.xgroup_create("st", "g", mkstream=True)

    async def consume(name):
        mine = []
        while True:
            batch = await r.xreadgroup("g", name, {"st": ">"}, count=5, block=300)
            entries = batch[0][1] if isinstance(batch, list) and batch else batch["st"][0] if batch else []
            if not entries:
                return mine
            mine += [int(fields["n"]) for _, fields in entries]
            await r.xack("st", "g", *[entry for entry, _ in entries])

    consumers = [asyncio.ensure_future(consume(f"c{i}")) for i in range(3)]
    for n in range(60):
        await r.xadd("st", {"n": n})
    shared = await asyncio.gather(*consumers)
    show("three consumers share a stream", sorted(sum(shared, [])) == list(range(60)), (await r.xpending("st", "g"))["pending"])
    script = r.register_script("return redis.call('incrby', KEYS[1], ARGV[1])")
    show("script", await script(keys=["sum"], args=[5]), await script(keys=["sum"], args=[6]))
    show("scan", len([key async for key in r.scan_iter("*", count=100)]) == await r.dbsize(), len([pair async for pair in r.zscan_iter("z", count=100)]))
    show("wrong type", await attempt(r.lpush("k", 1)))
    await r.aclose()


async def blocked(r, count):
    return (await r.info("clients"))["blocked_clients"] == count


for version in (2, 3):
    asyncio.run(main(version))
