"""The AMQP face beside RabbitMQ 3.10.8: RabbitMQ's own perf-test, one publisher and one consumer unless said."""

import re
import subprocess

from measure import Meter, alternate, client, servers, table

# (case, options, durability of FlowMesh, extra options for RabbitMQ)
CASES = [
    ("transient, automatic ack, 1 KiB", ["-s", "1024", "-a"], "os", []),
    ("persistent, 1,000 unconfirmed, 1 KiB", ["-s", "1024", "-f", "persistent", "-c", "1000", "-q", "1000", "-A", "100", "-ad", "false"], "os", []),
    ("persistent, fsynced (quorum queue), 1 KiB", ["-s", "1024", "-f", "persistent", "-c", "1000", "-q", "1000", "-A", "100", "-ad", "false"], "sync", ["-qq"]),
    ("persistent, one confirm at a time, fsynced (quorum queue)", ["-s", "1024", "-f", "persistent", "-c", "1", "-q", "10", "-ad", "false"], "sync", ["-qq"]),
]


def perf_test(server, options, seconds, name):
    jars = client("jars", "rabbitmq-perf-test")
    uri = f"amqp://guest:guest@{server.addresses['amqp']}/%2F"
    argv = ["java", "-Xmx512m", "-XX:+UseParallelGC", "-cp", f"{jars}/*", "com.rabbitmq.perf.PerfTest", "-h", uri, "-x", "1", "-y", "1", "-u", name, "-z", str(seconds), *options]
    pid = getattr(server, "beam_pid", None) or server.pid
    with Meter(pid) as meter:
        out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout

    def average(what):
        found = re.search(rf"{what} rate avg: ([\d.]+)", out)
        return float(found[1]) if found else None

    def latency(what):
        found = re.findall(rf"{what} latency min/median/75th/95th/99th[^\d]*([\d/]+)", out)
        return [int(v) / 1000 for v in found[-1].split("/")] if found else [None] * 5

    sent, received = average("sending"), average("receiving")
    confirm, consumer = latency("confirm"), latency("consumer")
    return {"cpu": meter.cpu / (sent * seconds) * 1e6, "rate": received, "sent": sent, "c50": confirm[1], "c99": confirm[4], "d99": consumer[4], "rss": meter.rss, "peak": meter.peak}


COLUMNS = [("cpu", "server CPU µs/message"), ("rate", "received/s"), ("c50", "confirm p50 ms"), ("c99", "confirm p99 ms"), ("d99", "publish to deliver p99 ms"), ("peak", "peak RSS MB")]


def run(rounds, scale, only=None):
    seconds = max(4, int(12 * scale))
    cases = []
    with servers.RabbitMQ() as peer:
        for durability in ("os", "sync"):
            with servers.FlowMesh(extra=[f"--amqp-durability={durability}"]) as ours:
                for index, (name, options, wanted, more) in enumerate(CASES):
                    if wanted != durability:
                        continue

                    def load(server, options=options, more=more, index=index):
                        extra = more if server is peer else []
                        return perf_test(server, [*options, *extra], seconds, f"bench.{index}")

                    cases.append(alternate(name, [("flowmesh", ours), ("rabbitmq", peer)], load, rounds))
    return [(f"AMQP face, perf-test, {seconds} s a run", table(cases, COLUMNS))]
