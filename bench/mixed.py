"""One server under two loads: does a queue at full fsync rate disturb the cache?"""

import subprocess

from measure import Case, client, servers, table
from redis_face import COLUMNS, COMMANDS, benchmark


def run(rounds, scale, only=None):
    alone, beside = Case("SET, 10 clients"), Case("SET, 10 clients, beside a queue confirmed after fsync")
    seconds = max(6, int(15 * scale))
    jars = client("jars", "rabbitmq-perf-test")
    with servers.FlowMesh(extra=["--resp-durability=interval", "--amqp-durability=sync"]) as ours:
        uri = f"amqp://guest:guest@{ours.addresses['amqp']}/%2F"
        for _ in range(rounds):
            alone.add("alone", benchmark(ours, COMMANDS["SET"], int(100_000 * scale), clients=10))
            queue = subprocess.Popen(["java", "-Xmx256m", "-cp", f"{jars}/*", "com.rabbitmq.perf.PerfTest", "-h", uri, "-x", "1", "-y", "1", "-s", "1024", "-f", "persistent",
                                      "-c", "100", "-q", "200", "-A", "50", "-u", "bench.mixed", "-ad", "false", "-z", str(seconds), "-r", "5000"],
                                     stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            try:
                benchmark(ours, COMMANDS["SET"], 20_000, clients=10)  # until the queue's JVM runs
                beside.add("with the queue", benchmark(ours, COMMANDS["SET"], int(100_000 * scale), clients=10))
            finally:
                queue.wait(seconds + 60)
    columns = [("p99", "p99 ms"), *[c for c in COLUMNS if c[0] in ("p50", "p999", "rps")]]
    ratio = beside.median("with the queue", "p99") / alone.median("alone", "p99")
    return [("Mixed load (FlowMesh alone against itself; the client shares both cores)", table([alone, beside], columns) + f"\n\np99 with the queue / alone: **{ratio:.2f}**")]
