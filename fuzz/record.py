#!/usr/bin/env python3
"""Record what real clients send: record.py [SCENARIO...]. Runs scenarios of compat-tests through a proxy in front of FlowMesh
and keeps the beginning of what each client sent as protocols/*/testdata/<client>-<version>-<what>.hex: input of the codecs'
tests and seeds of the fuzzers. Needs FLOWMESH_BIN and the client libraries; run it when a client's version changes."""

import json
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
COMPAT = ROOT / "compat-tests"
sys.path.insert(0, str(COMPAT))
from lib import servers  # noqa: E402
from run import run  # noqa: E402
from scenarios import LOCKS, SCENARIOS  # noqa: E402

BYTES_MAX = 6 << 10  # of one connection: what comes later says the same again
CONNECTIONS_MAX = 3  # of one client, those with the most to say


def locked(path, name):
    return re.search(rf"^{re.escape(name)}==(\S+)", (LOCKS / "python" / path).read_text(), re.M)[1]


def node(name):
    return json.loads((LOCKS / "node/package-lock.json").read_text())["packages"][f"node_modules/{name}"]["version"]


def go(name):
    return re.search(rf"{re.escape(name)} v(\S+)", (LOCKS / "go/go.mod").read_text())[1]


def java(file, artifact):
    return re.search(rf"{artifact}</artifactId><version>([^<]+)", (LOCKS / "java" / file).read_text())[1]


def debian(package):
    version = subprocess.run(["dpkg-query", "-W", "-f=${Version}", package], capture_output=True, text=True, check=True).stdout
    return re.sub(r"^\d+:|[-+].*", "", version)


# scenario → client and its version
CLIENTS = {
    "resp/redis-cli": ("redis-cli", lambda: debian("redis-tools")),
    "resp/redis-py": ("redis-py", lambda: locked("resp.lock", "redis")),
    "resp/ioredis": ("ioredis", lambda: node("ioredis")),
    "resp/go-redis": ("go-redis", lambda: go("go-redis/v9")),
    "amqp/pika": ("pika", lambda: locked("amqp.lock", "pika")),
    "amqp/amqplib": ("amqplib", lambda: node("amqplib")),
    "amqp/amqp091-go": ("amqp091-go", lambda: go("amqp091-go")),
    "amqp/amqp-tools": ("amqp-tools", lambda: debian("amqp-tools")),
    "amqp/perf-test": ("perf-test", lambda: java("rabbitmq-perf-test.pom.xml", "perf-test")),
    "kafka/kcat": ("kcat", lambda: debian("kcat")),
    "kafka/confluent": ("confluent-kafka", lambda: locked("kafka.lock", "confluent-kafka")),
    "kafka/kafka-python": ("kafka-python", lambda: locked("kafka.lock", "kafka-python")),
    "kafka/kafkajs": ("kafkajs", lambda: node("kafkajs")),
    "kafka/franz-go": ("franz-go", lambda: go("franz-go")),
    "kafka/java-tools": ("java-tools", lambda: java("kafka-tools.pom.xml", "kafka-tools")),
}


class Proxy:
    """Passes bytes both ways and keeps the first ones of each client."""

    def __init__(self, target):
        self.target, self.kept = target, []
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = "127.0.0.1:%d" % self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            host, port = self.target.rsplit(":", 1)
            server = socket.create_connection((host, int(port)))
            kept = bytearray()
            self.kept.append(kept)
            threading.Thread(target=self.copy, args=(client, server, kept), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, None), daemon=True).start()

    @staticmethod
    def copy(source, sink, kept):
        try:
            while data := source.recv(1 << 16):
                if kept is not None and len(kept) < BYTES_MAX:
                    kept += data[: BYTES_MAX - len(kept)]
                sink.sendall(data)
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            source.close()
            sink.close()


def write(scenario, streams):
    client, version = CLIENTS[scenario.name]
    directory = ROOT / "protocols" / scenario.face / "testdata"
    directory.mkdir(parents=True, exist_ok=True)
    for old in directory.glob(f"{client}-[0-9]*.hex"):
        old.unlink()
    streams = sorted({bytes(s) for s in streams if s}, key=len, reverse=True)[:CONNECTIONS_MAX]
    for number, data in enumerate(streams, 1):
        name = f"{client}-{version()}-{scenario.face}-{number}.hex"
        lines = [data[at : at + 64].hex() for at in range(0, len(data), 64)]
        head = f"# What {client} {version()} sent first on one connection of compat-tests' {scenario.name}; fuzz/record.py"
        (directory / name).write_text("\n".join([head, *lines]) + "\n")
        print(f"{name}: {len(data)} octets")


def main():
    chosen = [s for s in SCENARIOS if s.name in CLIENTS and (len(sys.argv) == 1 or s.name in sys.argv[1:])]
    for scenario in chosen:
        ports = {face: f"127.0.0.1:{servers.free_ports(1)}" for face in ("resp", "amqp", "kafka", "http", "grpc")}
        proxy = Proxy(ports[scenario.face])
        # Kafka's clients go where the server says it is.
        with servers.FlowMesh(addresses=ports, extra=[f"--kafka-advertised={proxy.address}"]):
            _, error = run(scenario, {**ports, scenario.face: proxy.address})
        if error:
            print(f"{scenario.name}: {error}", file=sys.stderr)
        write(scenario, proxy.kept)


if __name__ == "__main__":
    main()
