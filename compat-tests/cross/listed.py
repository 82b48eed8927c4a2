#!/usr/bin/env python3
"""Lists of which FlowMesh holds only the ends (a memory limit of 2 MiB, so that of one of 64 KiB it does), beside a live Valkey: every
command of lists, made by chance, answers the same; after a kill, too. Its own oracle: exits non-zero at the first difference, and names the
seed.

    listed.py [--seed N] [--rounds N]
"""

import time

from lib.pair import beside
from lib.steps import equal, step

#: All in one slot.
ONE, OTHER, TO = "{l}one", "{l}other", "{l}to"
ITEMS = 6000


def item(rng):
    kind = rng.random()
    if kind < 0.7:
        return f"item:{rng.randrange(ITEMS):06d}:" + "." * rng.randrange(40)
    if kind < 0.98:
        return str(rng.randrange(ITEMS))
    return "x" * rng.randrange(3000, 9000)


def place(rng):
    kind = rng.random()
    if kind < 0.3:
        return rng.randrange(-30, 30)
    return rng.randrange(-ITEMS, ITEMS)


def command(rng):
    key = rng.choice([ONE, ONE, OTHER])
    start = place(rng)
    stop = start + rng.choice([0, 5, 300])
    end = rng.choice(["LEFT", "RIGHT"])
    some = [item(rng) for _ in range(rng.randrange(1, 60))]
    return rng.choice([
        ["LPUSH", key, *some],
        ["RPUSH", key, *some],
        ["LPUSHX", key, *some[:3]],
        ["RPUSHX", TO, item(rng)],
        ["LPOP", key],
        ["RPOP", key],
        ["LPOP", key, rng.randrange(0, 90)],
        ["RPOP", key, rng.randrange(0, 90)],
        ["LLEN", key],
        ["LINDEX", key, start],
        ["LINDEX", key, rng.choice([0, -1])],
        ["LRANGE", key, start, stop],
        ["LRANGE", key, rng.choice([0, -20]), rng.choice([20, -1])] if rng.random() < 0.5 else ["LRANGE", key, 0, 10],
        ["LSET", key, start, item(rng)],
        ["LSET", key, rng.randrange(ITEMS), item(rng)],
        ["LINSERT", key, rng.choice(["BEFORE", "AFTER"]), str(rng.randrange(ITEMS)), item(rng)],
        ["LREM", key, rng.choice([0, 1, -1, 2, -3]), str(rng.randrange(ITEMS))],
        ["LPOS", key, str(rng.randrange(ITEMS))],
        ["LPOS", key, str(rng.randrange(ITEMS)), "RANK", rng.choice([1, 2, -1, -2]), "COUNT", rng.choice([0, 1, 3]), "MAXLEN", rng.choice([0, 500])],
        ["LTRIM", key, rng.randrange(0, 60), rng.randrange(-60, 0)],
        ["LTRIM", key, 0, ITEMS],
        ["LMOVE", ONE, OTHER, end, rng.choice(["LEFT", "RIGHT"])],
        ["LMOVE", key, key, end, rng.choice(["LEFT", "RIGHT"])],
        ["RPOPLPUSH", OTHER, ONE],
        ["BLMOVE", ONE, TO, end, "LEFT", 1],
        ["LMPOP", 2, "{l}none", key, end, "COUNT", rng.randrange(1, 40)],
        ["BLPOP", "{l}none", key, 1],
        ["BRPOP", key, 1],
        ["SORT", key, "BY", "none", "LIMIT", 100, 5],
        ["SORT", TO, "ALPHA", "LIMIT", 0, 5],
        ["TYPE", key],
        ["COPY", ONE, TO, "REPLACE"] if rng.random() < 0.3 else ["EXISTS", key, TO],
    ])


def fill(both, rng):
    for key in (ONE, OTHER):
        while both.ask("LLEN", key) < ITEMS / 2:
            both.ask(rng.choice(["LPUSH", "RPUSH"]), key, *(item(rng) for _ in range(300)))


def whole(both):
    for key in (ONE, OTHER, TO):
        both.ask("LRANGE", key, 0, -1)
        both.ask("LLEN", key)


def dumped(both):
    """What is dumped here is what the peer restores, and the other way round."""
    for source, target in ((both.ours, both.peer), (both.peer, both.ours)):
        target.execute_command("RESTORE", "{l}restored", 0, source.execute_command("DUMP", ONE), "REPLACE")
        equal(target.execute_command("LRANGE", "{l}restored", 0, -1), source.execute_command("LRANGE", ONE, 0, -1))
        target.delete("{l}restored")


def main():
    with beside() as (both, rng, rounds, restart):
        for number in range(rounds):
            step(f"round {number}")
            for _ in range(6):
                fill(both, rng)
                for _ in range(100):
                    both.ask(*command(rng))
            whole(both)
            dumped(both)
            if number % 3 == 0:
                both.ask("RENAME", ONE, OTHER)
                whole(both)
            if number % 2:
                restart()
                whole(both)
        step("a queue")
        fill(both, rng)
        began = time.monotonic()
        while time.monotonic() < began + 5:
            both.ask("LPUSH", ONE, *(item(rng) for _ in range(40)))
            for _ in range(40):
                both.ask("LMOVE", ONE, TO, "RIGHT", "LEFT")
            both.ask("RPOP", TO, 39)
            both.ask("LREM", TO, -1, both.ask("LINDEX", TO, 0) or "none")
        whole(both)
        step("what goes as a whole")
        both.ask("LTRIM", ONE, 5, 3)
        both.ask("EXISTS", ONE)
        both.ask("RPUSH", ONE, "again")
        both.ask("LRANGE", ONE, 0, -1)
        both.ask("DEL", ONE, OTHER, TO)


main()
