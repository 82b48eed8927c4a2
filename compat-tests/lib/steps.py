"""What programs share that print steps and what came back; those that judge themselves exit non-zero at the first answer that is
not as it should be."""

import time


def step(text):
    print(f"> {text}", flush=True)


def show(text, *values):
    """A step and its answers, one a line."""
    step(text)
    for value in values:
        print(repr(value), flush=True)


def until(condition, seconds=20):
    """Wait for what comes soon; returns the first answer that is true."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise SystemExit(f"not within {seconds} s: line {condition.__code__.co_firstlineno}")
        time.sleep(0.01)
    return value


def equal(got, wanted):
    if got != wanted:
        raise SystemExit(f"got {got!r}, wanted {wanted!r}")


def same(got, wanted):
    equal(got, wanted)
    print(got)


def split(address):
    """Host and port."""
    host, port = address.rsplit(":", 1)
    return host, int(port)
