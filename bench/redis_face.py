"""The Redis face beside Valkey: redis-benchmark, both in the same durability class."""

import random
import re
import string
import subprocess

from measure import Meter, alternate, rss_mb, servers, table

RANDOM = random.Random(1)
VALUE = "".join(RANDOM.choices(string.ascii_letters + string.digits, k=128))  # "xxx" would flatter whoever compresses
KEYS = 100_000
COMMANDS = {
    "SET": ["SET", "k:__rand_int__", VALUE],
    "GET": ["GET", "k:__rand_int__"],
    "INCR": ["INCR", "c:__rand_int__"],
    "HSET": ["HSET", "h:__rand_int__", "f:__rand_int__", VALUE],
    "LPUSH": ["LPUSH", "q", VALUE],
    "RPOP": ["RPOP", "q"],
    "SADD": ["SADD", "s", "m:__rand_int__"],
    "ZADD": ["ZADD", "z", "__rand_int__", "m:__rand_int__"],
}


def benchmark(server, command, requests, clients=50, pipeline=1, keys=KEYS):
    port = server.addresses["resp"].rsplit(":", 1)[1]
    argv = ["redis-benchmark", "-h", "127.0.0.1", "-p", port, "-n", str(requests), "-c", str(clients), "-P", str(pipeline), "-r", str(keys), *command]
    with Meter(server.pid) as meter:
        out = subprocess.run(argv, capture_output=True, text=True, check=True).stdout
    rps = float(re.search(r"throughput summary: ([\d.]+)", out)[1])
    summary = re.search(r"avg\s+min\s+p50\s+p95\s+p99\s+max\s+([\d. ]+)", out)[1].split()
    tail = next((float(ms) for percent, ms in re.findall(r"([\d.]+)% <= ([\d.]+) milliseconds \(cum", out) if float(percent) >= 99.9), None)
    return {"cpu": meter.cpu / requests * 1e6, "rps": rps, "p50": float(summary[2]), "p99": float(summary[4]), "p999": tail, "written": meter.written / requests, "rss": meter.rss}


COLUMNS = [("cpu", "server CPU µs/op"), ("rps", "ops/s"), ("p50", "p50 ms"), ("p99", "p99 ms"), ("p999", "p99.9 ms"), ("written", "bytes written/op"), ("rss", "RSS MB")]


def run(rounds, scale, only=None):
    """Returns [(title, markdown)]."""
    sections = []
    names = only or list(COMMANDS)
    with servers.FlowMesh(extra=["--resp-durability=interval"]) as ours, servers.Valkey(fsync="everysec", options=["--auto-aof-rewrite-percentage", "0"]) as peer:
        both = [("flowmesh", ours), ("valkey", peer)]
        for _, server in both:
            benchmark(server, COMMANDS["SET"], KEYS * 5, pipeline=16)  # fill
        cases = [alternate(f"{n}, pipeline 16", both, lambda s, n=n: benchmark(s, COMMANDS[n], int(1_000_000 * scale), pipeline=16), rounds) for n in names]
        sections.append(("Redis face, everysec both, 50 clients, pipeline 16, 128-byte values, 100,000 keys", table(cases, COLUMNS)))
        cases = [alternate(f"{n}, no pipeline", both, lambda s, n=n: benchmark(s, COMMANDS[n], int(200_000 * scale)), rounds) for n in names if n in ("SET", "GET", "INCR", "LPUSH")]
        sections.append(("Redis face, everysec both, 50 clients, no pipeline", table(cases, COLUMNS)))
    with servers.FlowMesh(extra=["--resp-durability=sync"]) as ours, servers.Valkey(fsync="always") as peer:
        both = [("flowmesh", ours), ("valkey", peer)]
        case = alternate("SET, fsync before each reply", both, lambda s: benchmark(s, COMMANDS["SET"], int(50_000 * scale)), rounds)
        order = [("rps", "ops/s"), ("cpu", "server CPU µs/op"), *COLUMNS[2:]]
        sections.append(("Redis face, always both, 50 clients", table([case], order)))
    with servers.FlowMesh(extra=["--resp-durability=os"]) as ours, servers.Valkey(fsync="off") as peer:
        both = [("flowmesh", ours), ("valkey", peer)]

        def million(server):
            before = rss_mb(server.pid)
            # every key once: redis-benchmark draws at random, so the loader is our own pipeline
            pipe_keys(server, int(1_000_000 * scale))
            return {"bytes": (rss_mb(server.pid) - before) * 1048576 / int(1_000_000 * scale), "rss": rss_mb(server.pid)}

        case = alternate("1 M keys of 16 bytes, values of 128", both, million, 1)
        sections.append(("Memory per key", table([case], [("bytes", "bytes of RSS per key"), ("rss", "RSS MB")])))
    return sections


def pipe_keys(server, count):
    port = server.addresses["resp"].rsplit(":", 1)[1]
    loader = subprocess.Popen(["redis-cli", "-h", "127.0.0.1", "-p", port, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    for start in range(0, count, 10_000):
        chunk = "".join(f"*3\r\n$3\r\nSET\r\n$16\r\nm:{n:014d}\r\n$128\r\n{VALUE}\r\n" for n in range(start, min(start + 10_000, count)))
        loader.stdin.write(chunk.encode())
    loader.stdin.close()
    loader.wait()
