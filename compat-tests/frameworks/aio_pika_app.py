"""aio-pika: robust connections, confirms and returns, its RPC and worker patterns, dead letters, priorities, transactions, a new secret."""

import asyncio
import os

import aio_pika
from aio_pika import DeliveryMode, ExchangeType, Message
from aio_pika.patterns import RPC, Master, NackMessage, RejectMessage
from lib.steps import show

URL = f"amqp://guest:guest@{os.environ['AMQP_ADDR']}/"


async def until(condition, seconds=10):
    async with asyncio.timeout(seconds):
        while not (value := await condition() if asyncio.iscoroutinefunction(condition) else condition()):
            await asyncio.sleep(0.01)
        return value


async def take(queue, **more):
    """The next message, waited for."""
    async def one():
        return await queue.get(fail=False, **more)

    return await until(one)


async def main():
    connection = await aio_pika.connect_robust(URL, reconnect_interval=0.1)
    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
    for name in ("aio.q", "aio.dead", "aio.prio", "aio.tasks"):
        await channel.queue_delete(name)

    queue = await channel.declare_queue("aio.q", durable=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "aio.dead"})
    dead = await channel.declare_queue("aio.dead", durable=True)
    exchange = await channel.declare_exchange("aio.topic", ExchangeType.TOPIC, durable=True)
    await queue.bind(exchange, "a.*")
    confirmed = await exchange.publish(Message(b"one", headers={"h": 1, "list": [1, "x"], "when": None}, delivery_mode=DeliveryMode.PERSISTENT, correlation_id="c1", expiration=60), "a.b")
    got = await take(queue)
    show("published and got", type(confirmed).__name__, got.body, got.headers, got.correlation_id, got.expiration, got.routing_key, got.redelivered)
    await got.ack()
    try:
        await exchange.publish(Message(b"lost"), "nowhere", mandatory=True)
    except aio_pika.exceptions.DeliveryError as error:
        show("returned", type(error).__name__, error.message.delivery.reply_text)

    for index in range(20):
        await exchange.publish(Message(b"%d" % index), "a.n")
    await channel.set_qos(prefetch_count=5)
    seen = []
    async with queue.iterator() as messages:
        async for message in messages:
            async with message.process(requeue=True):
                seen.append(int(message.body))
            if len(seen) == 20:
                break
    show("iterated", seen == list(range(20)))
    await exchange.publish(Message(b"unwanted"), "a.b")
    async with (await take(queue)).process(ignore_processed=True) as message:
        await message.reject(requeue=False)
    buried = await take(dead)
    show("dead letter", buried.body, buried.headers["x-death"][0]["reason"], buried.headers["x-first-death-queue"])
    await buried.ack()

    prio = await channel.declare_queue("aio.prio", arguments={"x-max-priority": 9})
    for priority in (1, 9, 5):
        await channel.default_exchange.publish(Message(b"%d" % priority, priority=priority), "aio.prio")
    show("priorities", [(await take(prio, no_ack=True)).body for _ in range(3)])

    plain = await connection.channel(publisher_confirms=False)
    async with plain.transaction():
        await plain.default_exchange.publish(Message(b"together"), "aio.prio")
    show("transaction", (await take(prio, no_ack=True)).body)

    rpc = await RPC.create(channel)

    async def multiply(*, x, y):
        return x * y

    async def fails():
        raise ValueError("on purpose")

    await rpc.register("multiply", multiply, auto_delete=True)
    await rpc.register("fails", fails, auto_delete=True)
    show("rpc", [await rpc.proxy.multiply(x=x, y=10) for x in range(3)])
    try:
        await rpc.call("fails", expiration=5)
    except ValueError as error:
        show("rpc that fails", error)
    try:
        await rpc.call("nobody", expiration=5)
    except Exception as error:
        show("rpc of nobody", type(error).__name__)

    master, tries = Master(channel), []

    async def work(*, number):
        tries.append(number)
        if number == 1 and tries.count(1) == 1:
            raise NackMessage(requeue=True)
        if number == 2:
            raise RejectMessage(requeue=False)

    worker = await master.create_worker("aio.tasks", work, durable=True)
    for number in range(4):
        await master.create_task("aio.tasks", {"number": number})
    await until(lambda: len(tries) == 5)
    show("workers", sorted(tries))
    await worker.close()

    await connection.update_secret("guest", reason="renewed")
    show("secret updated")
    got, closed = [], []
    await queue.consume(lambda message: got.append(message.body) or asyncio.sleep(0), no_ack=True)
    connection.reconnect_callbacks.add(lambda *_: closed.append(True))
    await connection.transport.connection.close(ConnectionError("broken"))
    await until(lambda: closed)
    await until(lambda: connection.connected.is_set() and not channel.is_closed)
    await channel.default_exchange.publish(Message(b"after"), "aio.q")
    await until(lambda: got)
    show("reconnected, with its consumers", got)
    for name in ("aio.q", "aio.dead", "aio.prio", "aio.tasks"):
        await channel.queue_delete(name)
    await channel.exchange_delete("aio.topic")
    await connection.close()


asyncio.run(main())
