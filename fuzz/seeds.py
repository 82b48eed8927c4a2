#!/usr/bin/env python3
"""Seeds for one fuzz target: seeds.py TARGET DIRECTORY. From captured client bytes (protocols/*/testdata/*.hex) and from
the requests that compat-tests send."""

import re
import struct
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def captured(protocol):
    for path in sorted((ROOT / "protocols" / protocol / "testdata").glob("*.hex")):
        lines = (line.split("#")[0] for line in path.read_text().splitlines())
        yield path.stem, bytes.fromhex("".join("".join(lines).split()))


def resp():
    yield from ((name, b"\x07" + data) for name, data in captured("resp"))
    for number, line in enumerate((ROOT / "compat-tests/resp/commands.txt").read_text().splitlines()):
        if line.startswith("raw: "):
            yield f"raw-{number}", b"\x03" + re.sub(r"<a\*\d+>", "aaa", line[5:]).encode().decode("unicode_escape").encode("latin-1")
        elif line and line[0].isupper():
            words = line.encode().split()
            yield f"command-{number}", b"\x05*%d\r\n" % len(words) + b"".join(b"$%d\r\n%s\r\n" % (len(w), w) for w in words)


def rdb():
    for line in (ROOT / "protocols/resp/testdata/dumps.txt").read_text().splitlines():
        if not line.startswith("#"):
            server, name, payload = line.split()
            yield f"{server}-{name}", bytes.fromhex(payload)[:-10]


def amqp():
    yield from captured("amqp")
    declare = struct.pack(">HHH", 50, 10, 0) + b"\x01q\x02" + struct.pack(">I", 11) + b"\x01kS\x00\x00\x00\x01v\x01bt\x01"[:11]
    yield "queue-declare", struct.pack(">BHI", 1, 1, len(declare)) + declare + b"\xce"
    header = struct.pack(">HHQHB", 60, 0, 5, 0x1000, 2)
    yield "content-header", struct.pack(">BHI", 2, 1, len(header)) + header + b"\xce"


def kafka():
    yield from captured("kafka")
    for key in range(76):
        for version in (0, 3, 9):
            body = struct.pack(">hhih", key, version, 1, 1) + b"c" + bytes(24)
            yield f"key-{key}-{version}", struct.pack(">i", len(body)) + body


def main():
    target, directory = sys.argv[1], Path(sys.argv[2])
    directory.mkdir(parents=True, exist_ok=True)
    count = 0
    for name, data in {"resp_decode": resp, "rdb_restore": rdb, "amqp_decode": amqp, "kafka_decode": kafka}[target]():
        (directory / name).write_bytes(data)
        count += 1
    print(f"{target}: {count} seeds")


if __name__ == "__main__":
    main()
