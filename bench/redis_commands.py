"""The Redis face beside Valkey, wide instead of deep: the commands that applications send, one row each; Lua; fan-out to
subscribers; connections that do nothing; and what the keyspace's topic costs. Durability as named."""

import contextlib
import resource
import selectors
import socket
import time

from measure import Meter, alternate, rss_mb, servers, table, total
from redis_face import COLUMNS, KEYS, VALUE, benchmark

SCRIPT = "local v=redis.call('INCRBY',KEYS[1],ARGV[1]) if v%2==0 then redis.call('PEXPIRE',KEYS[1],60000) end return v"
ANY = "k:__rand_int__"
# name: (part of the requests, clients, pipeline, command); in this order, since later ones find what earlier ones made
GRID = {
    "PING": (1, 50, 1, ["PING"]),
    "SET, one client": (1 / 10, 1, 1, ["SET", ANY, VALUE]),
    "GET, one client": (1 / 10, 1, 1, ["GET", ANY]),
    "SET, pipeline 100": (1, 50, 100, ["SET", ANY, VALUE]),
    "SET EX, pipeline 16": (1, 50, 16, ["SET", "t:__rand_int__", VALUE, "EX", "3600"]),
    "SET NX PX": (1 / 2, 50, 1, ["SET", "lock:__rand_int__", "tok", "NX", "PX", "30000"]),
    "MSET of 10": (1 / 10, 50, 1, ["MSET", *[ANY, VALUE] * 10]),
    "MGET of 10": (1 / 10, 50, 1, ["MGET", *[ANY] * 10]),
    "INCR of one key, pipeline 16": (1, 50, 16, ["INCR", "hot"]),
    "HSET of one hash, pipeline 16": (1, 50, 16, ["HSET", "bigh", "f:__rand_int__", VALUE]),
    "HGET of one hash, pipeline 16": (1, 50, 16, ["HGET", "bigh", "f:__rand_int__"]),
    "LPUSH, pipeline 16": (1, 50, 16, ["LPUSH", "q", VALUE]),
    "LRANGE of 100": (1 / 10, 50, 1, ["LRANGE", "q", "0", "99"]),
    "LMOVE": (1 / 2, 50, 1, ["LMOVE", "q", "q2", "RIGHT", "LEFT"]),
    "ZADD, pipeline 16": (1, 50, 16, ["ZADD", "z", "__rand_int__", "m:__rand_int__"]),
    "ZRANGE of 100": (1 / 10, 50, 1, ["ZRANGE", "z", "0", "99", "WITHSCORES"]),
    "ZRANGEBYSCORE of 10": (1 / 10, 50, 1, ["ZRANGEBYSCORE", "z", "1000", "+inf", "LIMIT", "0", "10"]),
    "XADD MAXLEN ~, pipeline 16": (1, 50, 16, ["XADD", "st", "MAXLEN", "~", "100000", "*", "f", VALUE]),
    "XRANGE of 100": (1 / 10, 50, 1, ["XRANGE", "st", "-", "+", "COUNT", "100"]),
    "PFADD, pipeline 16": (1, 50, 16, ["PFADD", "hll", "m:__rand_int__"]),
    "GEOSEARCH of 10": (1 / 10, 50, 1, ["GEOSEARCH", "geo", "FROMLONLAT", "13.4", "52.5", "BYRADIUS", "500", "km", "ASC", "COUNT", "10"]),
    "PUBLISH to nobody, pipeline 16": (1, 50, 16, ["PUBLISH", "ch", VALUE]),
    "EVAL of two commands": (1 / 2, 50, 1, ["EVAL", SCRIPT, "1", "e:__rand_int__", "1"]),
    "EXPIRE, pipeline 16": (1, 50, 16, ["EXPIRE", ANY, "3600"]),
    "DEL, pipeline 16": (1, 50, 16, ["DEL", ANY]),
}
SUBSCRIBERS = 1000
IDLE = 10_000


def port(server):
    return int(server.addresses["resp"].rsplit(":", 1)[1])


def connect(server):
    return socket.create_connection(("127.0.0.1", port(server)))


def prepare(server):
    benchmark(server, ["SET", ANY, VALUE], KEYS * 5, pipeline=16)
    with connect(server) as client:
        for n in range(1000):
            client.sendall(f"GEOADD geo {n % 40 - 5} {40 + n % 23} p{n}\r\n".encode())
            client.recv(64)


