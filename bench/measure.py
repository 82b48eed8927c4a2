"""What a run costs the server: CPU of the process with its reaped children, memory, bytes written; and how tables are made."""

import os
import statistics
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "compat-tests"))
from lib import servers  # noqa: E402
from scenarios import client  # noqa: E402

__all__ = ["ROOT", "Case", "Meter", "alternate", "client", "cpu_seconds", "rss_mb", "servers", "table", "total", "uptime_load"]

TICK = os.sysconf("SC_CLK_TCK")


def cpu_seconds(pid):
    """User + system time of all threads, with reaped children (forks for a rewrite count too)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(int(f) for f in fields[11:15]) / TICK


def status_kb(pid, key):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1])
    return 0


def rss_mb(pid):
    return status_kb(pid, "VmRSS") / 1024


def peak_mb(pid):
    return status_kb(pid, "VmHWM") / 1024


def written(pid):
    try:
        for line in Path(f"/proc/{pid}/io").read_text().splitlines():
            if line.startswith("write_bytes:"):
                return int(line.split()[1])
    except OSError:
        pass
    return 0


def uptime_load():
    return float(Path("/proc/loadavg").read_text().split()[0])


class Meter:
    """`with Meter(pid) as m: load()`, then m.cpu (seconds), m.written (bytes), m.rss (MB), m.wall."""

    def __init__(self, pid, settle=1.0):
        self.pid, self.settle = pid, settle

    def __enter__(self):
        self.cpu0, self.written0, self.start = cpu_seconds(self.pid), written(self.pid), time.monotonic()
        return self

    def __exit__(self, *_):
        self.wall = time.monotonic() - self.start
        time.sleep(self.settle)  # what this load left for fsync, fold and rewrite belongs to it
        self.cpu = cpu_seconds(self.pid) - self.cpu0
        self.written = written(self.pid) - self.written0
        self.rss, self.peak = rss_mb(self.pid), peak_mb(self.pid)


@dataclass
class Case:
    """One row: a load, run against each server in turn, `rounds` times; results[server] = list of dicts of figures."""

    name: str
    results: dict = field(default_factory=dict)

    def add(self, server, figures):
        self.results.setdefault(server, []).append(figures)

    def median(self, server, key):
        values = [r[key] for r in self.results[server] if r.get(key) is not None]
        return statistics.median(values) if values else None

    def spread(self, server, key):
        values = [r[key] for r in self.results[server] if r.get(key) is not None]
        return (min(values), max(values)) if values else (0, 0)


def alternate(name, contestants, load, rounds):
    """A B A B: load(server) -> figures. The machine's drift hits all alike."""
    case = Case(name)
    for number in range(rounds):
        for label, server in contestants:
            figures = load(server)
            case.add(label, figures)
            shown = " ".join(f"{k}={v:.4g}" for k, v in figures.items() if v is not None)
            print(f"  {name} round {number + 1} {label}: {shown}", flush=True)
    return case


def number(value):
    if value is None:
        return ""
    if value >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def total(name, cases, key):
    """A case whose figure is the sum of `key` over `cases`, round by round: what falls into one case by chance (a fold, a
    rewrite of the peer's log) counts all the same."""
    case = Case(name)
    for server in cases[0].results:
        for rounds in zip(*(case.results[server] for case in cases)):
            case.add(server, {key: sum(figures[key] for figures in rounds)})
    return case


def table(cases, columns, ours="flowmesh"):
    """Markdown: one row per case and server, medians with the spread of the first column, and the ratio to the peer (the
    first server whose name does not begin with `ours`).

    columns: [(key, heading)]; the first is the one whose spread and ratio are shown."""
    first = columns[0][0]
    lines = ["| case | server | " + " | ".join(h for _, h in columns) + " | spread of the first | ratio to the peer |",
             "| --- | --- |" + " --- |" * (len(columns) + 2)]
    for case in cases:
        peers = [s for s in case.results if not s.startswith(ours)]
        for server in case.results:
            low, high = case.spread(server, first)
            ratio = ""
            if server.startswith(ours) and peers:
                theirs = case.median(peers[0], first)
                ratio = f"**{case.median(server, first) / theirs:.2f}**" if theirs else ""
            cells = " | ".join(number(case.median(server, key)) for key, _ in columns)
            lines.append(f"| {case.name} | {server} | {cells} | {number(low)} to {number(high)} | {ratio} |")
    return "\n".join(lines)
