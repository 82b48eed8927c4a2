"""The AMQP face beside RabbitMQ 3.10.8, wide instead of deep: sizes, many queues, many clients, fan-out, fixed rates,
priorities, messages that expire, and what stands still. Each load in both classes: `os` beside classic queues, `sync` beside quorum queues."""

import contextlib
import resource
import struct
import time

from amqp_face import COLUMNS, perf_test, pid_of
from amqp_wire import Connection
from measure import Meter, alternate, cpu_seconds, rss_mb, servers, table

PERSISTENT = ["-s", "1024", "-f", "persistent", "-c", "1000", "-q", "1000", "-A", "100", "-ad", "false"]
MANY = ["-s", "1024", "-f", "persistent", "-c", "200", "-q", "200", "-A", "50", "-ad", "false"]
# name: (options, may also be asked of quorum queues)
GRID = {
    "transient, automatic ack, 16 bytes": (["-s", "16", "-a"], False),
    "transient, automatic ack, 16 KiB": (["-s", "16384", "-a"], False),
    "transient, acks of 100, 1 KiB": (["-s", "1024", "-q", "500", "-A", "100"], False),
    "persistent, 1,000 unconfirmed, 16 bytes": (["-s", "16", *PERSISTENT[2:]], True),
    "persistent, 200 unconfirmed, 16 KiB": (["-s", "16384", *MANY[2:]], True),
    "one confirm at a time": (["-s", "1024", "-f", "persistent", "-c", "1", "-q", "10", "-ad", "false"], True),
    "8 queues, a publisher and a consumer each": ([*MANY, "-x", "8", "-y", "8", "-qpf", "1", "-qpt", "8", "-qp"], True),
    "one queue, 8 publishers and 8 consumers": ([*MANY, "-x", "8", "-y", "8"], True),
    "fan-out to 16 queues, per published message": ([*MANY, "-t", "fanout", "-e", "bench.fan", "-x", "1", "-y", "16", "-qpf", "1", "-qpt", "16", "-qp"], True),
    "5,000 a second": ([*PERSISTENT[:-4], "-A", "10", "-ad", "false", "-r", "5000"], True),
    "priorities, 10 of them": ([*PERSISTENT, "-qa", "x-max-priority=10", "-mp", "priority=5"], False),
}
QUEUES = 1000
CONNECTIONS = 10_000
BINDINGS = 100_000
EXPIRING = 100_000
STILL_COLUMNS = [("each", "KiB of RSS each"), ("rest", "% of a core idle"), ("made", "made/s"), ("cpu", "server CPU µs per message then"), ("restart", "restart s")]
EXPIRE_COLUMNS = [("cpu", "server CPU µs/message"), ("rate", "arrived/s after the last was published"), ("late", "s from the last publish to the last arrival"), ("peak", "peak RSS MB")]


def loads(rounds, scale, only):
    """The perf-test rows of one class each."""
    seconds = max(4, int(10 * scale))
    cases = {"os": [], "sync": []}
    with servers.RabbitMQ() as peer:
        for durability, found in cases.items():
            with servers.FlowMesh(extra=[f"--amqp-durability={durability}"]) as ours:
                for index, (name, (options, quorum)) in enumerate(GRID.items()):
                    if (durability == "sync" and not quorum) or not wanted(name, only):
                        continue

                    def load(server, options=options, index=index):
                        own = f"grid.{durability}.{index}"
                        last = [f"{own}-%d"] if options[-1] == "-qp" else []
                        more = ["-qq"] if server is peer and durability == "sync" else []
                        return perf_test(server, [*options, *last, *more], seconds, own)

                    found.append(alternate(name, [("flowmesh", ours), ("rabbitmq", peer)], load, rounds))
    columns = [*COLUMNS, ("written", "bytes written/message")]
    title = {"os": "in the page cache when confirmed, classic queues", "sync": "on disk when confirmed, quorum queues"}
    return [(f"AMQP grid, {title[durability]}, {seconds} s a run", table(found, columns)) for durability, found in cases.items() if found]


def wanted(name, only):
    return only is None or any(name.startswith(some) for some in only)


def resting(server, seconds=10):
    """% of a core."""
    before = cpu_seconds(pid_of(server))
    time.sleep(seconds)
    return (cpu_seconds(pid_of(server)) - before) / seconds * 100


def made(server, count, make):
    """What `count` things cost that `make` makes, and then stand still."""
    before, began = rss_mb(pid_of(server)), time.monotonic()
    make()
    took = time.monotonic() - began
    time.sleep(2)
    return {"each": (rss_mb(pid_of(server)) - before) * 1024 / count, "made": count / took, "rest": resting(server)}


