"""rq: results, failures, retries, dependencies, the scheduler, repeats, limits, commands to a worker, a worker that is killed.

Workers import this file by name to find the jobs.
"""

import multiprocessing
import os
import signal
import time
from datetime import datetime, timedelta, timezone

import redis
import rq_jobs as jobs
from lib import steps
from rq import Queue, Repeat, Retry, Worker
from rq.command import send_shutdown_command, send_stop_job_command
from rq.exceptions import DuplicateJobError
from rq.group import Group
from rq.job import Callback, Dependency, Job, get_current_job
from rq.rate_limit import RateLimit

HOST, PORT = os.environ["RESP_ADDR"].rsplit(":", 1)
show, until = steps.show, steps.until


def connect():
    return redis.Redis(HOST, int(PORT))


def add(*numbers, times=1):
    job = get_current_job()
    job.meta["seen"] = len(numbers)
    job.save_meta()
    return sum(numbers) * times


def fail(_ignored=None):
    raise ValueError("on purpose")


def fails_first(key):
    count = connect().incr(key)
    if count < 3:
        raise ValueError(f"try {count}")
    return f"worked at try {count}"


def mark(key, name):
    connect().rpush(key, name)


def sleep(seconds):
    connect().set("sleeping", os.getpid())
    time.sleep(seconds)


def parent_results():
    return sorted(job.return_value() for job in get_current_job().fetch_dependencies())


def succeeded(_job, connection, result):
    connection.rpush("callbacks", f"success {result}")


def failed(_job, connection, kind, _value, _traceback):
    connection.rpush("callbacks", f"failure {kind.__name__}")


