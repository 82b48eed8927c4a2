"""Bytes that no honest client sends: what is answered, and that the connection ends as RabbitMQ ends it."""

import os
import socket
import struct

HOST, PORT = os.environ["AMQP_ADDR"].rsplit(":", 1)
METHODS = {(10, 10): "connection.start", (10, 30): "connection.tune", (10, 41): "connection.open-ok", (10, 50): "connection.close",
           (20, 11): "channel.open-ok", (20, 40): "channel.close", (20, 41): "channel.close-ok", (50, 11): "queue.declare-ok"}


def shortstr(text):
    return bytes([len(text)]) + text


def longstr(text):
    return struct.pack(">I", len(text)) + text


def frame(kind, channel, payload, end=b"\xce"):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + end


def method(channel, cls, identifier, arguments=b""):
    return frame(1, channel, struct.pack(">HH", cls, identifier) + arguments)


START_OK = method(0, 10, 11, longstr(b"") + shortstr(b"PLAIN") + longstr(b"\0guest\0guest") + shortstr(b"en_US"))
TUNE_OK = method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0))
OPEN = method(0, 10, 40, shortstr(b"/") + shortstr(b"") + b"\0")
CHANNEL_OPEN = method(1, 20, 10, shortstr(b""))
PUBLISH = method(1, 60, 40, struct.pack(">H", 0) + shortstr(b"") + shortstr(b"nowhere") + b"\0")
HEADER = frame(2, 1, struct.pack(">HHQH", 60, 0, 5, 0))
BODY = frame(3, 1, b"hello")
BARRIER = method(1, 50, 10, struct.pack(">H", 0) + shortstr(b"") + b"\x04" + longstr(b""))