def load_one(server, **more):
    """Server CPU per message, µs, of one queue beside what stands still."""
    with Connection(server.addresses["amqp"]) as amqp:
        amqp.declare("bench.one")
        with Meter(pid_of(server)) as meter:
            amqp.publish("bench.one", 0, 20_000, 1024, **more)
            amqp.consume("bench.one", 0, 20_000, 1024)
        amqp.delete("bench.one")
    return meter.cpu / 20_000 * 1e6


def restarted(server):
    server.stop()
    began = time.monotonic()
    server.start()
    with Connection(server.addresses["amqp"]):
        return time.monotonic() - began


def queues(server, scale):
    count = int(QUEUES * scale)
    with Connection(server.addresses["amqp"]) as amqp:
        def make():
            for number in range(count):
                amqp.declare(f"idle.{number}")

        figures = made(server, count, make)
        figures["cpu"] = load_one(server)
    figures["restart"] = restarted(server)
    with Connection(server.addresses["amqp"]) as amqp:
        for number in range(count):
            amqp.delete(f"idle.{number}")
    return figures


def connections(server, scale):
    count = int(CONNECTIONS * scale)
    with contextlib.ExitStack() as stack:
        figures = made(server, count, lambda: [stack.enter_context(Connection(server.addresses["amqp"])) for _ in range(count)])
        figures["cpu"] = load_one(server)
    return figures


def bindings(server, scale):
    """On one topic exchange, to one queue. Published are keys that one binding has."""
    count = int(BINDINGS * scale)
    keys = [f"region.{number % 100:02d}.shop.{number:06d}.*" for number in range(count)]
    with Connection(server.addresses["amqp"]) as amqp:
        amqp.declare_exchange("bench.topic", "topic")
        amqp.declare("bench.bound")
        figures = made(server, count, lambda: amqp.bind("bench.bound", "bench.topic", keys))
        some = [key.replace("*", "order") for key in keys[:: max(1, count // 200)]][:200]
        with Meter(pid_of(server)) as meter:
            amqp.publish("bench.bound", 0, 20_000, 1024, exchange="bench.topic", keys=some, block=len(some))
            amqp.consume("bench.bound", 0, 20_000, 1024)
        figures["cpu"] = meter.cpu / 20_000 * 1e6
    figures["restart"] = restarted(server)
    with Connection(server.addresses["amqp"], timeout=600) as amqp:
        amqp.delete("bench.bound")
        amqp.delete_exchange("bench.topic")
    return figures


def entry(name, kind, value):
    return bytes([len(name)]) + name.encode() + kind + value


def expiring(server, scale):
    """All of them expire after a second, and arrive in another queue in their order."""
    count = int(EXPIRING * scale)

    def text(value):
        return struct.pack(">I", len(value)) + value.encode()

    arguments = entry("x-message-ttl", b"I", struct.pack(">i", 1000)) + entry("x-dead-letter-exchange", b"S", text("")) + entry("x-dead-letter-routing-key", b"S", text("bench.late"))
    with Connection(server.addresses["amqp"]) as amqp:
        amqp.declare("bench.late")
        amqp.declare("bench.short", arguments)
        with Meter(pid_of(server)) as meter:
            amqp.publish("bench.short", 0, count, 1024)
            began = time.monotonic()
            while amqp.declare("bench.late", passive=True) < count:
                time.sleep(0.05)
            late = time.monotonic() - began
        amqp.delete("bench.short")
        amqp.delete("bench.late")
    return {"cpu": meter.cpu / count * 1e6, "rate": count / late, "late": late, "peak": meter.peak}


STILL = {f"{QUEUES:,} idle queues": queues, f"{CONNECTIONS:,} idle connections": connections, f"{BINDINGS:,} bindings of a topic exchange": bindings}
EXPIRE = f"{EXPIRING:,} messages that expire after a second into another queue"


def run(rounds, scale, only=None):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    sections = loads(rounds, scale, only) if only is None or any(wanted(name, only) for name in GRID) else []
    chosen = {name: case for name, case in STILL.items() if wanted(name, only)}
    if not chosen and not wanted(EXPIRE, only):
        return sections
    with servers.RabbitMQ() as peer, servers.FlowMesh(extra=["--amqp-durability=os", "--max-connections=20000"]) as ours:
        two = [("flowmesh", ours), ("rabbitmq", peer)]
        still = [alternate(name, two, lambda server, case=case: case(server, scale), 1) for name, case in chosen.items()]
        if still:
            sections.append(("AMQP grid, what stands still", table(still, STILL_COLUMNS)))
        if wanted(EXPIRE, only):
            sections.append(("AMQP grid, expiry", table([alternate(EXPIRE, two, lambda server: expiring(server, scale), rounds)], EXPIRE_COLUMNS)))
    return sections
