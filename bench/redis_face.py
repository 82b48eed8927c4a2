"""The Redis face beside Valkey: redis-benchmark, both in the same durability class."""

import itertools
import random
import re
import string
import subprocess

from measure import Meter, alternate, rss_mb, servers, table, total

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


def interval_cases(rounds, scale, names):
    """Fold here, AOF rewrite there: both at their defaults, both charged to the case in which they fall."""
    interval = "--resp-durability=interval"
    sections = []
    with servers.FlowMesh(extra=[interval]) as ours, servers.FlowMesh(extra=[interval, "--threads=1"]) as single, servers.Valkey(fsync="everysec") as peer:
        two, three = [("flowmesh", ours), ("valkey", peer)], [("flowmesh, one thread", single), ("flowmesh", ours), ("valkey", peer)]
        for _, server in three:
            benchmark(server, COMMANDS["SET"], KEYS * 5, pipeline=16)  # fill
        cases = [alternate(f"{n}, pipeline 16", two, lambda s, n=n: benchmark(s, COMMANDS[n], int(1_000_000 * scale), pipeline=16), rounds) for n in names]
        cases.append(total(f"sum of the {len(names)} above", cases, "cpu"))
        sections.append(("Redis face, everysec both, 50 clients, pipeline 16, 128-byte values, 100,000 keys", table(cases, COLUMNS)))
        cases = [alternate(f"{n}, no pipeline", three, lambda s, n=n: benchmark(s, COMMANDS[n], int(200_000 * scale)), rounds) for n in names if n in ("SET", "GET", "INCR", "LPUSH")]
        if cases:
            cases.append(total(f"sum of the {len(cases)} above", cases, "cpu"))
            sections.append(("Redis face, everysec both, 50 clients, no pipeline", table(cases, COLUMNS)))
    return sections


def always_case(rounds, scale):
    """The second case shows what this client can do at most: nobody waits for the disk there."""
    order = [("rps", "ops/s"), ("cpu", "server CPU µs/op"), *COLUMNS[2:]]
    cases = []
    for name, ours, fsync in (("SET, fsync before each reply", "sync", "always"), ("SET, no fsync at all", "os", "no")):
        durability = f"--resp-durability={ours}"
        with servers.FlowMesh(extra=[durability]) as two, servers.FlowMesh(extra=[durability, "--threads=1"]) as one, servers.Valkey(fsync=fsync) as peer:
            three = [("flowmesh, one thread", one), ("flowmesh", two), ("valkey", peer)]
            cases.append(alternate(name, three, lambda s: benchmark(s, COMMANDS["SET"], int(100_000 * scale)), rounds))
    return [("Redis face, always both, 50 clients", table(cases, order))]


def pipe_keys(server, count):
    """`count` keys, each once: redis-benchmark draws at random."""
    pipe(server, (f"*3\r\n$3\r\nSET\r\n$16\r\nm:{n:014d}\r\n$128\r\n{VALUE}\r\n" for n in range(count)))


def pipe(server, commands):
    port = server.addresses["resp"].rsplit(":", 1)[1]
    loader = subprocess.Popen(["redis-cli", "-h", "127.0.0.1", "-p", port, "--pipe"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        while chunk := "".join(itertools.islice(commands, 10_000)):
            loader.stdin.write(chunk.encode())
    except BrokenPipeError:
        pass  # it says why
    said = loader.communicate()[0].decode()
    if loader.returncode:
        raise RuntimeError(f"redis-cli --pipe exited with {loader.returncode}: {said[-300:]}; the server: {server.process.poll()}")


BUDGET = 32 << 20  # of the cache: half of --memory-limit
BEYOND = {
    "GET, any key": ["GET", "s:__rand_int__"],
    "GET, a hot tenth": ["GET", "s:__rand_int__"],
    "SET, new keys": ["SET", "n:__rand_int__", VALUE],
    "HGET of one hash": ["HGET", "large", "f:__rand_int__"],
    "HSET of one hash": ["HSET", "large", "f:__rand_int__", VALUE],
}


def beyond_memory(rounds, scale):
    """Strings and one hash, each ten times the cache's budget. Nobody to compare with: Valkey would refuse or evict."""
    count = int(10 * BUDGET * scale / (14 + len(VALUE)))
    with servers.FlowMesh(extra=["--resp-durability=os", f"--memory-limit={2 * BUDGET}"]) as ours:
        only = [("flowmesh", ours)]
        pipe(ours, (f"*3\r\n$3\r\nSET\r\n$14\r\ns:{n:012d}\r\n$128\r\n{VALUE}\r\n" for n in range(count)))
        pipe(ours, (f"*4\r\n$4\r\nHSET\r\n$5\r\nlarge\r\n$14\r\nf:{n:012d}\r\n$128\r\n{VALUE}\r\n" for n in range(count)))
        print(f"  loaded, RSS {rss_mb(ours.pid):.0f} MB", flush=True)

        def load(name, pipeline, keys):
            return lambda server: benchmark(server, BEYOND[name], int(500_000 * scale), pipeline=pipeline, keys=keys)

        def while_folding(server):
            port = server.addresses["resp"].rsplit(":", 1)[1]
            writer = subprocess.Popen(["redis-benchmark", "-h", "127.0.0.1", "-p", port, "-n", "100000000", "-c", "4", "-P", "16", "-r", str(count), "SET", "s:__rand_int__", VALUE], stdout=subprocess.DEVNULL)
            try:
                # the server's CPU is the writer's too, so only the rate and the delays are of interest
                return {**benchmark(server, BEYOND["GET, any key"], int(500_000 * scale), pipeline=16, keys=count), "cpu": None}
            finally:
                writer.kill()
                writer.wait()

        cases = [alternate(f"{name}, pipeline {p}", only, load(name, p, count // 10 if "hot" in name else count), rounds) for name in BEYOND for p in (16, 1)]
        cases.append(alternate("GET, any key, beside 4 writers of the same keys, pipeline 16", only, while_folding, rounds))
        whole = [ask(ours, "HLEN", "large"), ask(ours, "EXISTS", *(f"s:{n:012d}" for n in range(0, count, 97)))]
        print(f"  HLEN {whole[0]} of {count}, EXISTS {whole[1]} of {len(range(0, count, 97))}", flush=True)
    return [(f"Redis face, data 10x the budget ({BUDGET >> 20} MiB): {count:,} strings and a hash of as many fields, durability os", table(cases, COLUMNS))]


def ask(server, *words):
    host, port = server.addresses["resp"].rsplit(":", 1)
    return subprocess.run(["redis-cli", "-h", host, "-p", port, *words], capture_output=True, text=True, check=True).stdout.strip()


# Part of `--only`, besides names of commands.
PARTS = {"always": always_case, "beyond": beyond_memory}


def run(rounds, scale, only=None):
    """Returns [(title, markdown)]."""
    names = [n for n in COMMANDS if only is None or n in only]
    sections = interval_cases(rounds, scale, names) if names else []
    for part, cases in PARTS.items():
        if only is None or part in only:
            sections += cases(rounds, scale)
    return sections
