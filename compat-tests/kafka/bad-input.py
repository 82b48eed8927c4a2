"""Requests that no honest client sends, and old and unknown versions: the answer's bytes, or that the connection ends."""

import os
import socket
import struct

HOST, PORT = os.environ["KAFKA_ADDR"].rsplit(":", 1)


def request(api, version, body=b"", correlation=7, client=b"t", flexible=False):
    head = struct.pack(">hhih", api, version, correlation, len(client)) + client
    data = head + (b"\0" if flexible else b"") + body
    return struct.pack(">i", len(data)) + data


def attempt(text, data, show=None):
    print(f"> {text}", flush=True)
    sock = socket.create_connection((HOST, int(PORT)), 5)
    try:
        sock.sendall(data)
        sock.settimeout(1.5)
        size = struct.unpack(">i", exactly(sock, 4))[0]
        body = exactly(sock, size)
        print((show or summary)(body))
        sock.sendall(request(18, 0))
        exactly(sock, 4)
        print("(open)")
    except (EOFError, ConnectionResetError, BrokenPipeError):
        print("(closed)")
    except (TimeoutError, socket.timeout):
        print("(silent)")
    sock.close()


def exactly(sock, count):
    data = b""
    while len(data) < count:
        more = sock.recv(count - len(data))
        if not more:
            raise EOFError
        data += more
    return data


def summary(body):
    return f"correlation {struct.unpack('>i', body[:4])[0]}, then {body[4:12].hex()}"


def versions(body):
    """ApiVersions v0: error, then (key, min, max); only the keys every client needs are compared."""
    error, count = struct.unpack(">hi", body[4:10])
    rows = {}
    for i in range(count):
        key, low, high = struct.unpack(">hhh", body[10 + 6 * i:16 + 6 * i])
        rows[key] = (low, high)
    wanted = {0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator", 11: "JoinGroup", 12: "Heartbeat",
              13: "LeaveGroup", 14: "SyncGroup", 18: "ApiVersions", 19: "CreateTopics", 20: "DeleteTopics", 22: "InitProducerId"}
    return f"error {error}\n" + "\n".join(f"{name} {rows.get(key, ('', ''))[0]}" for key, name in wanted.items())


attempt("ApiVersions 0: the lowest version of what clients need", request(18, 0), versions)
attempt("ApiVersions 3", request(18, 3, b"\x02x\x02y\x00", flexible=True), lambda b: f"correlation {struct.unpack('>i', b[:4])[0]} error {struct.unpack('>h', b[4:6])[0]}")
attempt("ApiVersions of a version from the future", request(18, 99, b"\x00" * 8), lambda b: f"correlation {struct.unpack('>i', b[:4])[0]} error {struct.unpack('>h', b[4:6])[0]} in version 0, {struct.unpack('>i', b[6:10])[0]} entries")
attempt("Metadata of an unknown version", request(3, 99))
attempt("Fetch of a version that was removed", request(1, 0))
attempt("unknown api key", request(999, 0))
attempt("controller api key", request(56, 0))
attempt("negative size", struct.pack(">i", -1))
attempt("size zero", struct.pack(">i", 0))
attempt("size of 2 GiB", struct.pack(">i", 0x7FFFFFFF))
attempt("header cut short", struct.pack(">i", 4) + b"\0\x03\0\x00")
attempt("Metadata cut short", request(3, 1, struct.pack(">ih", 1, 10) + b"abc"))
attempt("Metadata with a huge array", request(3, 1, struct.pack(">i", 0x7FFFFFF0)))
attempt("Metadata with negative string", request(3, 1, struct.pack(">ih", 1, -5)))
attempt("HTTP instead of Kafka", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
attempt("Metadata 0", request(3, 0, struct.pack(">i", 0)), lambda b: f"correlation {struct.unpack('>i', b[:4])[0]} brokers {struct.unpack('>i', b[4:8])[0]}")
attempt("two requests in one segment are answered in order", request(18, 0, correlation=1) + request(18, 0, correlation=2), lambda b: f"correlation {struct.unpack('>i', b[:4])[0]}")
