#!/usr/bin/env python3
"""SIGKILL under load on all three faces at once: nothing acknowledged may be gone, doubled unmarked, or out of order.

    crash.py [--rounds 10] [--seed N]

Each round: writers (own processes, real clients) run against FlowMesh; at a random moment the server is killed, started
again on the same data directory, and everything is read back and compared with what the clients were told:
  resp   SET, INCR, RPUSH, HSET and MULTI whose replies came; a reply that did not come leaves the change unknown, never torn
  amqp   persistent messages that were confirmed: there once, in the publisher's order; delivered but unacknowledged ones
         come back marked redelivered, acknowledged ones do not come back; tx.commit over two queues: all or nothing
  kafka  records whose delivery report came: at the offset reported, in order, none twice (idempotent producer)
  cross  EXEC over a key, a message and a record: all three or none, whether it was acknowledged or not
The data directory stays for ten rounds, so each restart also recovers the earlier ones, and all of them are checked again;
then a new one begins. The seed is printed; SEED= or --seed repeats the choice of moments (not the scheduling of the machine).
"""

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from lib import servers  # noqa: E402
from scenarios import client  # noqa: E402

FACES = ("resp", "amqp", "kafka", "cross")
# What is checked grows with each round.
ROUNDS_MAX = 10


def worker(face, action, addresses, journal, number):
    env = dict(os.environ, PYTHONPATH=str(HERE), PYTHONDONTWRITEBYTECODE="1")
    env.update({f"{f.upper()}_ADDR": a for f, a in addresses.items()})
    python = client("venv", face) + "/bin/python"
    return subprocess.Popen([python, str(HERE / "crash" / f"{face}.py"), action, str(journal), str(number)], env=env,
                            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def restart(server):
    """A new process on the same directory and ports; returns how long it took until all faces answered."""
    again = server.again()
    start = time.monotonic()
    again.start()
    return again, time.monotonic() - start


def one_round(server, faces, journals, number, moment):
    """Load, kill, restart, check. Returns the server that runs then and the number of failures."""
    failed = 0
    writers = {face: worker(face, "write", server.addresses, journals / face, number) for face in faces}
    started = {face: (journals / face).with_suffix(f".{number}.started") for face in faces}
    deadline = time.monotonic() + 60
    while not all(p.exists() for p in started.values()) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(moment)
    server.kill()
    for face, process in writers.items():
        _, errors = finish(process, 30, "writer hung after the server was killed")
        if process.returncode:
            failed += 1
            print(f"FAIL round {number} {face} writer: {errors[-2000:]}")
    server, seconds = restart(server)
    results = []
    for face in faces:
        process = worker(face, "check", server.addresses, journals / face, number)
        out, errors = finish(process, 300, "the check hung")
        if process.returncode:
            failed += 1
            print(f"FAIL round {number} {face}: {out[-2000:]}{errors[-2000:]}")
        results.append(out.strip().splitlines()[-1] if out.strip() else "")
    if server.process.poll() is not None:
        failed += 1
        print(f"FAIL round {number}: the server died:\n{servers.tail(server.log)}")
        server, _ = restart(server)
    print(f"round {number}: killed after {moment:.2f} s, back in {seconds:.2f} s; {'; '.join(results)}", flush=True)
    return server, failed


def finish(process, timeout, otherwise):
    try:
        return process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        out, errors = process.communicate()
        return out, f"{errors}\n{otherwise}"


def directory(faces, numbers, rng):
    """The rounds of one data directory. Returns how many failures there were."""
    journals = Path(tempfile.mkdtemp(prefix="fm-crash-"))
    # The strictest promises that survive a killed process; a power cut is another test (storage).
    server = servers.FlowMesh(extra=[servers.CHECK_LAW, "--resp-durability=os", "--amqp-durability=os", "--kafka-durability=os"]).start()
    failed = 0
    for number in numbers:
        server, more = one_round(server, faces, journals, number, rng.uniform(0.05, 1.5))
        failed += more
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
