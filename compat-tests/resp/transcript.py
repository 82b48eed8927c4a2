"""Play a file of commands over bare connections and print every reply with its wire type.

    transcript.py 2|3 FILE

One command per line, quoted as in redis-cli. Connections are letters, `a` unless the line says otherwise:
    SET k v            send on a, read one reply
    b: GET k           on connection b          b! BLPOP l 0   send only          b?   read one reply that comes by itself
    raw: *1\\r\\n...     bytes as they are on a fresh connection, every reply until the server closes or falls silent
Marks before a command: [sort] members in any order, [type] only the reply's type, [near N D] an integer within D of N,
    [pairs] a flat list of pairs in any order, [N] read N replies, [none] no reply may come (a PING proves it), [close] the server closes,
    [prefix TEXT] only whether the reply starts with TEXT, [has TEXT] only whether it holds TEXT.
`== title` starts afresh: all connections closed, data flushed, RESP version chosen.
`version 2|3` limits the following lines to that version until `version any`.
"""

import os
import re
import socket
import sys
import time
from pathlib import Path

from lib import respwire

WIRE = respwire.Wire
ADDRESS = os.environ["RESP_ADDR"]
ESCAPES = {"n": b"\n", "r": b"\r", "t": b"\t", "a": b"\a", "b": b"\b"}


def split(text):
    """Arguments quoted as redis-cli does: "double" with escapes, 'single', bare words."""
    arguments, i = [], 0
    while i < len(text):
        if text[i].isspace():
            i += 1
            continue
        current = b""
        if text[i] == '"':
            i += 1
            while text[i] != '"':
                if text[i] == "\\" and text[i + 1] == "x":
                    current += bytes([int(text[i + 2:i + 4], 16)])
                    i += 4
                elif text[i] == "\\":
                    current += ESCAPES.get(text[i + 1], text[i + 1].encode())
                    i += 2
                else:
                    current += text[i].encode()
                    i += 1
            i += 1
        elif text[i] == "'":
            end = text.index("'", i + 1)
            current, i = text[i + 1:end].encode(), end + 1
        else:
            end = i
            while end < len(text) and not text[end].isspace():
                end += 1
            current, i = text[i:end].encode(), end
        arguments.append(current)
    return arguments


def judge(mark, wire):
    """Read what the mark asks for and show it so that two true answers look the same."""
    word, _, rest = (mark or "").partition(" ")
    if word == "none":
        wire.send(b"PING", b"nothing-before-this")
        return respwire.show(wire.read())
    if word == "close":
        try:
            return respwire.show(wire.read()) + "\n" + judge("close", wire)
        except respwire.Closed:
            return "(closed)"
    if word.isdigit():
        return "\n".join(respwire.show(wire.read()) for _ in range(int(word)))
    reply = wire.read()
    if reply[0] == "-" and word not in ("prefix", "has"):
        return respwire.show(reply)
    if word == "sort":
        return respwire.show(reply, unordered=True)
    if word == "pairs":
        if reply[0] == "%":
            return respwire.show(reply, unordered=True)
        shown = [respwire.show(v) for v in reply[1]]
        return "[" + ", ".join(sorted(f"{k} {v}" for k, v in zip(shown[::2], shown[1::2]))) + "]"
    if word == "type":
        return f"(a {reply[0]})"
    if word == "near":
        target, slack = (int(n) for n in rest.split())
        value = int(reply[1])
        return f":about {target}" if abs(value - target) <= slack else f":{value}"
    text = respwire.show(reply)
    if word == "prefix":
        return f"starts with {rest}" if text.startswith(rest) else text
    if word == "has":
        return f"holds {rest}" if rest in text else text
    return text


def raw(text):
    data = text.encode().decode("unicode_escape").encode("latin-1")
    data = re.sub(rb"<(.)\*(\d+)>", lambda m: m[1] * int(m[2]), data, flags=re.S)
    wire = WIRE(ADDRESS, 3)
    out = []
    try:
        wire.socket.sendall(data)
        wire.socket.settimeout(0.5)
        while True:
            out.append(respwire.show(wire.read()))
    except respwire.Closed:
        out.append("(closed)")
    except (TimeoutError, socket.timeout):
        out.append("(open)")
    except (BrokenPipeError, ConnectionResetError):
        out.append("(closed)")
    wire.close()
    return "\n".join(out)


def await_blocked(count):
    """Wait until the server counts `count` blocked clients (INFO clients): the next command must find them so."""
    observer = WIRE(ADDRESS)
    for _ in range(500):
        _, text = observer.call(b"INFO", b"clients")
        found = re.search(rb"blocked_clients:(\d+)", text or b"")
        if found and (int(found[1]) >= count > 0 or int(found[1]) == count):
            break
        time.sleep(0.01)
    observer.close()


def main():
    version, path = sys.argv[1], Path(__file__).with_name(sys.argv[2])
    connections, applies, waiting = {}, True, 0

    def connection(letter):
        if letter not in connections:
            wire = connections[letter] = WIRE(ADDRESS)
            if version == "3":
                wire.call(b"HELLO", b"3")
        return connections[letter]

    for line in path.read_text().splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line.startswith("version "):
            applies = line.split()[1] in ("any", version)
            continue
        if not applies:
            continue
        if line.startswith("== "):
            for wire in connections.values():
                wire.close()
            connections.clear()
            waiting = 0
            await_blocked(0)
            sweeper = WIRE(ADDRESS)
            sweeper.call(b"FLUSHALL")
            sweeper.close()
            print(f"> {line}", flush=True)
            continue
        if line.startswith("sleep "):
            time.sleep(float(line.split()[1]))
            continue
        print(f"> {line}")
        if line.startswith("raw: "):
            print(raw(line[5:]), flush=True)
            continue
        match = re.match(r"(?:([a-z])([:!?]) ?)?(?:\[([^\]]*)\] ?)?(.*)", line)
        letter, sign, mark, rest = match[1] or "a", match[2] or ":", match[3], match[4]
        wire = connection(letter)
        try:
            if sign == "?":
                waiting = max(0, waiting - 1)
            else:
                wire.send(*split(rest))
            if sign == "!":
                waiting += 1
                await_blocked(waiting)
            else:
                print(judge(mark, wire), flush=True)
        except respwire.Closed:
            print("(closed)", flush=True)
            connections.pop(letter)
        except (TimeoutError, socket.timeout):
            print("(no answer)", flush=True)
            connections.pop(letter).close()


main()
