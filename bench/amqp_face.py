"""The AMQP face beside RabbitMQ 3.10.8: RabbitMQ's own perf-test, one publisher and one consumer unless said; and a long
backlog, by a bare client."""

import re
import subprocess
import time
from pathlib import Path

from amqp_wire import Connection
from measure import Meter, alternate, client, peak_mb, rss_mb, servers, table

# (case, options, durability of FlowMesh, extra options for RabbitMQ)
CASES = [
    ("transient, automatic ack, 1 KiB", ["-s", "1024", "-a"], "os", []),
    ("persistent, 1,000 unconfirmed, 1 KiB", ["-s", "1024", "-f", "persistent", "-c", "1000", "-q", "1000", "-A", "100", "-ad", "false"], "os", []),
    ("persistent, fsynced (quorum queue), 1 KiB", ["-s", "1024", "-f", "persistent", "-c", "1000", "-q", "1000", "-A", "100", "-ad", "false"], "sync", ["-qq"]),
    ("persistent, one confirm at a time, fsynced (quorum queue)", ["-s", "1024", "-f", "persistent", "-c", "1", "-q", "10", "-ad", "false"], "sync", ["-qq"]),
]


def pid_of(server):
    return getattr(server, "beam_pid", None) or server.pid


def perf_test(server, options, seconds, name):
    """One publisher, one consumer and the queue `name`, unless the options say otherwise."""
    ends = [] if "-x" in options else ["-x", "1", "-y", "1"]
    queue = [] if "-qp" in options else ["-u", name]
    jars = client("jars", "rabbitmq-perf-test")
    uri = f"amqp://guest:guest@{server.addresses['amqp']}/%2F"
    argv = ["java", "-Xmx512m", "-XX:+UseParallelGC", "-cp", f"{jars}/*", "com.rabbitmq.perf.PerfTest", "-h", uri, *ends, *queue, "-z", str(seconds), *options]
    with Meter(pid_of(server)) as meter:
        out = subprocess.run(argv, capture_output=True, text=True, check=True, timeout=seconds + 60).stdout

    def average(what):
        found = re.search(rf"{what} rate avg: ([\d.]+)", out)
        return float(found[1]) if found else None

    def latency(what):
        found = re.findall(rf"{what} latency min/median/75th/95th/99th[^\d]*([\d/]+)", out)
        return [int(v) / 1000 for v in found[-1].split("/")] if found else [None] * 5

    sent, received = average("sending"), average("receiving")
    confirm, consumer = latency("confirm"), latency("consumer")
    messages = sent * seconds
    return {"cpu": meter.cpu / messages * 1e6, "rate": received, "sent": sent, "c50": confirm[1], "c99": confirm[4], "d50": consumer[1], "d99": consumer[4],
            "written": meter.written / messages, "rss": meter.rss, "peak": meter.peak}


COLUMNS = [("cpu", "server CPU µs/message"), ("rate", "received/s"), ("c50", "confirm p50 ms"), ("c99", "confirm p99 ms"), ("d99", "publish to deliver p99 ms"), ("peak", "peak RSS MB")]


BACKLOG = "backlog, 1 KiB, persistent"
BACKLOG_COLUMNS = [("peak", "peak RSS MB"), ("rss", "RSS MB then"), ("published", "published/s"), ("restart", "restart s"), ("drained", "drained/s"), ("drain_peak", "peak RSS MB draining"), ("short", "a short queue drained/s"), ("count", "messages")]


def backlog(server, count):
    """Publishes `count` messages that nobody takes, restarts the server, and takes them all."""
    address, queue, size = server.addresses["amqp"], "bench.backlog", 1024
    few = min(50_000, count)

    with Connection(address) as amqp:
        amqp.declare(queue)
        amqp.publish(queue, 0, few, size)
        short, _ = amqp.consume(queue, 0, few, size)
    Path(f"/proc/{pid_of(server)}/clear_refs").write_text("5")  # the peak starts anew
    with Connection(address) as amqp:
        publishing = amqp.publish(queue, 0, count, size)
    figures = {"peak": peak_mb(pid_of(server)), "published": count / publishing, "short": few / short, "count": count}
    time.sleep(2)
    figures["rss"] = rss_mb(pid_of(server))
    server.stop()
    began = time.monotonic()
    server.start()
    with Connection(address) as amqp:
        ready = amqp.declare(queue, passive=True)
        figures["restart"] = time.monotonic() - began
        if ready != count:
            raise RuntimeError(f"{ready} messages after the restart, {count} before")
        draining, _ = amqp.consume(queue, 0, count, size)
        figures["drain_peak"] = peak_mb(pid_of(server))
        amqp.delete(queue)
    figures["drained"] = count / draining
    return figures


def backlogs(rounds, scale):
    """One round, each server alone: the disk has to hold it several times over. RabbitMQ takes a tenth of the messages, since
    it needs minutes for each million."""
    count = int(10_000_000 * scale)
    contestants = [(servers.FlowMesh(extra=["--amqp-durability=os"]), "flowmesh", count), (servers.RabbitMQ(), "rabbitmq", count // 10)]
    tables = []
    for server, label, number in contestants:
        with server:
            tables.append(alternate(BACKLOG, [(label, server)], lambda server, number=number: backlog(server, number), 1))
    tables[0].results.update(tables[1].results)
    return table(tables[:1], BACKLOG_COLUMNS)


def run(rounds, scale, only=None):
    seconds = max(4, int(12 * scale))
    sections = []
    if only is None or any(BACKLOG.startswith(name) for name in only):
        sections.append(("AMQP backlog", backlogs(rounds, scale)))
    chosen = [case for case in enumerate(CASES) if only is None or any(case[1][0].startswith(name) for name in only)]
    if not chosen:
        return sections
    cases = []
    with servers.RabbitMQ() as peer:
        for durability in ("os", "sync"):
            with servers.FlowMesh(extra=[f"--amqp-durability={durability}"]) as ours:
                for index, (name, options, wanted, more) in chosen:
                    if wanted != durability:
                        continue

                    def load(server, options=options, more=more, index=index):
                        extra = more if server is peer else []
                        return perf_test(server, [*options, *extra], seconds, f"bench.{index}")

                    cases.append(alternate(name, [("flowmesh", ours), ("rabbitmq", peer)], load, rounds))
    return [(f"AMQP face, perf-test, {seconds} s a run", table(cases, COLUMNS)), *sections]
