"""A bare RESP2/RESP3 connection that shows replies with their wire type, so that a map sent as an array is seen."""

import socket


class Closed(Exception):
    """The server closed the connection."""


def encode(arguments):
    out = [b"*%d\r\n" % len(arguments)]
    for argument in arguments:
        out.append(b"$%d\r\n%s\r\n" % (len(argument), argument))
    return b"".join(out)


def quoted(data):
    return '"' + "".join(
        {0x22: '\\"', 0x5C: "\\\\", 0x0A: "\\n", 0x0D: "\\r"}.get(b) or (chr(b) if 32 <= b < 127 else f"\\x{b:02x}") for b in data) + '"'


class Wire:
    def __init__(self, address, timeout=10):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""

    def send(self, *arguments):
        self.socket.sendall(encode(arguments))

    def fill(self):
        try:
            data = self.socket.recv(65536)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed
        self.buffer += data

    def line(self):
        while b"\r\n" not in self.buffer:
            self.fill()
        line, self.buffer = self.buffer.split(b"\r\n", 1)
        return line

    def take(self, count):
        while len(self.buffer) < count + 2:
            self.fill()
        data, self.buffer = self.buffer[:count], self.buffer[count + 2:]
        return data

    def read(self):
        """One reply as (kind, value): aggregates hold lists of such pairs, strings are bytes."""
        line = self.line()
        kind, rest = chr(line[0]), line[1:]
        if kind in "+-:,#(":
            return kind, rest
        if kind in "$=!":
            size = int(rest)
            return (kind, None) if size < 0 else (kind, self.take(size))
        if kind == "_":
            return kind, None
        if kind in "*~>":
            size = int(rest)
            return (kind, None) if size < 0 else (kind, [self.read() for _ in range(size)])
        if kind in "%|":
            return kind, [self.read() for _ in range(2 * int(rest))]
        raise ValueError(f"unknown reply type in {line!r}")

    def call(self, *arguments):
        self.send(*arguments)
        return self.read()

    def close(self):
        self.socket.close()


def show(reply, unordered=False):
    """One line of text; `unordered` sorts the members of the outermost aggregate (pairs of a map stay together)."""
    kind, value = reply
    if value is None:
        return {"$": "(nil string)", "*": "(nil array)", "_": "(null)"}[kind]
    if kind in "+-:,#(":
        return kind + value.decode(errors="backslashreplace")
    if kind == "$":
        return quoted(value)
    if kind in "=!":
        return kind + quoted(value)
    shown = [show(v) for v in value]
    if kind == "%":
        shown = [f"{k} => {v}" for k, v in zip(shown[::2], shown[1::2])]
    if unordered:
        shown.sort()
    opening, closing = {"*": "[]", "~": "{}", ">": "<>", "%": "%%", "|": "||"}[kind]
    return f"{opening}{', '.join(shown)}{closing}"
