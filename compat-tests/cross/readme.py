"""README.md as a new user reads it: its commands and programs, run as they stand (but for the ports), and what they leave."""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import redis
from confluent_kafka import Consumer, TopicPartition

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "README.md").read_text()
ADDRESS = {face: os.environ[f"{face.upper()}_ADDR"] for face in ("resp", "amqp", "kafka", "http")}
USUAL = {"resp": "6379", "amqp": "5672", "kafka": "9092", "http": "8080"}


def here(text):
    for face, port in USUAL.items():
        text = text.replace(f"127.0.0.1:{port}", ADDRESS[face]).replace(f'127.0.0.1", {port}', f'127.0.0.1", {ADDRESS[face].rsplit(":", 1)[1]}')
        text = text.replace(f"setPort({port})", f"setPort({ADDRESS[face].rsplit(':', 1)[1]})")
    # The tools' own defaults are the usual ports.
    text = re.sub(r"^redis-cli ", f"redis-cli -p {ADDRESS['resp'].rsplit(':', 1)[1]} ", text, flags=re.M)
    return text.replace("guest@127.0.0.1 ", f"guest@{ADDRESS['amqp']} ")


def blocks(language):
    return [here(block) for block in re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.M | re.S)]


def run(title, command, **more):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False, **more)
    if done.returncode:
        sys.exit(f"{title}: exit {done.returncode}\n{done.stdout}{done.stderr}")
    print(f"> {title}\n{done.stdout.rstrip()}")
    return done.stdout


def client(*what):
    return subprocess.run([str(ROOT / "scripts/clients.sh"), *what], check=True, capture_output=True, text=True).stdout.strip()


def records():
    consumer = Consumer({"bootstrap.servers": ADDRESS["kafka"], "group.id": "readme"})
    low, high = consumer.get_watermark_offsets(TopicPartition("orders", 0), timeout=20)
    consumer.close()
    return high - low


def expect(what, got, want):
    if got != want:
        sys.exit(f"{what}: {got!r} instead of {want!r}")


r = redis.Redis(*ADDRESS["resp"].split(":"), decode_responses=True)
shell = next(block for block in blocks("sh") if "redis-cli" in block)
out = run("the commands of the first minute", ["bash", "-e", "-c", shell])
for answer in ("OK", "hello", "order 1", "work", "job 1", '"version"'):
    if answer not in out:
        sys.exit(f"the commands of the first minute: no {answer!r} in {out!r}")

transaction = re.search(r"^```\n(MULTI\n.*?)^```", TEXT, re.M | re.S)[1]
done = subprocess.run(["redis-cli", "-p", ADDRESS["resp"].rsplit(":", 1)[1]], input=transaction, capture_output=True, text=True, timeout=60, check=True)
expect("the transaction's key", r.get("cart:7"), "paid")
expect("records after the transaction", records(), 2)
if "ERR" in done.stdout:
    sys.exit(f"the transaction: {done.stdout}")

with tempfile.TemporaryDirectory() as scratch:
    languages = [("python", "py"), ("js", "js"), ("go", "go")]
    if shutil.which("javac"):  # the tests' own Java tools need no compiler
        languages.append(("java", "java"))
    for number, (language, suffix) in enumerate(languages, 3):
        (block,) = blocks(language)
        program = Path(scratch) / f"Hello.{suffix}"
        program.write_text(block)
        r.delete("k")
        if language == "python":
            run(language, [sys.executable, program])
        elif language == "js":
            run(language, ["node", program], env={**os.environ, "NODE_PATH": client("node")})
        elif language == "go":
            run(language, ["go", "run", program], cwd=ROOT / "compat-tests/clients/go")
        else:
            jars = [f"{client('jars', name)}/*" for name in ("rabbitmq-perf-test", "kafka-tools")]
            run(language, ["java", "-cp", ":".join(jars), program])
        if language != "java":
            expect(f"{language}'s key", r.get("k"), "v")
        expect(f"records after {language}", records(), number)
