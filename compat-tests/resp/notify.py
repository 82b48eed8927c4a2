"""Keyspace notifications: after each command of notify.txt, what a subscriber to all of them has heard.

`== title` flushes; `sleep S` waits. `b! COMMAND` is sent on a second connection and answered later by `b?`. `flags F` changes
notify-keyspace-events."""

import os
import shlex
import time
from pathlib import Path

from lib import respwire

ADDRESS = os.environ["RESP_ADDR"]


def arguments(text):
    return [word.encode() for word in shlex.split(text)]


def main():
    writer, second, marks, hears = (respwire.Wire(ADDRESS) for _ in range(4))
    hears.call(b"PSUBSCRIBE", b"__key*@*__:*")
    hears.call(b"SUBSCRIBE", b"mark")

    def heard():
        """Messages until a mark that is published now."""
        marks.call(b"PUBLISH", b"mark", b"here")
        events = []
        while True:
            words = [word for _, word in hears.read()[1]]
            if words[0] == b"message":
                return events
            channel, payload = words[2].decode(), words[3].decode(errors="backslashreplace")
            space, _, subject = channel.partition(":")
            events.append(f"{space} {subject} {payload}")

    for line in Path(__file__).with_name("notify.txt").read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        print(f"> {line}", flush=True)
        if line.startswith("== "):
            writer.call(b"CONFIG", b"SET", b"notify-keyspace-events", b"")
            writer.call(b"FLUSHALL")
            writer.call(b"SELECT", b"0")
            writer.call(b"CONFIG", b"SET", b"notify-keyspace-events", b"EA")
            continue
        if line.startswith("flags "):
            print(respwire.show(writer.call(b"CONFIG", b"SET", b"notify-keyspace-events", *arguments(line[6:] or '""'))))
            print(respwire.show(writer.call(b"CONFIG", b"GET", b"notify-keyspace-events")))
            continue
        if line.startswith("sleep "):
            time.sleep(float(line.split()[1]))
        elif line.startswith("b! "):
            second.send(*arguments(line[3:]))
            time.sleep(0.1)
        elif line.startswith("b?"):
            print(respwire.show(second.read()))
        else:
            reply = respwire.show(writer.call(*arguments(line)))
            print(reply if reply.startswith("-") else "ok")
        for event in heard():
            print(f"  {event}")
    # Whoever comes next to the same server begins without.
    writer.call(b"CONFIG", b"SET", b"notify-keyspace-events", b"")


main()