def receive(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def read_frame(sock):
    kind, channel, size = struct.unpack(">BHI", receive(sock, 7))
    payload = receive(sock, size)
    receive(sock, 1)
    return kind, channel, payload


def describe(kind, channel, payload):
    if kind == 8:
        return "heartbeat"
    if kind != 1:
        return f"frame type {kind}"
    key = struct.unpack(">HH", payload[:4])
    name = METHODS.get(key, str(key))
    if name.endswith(".close"):
        code, size = struct.unpack(">HB", payload[4:7])
        cls, identifier = struct.unpack(">HH", payload[7 + size:11 + size])
        return f"{name} {code} {payload[7:7 + size].decode(errors='replace')} (method {cls}.{identifier})"
    return f"{name} on {channel}" if channel else name


def attempt(text, *parts, handshake=True, header=b"AMQP\x00\x00\x09\x01"):
    print(f"> {text}", flush=True)
    sock = socket.create_connection((HOST, int(PORT)), 15)
    try:
        sock.sendall(header)
        if handshake:
            read_frame(sock)
            sock.sendall(START_OK)
            read_frame(sock)
            sock.sendall(TUNE_OK + OPEN)
            read_frame(sock)
        sock.sendall(b"".join(parts))
        while True:
            got = read_frame(sock)
            text = describe(*got)
            print(text)
            if text.startswith("connection.close "):
                sock.sendall(method(0, 10, 51))
            if text.startswith("queue.declare-ok") or text.startswith("channel.close "):
                print("(open)")
                break
            if not handshake and text == "connection.start":
                break
    except (EOFError, ConnectionResetError, BrokenPipeError):
        print("(closed)")
    except (TimeoutError, socket.timeout):
        print("(open, silent)")
    sock.close()


def banner(text, data):
    """What comes back raw when the protocol header is not ours."""
    print(f"> {text}", flush=True)
    sock = socket.create_connection((HOST, int(PORT)), 15)
    sock.sendall(data)
    got = b""
    try:
        while len(got) < 8:
            more = sock.recv(8 - len(got))
            if not more:
                break
            got += more
        closed = got[:4] != b"AMQP" or sock.recv(1) == b""
    except (ConnectionResetError, socket.timeout) as error:
        closed = isinstance(error, ConnectionResetError)
    print(got if got[:4] == b"AMQP" else got[:1], "closed" if closed else "open")
    sock.close()


attempt("a good handshake and a queue", CHANNEL_OPEN, BARRIER)
banner("header of another version", b"AMQP\x00\x01\x00\x00")
banner("HTTP instead of AMQP", b"GET / HTTP/1.1\r\n\r\n")
attempt("wrong frame end", CHANNEL_OPEN, frame(1, 1, struct.pack(">HH", 50, 10), end=b"\x00"))
attempt("frame longer than negotiated", CHANNEL_OPEN, struct.pack(">BHI", 1, 1, 0x7FFFFFFF))
attempt("unknown frame type", CHANNEL_OPEN, frame(7, 1, b"x"))
attempt("unknown class", CHANNEL_OPEN, method(1, 999, 1))
attempt("unknown method", CHANNEL_OPEN, method(1, 50, 999))
attempt("method cut short", CHANNEL_OPEN, method(1, 50, 10, b"\0\0"))
attempt("method on a channel that was not opened", BARRIER)
attempt("channel opened twice", CHANNEL_OPEN, CHANNEL_OPEN)
attempt("header without publish", CHANNEL_OPEN, HEADER)
attempt("body without header", CHANNEL_OPEN, BODY)
attempt("body without header after publish", CHANNEL_OPEN, PUBLISH, BODY)
attempt("method between publish and header", CHANNEL_OPEN, PUBLISH, BARRIER)
attempt("header of another class", CHANNEL_OPEN, PUBLISH, frame(2, 1, struct.pack(">HHQH", 50, 0, 5, 0)))
attempt("heartbeat on a channel", CHANNEL_OPEN, frame(8, 1, b""))
attempt("connection method on a channel", CHANNEL_OPEN, method(1, 10, 40, shortstr(b"/") + shortstr(b"") + b"\0"))
attempt("channel method on channel 0", method(0, 20, 10, shortstr(b"")))
attempt("table longer than its frame", CHANNEL_OPEN, method(1, 50, 10, struct.pack(">H", 0) + shortstr(b"deep") + b"\0" + struct.pack(">I", 1000)))
attempt("unknown field type", CHANNEL_OPEN, method(1, 50, 10, struct.pack(">H", 0) + shortstr(b"odd") + b"\0" + longstr(shortstr(b"k") + b"?" + b"1")))
attempt("open before start-ok", OPEN, handshake=False)


# Refused before the connection is open.

CAPABILITY = shortstr(b"capabilities") + b"F" + longstr(shortstr(b"authentication_failure_close") + b"t\x01")


def start_ok(mechanism=b"PLAIN", response=b"\0guest\0guest", properties=CAPABILITY):
    return method(0, 10, 11, longstr(properties) + shortstr(mechanism) + longstr(response) + shortstr(b"en_US"))


def open_vhost(name):
    return method(0, 10, 40, shortstr(name) + shortstr(b"") + b"\0")


def refused(text, *steps):
    """Send each step after the answer to the one before, and show everything from the first answer on."""
    print(f"> {text}", flush=True)
    sock = socket.create_connection((HOST, int(PORT)), 15)
    sock.sendall(b"AMQP\x00\x00\x09\x01")
    try:
        read_frame(sock)
        for step in steps:
            sock.sendall(step)
            shown = describe(*read_frame(sock))
            print(shown)
            if shown.startswith("connection.close "):
                sock.sendall(method(0, 10, 51))
                break
        sock.settimeout(5)
        while True:
            print(describe(*read_frame(sock)))
    except (EOFError, ConnectionResetError, BrokenPipeError):
        print("(closed)")
    except (TimeoutError, socket.timeout):
        print("(open, silent)")
    sock.close()


refused("unknown vhost", start_ok(), TUNE_OK + open_vhost(b"nope"))
refused("vhost without a name", start_ok(), TUNE_OK + open_vhost(b""))
refused("vhost of odd octets", start_ok(), TUNE_OK + open_vhost(b"a'b\xc3\xa9"))
refused("wrong password", start_ok(response=b"\0guest\0wrong"))
refused("wrong password, client that does not want to be told", start_ok(response=b"\0guest\0wrong", properties=b""))
refused("unknown user", start_ok(response=b"\0nobody\0guest"))
refused("no password", start_ok(response=b"\0guest\0"))
refused("PLAIN without its separators", start_ok(response=b"guest"))
refused("wrong password, AMQPLAIN", start_ok(b"AMQPLAIN", shortstr(b"LOGIN") + b"S" + longstr(b"guest") + shortstr(b"PASSWORD") + b"S" + longstr(b"wrong")))
refused("AMQPLAIN without a password", start_ok(b"AMQPLAIN", shortstr(b"LOGIN") + b"S" + longstr(b"guest")))
refused("AMQPLAIN that is no table", start_ok(b"AMQPLAIN", b"\xff"))
refused("unknown mechanism", start_ok(b"MAGIC"))
refused("unknown mechanism, client that does not want to be told", start_ok(b"MAGIC", properties=b""))
refused("frame-max below the minimum", start_ok(), method(0, 10, 31, struct.pack(">HIH", 2047, 100, 0)))
refused("frame-max above the offer", start_ok(), method(0, 10, 31, struct.pack(">HIH", 2047, 1 << 30, 0)))
refused("channel-max without a limit", start_ok(), method(0, 10, 31, struct.pack(">HIH", 0, 131072, 0)))
refused("open before tune-ok", start_ok(), OPEN)
refused("tune-ok before start-ok", TUNE_OK)
refused("a channel before the connection is open", start_ok(), TUNE_OK + CHANNEL_OPEN)
refused("start-ok again once open", start_ok(), TUNE_OK + OPEN, start_ok())
refused("open again once open", start_ok(), TUNE_OK + OPEN, OPEN)
