"""What a key costs in memory, beside Valkey: strings of several sizes, and collections small and large.

Measured is anonymous memory (RssAnon): the pages of the log that the fold maps are the kernel's to take back. Both servers
are warmed first with a load that leaves one key, so that buffers of the log, of connections and of the fold are there before
and after. A fresh server for each shape: what an allocator keeps of the last one would flatter the next."""

import subprocess
import time

from measure import Case, cpu_seconds, servers, status_kb, table
from redis_face import VALUE

LONG = (VALUE * 9)[:1024]
# name -> (things, what is counted, commands for thing n)
SHAPES = {f"string-{size}": (1_000_000 if size <= 128 else 400_000, lambda n, size=size: [("SET", f"m:{n:014d}", LONG[:size])]) for size in (8, 32, 128, 512, 1024)}
SHAPES["string-ttl"] = (1_000_000, lambda n: [("SET", f"m:{n:014d}", LONG[:32], "EX", "100000")])
SHAPES["counter"] = (1_000_000, lambda n: [("INCRBY", f"m:{n:014d}", str(n))])
for fields in (5, 10):
    SHAPES[f"hash-{fields}"] = (400_000, lambda n, fields=fields: [("HSET", f"h:{n:014d}", *(word for f in range(fields) for word in (f"field{f}", LONG[:16])))])
SHAPES["list-10"] = (400_000, lambda n: [("RPUSH", f"l:{n:014d}", *(f"item-{n:08d}-{i}" for i in range(10)))])
SHAPES["set-10"] = (400_000, lambda n: [("SADD", f"s:{n:014d}", *(f"item-{n:08d}-{i}" for i in range(10)))])
SHAPES["zset-10"] = (400_000, lambda n: [("ZADD", f"z:{n:014d}", *(word for i in range(10) for word in (str(i * 7), f"item-{n:08d}-{i}")))])
# one element each, in collections of 100,000
BIG = 100_000
SHAPES["hash-big"] = (1_000_000, lambda n: [("HSET", f"h:{n // BIG}", f"field:{n % BIG:010d}", LONG[:32])])
SHAPES["list-big"] = (1_000_000, lambda n: [("RPUSH", f"l:{n // BIG}", LONG[:32])])
SHAPES["set-big"] = (1_000_000, lambda n: [("SADD", f"s:{n // BIG}", f"member:{n % BIG:09d}")])
SHAPES["zset-big"] = (1_000_000, lambda n: [("ZADD", f"z:{n // BIG}", str(n * 7919 % BIG), f"member:{n % BIG:09d}")])


def pipe(server, commands):
    """Sends commands as fast as they are taken."""
    port = server.addresses["resp"].rsplit(":", 1)[1]
    loader = subprocess.Popen(["redis-cli", "-h", "127.0.0.1", "-p", port, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    chunk = []
    for command in commands:
        chunk.append(f"*{len(command)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in command))
        if len(chunk) == 10_000:
            loader.stdin.write("".join(chunk).encode())
            chunk = []
    loader.stdin.write("".join(chunk).encode())
    loader.stdin.close()
    said = loader.stdout.read().decode()
    if loader.wait() != 0 or "errors: 0" not in said:
        raise RuntimeError(said)


def settled(server):
    """Waits until nothing works behind the load any more (fold, lazy freeing), then anonymous memory in bytes."""
    deadline = time.monotonic() + 20
    before = cpu_seconds(server.pid)
    while time.monotonic() < deadline:
        time.sleep(1)
        now = cpu_seconds(server.pid)
        if now - before < 0.03:
            break
        before = now
    return status_kb(server.pid, "RssAnon") * 1024


def weigh(server, shape, scale=1.0):
    count, commands = SHAPES[shape]
    count = int(count * scale)
    pipe(server, [("SET", "warm", LONG * 8)] * 18_000)
    before = settled(server)
    pipe(server, (command for n in range(count) for command in commands(n)))
    return {"bytes": (settled(server) - before) / count, "rss": status_kb(server.pid, "VmRSS") / 1024}


def run(rounds, scale, only=None):
    cases = []
    for shape in only or SHAPES:
        case = Case(f"{shape}, {SHAPES[shape][0]:,}")
        for server in (servers.FlowMesh(extra=["--resp-durability=os"]), servers.Valkey(fsync="off")):
            with server:
                figures = weigh(server, shape, scale)
            case.add(server.name, figures)
            print(f"  {case.name} {server.name}: {figures['bytes']:.1f} bytes each, RSS {figures['rss']:.0f} MB", flush=True)
        cases.append(case)
    return [("Memory per key or element: 16-byte keys; the last four count elements of collections of 100,000", table(cases, [("bytes", "bytes each"), ("rss", "RSS MB")]))]
