#!/usr/bin/env python3
"""Streams that FlowMesh holds mostly in its tables (a memory limit of 2 MiB, so that one of 64 KiB is), beside a live Valkey: every command
of streams, made by chance, answers the same; after a kill, too. Its own oracle: exits non-zero at the first difference, and names the seed.

    streamed.py [--seed N] [--rounds N]
"""

import time

from lib.pair import beside, connect
from lib.steps import equal, step

#: All in one slot.
ONE, OTHER, TO = "{x}one", "{x}other", "{x}to"
ENTRIES = 8000
GROUPS, CONSUMERS = ("g1", "g2"), ("ann", "bob", "eve")


class Ids:
    """Ids that grow, and those from which chance chooses."""

    def __init__(self, rng):
        self.rng, self.last = rng, {ONE: 0, OTHER: 0}

    def next(self, key):
        self.last[key] += self.rng.choice([1, 1, 1, 3])
        return self.at(self.last[key])

    @staticmethod
    def at(number):
        return f"{number // 4 + 1}-{number % 4}"

    def any(self, key):
        # Mostly of what may still be there.
        first = max(0, self.last[key] - 2 * ENTRIES)
        return self.at(self.rng.randrange(first, self.last[key] + 2))

    def some(self, key, most):
        """Of neighbours, or of all over the stream."""
        count = self.rng.randrange(1, most)
        if self.rng.random() < 0.5:
            return [self.any(key) for _ in range(count)]
        first = self.rng.randrange(max(0, self.last[key] - 2 * ENTRIES), self.last[key] + 1)
        return [self.at(first + n) for n in range(count)]

    def between(self, key):
        low = self.rng.randrange(max(0, self.last[key] - 2 * ENTRIES), self.last[key] + 1)
        high = low + self.rng.choice([0, 5, 300, 5000])
        return self.rng.choice([self.at(low), "-", "(" + self.at(low)]), self.rng.choice([self.at(high), self.at(high), "+"])


def fields(rng):
    kind = rng.random()
    if kind < 0.8:
        return ["sensor", rng.randrange(100), "value", "v" * rng.randrange(1, 60)]
    if kind < 0.98:
        return [f"f{rng.randrange(9)}", "x" * rng.randrange(200)]
    return ["large", "y" * 9000]


def ungrown(pending):
    """`XPENDING` without how long ago it was."""
    return [[entry[0], entry[1], entry[3]] if isinstance(entry, list) else entry for entry in pending]


def same(answer):
    return answer


def facts(stream):
    """`XINFO STREAM` without how it is kept."""
    pairs = zip(stream[::2], stream[1::2], strict=True)
    return [pair for pair in pairs if not pair[0].startswith(b"radix-tree")]


def raw(server):
    """Answers as they come."""
    client = connect(server, protocol=2)
    client.response_callbacks.clear()
    return client


