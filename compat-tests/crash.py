#!/usr/bin/env python3
"""SIGKILL under load on all three faces at once: nothing acknowledged may be gone, doubled unmarked, or out of order.

    crash.py [--rounds 10] [--seed N]

Each round: writers (own processes, real clients) run against FlowMesh; at a random moment the server is killed, started
again on the same data directory, and everything is read back and compared with what the clients were told:
  resp   SET, INCR, RPUSH, HSET and MULTI whose replies came; a reply that did not come leaves the change unknown, never torn
  amqp   persistent messages that were confirmed: there once, in the publisher's order, and the same in a stream; delivered but unacknowledged ones
         come back marked redelivered, acknowledged ones do not come back; tx.commit over two queues: all or nothing;
         what was published, taken, acknowledged, given back and rejected at random is where it was left, once
  kafka  records whose delivery report came: at the offset reported, in order, none twice (idempotent producer)
  transactions  Kafka's, over three partitions and a group's offset: all or nothing once the producer begins anew
  cross  EXEC over a key, a message and a record: all three or none, whether it was acknowledged or not
The data directory stays for ten rounds, so each restart also recovers the earlier ones. A round and the one before it are
checked after the kill, all ten after the last; then a new directory begins. The seed is printed; SEED= or --seed repeats the choice of moments (not the scheduling of the machine).
"""

import argparse
import json
import os
import random
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from lib import servers  # noqa: E402
from scenarios import client  # noqa: E402

FACES = ("resp", "amqp", "kafka", "transactions", "cross")
# Whose clients a part uses, where it is not its own.
VENVS = {"transactions": "kafka"}
# What is checked grows with each round.
ROUNDS_MAX = 10


class Worker:
    """One face's clients, in a process group of their own (see lib/worker.py)."""

    def __init__(self, face, addresses, journals):
        env = dict(os.environ, PYTHONPATH=str(HERE), PYTHONDONTWRITEBYTECODE="1")
        env.update({f"{f.upper()}_ADDR": a for f, a in addresses.items()})
        command = [client("venv", VENVS.get(face, face)) + "/bin/python", str(HERE / "lib/worker.py"), str(HERE / "crash" / f"{face}.py"), face]
        self.face, self.journal = face, journals / face
        self.process = subprocess.Popen(command, env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, start_new_session=True)

    def order(self, action, first, number):
        """Begins `write` or `check` of a round; `first`: the oldest round that is checked."""
        self.output = self.journal.with_suffix(f".{action}")
        self.output.unlink(missing_ok=True)
        order = [[action, str(self.journal), str(number), str(first)], str(self.output)]
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()

    def result(self, deadline):
        """(passed, what it printed). One that hangs is ended, and answers nothing any more."""
        left = max(0, deadline - time.monotonic())
        ready, _, _ = select.select([self.process.stdout], [], [], left)
        code = self.process.stdout.readline().strip() if ready else "it hung"
        if not ready:
            self.stop()
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        return code == "0", text if code in ("0", "1") else f"{text}\nexit {code}"

    def stop(self):
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def restart(server):
    """A new process on the same directory and ports; returns how long it took until all faces answered."""
    again = server.again()
    start = time.monotonic()
    again.start()
    return again, time.monotonic() - start


def one_round(server, workers, journals, first, number, moment):
    """Load, kill, restart, check. Returns the server that runs then and the number of failures."""
    failed = 0
    for worker in workers:
        worker.order("write", first, number)
    started = [(journals / worker.face).with_suffix(f".{number}.started") for worker in workers]
    deadline = time.monotonic() + 60
    while not all(path.exists() for path in started) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(moment)
    server.kill()
    deadline = time.monotonic() + 60
    for worker in workers:
        passed, text = worker.result(deadline)
        if not passed:
            failed += 1
            print(f"FAIL round {number} {worker.face} writer: {text[-2000:]}")
    server, seconds = restart(server)
    for worker in workers:
        worker.order("check", first, number)
    results = []
    deadline = time.monotonic() + 300
    for worker in workers:
        passed, text = worker.result(deadline)
        if not passed:
            failed += 1
            print(f"FAIL round {number} {worker.face}: {text[-4000:]}")
        results.append(text.strip().splitlines()[-1] if text.strip() else "")
    if server.process.poll() is not None:
        failed += 1
        print(f"FAIL round {number}: the server died:\n{servers.tail(server.log)}")
        server, _ = restart(server)
    print(f"round {number}: killed after {moment:.2f} s, back in {seconds:.2f} s; {'; '.join(results)}", flush=True)
    return server, failed


def directory(faces, numbers, rng):
    """The rounds of one data directory. Returns how many failures there were."""
    journals = Path(tempfile.mkdtemp(prefix="fm-crash-"))
    # The strictest promises that survive a killed process; a power cut is another test (storage).
    server = servers.FlowMesh(extra=[servers.CHECK_LAW, "--resp-durability=os", "--amqp-durability=os", "--kafka-durability=os"]).start()
    workers = [Worker(face, server.addresses, journals) for face in faces]
    failed = 0
    try:
        for number in numbers:
            first = numbers[0] if number == numbers[-1] else number - 1
            server, more = one_round(server, workers, journals, first, number, rng.uniform(0.05, 1.5))
            failed += more
            if more:
                break
    finally:
        for worker in workers:
            worker.stop()
    code = server.stop()
    if code != 0:
        failed += 1
        print(f"FAIL exit code {code} after SIGTERM\n{servers.tail(server.log)}")
    if failed:
        print(json.dumps({"data": str(server.data), "journals": str(journals)}))
    else:
        server.clean()
        shutil.rmtree(journals)
    return failed


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 1 << 32))
    parser.add_argument("--faces", default=",".join(FACES))
    args = parser.parse_args()
    faces = args.faces.split(",")
    print(f"crash: seed {args.seed}, {args.rounds} rounds", flush=True)
    rng = random.Random(args.seed)
    failed = 0
    for first in range(1, args.rounds + 1, ROUNDS_MAX):
        failed += directory(faces, range(first, min(first + ROUNDS_MAX, args.rounds + 1)), rng)
    print(f"crash: {max(0, args.rounds - failed)} passed, {failed} failed; seed {args.seed}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