def grid(rounds, scale, only):
    names = [name for name in GRID if only is None or name.split()[0].rstrip(",") in only]
    if not names:
        return []
    with servers.FlowMesh(extra=["--resp-durability=interval"]) as ours, servers.Valkey(fsync="everysec") as peer:
        two = [("flowmesh", ours), ("valkey", peer)]
        for _, server in two:
            prepare(server)

        def load(name):
            part, clients, pipeline, command = GRID[name]
            return lambda server: benchmark(server, command, max(1000, int(400_000 * scale * part)), clients, pipeline)

        cases = [alternate(name, two, load(name), rounds) for name in names]
        cases.append(total(f"sum of the {len(cases)} above", cases, "cpu"))
    return [("Redis face, one row per command, everysec both, 128-byte values, 50 clients, no pipeline, unless named", table(cases, COLUMNS))]


def publish(server, messages):
    """`messages` to SUBSCRIBERS connections, as fast as they are taken off."""
    with contextlib.ExitStack() as stack:
        poll = stack.enter_context(selectors.DefaultSelector())
        for _ in range(SUBSCRIBERS):
            client = stack.enter_context(connect(server))
            client.sendall(b"SUBSCRIBE fan\r\n")
            client.recv(256)
            client.setblocking(False)
            poll.register(client, selectors.EVENT_READ)
        publisher = stack.enter_context(connect(server))
        size = len(f"*3\r\n$7\r\nmessage\r\n$3\r\nfan\r\n${len(VALUE)}\r\n{VALUE}\r\n")
        wanted, got = messages * SUBSCRIBERS * size, 0
        with Meter(server.pid) as meter:
            publisher.sendall(f"PUBLISH fan {VALUE}\r\n".encode() * messages)
            while got < wanted:
                for key, _ in poll.select(30):
                    got += len(key.fileobj.recv(1 << 20))
        deliveries = messages * SUBSCRIBERS
        return {"cpu": meter.cpu / deliveries * 1e6, "rps": deliveries / meter.wall, "rss": meter.peak}


def idle(server, _):
    """What connections that wait cost, and one of them that works."""
    before = rss_mb(server.pid)
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(connect(server))
        time.sleep(1)
        each = (rss_mb(server.pid) - before) * 1024 / IDLE
        with Meter(server.pid) as resting:
            time.sleep(10)
        figures = benchmark(server, ["GET", ANY], 100_000)
    return {**figures, "each": each, "rest": resting.cpu * 10}


def connections(rounds, scale, _only):
    resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
    args = ["--resp-durability=os"]
    with servers.FlowMesh(extra=[*args, "--max-connections=20000"]) as ours, servers.Valkey(fsync="no", options=["--maxclients", "20000"]) as peer:
        two = [("flowmesh", ours), ("valkey", peer)]
        fan = alternate(f"PUBLISH to {SUBSCRIBERS:,} subscribers, per delivery", two, lambda s: publish(s, int(1000 * scale)), rounds)
        many = alternate(f"{IDLE:,} idle connections, GET of 50 others", two, lambda s: idle(s, scale), rounds)
    idle_columns = [("each", "KiB of RSS per connection"), ("rest", "% of a core idle"), ("cpu", "server CPU µs/op"), ("rps", "ops/s"), ("p99", "p99 ms")]
    return [("Redis face, fan-out", table([fan], [("cpu", "server CPU µs/delivery"), ("rps", "deliveries/s"), ("rss", "peak RSS MB")])),
            ("Redis face, idle connections", table([many], idle_columns))]


def feed(rounds, scale, _only):
    """What `__keyspace.0` costs who writes."""
    args = ["--resp-durability=interval"]
    with servers.FlowMesh(extra=[*args, "--keyspace-topics=0"]) as told, servers.FlowMesh(extra=args) as plain:
        two = [("flowmesh, keyspace topic on", told), ("off", plain)]
        commands = {"SET": ["SET", ANY, VALUE], "HSET": ["HSET", "h:__rand_int__", "f:__rand_int__", VALUE], "INCR": ["INCR", "c:__rand_int__"]}
        cases = [alternate(f"{name}, pipeline 16", two, lambda s, c=command: benchmark(s, c, int(500_000 * scale), pipeline=16), rounds) for name, command in commands.items()]
    return [("Redis face, the keyspace's topic", table(cases, COLUMNS))]


# Part of `--only`, besides first words of the grid.
PARTS = {"connections": connections, "feed": feed}


def run(rounds, scale, only=None):
    """Returns [(title, markdown)]."""
    sections = grid(rounds, scale, only)
    for part, cases in PARTS.items():
        if only is None or part in only:
            sections += cases(rounds, scale, only)
    return sections