def main():
    r = connect()
    r.flushall()
    q, other = Queue("first", connection=r), Queue("second", connection=r)

    def work(*queues, **kwargs):
        Worker(queues or [q], connection=connect()).work(burst=True, logging_level="CRITICAL", **kwargs)

    def counts(queue=q):
        registries = {"queued": queue, "deferred": queue.deferred_job_registry, "scheduled": queue.scheduled_job_registry, "started": queue.started_job_registry,
                      "finished": queue.finished_job_registry, "failed": queue.failed_job_registry, "canceled": queue.canceled_job_registry}
        return {name: registry.count for name, registry in registries.items() if registry.count}

    job = q.enqueue(jobs.add, 1, 2, times=7, job_id="sum")
    show("queued", job.get_status().value, q.job_ids, job.get_position(), counts())
    work()
    job.refresh()
    show("done", job.get_status().value, job.return_value(), job.meta, [(x.type.name, x.return_value) for x in job.results()], job.worker_name is not None, counts())
    waiting = q.enqueue(jobs.add, 4, 5)
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    show("waited for", waiting.latest_result(timeout=10).return_value)
    process.join()

    bad = q.enqueue(jobs.fail, job_id="bad")
    work()
    show("failed", bad.get_status().value, bad.latest_result().exc_string.strip().splitlines()[-1], q.failed_job_registry.get_job_ids(), counts())
    show("requeued", q.failed_job_registry.requeue("bad").get_status().value, q.job_ids)
    work()
    show("failed again", bad.get_status().value, [x.type.name for x in bad.results()])
    q.failed_job_registry.remove(bad, delete_job=True)
    show("deleted", Job.exists("bad", connection=r), counts())

    again = q.enqueue(jobs.fails_first, "tries:now", retry=Retry(max=3))
    work()
    show("retried at once", again.return_value(), r.get("tries:now"))
    later = q.enqueue(jobs.fails_first, "tries:later", retry=Retry(max=3, interval=[1, 60]))
    work()
    show("to be retried", later.get_status().value, q.scheduled_job_registry.get_job_ids() == [later.id], (q.scheduled_job_registry.get_scheduled_time(later) - datetime.now(timezone.utc)) < timedelta(seconds=2))
    q.scheduled_job_registry.remove(later)

    r.delete("order")
    q.enqueue(jobs.mark, "order", "back")
    q.enqueue(jobs.mark, "order", "front", at_front=True)
    other.enqueue(jobs.mark, "order", "other queue")
    q.enqueue_many([Queue.prepare_data(jobs.mark, ("order", f"many {i}")) for i in range(3)])
    work(q, other)
    show("order of two queues", [x.decode() for x in r.lrange("order", 0, -1)])

    first = q.enqueue(jobs.add, 1)
    second = q.enqueue(jobs.add, 2)
    both = q.enqueue(jobs.parent_results, depends_on=[first, second])
    show("deferred", both.get_status().value, q.deferred_job_registry.get_job_ids() == [both.id], counts())
    work()
    show("after both", both.get_status().value, both.return_value())
    broken = q.enqueue(jobs.fail)
    stays = q.enqueue(jobs.add, 1, depends_on=broken)
    allowed = q.enqueue(jobs.add, 2, depends_on=Dependency(jobs=[broken], allow_failure=True))
    work()
    show("after a failure", stays.get_status().value, allowed.get_status().value)
    stays.cancel()
    show("canceled", stays.get_status().value, counts())

    q.enqueue(jobs.add, 3, on_success=Callback(jobs.succeeded))
    q.enqueue(jobs.fail, on_failure=Callback(jobs.failed))
    work()
    show("callbacks", r.lrange("callbacks", 0, -1))

    unique = q.enqueue(jobs.add, 1, job_id="unique", unique=True)
    try:
        q.enqueue(jobs.add, 1, job_id="unique", unique=True)
    except DuplicateJobError as error:
        show("unique", unique.get_status().value, str(error))
    q.empty()
    show("emptied", counts().get("queued"), Job.exists("unique", connection=r))

    limit = RateLimit("limited", 2)
    limited = [q.enqueue(jobs.add, i, rate_limit=limit) for i in range(5)]
    show("limited", [job.get_status().value for job in limited])
    work()
    show("all limited ones ran", [job.return_value() for job in limited], [job.get_status().value for job in limited])

    group = Group.create(connection=r, name="group")
    group.enqueue_many(q, [Queue.prepare_data(jobs.add, (i,), job_id=f"g{i}") for i in range(3)])
    work()
    show("group", sorted((job.id, job.return_value()) for job in group.get_jobs()), [g.name for g in Group.all(connection=r)])

    repeated = q.enqueue(jobs.mark, "repeats", "once", repeat=Repeat(times=2))
    work()
    show("repeated", repeated.get_status().value, r.llen("repeats"))

    soon = q.enqueue_in(timedelta(milliseconds=900), jobs.add, 8)
    at = q.enqueue_at(datetime.now(timezone.utc) + timedelta(hours=1), jobs.add, 9)
    show("scheduled", soon.get_status().value, at.get_status().value, counts().get("scheduled"))
    with_scheduler = multiprocessing.get_context("fork").Process(
        target=lambda: Worker([q], connection=connect()).work(max_jobs=1, with_scheduler=True, logging_level="CRITICAL"))
    with_scheduler.start()
    show("run by the scheduler", soon.latest_result(timeout=10).return_value, at.get_status().value)
    with_scheduler.join()
    at.delete()

    def start(name):
        r.delete("sleeping")
        worker = multiprocessing.get_context("fork").Process(
            target=lambda: Worker([q], name=name, connection=connect()).work(logging_level="CRITICAL"))
        worker.start()
        until(lambda: Worker.count(queue=q) == 1)
        return worker

    worker = start("commanded")
    slow = q.enqueue(jobs.sleep, 30)
    until(lambda: r.get("sleeping"))
    show("a worker at work", [(w.name, w.get_state(), w.queue_names()) for w in Worker.all(connection=r)], slow.get_status().value, q.started_job_registry.count)
    send_stop_job_command(r, slow.id)
    until(lambda: slow.get_status().value == "stopped")
    show("stopped by command", slow.get_status().value)
    send_shutdown_command(r, "commanded")
    worker.join(15)
    show("shut down by command", worker.exitcode, Worker.count(queue=q))

    worker = start("killed")
    lost = q.enqueue(jobs.sleep, 30, retry=Retry(max=1))
    pid = int(until(lambda: r.get("sleeping")))
    os.kill(worker.pid, signal.SIGKILL)
    os.kill(pid, signal.SIGKILL)
    worker.join()
    show("a killed worker's job", lost.get_status().value, q.started_job_registry.get_job_ids(cleanup=False) == [lost.id])
    q.started_job_registry.cleanup(time.time() + 3600)
    show("is found and queued again", lost.get_status().value, q.job_ids == [lost.id])
    q.empty()
    show("kinds of keys left", sorted({":".join(key.decode().split(":")[:2]) for key in r.scan_iter("*", count=1000)}))


if __name__ == "__main__":
    main()
