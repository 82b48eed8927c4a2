#!/usr/bin/env python3
"""All three faces under load for a long time: is what the server holds flat?

    soak.py [--minutes 60] [--memory-limit 256]

Loads (compat-tests/soak/load.py) keep what is stored within bounds, so memory, descriptors, threads and files must be, too.
Every few seconds they are read; the first fifth of the time is warm-up. Afterwards the median of the last third of the samples
may lie above that of the first third by a tenth (and a little that stands for what cannot be counted exactly); in less than ten
minutes nothing has filled up yet, and that is not asked. No sample may lie above the memory limit by more than a tenth. In the end the clients are gone and their sockets with them, the law is checked by a
clean stop, and the same directory serves again.
"""

import argparse
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from lib import servers  # noqa: E402
from scenarios import client  # noqa: E402

LOADS = ("redis", "amqp", "kafka", "churn")
# What may be added to a tenth of the first third: name -> (unit, allowance).
FIGURES = {"rss": ("MB", 12), "descriptors": ("", 16), "threads": ("", 2), "files": ("", 16), "disk": ("MB", 96)}
# Of listeners, and of who looks whether the server is there.
OWN_SOCKETS = 12


def sample(server):
    status = dict(line.split(":", 1) for line in Path(f"/proc/{server.pid}/status").read_text().splitlines())
    sizes = []
    for directory, _, names in os.walk(server.data):
        for name in names:
            try:
                sizes.append(os.stat(os.path.join(directory, name)).st_blocks * 512)
            except FileNotFoundError:
                pass  # folded, compacted or beyond its retention since it was listed
    return {"rss": int(status["VmRSS"].split()[0]) / 1024, "descriptors": len(os.listdir(f"/proc/{server.pid}/fd")),
            "threads": int(status["Threads"]), "files": len(sizes), "disk": sum(sizes) / 1048576}


def sockets(server):
    count = 0
    for descriptor in Path(f"/proc/{server.pid}/fd").iterdir():
        try:
            count += os.readlink(descriptor).startswith("socket:")
        except FileNotFoundError:
            pass  # closed since it was listed
    return count


def start(what, seconds, server):
    env = dict(os.environ, **{f"{face.upper()}_ADDR": address for face, address in server.addresses.items()})
    return subprocess.Popen([client("venv", "cross") + "/bin/python", str(HERE / "soak/load.py"), what, str(seconds)], env=env, stdin=subprocess.DEVNULL)


def judge(samples, limit, flat):
    """What is not flat, as sentences."""
    warm = samples[len(samples) // 5:]
    third = max(1, len(warm) // 3)
    problems = []
    for name, (unit, allowance) in FIGURES.items():
        first, last = (statistics.median(s[name] for s in part) for part in (warm[:third], warm[-third:]))
        highest = max(s[name] for s in samples)
        print(f"{name}: median {first:.0f} {unit} in the first third, {last:.0f} in the last, highest {highest:.0f}")
        if flat and last > first * 1.1 + allowance:
            problems.append(f"{name} grew from {first:.0f} to {last:.0f} {unit}")
    highest = max(s["rss"] for s in samples)
    if highest > limit * 1.1:
        problems.append(f"RSS of {highest:.0f} MB, the limit is {limit}")
    return problems


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--memory-limit", type=int, default=256, help="MiB")
    args = parser.parse_args()
    seconds, problems, samples = args.minutes * 60, [], []
    server = servers.FlowMesh(extra=[servers.CHECK_LAW, f"--memory-limit={args.memory_limit}MiB", "--amqp-durability=os", "--kafka-durability=os"]).start()
    loads = {what: start(what, seconds, server) for what in LOADS}
    print(f"soak: {args.minutes:g} min, {sockets(server)} sockets of its own; before: {sample(server)}", flush=True)
    end, every, shown = time.monotonic() + seconds, max(1, min(5, seconds / 60)), 0
    while time.monotonic() < end and server.process.poll() is None:
        time.sleep(every)
        samples.append(sample(server))
        if time.monotonic() > shown + seconds / 15:
            shown = time.monotonic()
            print("  " + ", ".join(f"{name} {samples[-1][name]:.0f}" for name in FIGURES), flush=True)
    for what, load in loads.items():
        try:
            if load.wait(180):
                problems.append(f"the load {what} failed")
        except subprocess.TimeoutExpired:
            load.kill()
            problems.append(f"the load {what} hung")
    problems += judge(samples, args.memory_limit, args.minutes >= 10)
    deadline = time.monotonic() + 60
    while (left := sockets(server)) > OWN_SOCKETS and time.monotonic() < deadline:
        time.sleep(0.5)
    if left > OWN_SOCKETS:
        problems.append(f"{left} sockets when all clients are gone")
    if (code := server.stop(60)) != 0:
        problems.append(f"exit code {code} after SIGTERM")
    log = servers.tail(server.log, 1 << 24)
    problems += [line for line in log.splitlines() if " ERROR " in line or "panicked" in line][:5]
    again = server.again().start()
    again.stop()
    again.clean()
    for problem in problems:
        print("FAIL", problem)
    if problems:
        print("data:", server.data)
    else:
        server.clean()
    print(f"soak: {0 if problems else 1} passed, {len(problems)} failed")
    sys.exit(bool(problems))


if __name__ == "__main__":
    main()
