#!/usr/bin/env python3
"""FlowMesh beside each peer, in alternation, on this machine -> bench/out/*.md and docs/BENCHMARKS.md.

    bench/run.py [redis|commands|memory|amqp|amqp-grid|kafka|process|mixed|bounded ...] [--rounds 3] [--scale 1.0] [--only SET,GET]

FLOWMESH_BIN names the binary (default: the release build). Without part names all parts run. Each part replaces its
own section of docs/BENCHMARKS.md, so parts can be run on their own.
"""

import argparse
import importlib
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from measure import ROOT, servers, uptime_load  # noqa: E402

MODULES = {"redis": "redis_face", "commands": "redis_commands", "memory": "redis_memory", "amqp": "amqp_face", "amqp-grid": "amqp_grid", "kafka": "kafka_face", "process": "process", "mixed": "mixed", "bounded": "bounded"}
PARTS = list(MODULES)
PAGE = ROOT / "docs/BENCHMARKS.md"


def machine():
    model = next((line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")), "?")
    memory = int(Path("/proc/meminfo").read_text().split()[1]) / 1048576
    return f"{os.cpu_count()} cores ({model}), {memory:.0f} GiB, Linux {platform.release()}"


def commit():
    out = subprocess.run(["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)
    return out.stdout.strip() or "unknown"


def place(part, text):
    """Replace the section between the part's markers."""
    page = PAGE.read_text()
    begin, end = f"<!-- {part}: begin -->", f"<!-- {part}: end -->"
    head, rest = page.split(begin, 1)
    _, tail = rest.split(end, 1)
    PAGE.write_text(f"{head}{begin}\n{text}\n{end}{tail}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=[])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--scale", type=float, default=1.0)
    parser.add_argument("--only", help="cases of the part, comma separated")
    parser.add_argument("--no-docs", action="store_true", help="leave docs/BENCHMARKS.md as it is")
    args = parser.parse_args()
    os.environ.setdefault("FLOWMESH_BIN", str(Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/flowmesh"))
    binary = servers.FlowMesh.binary()
    (HERE / "out").mkdir(exist_ok=True)
    for part in args.parts or PARTS:
        if part not in PARTS:
            parser.error(f"unknown part {part}: {', '.join(PARTS)}")
        load = uptime_load()
        print(f"{part}: {machine()}, load {load:.2f}, {binary}", flush=True)
        if load > 0.5:
            print("  others use this machine: throughput and latency below are not fit to publish", flush=True)
        sections = importlib.import_module(MODULES[part]).run(args.rounds, args.scale, args.only.split(",") if args.only else None)
        build = "release" if "/release/" in binary else "NOT the release build"
        head = (f"{time.strftime('%Y-%m-%d')}, commit {commit()} ({build}), {machine()}, load before: {load:.2f}. "
                f"`bench/run.py {part} --rounds {args.rounds} --scale {args.scale:g}`; medians of {args.rounds} alternating rounds.")
        text = head + "\n" + "\n".join(f"\n### {title}\n\n{body}" for title, body in sections)
        (HERE / "out" / f"{part}.md").write_text(text + "\n")
        if not args.no_docs:
            place(part, text)
        print(text, flush=True)


if __name__ == "__main__":
    main()
