"""The table of scenarios: which program, in which environment, in which lane, judged by what."""

import functools
import re
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
LOCKS = HERE / "clients"
# Groups whose libraries are Debian's packages (scripts/dev-setup.sh), and what runs their programs.
INTERPRETERS = {"php": "php", "ruby": "ruby", "sh": "bash"}


@functools.cache
def client(*what):
    """Path of a client environment (scripts/clients.sh makes it on first use)."""
    return subprocess.run([str(ROOT / "scripts/clients.sh"), *what], check=True, capture_output=True, text=True).stdout.strip()


@dataclass(frozen=True)
class Scenario:
    name: str                 # face/what
    program: str              # file under compat-tests
    group: str                # resp|amqp|kafka|cross|jobs|arq|aiopika (Python venv), node, node-jobs, node-amqp, go, java, php, ruby, rust, sh
    arguments: tuple = ()
    lane: str = "matrix"      # gate: one client per ecosystem; matrix: the others
    oracle: str = "peer"      # peer: the golden; ours: the program checks itself and exits non-zero
    uses: tuple = ()          # further files it reads
    live: bool = False
    timeout: int = 120
    needs: tuple = field(default=())  # jar sets

    @property
    def face(self):
        return self.name.split("/")[0]

    def sources(self):
        """Files whose change makes the golden stale; `from lib import x` pulls lib/x.py in."""
        if self.group == "go":
            return {LOCKS / "go/go.mod", LOCKS / "go/main.go", LOCKS / f"go/{self.arguments[0]}.go"}
        if self.group == "rust":
            return {LOCKS / "rust/Cargo.lock", *LOCKS.glob("rust/src/*.rs")}
        files = {HERE / self.program, *(HERE / u for u in self.uses)}
        if self.group.startswith("node"):
            files.add(LOCKS / self.group / "package-lock.json")
        elif self.group == "java":
            files |= {LOCKS / f"java/{jars}.pom.xml" for jars in self.needs}
        elif self.group not in INTERPRETERS:
            files.add(LOCKS / f"python/{self.group}.lock")
            text = (HERE / self.program).read_text()
            for names in re.findall(r"^from lib import ([\w, ]+)", text, re.M):
                files |= {HERE / "lib" / f"{n.strip()}.py" for n in names.split(",")}
        return files

    def command(self):
        """(argv, extra environment)"""
        env = {f"{jar.upper().replace('-', '_')}_JARS": client("jars", jar) for jar in self.needs}
        program = str(HERE / self.program)
        if self.group == "go":
            return [client("go"), *self.arguments], env
        if self.group == "rust":
            return [client("rust"), *self.arguments], env
        if self.group.startswith("node"):
            return ["node", program, *self.arguments], {**env, "NODE_PATH": client("node", self.group)}
        if self.group == "java":  # one file, compiled as it starts
            return ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", ":".join(f"{client('jars', jars)}/*" for jars in self.needs), program], env
        if self.group in INTERPRETERS:
            return [INTERPRETERS[self.group], program, *self.arguments], env
        return [client("venv", self.group) + "/bin/python", program, *self.arguments], env


SCENARIOS = [
    Scenario("resp/commands-resp2", "resp/transcript.py", "resp", ("2", "commands.txt"), lane="gate", uses=("resp/commands.txt",), live=True),
    Scenario("resp/commands-resp3", "resp/transcript.py", "resp", ("3", "commands.txt"), lane="gate", uses=("resp/commands.txt",)),
    Scenario("resp/data-resp2", "resp/transcript.py", "resp", ("2", "data.txt"), lane="gate", uses=("resp/data.txt",)),
    Scenario("resp/data-resp3", "resp/transcript.py", "resp", ("3", "data.txt"), lane="gate", uses=("resp/data.txt",)),
    Scenario("resp/scripts-resp2", "resp/transcript.py", "resp", ("2", "scripts.txt"), lane="gate", uses=("resp/scripts.txt",)),
    Scenario("resp/scripts-resp3", "resp/transcript.py", "resp", ("3", "scripts.txt"), lane="gate", uses=("resp/scripts.txt",)),
    Scenario("resp/functions-resp2", "resp/transcript.py", "resp", ("2", "functions.txt"), lane="gate", uses=("resp/functions.txt",)),
    Scenario("resp/functions-resp3", "resp/transcript.py", "resp", ("3", "functions.txt"), lane="gate", uses=("resp/functions.txt",)),
    Scenario("resp/newer", "resp/newer.py", "resp", lane="gate", oracle="ours"),
    Scenario("resp/docs", "resp/docs.py", "resp", lane="gate"),
    Scenario("resp/functions-busy", "resp/functions.py", "resp", lane="gate"),
    Scenario("resp/clients-resp2", "resp/transcript.py", "resp", ("2", "clients.txt"), lane="gate", uses=("resp/clients.txt",)),
    Scenario("resp/clients-resp3", "resp/transcript.py", "resp", ("3", "clients.txt"), lane="gate", uses=("resp/clients.txt",)),
    Scenario("resp/tracking-resp2", "resp/transcript.py", "resp", ("2", "tracking.txt"), lane="gate", uses=("resp/tracking.txt",)),
    Scenario("resp/tracking-resp3", "resp/transcript.py", "resp", ("3", "tracking.txt"), lane="gate", uses=("resp/tracking.txt",)),
    Scenario("resp/admin-resp2", "resp/transcript.py", "resp", ("2", "admin.txt"), lane="gate", uses=("resp/admin.txt",)),
    Scenario("resp/admin-resp3", "resp/transcript.py", "resp", ("3", "admin.txt"), lane="gate", uses=("resp/admin.txt",)),
    Scenario("resp/insight", "resp/transcript.py", "resp", ("2", "insight.txt"), uses=("resp/insight.txt",)),
    Scenario("resp/memory-resp2", "resp/transcript.py", "resp", ("2", "memory.txt"), lane="gate", uses=("resp/memory.txt",)),
    Scenario("resp/memory-resp3", "resp/transcript.py", "resp", ("3", "memory.txt"), uses=("resp/memory.txt",)),
    Scenario("resp/acl-resp2", "resp/transcript.py", "resp", ("2", "acl.txt"), lane="gate", uses=("resp/acl.txt",)),
    Scenario("resp/acl-resp3", "resp/transcript.py", "resp", ("3", "acl.txt"), lane="gate", uses=("resp/acl.txt",)),
    Scenario("resp/acl", "resp/acl.py", "resp", lane="gate"),
    Scenario("resp/notify", "resp/notify.py", "resp", lane="gate", uses=("resp/notify.txt",)),
    Scenario("resp/redirect", "resp/redirect.py", "resp", lane="gate"),
    Scenario("resp/cached", "resp/cached.py", "resp", oracle="ours"),
    Scenario("resp/redis-cli", "resp/redis-cli.sh", "sh", lane="gate"),
    Scenario("resp/redis-py", "resp/redis-py.py", "resp", lane="gate"),
    Scenario("resp/ioredis", "resp/ioredis.js", "node", lane="gate"),
    Scenario("resp/go-redis", "", "go", ("resp",), lane="gate"),
    # Frameworks and SDKs. Served, but not in their programs yet: SORT (pottery's RedisList.sort), MEMORY USAGE (node-redis), HEXPIRE (huey's locks with
    # a time limit in its hash storage; it asks only servers of 7.4 and later), keyspace notifications (Spring Session's indexed repository).
    Scenario("resp/bullmq", "frameworks/bullmq.js", "node-jobs", ("ioredis",), lane="gate"),
    Scenario("resp/bullmq-node-redis", "frameworks/bullmq.js", "node-jobs", ("node-redis",)),
    Scenario("resp/rq", "frameworks/rq_jobs.py", "jobs", lane="gate"),
    Scenario("resp/celery", "frameworks/celery_app.py", "jobs", ("threads",), lane="gate"),
    Scenario("resp/celery-prefork", "frameworks/celery_app.py", "jobs", ("prefork",)),
    Scenario("resp/sidekiq", "frameworks/sidekiq_app.rb", "ruby", lane="gate"),
    Scenario("resp/dramatiq", "frameworks/dramatiq_app.py", "jobs"),
    Scenario("resp/huey", "frameworks/huey_app.py", "jobs"),
    Scenario("resp/arq", "frameworks/arq_app.py", "arq"),
    Scenario("resp/caches", "frameworks/caches.py", "jobs"),
    Scenario("resp/locks", "frameworks/locks.py", "jobs"),
    Scenario("resp/laravel-queue", "frameworks/laravel-queue.php", "php"),
    Scenario("resp/node-redis", "frameworks/node-redis.js", "node-jobs"),
    Scenario("resp/redis-py-async", "frameworks/redis-py-async.py", "resp"),
    Scenario("resp/jedis", "frameworks/jedis.java", "java", needs=("redis-clients",)),
    Scenario("resp/lettuce", "frameworks/lettuce.java", "java", needs=("redis-clients",)),
    Scenario("resp/redisson", "frameworks/redisson.java", "java", needs=("redis-clients",)),
    Scenario("resp/spring", "frameworks/spring.java", "java", needs=("redis-clients",)),
    Scenario("resp/spring-session", "frameworks/spring-session.java", "java", needs=("redis-clients",)),
    Scenario("resp/redis-rs", "", "rust"),
    Scenario("resp/redis-exporter", "frameworks/redis-exporter.sh", "sh"),
    Scenario("amqp/errors", "amqp/errors.py", "amqp", lane="gate"),
    Scenario("amqp/pika", "amqp/pika-client.py", "amqp", lane="gate", live=True),
    Scenario("amqp/limits", "amqp/limits.py", "amqp", lane="gate"),
    Scenario("amqp/bad-input", "amqp/bad-input.py", "amqp", lane="gate"),
    Scenario("amqp/queues", "amqp/queues.py", "amqp", lane="gate"),
    Scenario("amqp/streams", "amqp/streams.py", "amqp", lane="gate"),
    Scenario("amqp/exchanges", "amqp/exchanges.py", "amqp", lane="gate"),
    Scenario("amqp/events", "amqp/events.py", "amqp"),
    Scenario("amqp/trace", "amqp/trace.py", "amqp", oracle="ours"),
    Scenario("amqp/delayed", "amqp/delayed.py", "amqp", lane="gate", oracle="ours"),
    Scenario("amqp/overdue", "amqp/overdue.py", "amqp", oracle="ours"),
    Scenario("amqp/restart", "amqp/restart.py", "amqp", lane="gate", oracle="ours", uses=("lib/servers.py",)),
    Scenario("amqp/amqplib", "amqp/amqplib.js", "node", lane="gate"),
    Scenario("amqp/amqp091-go", "", "go", ("amqp",), lane="gate"),
    Scenario("amqp/amqp-tools", "amqp/amqp-tools.sh", "sh"),
    Scenario("amqp/perf-test", "amqp/perf-test.sh", "sh", needs=("rabbitmq-perf-test",)),
    Scenario("amqp/celery", "frameworks/celery_amqp.py", "jobs"),
    Scenario("amqp/lapin", "", "rust", ("lapin",)),
    Scenario("amqp/topologies", "frameworks/topologies.py", "amqp"),
    Scenario("amqp/aio-pika", "frameworks/aio_pika_app.py", "aiopika"),
    Scenario("amqp/spring", "frameworks/spring-amqp.java", "java", needs=("amqp-clients",)),
    Scenario("amqp/streams-java", "amqp/streams.java", "java", needs=("amqp-clients",)),
    Scenario("amqp/rabbitmq-client", "frameworks/rabbitmq-client.js", "node-amqp"),
    Scenario("amqp/php-amqplib", "frameworks/php-amqplib.php", "php"),
    Scenario("amqp/bunny", "frameworks/bunny_app.rb", "ruby"),
    Scenario("kafka/kcat", "kafka/kcat.sh", "sh", lane="gate", live=True),
    Scenario("kafka/confluent", "kafka/confluent.py", "kafka", lane="gate"),
    Scenario("kafka/transactions", "kafka/transactions.py", "kafka", lane="gate"),
    Scenario("kafka/bad-input", "kafka/bad-input.py", "kafka", lane="gate"),
    Scenario("kafka/kafkajs", "kafka/kafkajs.js", "node", lane="gate"),
    Scenario("kafka/franz-go", "", "go", ("kafka",), lane="gate"),
    Scenario("kafka/kafka-python", "kafka/kafka-python-client.py", "kafka"),
    Scenario("kafka/transactions-java", "kafka/transactions.java", "java", needs=("kafka-tools",), timeout=180),
    Scenario("kafka/java-tools", "kafka/java-tools.sh", "sh", needs=("kafka-tools",), timeout=180),
    Scenario("cross/transcripts", "cross/transcript.py", "cross", lane="gate", oracle="ours"),
    Scenario("cross/tls", "cross/tls.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py", "cross/tls.js"), needs=("kafka-tools", "rabbitmq-perf-test")),
    Scenario("cross/governor", "cross/governor.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py",)),
    Scenario("cross/users", "cross/users.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py",)),
    Scenario("cross/keyspace", "cross/keyspace.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py",)),
    Scenario("cross/stream-queues", "cross/stream_queues.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py", "lib/steps.py"), timeout=240),
    Scenario("cross/backup", "cross/backup.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py",)),
    Scenario("cross/upgrade", "cross/upgrade.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py",)),
    Scenario("cross/data", "cross/data.py", "cross", lane="gate", oracle="ours", uses=("lib/servers.py", "lib/respwire.py")),
    Scenario("cross/fuzz", "cross/fuzz.py", "cross", ("--seed", "20261201", "--rounds", "80", "--seconds", "240"), oracle="ours", uses=("lib/servers.py", "lib/respwire.py"), timeout=300),
    Scenario("cross/ranked", "cross/ranked.py", "cross", oracle="ours", uses=("lib/servers.py", "lib/pair.py"), timeout=300),
    Scenario("cross/listed", "cross/listed.py", "cross", oracle="ours", uses=("lib/servers.py", "lib/pair.py"), timeout=300),
    Scenario("cross/streamed", "cross/streamed.py", "cross", oracle="ours", uses=("lib/servers.py", "lib/pair.py"), timeout=300),
    Scenario("cross/cluster", "cross/cluster.py", "cross", ("beside", "redis-py", "ioredis"), lane="gate", oracle="ours", uses=("lib/servers.py", "lib/respwire.py", "cross/cluster.js")),
    Scenario("cross/cluster-clients", "cross/cluster.py", "cross", ("go-redis", "jvm"), oracle="ours", uses=("lib/servers.py", "cross/cluster.java"), needs=("redis-clients",)),
    Scenario("cross/readme", "cross/readme.py", "cross", oracle="ours", timeout=300),
]
