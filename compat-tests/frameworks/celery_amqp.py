"""Celery with RabbitMQ's protocol as broker: results, canvas, retries, eta, priorities, events, remote control, quorum queues with
native delayed delivery.

The worker, a process of its own, imports this file by name. Results and marks are files, so that nothing but the broker is under test.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

from celery import Celery, chain, chord, group
from kombu import Exchange, Queue
from lib import steps

HERE = Path(__file__).resolve().parent
DIR = Path(os.environ.setdefault("CELERY_AMQP_DIR", "") or tempfile.mkdtemp(prefix="fm-celery-"))
os.environ["CELERY_AMQP_DIR"] = str(DIR)
show, until = steps.show, steps.until
QUORUM = os.environ.get("CELERY_QUORUM") == "1"

app = Celery("celery_amqp", broker=f"amqp://guest:guest@{os.environ['AMQP_ADDR']}//", backend=f"file://{DIR}")
app.conf.update(
    task_default_queue="cel.q" if QUORUM else "cel.fast", task_track_started=True, task_acks_late=True, worker_prefetch_multiplier=1,
    broker_connection_retry_on_startup=True, worker_hijack_root_logger=False, result_chord_retry_interval=0.1, broker_pool_limit=2,
)
if QUORUM:
    app.conf.update(task_default_queue_type="quorum", task_default_exchange_type="topic", worker_detect_quorum_queues=True, broker_transport_options={"confirm_publish": True})
else:
    app.conf.task_queues = (Queue("cel.fast", Exchange("cel.fast"), "cel.fast", queue_arguments={"x-max-priority": 10}), Queue("cel.slow", Exchange("cel.slow"), "cel.slow"))
    app.conf.task_routes = {"celery_amqp.slow_*": {"queue": "cel.slow"}}


def mark(text):
    with open(DIR / "marks", "a") as file:
        file.write(f"{text}\n")


def marks():
    path = DIR / "marks"
    return path.read_text().split() if path.exists() else []


@app.task
def add(*numbers):
    return sum(numbers)


@app.task
def total(numbers):
    return sum(numbers)


@app.task
def slow_square(n):
    return n * n


@app.task
def fail():
    raise ValueError("on purpose")


@app.task(bind=True, max_retries=3)
def retried(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return self.request.retries


@app.task
def note(name):
    mark(name)


@app.task
def when():
    return time.time()


@app.task
def gate():
    mark("gate")
    until(lambda: (DIR / "open").exists(), 60)


class Worker:
    def __init__(self, name, concurrency=2, **env):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_amqp", "worker", "-P", "threads", "-c", str(concurrency), "-n", f"{name}@local", "-E", "-l", "CRITICAL",
             "--without-mingle", "--without-gossip", "--without-heartbeat"],
            cwd=HERE, env=dict(os.environ, **env), stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)


def outcome(result, timeout=20):
    try:
        return result.get(timeout=timeout, interval=0.02)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def delete(*names):
    with app.connection_for_write() as connection:
        for name in names:
            connection.default_channel.queue_delete(name)


def main():
    delete("cel.fast", "cel.slow")
    events, ready = [], threading.Event()

    def listen():
        with app.connection_for_read() as connection:
            receiver = app.events.Receiver(connection, handlers={"*": lambda event: events.append((event["type"], event.get("uuid")))})
            ready.set()
            try:
                receiver.capture(limit=None, timeout=None, wakeup=False)
            except Exception:
                pass

    threading.Thread(target=listen, daemon=True).start()
    ready.wait()
    worker = Worker("one", concurrency=1)
    blocked = gate.delay()
    until(lambda: "gate" in marks())
    for name, priority in (("none", None), ("low", 1), ("high", 9), ("middle", 5), ("high-again", 9)):
        note.apply_async((name,), **({} if priority is None else {"priority": priority}))
    (DIR / "open").touch()
    until(lambda: len(marks()) == 6)
    show("priorities", marks())
    outcome(blocked)
    result = add.delay(1, 2, 3)
    show("a result", outcome(result), result.state)
    until(lambda: ("task-succeeded", result.id) in events)
    show("its events", sorted(kind for kind, uuid in events if uuid == result.id))
    failing = fail.delay()
    show("a failure", outcome(failing), failing.state)
    show("the other queue", outcome(slow_square.delay(9)), sorted(q["name"] for q in app.control.inspect(timeout=5, limit=1).active_queues()["one@local"]))
    show("chain and group", outcome(chain(add.s(1, 2), add.s(4), slow_square.s())()), outcome(group(add.s(i, i) for i in range(5))()))
    show("chord", outcome(chord([add.s(i, i) for i in range(5)])(total.s())))
    show("retry", outcome(retried.delay()))
    start = time.time()
    later = when.apply_async(countdown=2)
    at = when.apply_async(eta=datetime.now(timezone.utc) + timedelta(seconds=2))
    until(lambda: len(app.control.inspect(timeout=5, limit=1).scheduled()["one@local"]) == 2)
    # One thread and a prefetch of one: only a window that grows while the worker keeps what is for later lets this one pass.
    soon, ran = outcome(when.delay()), [outcome(x) for x in (later, at)]
    show("what is for later is not in the way", soon < min(ran), all(x - start >= 1.99 for x in ran))
    expired = when.apply_async(expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    show("expired before it ran", outcome(expired))
    revoked = when.apply_async(countdown=3)
    until(lambda: app.control.inspect(timeout=5, limit=1).scheduled()["one@local"])
    revoked.revoke()
    show("revoked", outcome(revoked), revoked.state)
    show("ping", app.control.ping(timeout=5, limit=1), app.control.add_consumer("cel.third", reply=True, timeout=5, limit=1), outcome(add.apply_async((5, 5), queue="cel.third")))
    show("stopped", worker.stop())
    with app.connection_for_write() as connection:
        counts = [connection.default_channel.queue_declare(name, passive=True).message_count for name in ("cel.slow", "cel.third")]
    show("nothing is left", counts)
    delete("cel.fast", "cel.slow", "cel.third")
    if quorum := subprocess.run([sys.executable, __file__], env=dict(os.environ, CELERY_QUORUM="1")).returncode:
        sys.exit(quorum)
    shutil.rmtree(DIR)


def quorum():
    delete("cel.q")
    worker = Worker("two")
    show("quorum: a result", outcome(add.delay(2, 3)))
    start = time.time()
    later = [when.apply_async(countdown=seconds) for seconds in (1, 2)]
    show("quorum: delayed by the broker, to the second", [abs(outcome(x) - start - seconds) < 1.5 for x, seconds in zip(later, (1, 2))])
    show("quorum: stopped", worker.stop())
    delete("cel.q", *(f"celery_delayed_{level}" for level in range(28)))


if __name__ == "__main__":
    quorum() if QUORUM else main()
