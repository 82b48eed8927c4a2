"""One server under two loads: does a queue at full fsync rate disturb the cache?

The queue's client takes its part of both cores and the disk its time, whoever the server is. So the cache is measured three
times: alone, beside a queue in another process, and beside the same queue in its own process. What the second does is the
machine's doing; what the third adds to it is ours."""

import subprocess

from measure import Case, client, servers, table
from redis_face import COLUMNS, COMMANDS, benchmark


def queue_load(server, seconds):
    jars = client("jars", "rabbitmq-perf-test")
    uri = f"amqp://guest:guest@{server.addresses['amqp']}/%2F"
    return subprocess.Popen(["java", "-Xmx256m", "-cp", f"{jars}/*", "com.rabbitmq.perf.PerfTest", "-h", uri, "-x", "1", "-y", "1", "-s", "1024", "-f", "persistent",
                             "-c", "100", "-q", "200", "-A", "50", "-u", "bench.mixed", "-ad", "false", "-z", str(seconds), "-r", "5000"],
                            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def run(rounds, scale, only=None):
    alone, apart, beside = Case("SET, 10 clients"), Case("SET, 10 clients, beside a queue of another process"), Case("SET, 10 clients, beside a queue of its own process")
    seconds = max(6, int(15 * scale))
    options = ["--resp-durability=interval", "--amqp-durability=sync"]

    def measure(case, label, queue_server):
        queue = queue_load(queue_server, seconds)
        try:
            benchmark(ours, COMMANDS["SET"], 20_000, clients=10)  # until the queue's JVM runs
            case.add(label, benchmark(ours, COMMANDS["SET"], int(100_000 * scale), clients=10))
        finally:
            queue.wait(seconds + 60)

    with servers.FlowMesh(extra=options) as ours, servers.FlowMesh(extra=options) as other:
        for _ in range(rounds):
            alone.add("alone", benchmark(ours, COMMANDS["SET"], int(100_000 * scale), clients=10))
            measure(apart, "queue apart", other)
            measure(beside, "with the queue", ours)
    columns = [("p99", "p99 ms"), *[c for c in COLUMNS if c[0] in ("p50", "p999", "rps")]]
    p99 = beside.median("with the queue", "p99")
    ratios = f"p99 with the queue / alone: **{p99 / alone.median('alone', 'p99'):.2f}**; / beside the queue of another process: **{p99 / apart.median('queue apart', 'p99'):.2f}**"
    return [("Mixed load: the queue is confirmed after fsync, 5,000 messages/s; both clients share the cores with the server", table([alone, apart, beside], columns) + "\n\n" + ratios)]
