"""arq on asyncio (with redis-py 5, the newest it takes): results, retries, deferred, cron and aborted jobs, two workers on one queue."""

import asyncio
import os
from datetime import timedelta

from arq import Retry, Worker, create_pool, cron
from arq.connections import RedisSettings
from arq.jobs import Job
from lib import steps

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
SETTINGS = RedisSettings(host=HOST, port=int(PORT), database=4)
show = steps.show


async def until(condition, seconds=20):
    for _ in range(seconds * 100):
        value = await condition()
        if value:
            return value
        await asyncio.sleep(0.01)
    raise SystemExit(f"not within {seconds} s: line {condition.__code__.co_firstlineno}")


async def add(context, *numbers):
    await context["redis"].incr("ran")
    return sum(numbers)


async def fails(_context):
    raise ValueError("on purpose")


async def flaky(context):
    if context["job_try"] < 3:
        raise Retry(defer=0.05)
    return context["job_try"]


async def hangs(_context):
    await asyncio.sleep(60)


async def tick(context):
    await context["redis"].incr("ticks")


async def outcome(job):
    try:
        return await job.result(timeout=10, poll_delay=0.02)
    except (Exception, asyncio.CancelledError) as error:
        return f"{type(error).__name__}: {error}"


def start(*, cron_jobs=()):
    worker = Worker(functions=[add, fails, flaky, hangs], cron_jobs=cron_jobs, redis_settings=SETTINGS, poll_delay=0.02, handle_signals=False, max_tries=4,
                    allow_abort_jobs=True, health_check_interval=1, job_timeout=30, keep_result=60)
    return worker, asyncio.ensure_future(worker.async_run())


async def stop(worker, task):
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await worker.close()


async def main():
    redis = await create_pool(SETTINGS)
    await redis.flushall()
    one = await redis.enqueue_job("add", 1, 2, _job_id="one")
    show("queued", (await one.status()).value, [(job.function, job.args) for job in await redis.queued_jobs()], (await one.info()).job_try)
    show("the same id again", await redis.enqueue_job("add", 3, _job_id="one"))
    worker, task = start()
    show("result", await outcome(one), (await one.status()).value, (await one.result_info()).success, await redis.pttl("arq:result:one") > 50000)
    show("failure", await outcome(await redis.enqueue_job("fails")))
    show("retries", await outcome(await redis.enqueue_job("flaky")))
    late = await redis.enqueue_job("add", 5, _defer_by=timedelta(seconds=0.3))
    show("deferred", (await late.status()).value, await outcome(late), (await late.result_info()).start_time - (await late.result_info()).enqueue_time >= timedelta(seconds=0.29))
    show("unknown function", await outcome(await redis.enqueue_job("none")))
    hanging = await redis.enqueue_job("hangs")
    await until(lambda: redis.exists(f"arq:in-progress:{hanging.job_id}"))
    show("in progress", (await hanging.status()).value, await hanging.abort(timeout=10, poll_delay=0.02), await outcome(hanging))
    far = await redis.enqueue_job("add", 1, _defer_by=3600)
    show("aborted before it ran", await far.abort(timeout=10, poll_delay=0.02), (await far.status()).value)
    await redis.delete("ran")
    second = start()
    jobs = [await redis.enqueue_job("add", i, i) for i in range(50)]
    show("fifty for two workers", sum([await outcome(job) for job in jobs]), await redis.get("ran"))
    show("results kept", len(await redis.all_job_results()), await Job("none", redis).status())
    await until(lambda: redis.exists("arq:queue:health-check"))
    show("health", (await redis.get("arq:queue:health-check")).split(b" ", 3)[3].split(b"=")[0])
    await stop(*second)
    await stop(worker, task)
    timer = start(cron_jobs=[cron(tick, second=set(range(60)), unique=True)])
    await until(lambda: redis.get("ticks"))
    show("cron", int(await redis.get("ticks")) >= 1)
    await stop(*timer)
    await redis.aclose()


asyncio.run(main())
