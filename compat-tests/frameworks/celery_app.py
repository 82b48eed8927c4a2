"""Celery with the broker in database 0 and the results in database 1: results, canvas, retries, eta, revoke, two queues, events.

The worker, a process of its own, imports this file by name. Argument: the worker's pool;
`prefork` does more: priorities, a task and a worker that are killed.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from datetime import datetime, timedelta, timezone
from pathlib import Path

import redis
from celery import Celery, chain, chord, group
from celery.exceptions import TaskRevokedError
from lib import steps

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
show, until = steps.show, steps.until

app = Celery("celery_app", broker=f"redis://{HOST}:{PORT}/0", backend=f"redis://{HOST}:{PORT}/1")
app.conf.update(
    task_default_queue="fast", task_routes={"celery_app.slow_*": {"queue": "slow"}}, task_track_started=True, result_extended=True,
    worker_prefetch_multiplier=1, broker_connection_retry_on_startup=True, task_acks_late=True, result_expires=3600,
    worker_hijack_root_logger=False, worker_disable_rate_limits=True,
    # Few seconds, so that the messages of a killed worker are back in the time of a test.
    broker_transport_options={"visibility_timeout": int(os.environ.get("VISIBILITY", "3600")), "unacked_restore_interval": 1, "unacked_restore_throttle": 1,
                              "queue_order_strategy": "priority"},
)


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


@app.task
def on_error(request, error, _traceback):
    client().rpush("errors", f"{type(error).__name__}: {error}")


@app.task(bind=True, max_retries=3)
def retried(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.05)
    return self.request.retries


@app.task(autoretry_for=(ValueError,), max_retries=2, default_retry_delay=0.05)
def gives_up():
    client().incr("gave up")
    raise ValueError("never works")


@app.task(bind=True)
def progress(self):
    self.update_state(state="PROGRESS", meta={"done": 40})
    until(lambda: client().get("go on"))
    return "done"


@app.task(ignore_result=True)
def mark(name):
    client().rpush("marks", name)


@app.task
def held():
    client().rpush("held", os.getpid())
    until(lambda: client().get("let go"), 60)
    return client().llen("held")


@app.task
def when():
    return time.time()


def client(db=2):
    return redis.Redis(HOST, int(PORT), db=db)


class Worker:
    def __init__(self, pool, name, concurrency=2, queues="fast,slow", visibility=3600):
        self.process = subprocess.Popen(
            [sys.executable, "-m", "celery", "-A", "celery_app", "worker", "-P", pool, "-c", str(concurrency), "-Q", queues, "-n", f"{name}@local", "-E", "-l", "CRITICAL",
             "--without-mingle", "--without-gossip", "--without-heartbeat"],
            cwd=os.path.dirname(os.path.abspath(__file__)), env=dict(os.environ, VISIBILITY=str(visibility)), stdout=subprocess.DEVNULL)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def kill(self):
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        for pid in (self.process.pid, *map(int, children)):
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def outcome(result, timeout=20):
    try:
        return result.get(timeout=timeout)
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def priorities(r, pool):
    for name, priority in (("normal", None), ("low", 9), ("high", 0), ("middle", 6), ("low again", 9), ("high again", 0)):
        mark.apply_async((name,), **({} if priority is None else {"priority": priority}))
    show("lists of the broker", sorted((key.decode(), client(0).llen(key)) for key in client(0).keys("fast*")))
    worker = Worker(pool, "one", concurrency=1)
    until(lambda: r.llen("marks") == 6)
    show("priorities", [x.decode() for x in r.lrange("marks", 0, -1)])
    worker.stop()


def death(r, pool):
    killed = Worker(pool, "killed", concurrency=1, visibility=2)
    job = held.delay()
    until(lambda: r.llen("held"))
    killed.kill()
    show("a killed worker leaves", client(0).hlen("unacked"), job.state)
    rescue = Worker(pool, "rescue", concurrency=1, visibility=2)
    until(lambda: r.llen("held") == 2)
    r.set("let go", 1)
    show("another takes it", outcome(job), job.state)
    rescue.stop()


def main(pool):
    client().flushall()
    r = client()
    if pool == "prefork":
        priorities(r, pool)
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
    worker = Worker(pool, "two", concurrency=4)
    result = add.delay(1, 2, 3)
    show("a result", outcome(result), result.state, result.name, result.args, 3500 < client(1).ttl(f"celery-task-meta-{result.id}") <= 3600)
    until(lambda: ("task-succeeded", result.id) in events)
    show("its events", sorted(kind for kind, uuid in events if uuid == result.id))
    result.forget()
    show("forgotten", add.AsyncResult(result.id).state, client(1).exists(f"celery-task-meta-{result.id}"))
    failing = fail.apply_async(link_error=on_error.s())
    show("a failure", outcome(failing), failing.state, failing.traceback.strip().splitlines()[-1])
    until(lambda: r.llen("errors"))
    show("its errback", r.lrange("errors", 0, -1))
    show("many results", [outcome(x) for x in [add.delay(i, i) for i in range(30)]][-3:])
    show("the other queue", outcome(slow_square.delay(9)), app.control.inspect(timeout=5, limit=1).active_queues() and sorted(q["name"] for q in app.control.inspect(timeout=5, limit=1).active_queues()["two@local"]))

    show("chain", outcome(chain(add.s(1, 2), add.s(4), slow_square.s())()))
    show("group", outcome(group(add.s(i, i) for i in range(10))()))
    show("chord", outcome(chord([add.s(i, i) for i in range(10)])(total.s())))
    show("chord of chains", outcome(chord([chain(add.s(i), add.s(10)) for i in range(3)], total.s())()), outcome((group(add.s(1), slow_square.s(2)) | total.s() | slow_square.s())()))
    show("chord with a failure", outcome(chord([add.s(1), fail.s()])(total.s())).split("(")[0])
    show("starmap and chunks", outcome(add.starmap([(1, 2), (3, 4)]).delay()), outcome(add.chunks(zip(range(6), range(6)), 2)()))
    until(lambda: not [key for key in client(1).keys("celery-task-meta-*") if b"SUCCESS" not in client(1).get(key) and b"FAILURE" not in client(1).get(key)])

    show("retry", outcome(retried.delay()))
    show("retries used up", outcome(gives_up.delay()), r.get("gave up"))
    slow = progress.delay()
    until(lambda: slow.state == "PROGRESS")
    show("a state of its own", slow.state, slow.info)
    r.set("go on", 1)
    show("and its end", outcome(slow))

    start = time.time()
    later = when.apply_async(countdown=0.4)
    at = when.apply_async(eta=datetime.now(timezone.utc) + timedelta(seconds=0.3))
    show("countdown and eta", outcome(later) - start >= 0.39, outcome(at) - start >= 0.29)
    expired = when.apply_async(expires=datetime.now(timezone.utc) - timedelta(seconds=1))
    show("expired before it ran", outcome(expired))
    revoked = when.apply_async(countdown=2)
    until(lambda: app.control.inspect(timeout=5, limit=1).scheduled()["two@local"])
    show("scheduled at the worker", len(client(0).hgetall("unacked")), client(0).zcard("unacked_index"))
    revoked.revoke()
    until(lambda: revoked.id in app.control.inspect(timeout=5, limit=1).revoked()["two@local"])
    show("revoked", outcome(revoked), revoked.state)
    if pool == "prefork":
        running = held.delay()
        until(lambda: r.llen("held"))
        running.revoke(terminate=True, signal="SIGKILL")
        try:
            running.get(timeout=20)
        except TaskRevokedError as error:
            show("terminated", str(error), running.state)
        r.delete("held")
    show("ping", app.control.ping(timeout=5, limit=1), app.control.add_consumer("third", reply=True, timeout=5, limit=1), outcome(add.apply_async((5, 5), queue="third")))
    until(lambda: not client(0).hlen("unacked"))
    show("nothing is left unacknowledged", client(0).exists("unacked", "unacked_index", "fast", "slow", "third"))
    show("stopped", worker.stop())

    for i in range(5):
        mark.apply_async((i,), queue="never")
    show("purged", client(0).llen("never"), app.amqp.queues.select_add("never") and app.connection_for_write().default_channel.queue_purge("never"), client(0).llen("never"))
    if pool == "prefork":
        death(r, pool)


if __name__ == "__main__":
    main(sys.argv[1])
