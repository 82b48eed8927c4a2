"""The Kafka face beside Apache Kafka 4.4.0 with 1 GiB of heap, its default: Kafka's own producer, consumer and end-to-end tools."""

import re
import subprocess

from measure import Meter, alternate, client, servers, table


def tool(server, name, *options):
    jars = client("jars", "kafka-tools")
    argv = ["java", "-Xmx512m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", f"org.apache.kafka.tools.{name}", "--bootstrap-server", server.addresses["kafka"], *map(str, options)]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=600, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stdout[-500:]} {done.stderr[-1500:]}")
    return done.stdout


def create(server, topic, partitions=12, config=()):
    options = [o for pair in config for o in ("--config", pair)]
    tool(server, "TopicCommand", "--create", "--topic", topic, "--partitions", partitions, *options)


def produce(server, topic, records, acks):
    with Meter(server.pid) as meter:
        out = tool(server, "ProducerPerformance", "--topic", topic, "--num-records", records, "--record-size", 1024, "--throughput", -1,
                   "--command-property", f"acks={acks}", "linger.ms=5", "batch.size=65536", "buffer.memory=67108864")
    last = [line for line in out.splitlines() if "records/sec" in line][-1]
    mb = records * 1024 / 1e6
    return {"cpu": meter.cpu / mb * 1000, "rate": float(re.search(r"\(([\d.]+) MB/sec\)", last)[1]),
            "p50": float(re.search(r"([\d.]+) ms 50th", last)[1]), "p99": float(re.search(r"([\d.]+) ms 99th", last)[1]), "p999": float(re.search(r"([\d.]+) ms 99.9th", last)[1]),
            "written": meter.written / (records * 1024), "rss": meter.rss, "peak": meter.peak}


def consume(server, topic, records):
    with Meter(server.pid) as meter:
        out = tool(server, "ConsumerPerformance", "--topic", topic, "--num-records", records, "--timeout", 30000)
    fields = out.strip().splitlines()[-1].split(",")
    mb = records * 1024 / 1e6
    return {"cpu": meter.cpu / mb * 1000, "rate": float(fields[8]), "rss": meter.rss, "peak": meter.peak}


def end_to_end(server, topic, acks, count):
    with Meter(server.pid) as meter:
        out = tool(server, "EndToEndLatency", "--topic", topic, "--num-records", count, "--producer-acks", acks, "--record-size", 1024)
    found = re.search(r"50th = (\d+), 99th = (\d+), 99.9th = (\d+)", out)
    average = re.search(r"Avg latency: ([\d.]+)", out)
    return {"p99": float(found[2]), "p50": float(found[1]), "p999": float(found[3]), "average": float(average[1]), "cpu": meter.cpu / count * 1e6}


PRODUCE = [("cpu", "server CPU ms/MB"), ("rate", "MB/s"), ("p50", "p50 ms"), ("p99", "p99 ms"), ("p999", "p99.9 ms"), ("written", "bytes written per byte"), ("peak", "peak RSS MB")]


def run(rounds, scale, only=None):
    records = int(400_000 * scale)
    sections = []
    for durability, acks, config, title in [("os", "1", [], "acks=1, page cache both"), ("os", "all", [], "acks=all, page cache both"),
                                            ("sync", "all", ["flush.messages=1"], "acks=all, fsync both (flush.messages=1)")]:
        with servers.FlowMesh(extra=[f"--kafka-durability={durability}"]) as ours, servers.Kafka(heap="1g") as peer:
            both = [("flowmesh", ours), ("kafka", peer)]
            for _, server in both:
                create(server, "bench", config=config if server is peer else [])
                create(server, "e2e", 1, config=config if server is peer else [])
                produce(server, "bench", records // 4, acks)  # warm-up: JIT, page cache
            count = records if not config else records // 4
            rows = [alternate(f"produce, {title}", both, lambda s: produce(s, "bench", count, acks), rounds)]
            sections.append((f"Kafka face, produce, 12 partitions, 1 KiB records, 64 KiB batches: {title}", table(rows, PRODUCE)))
            if acks == "1":
                rows = [alternate("fetch from the start, hot", both, lambda s: consume(s, "bench", records), rounds)]
                sections.append(("Kafka face, fetch", table(rows, [("cpu", "server CPU ms/MB"), ("rate", "MB/s"), ("peak", "peak RSS MB")])))
            rows = [alternate(f"end to end, {title}", both, lambda s: end_to_end(s, "e2e", acks, int(4000 * scale)), rounds)]
            sections.append((f"Kafka face, end-to-end latency: {title}", table(rows, [("p99", "p99 ms"), ("p50", "p50 ms"), ("p999", "p99.9 ms"), ("average", "average ms"), ("cpu", "server CPU µs/record")])))
    return sections
