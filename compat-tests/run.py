#!/usr/bin/env python3
"""Real clients against FlowMesh, judged by goldens that the same scenarios recorded from the real peers.

    run.py test [--lane gate|matrix] [--verbose] [NAME...]   start FlowMesh once, run the scenarios, compare
    run.py record [NAME...]                                  start the real peers, write goldens/
    run.py live                                              one scenario per face against the live peer and FlowMesh
    run.py stale                                             fail if a golden was recorded from another scenario text
    run.py list

A scenario is a program that prints steps: a line starting with "> " says what was done, the lines after it what came
back, normalised. FlowMesh's binary comes from FLOWMESH_BIN. NAME may be a prefix ("resp", "amqp/pika").
Where FlowMesh is right to differ, `deviations/NAME.json` lists step, our answer and the reason; a deviation that no
longer occurs fails, so the list stays true.
"""

import argparse
import contextlib
import difflib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from lib import servers  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

GOLDENS, DEVIATIONS = HERE / "goldens", HERE / "deviations"


def source_hash(scenario):
    """Over the scenario's own files and arguments and what they import; a client's lock file is part of it."""
    digest = hashlib.sha256(json.dumps(scenario.arguments).encode())
    for path in sorted(scenario.sources()):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def run(scenario, addresses):
    """Run one scenario; returns (transcript, error text or None)."""
    env = dict(os.environ, PYTHONPATH=str(HERE), PYTHONDONTWRITEBYTECODE="1", PYTHONHASHSEED="0")
    env.update({f"{face.upper()}_ADDR": address for face, address in addresses.items()})
    command, more = scenario.command()
    env.update(more)
    # A session of its own: workers that a scenario leaves behind end with it.
    process = subprocess.Popen(command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = process.communicate(timeout=scenario.timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out = process.communicate()[0].decode(errors="replace")
        return out, f"timed out after {scenario.timeout} s; last lines:\n" + "\n".join(out.splitlines()[-5:])
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
    out = out.decode(errors="replace")
    if process.returncode:
        return out, f"exit {process.returncode}\n{err.decode(errors='replace')[-3000:]}"
    return out, None


def steps(transcript):
    """[(title, answer)]; equal titles get a running number so that each step has one name."""
    result, seen = [], {}
    for line in transcript.splitlines():
        if line.startswith("> ") or not result:
            seen[line] = seen.get(line, 0) + 1
            title = line if seen[line] == 1 else f"{line} #{seen[line]}"
            result.append((title, []))
        else:
            result[-1][1].append(line)
    return [(title, "\n".join(answer)) for title, answer in result]


def read_golden(scenario):
    path = GOLDENS / f"{scenario.name}.txt"
    if not path.exists():
        return None, None, None
    head, _, body = path.read_text().partition("\n\n")
    fields = dict(line.removeprefix("# ").split(": ", 1) for line in head.splitlines())
    return fields["peer"], fields["scenario"], body


def compare(scenario, transcript):
    """The steps that differ from the golden and are not listed deviations."""
    peer, _, golden = read_golden(scenario)
    if golden is None:
        return [f"no golden: run `make peers` ({scenario.name})"]
    listed_path = DEVIATIONS / f"{scenario.name}.json"
    listed = {d["step"]: d for d in json.loads(listed_path.read_text())} if listed_path.exists() else {}
    theirs, ours = steps(golden), steps(transcript)
    problems, met = [], set()
    matcher = difflib.SequenceMatcher(a=[t for t, _ in theirs], b=[t for t, _ in ours], autojunk=False)
    for op, a1, a2, b1, b2 in matcher.get_opcodes():
        if op == "equal":
            for (title, want), (_, got) in zip(theirs[a1:a2], ours[b1:b2]):
                deviation = listed.get(title)
                if deviation and deviation["ours"] == got and want != got:
                    met.add(title)
                elif want != got:
                    problems.append(f"{title}\n    {peer}: {want!r}\n    flowmesh: {got!r}")
        else:
            for title, want in theirs[a1:a2]:
                problems.append(f"{title}\n    {peer}: {want!r}\n    flowmesh: (step missing)")
            for title, got in ours[b1:b2]:
                problems.append(f"{title}\n    {peer}: (no such step)\n    flowmesh: {got!r}")
    problems += [f"{title}\n    deviation is listed but no longer occurs" for title in listed if title not in met]
    return problems


def select(names, lane=None):
    chosen = [s for s in SCENARIOS if (not lane or s.lane == lane) and (not names or any(s.name.startswith(n) for n in names))]
    if not chosen:
        sys.exit("no scenario matches")
    return chosen


def test(args):
    passed = failed = 0
    findings = []
    server = servers.FlowMesh(extra=[servers.CHECK_LAW])
    with server:
        for scenario in select(args.names, args.lane):
            start = time.monotonic()
            transcript, error = run(scenario, server.addresses)
            problems = [error] if error else []
            if scenario.oracle == "peer":
                problems += compare(scenario, transcript)
            same = len(steps(transcript))
            seconds = time.monotonic() - start
            if args.keep:
                path = Path(args.keep) / f"{scenario.name}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(transcript)
            if server.process.poll() is not None:
                problems.append(f"flowmesh died with {server.process.returncode}:\n{servers.tail(server.log)}")
            if problems:
                findings.append((scenario.name, problems))
                failed += 1
                print(f"FAIL {scenario.name} ({seconds:.1f} s): {len(problems)} of {same} steps")
                for problem in problems if args.verbose else problems[:25]:
                    print("  " + problem.replace("\n", "\n  "))
                if not args.verbose and len(problems) > 25:
                    print(f"  ... {len(problems) - 25} more (--verbose)")
            else:
                passed += 1
                print(f"ok   {scenario.name} ({seconds:.1f} s): {same} steps")
            sys.stdout.flush()
            if server.process.poll() is not None:
                server = server.clean() or servers.FlowMesh(extra=[servers.CHECK_LAW]).start()
        log = servers.tail(server.log, 1 << 20)
        errors = [line for line in log.splitlines() if " ERROR " in line or '"level":"ERROR"' in line or "panicked" in line]
        if errors:
            failed += 1
            print("FAIL the server logged errors:\n  " + "\n  ".join(errors[:20]))
        code = server.stop()
        if code != 0:
            failed += 1
            print(f"FAIL flowmesh exited with {code} after SIGTERM:\n{servers.tail(server.log)}")
    if args.findings:
        write_findings(args.findings, findings)
    print(f"clients: {passed} passed, {failed} failed")
    return failed == 0


def write_findings(path, findings):
    """A page of what differs now, for those who mend it; by scenario, the peer's answer before ours."""
    lines = ["# Findings", "", "Where FlowMesh answers otherwise than the peer, as of the last `run.py test --findings compat-tests/FINDINGS.md`.",
             "Repeat one: `FLOWMESH_BIN=... python3 compat-tests/run.py test --verbose NAME`.", ""]
    for name, problems in findings:
        lines += [f"## {name}: {len(problems)}", "", "```", *(p.replace(f"{HERE.parent}/", "") for p in problems), "```", ""]
    if not findings:
        lines.append("None.")
    Path(path).write_text("\n".join(lines).rstrip() + "\n")


def record(args):
    chosen = [s for s in select(args.names) if s.oracle == "peer"]
    for face in sorted({s.face for s in chosen}):
        with servers.PEER_OF[face]() as peer:
            for scenario in (s for s in chosen if s.face == face):
                transcript, error = run(scenario, peer.addresses)
                if error:
                    print(transcript[-3000:])
                    sys.exit(f"{scenario.name} fails against {peer.version()}: {error}")
                path = GOLDENS / f"{scenario.name}.txt"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(f"# peer: {peer.version()}\n# scenario: {source_hash(scenario)}\n\n{transcript}")
                print(f"recorded {scenario.name}: {len(steps(transcript))} steps")
    return True


def stale(_args):
    bad = 0
    for scenario in (s for s in SCENARIOS if s.oracle == "peer"):
        _, recorded, _ = read_golden(scenario)
        if recorded != source_hash(scenario):
            bad += 1
            print(f"stale golden: {scenario.name} (run `make peers`)")
    known = {GOLDENS / f"{s.name}.txt" for s in SCENARIOS}
    for path in set(GOLDENS.rglob("*.txt")) - known:
        bad += 1
        print(f"golden without scenario: {path.relative_to(HERE)}")
    print(f"goldens: {len(SCENARIOS) - bad} passed, {bad} failed")
    return bad == 0


def live(args):
    """The goldens could lie about the peer: one short scenario per face runs against it now, and must equal its golden."""
    failed = 0
    chosen = [s for s in SCENARIOS if s.live]

    def one(scenario):
        with servers.PEER_OF[scenario.face]() as peer:
            transcript, error = run(scenario, peer.addresses)
        return error or "\n".join(compare_live(scenario, transcript))

    with ThreadPoolExecutor(1) as pool:
        for scenario, problem in zip(chosen, pool.map(one, chosen)):
            failed += bool(problem)
            print(f"{'FAIL' if problem else 'ok  '} live {scenario.name}" + (f": {problem}" if problem else ""))
    print(f"live: {len(chosen) - failed} passed, {failed} failed")
    return failed == 0


def compare_live(scenario, transcript):
    _, _, golden = read_golden(scenario)
    if golden is None:
        return ["no golden"]
    return [f"{t}: golden {want!r}, live {got!r}" for (t, want), (_, got) in zip(steps(golden), steps(transcript)) if want != got]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("action", choices=["test", "record", "live", "stale", "list"])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--lane")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--findings", help="write what differs to this file")
    parser.add_argument("--keep", help="write FlowMesh's transcripts into this directory")
    args = parser.parse_args()
    if args.action == "list":
        for s in SCENARIOS:
            print(f"{s.name:40} {s.lane:7} oracle: {s.oracle}")
        return
    actions = {"test": test, "record": record, "live": live, "stale": stale}
    sys.exit(0 if actions[args.action](args) else 1)


if __name__ == "__main__":
    main()