def command(rng, ids):
    """A command, and what is taken of its answer."""
    key = rng.choice([ONE, ONE, OTHER])
    group, consumer = rng.choice(GROUPS), rng.choice(CONSUMERS)
    low, high = ids.between(key)
    count = rng.choice([[], ["COUNT", rng.choice([1, 3, 100, 700])]])
    few = ["COUNT", rng.choice([1, 10, 100])]
    return rng.choice([
        (["XADD", key, ids.next(key), *fields(rng)], same),
        (["XADD", key, "MAXLEN", rng.choice([ENTRIES // 2, ENTRIES, 2 * ENTRIES]), ids.next(key), *fields(rng)], same),
        (["XADD", key, "MINID", "=", ids.at(max(0, ids.last[key] - ENTRIES)), ids.next(key), *fields(rng)], same),
        (["XADD", key, ids.any(key), *fields(rng)], same),
        (["XLEN", key], same),
        (["XRANGE", key, low, high, *count], same),
        (["XREVRANGE", key, high, low, *count], same),
        (["XRANGE", key, "-", "+", *few], same),
        (["XREVRANGE", key, "+", "-", *few], same),
        (["XREAD", *few, "STREAMS", key, ids.any(key)], same),
        (["XREAD", *few, "STREAMS", ONE, OTHER, ids.any(ONE), ids.any(OTHER)], same),
        (["XREAD", "BLOCK", 20, "STREAMS", key, "$"], same),
        (["XREAD", "STREAMS", key, "+"], same),
        (["XDEL", key, *ids.some(key, 30)], same),
        (["XDEL", key, *ids.some(key, 300)], same),
        (["XTRIM", key, "MAXLEN", rng.choice([ENTRIES // 3, ENTRIES])], same),
        (["XTRIM", key, "MINID", ids.any(key)] if rng.random() < 0.2 else ["XLEN", key], same),
        (["XREADGROUP", "GROUP", group, consumer, *few, "STREAMS", key, ">"], same),
        (["XREADGROUP", "GROUP", group, consumer, *few, "NOACK", "STREAMS", key, ">"], same),
        (["XREADGROUP", "GROUP", group, consumer, *few, "STREAMS", key, rng.choice(["0", ids.any(key)])], same),
        (["XACK", key, group, *ids.some(key, 60)], same),
        (["XPENDING", key, group], same),
        (["XPENDING", key, group, low, high, 50], ungrown),
        (["XPENDING", key, group, "-", "+", 50, consumer], ungrown),
        (["XCLAIM", key, group, consumer, 0, *ids.some(key, 20)], same),
        (["XCLAIM", key, group, consumer, 0, *ids.some(key, 20), "FORCE", "JUSTID"], same),
        (["XAUTOCLAIM", key, group, consumer, 0, ids.any(key), *few], same),
        (["XAUTOCLAIM", key, group, consumer, 3_600_000, "0", "JUSTID"], same),
        (["XGROUP", "SETID", key, group, ids.any(key)], same),
        (["XGROUP", "SETID", key, group, "0", "ENTRIESREAD", 7], same),
        (["XGROUP", "DELCONSUMER", key, group, consumer], same),
        (["XINFO", "STREAM", key], facts),
        (["XINFO", "GROUPS", key], same),
        (["XSETID", key, ids.next(key)], same),
        (["TYPE", key], same),
        (["COPY", ONE, TO, "REPLACE"] if rng.random() < 0.3 else ["EXISTS", key, TO], same),
    ])


def roughly(both, rng):
    """About the wanted length here and there, then exactly."""
    wanted = rng.randrange(ENTRIES // 4, ENTRIES)
    words = rng.choice([[], ["LIMIT", 0], ["LIMIT", 100], ["LIMIT", 150]])
    before = both.ask("XLEN", ONE)
    removed = both.ours.execute_command("XTRIM", ONE, "MAXLEN", "~", wanted, *words)
    equal(0 <= removed <= max(0, before - wanted), True)
    if len(words) == 2 and words[1]:
        equal(removed <= words[1], True)
    both.peer.execute_command("XTRIM", ONE, "MAXLEN", "~", wanted, *words)
    # What each has removed differs, and so does its answer.
    for server in (both.ours, both.peer):
        server.execute_command("XTRIM", ONE, "MAXLEN", wanted)
    both.ask("XLEN", ONE)


def fill(both, rng, ids):
    for key in (ONE, OTHER):
        while both.ask("XLEN", key) < ENTRIES / 2:
            for server, pipe in ((both.ours, both.ours.pipeline(transaction=False)), (both.peer, both.peer.pipeline(transaction=False))):
                if server is both.ours:
                    added = [(ids.next(key), fields(rng)) for _ in range(500)]
                for entry, words in added:
                    pipe.execute_command("XADD", key, entry, *words)
                pipe.execute()
        for group in GROUPS:
            both.ask("XGROUP", "CREATE", key, group, rng.choice(["0", ids.any(key)]))


def whole(both):
    """Everything of all of them."""
    for key in (ONE, OTHER, TO):
        both.ask("XRANGE", key, "-", "+")
        both.ask("XREVRANGE", key, "+", "-")
        if both.ask("EXISTS", key):
            both.ask("XINFO", "STREAM", key, of=facts)
            both.ask("XINFO", "GROUPS", key)
            for group in GROUPS:
                both.ask("XPENDING", key, group)
                both.ask("XPENDING", key, group, "-", "+", 100_000, of=ungrown)


def dumped(both):
    """What is dumped here is what the peer restores, and the other way round."""
    for source, target in ((both.ours, both.peer), (both.peer, both.ours)):
        target.execute_command("RESTORE", "{x}restored", 0, source.execute_command("DUMP", ONE), "REPLACE")
        got, wanted = (server.execute_command("XRANGE", key, "-", "+") for server, key in ((target, "{x}restored"), (source, ONE)))
        if got != wanted:
            at = next((n for n, pair in enumerate(zip(got, wanted)) if pair[0] != pair[1]), None)
            raise SystemExit(f"restored {len(got)} of {len(wanted)} entries, differing from {at} on: {got[at or 0]} for {wanted[at or 0]}; ours is the source: {source is both.ours}")
        target.delete("{x}restored")


def main():
    with beside(raw) as (both, rng, rounds, restart):
        ids = Ids(rng)
        for number in range(rounds):
            step(f"round {number}")
            for _ in range(6):
                fill(both, rng, ids)
                for _ in range(100):
                    words, of = command(rng, ids)
                    both.ask(*words, of=of)
                roughly(both, rng)
            whole(both)
            dumped(both)
            if number % 3 == 0:
                both.ask("RENAME", ONE, OTHER)
                ids.last[OTHER], ids.last[ONE] = ids.last[ONE], 0
                whole(both)
            if number % 2:
                restart()
                whole(both)
        step("a queue")
        fill(both, rng, ids)
        began = time.monotonic()
        while time.monotonic() < began + 5:
            for _ in range(50):
                both.ask("XADD", ONE, ids.next(ONE), "job", rng.randrange(1000))
            given = both.ask("XREADGROUP", "GROUP", "g1", "ann", "COUNT", 70, "STREAMS", ONE, ">") or []
            done = [entry[0] for _, entries in given for entry in entries]
            if done:
                both.ask("XACK", ONE, "g1", *done)
                both.ask("XDEL", ONE, *done)
        whole(both)
        step("what goes as a whole")
        both.ask("XTRIM", ONE, "MAXLEN", 0)
        both.ask("XINFO", "STREAM", ONE, of=facts)
        both.ask("XADD", ONE, ids.next(ONE), "again", "1")
        both.ask("XRANGE", ONE, "-", "+")
        both.ask("DEL", ONE, OTHER, TO)


main()
