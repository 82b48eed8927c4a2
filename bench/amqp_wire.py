"""A bare AMQP 0-9-1 client for long backlogs: the libraries cost several times the server's work for each message, and what
they keep for each unconfirmed one would be measured along."""

import socket
import struct
import time

FRAME_END = b"\xce"
METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
# basic.ack and basic.nack of a publish: class, method, tag, bits.
CONFIRM = struct.Struct(">HHQB")
ACK = (60, 80)


def frame(kind, channel, payload):
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + FRAME_END


def short(text):
    return bytes([len(text)]) + text.encode()


def method(channel, class_id, method_id, arguments=b""):
    return frame(METHOD, channel, struct.pack(">HH", class_id, method_id) + arguments)


class Connection:
    """Logged in as guest, channel 1 open."""

    def __init__(self, address, timeout=120):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.input = bytearray()
        self.socket.sendall(b"AMQP\x00\x00\x09\x01")
        self.expect(10, 10)
        login = b"\x00\x00\x00\x00" + short("PLAIN") + struct.pack(">I", 12) + b"\x00guest\x00guest" + short("en_US")
        self.call(method(0, 10, 11, login), 10, 30)
        self.socket.sendall(method(0, 10, 31, struct.pack(">HIH", 2047, 131072, 0)))
        self.call(method(0, 10, 40, short("/") + b"\x00\x00"), 10, 41)
        self.call(method(1, 20, 10, b"\x00"), 20, 11)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.socket.close()

    def close(self):
        """As the protocol wants it."""
        self.call(method(0, 10, 50, struct.pack(">H", 200) + short("bye") + b"\x00\x00\x00\x00"), 10, 51)
        self.socket.close()

    def next_frame(self):
        """(kind, payload)"""
        while True:
            if len(self.input) >= 7:
                kind, _, size = struct.unpack_from(">BHI", self.input)
                if len(self.input) >= size + 8:
                    payload = bytes(self.input[7:7 + size])
                    del self.input[:size + 8]
                    if kind != HEARTBEAT:
                        return kind, payload
                    continue
            more = self.socket.recv(1 << 16)
            if not more:
                raise ConnectionError("closed by the server")
            self.input += more

    def expect(self, class_id, method_id):
        kind, payload = self.next_frame()
        found = struct.unpack_from(">HH", payload)
        if kind != METHOD or found != (class_id, method_id):
            raise RuntimeError(f"expected {class_id}.{method_id}, got {found}: {payload[:200]!r}")
        return payload[4:]

    def call(self, request, class_id, method_id):
        self.socket.sendall(request)
        return self.expect(class_id, method_id)

    def declare(self, queue, arguments=b"", passive=False):
        """Durable; gives how many messages are ready."""
        bits = 0b1 if passive else 0b10
        answer = self.call(method(1, 50, 10, b"\x00\x00" + short(queue) + bytes([bits]) + struct.pack(">I", len(arguments)) + arguments), 50, 11)
        return struct.unpack_from(">I", answer, 1 + answer[0])[0]

    def delete(self, queue):
        self.call(method(1, 50, 40, b"\x00\x00" + short(queue) + b"\x00"), 50, 41)

    def declare_exchange(self, exchange, kind):
        """Durable."""
        self.call(method(1, 40, 10, b"\x00\x00" + short(exchange) + short(kind) + b"\x02" + b"\x00\x00\x00\x00"), 40, 11)

    def delete_exchange(self, exchange):
        self.call(method(1, 40, 20, b"\x00\x00" + short(exchange) + b"\x00"), 40, 21)

    def bind(self, queue, exchange, keys):
        """A binding per key, asked for without waiting for each."""
        keys = list(keys)
        for first in range(0, len(keys), 500):
            some = keys[first:first + 500]
            self.socket.sendall(b"".join(method(1, 50, 20, b"\x00\x00" + short(queue) + short(exchange) + short(key) + b"\x00" + b"\x00\x00\x00\x00") for key in some))
            for _ in some:
                self.expect(50, 21)

    def publish(self, queue, first, count, size, window=2000, block=200, exchange="", keys=None):
        """Publishes `count` persistent messages of `size` octets with confirms; a body begins with its number. Gives seconds.

        `keys`: `block` routing keys of one length, used in turn, instead of the queue's name."""
        self.call(method(1, 85, 10, b"\x00"), 85, 11)
        header = frame(HEADER, 1, struct.pack(">HHQHB", 60, 0, size, 0x1000, 2))
        heads = [method(1, 60, 40, b"\x00\x00" + short(exchange) + short(key) + b"\x00") + header for key in keys or [queue] * block]
        body = frame(BODY, 1, bytes(range(256)) * (size // 256) + bytes(size % 256))
        one = heads[0] + body
        at = len(heads[0]) + 7
        stamp = struct.Struct(">Q")
        buffer = bytearray(b"".join(head + body for head in heads))
        began = time.monotonic()
        sent = confirmed = 0
        while confirmed < count:
            if sent < count and sent - confirmed < window:
                now = min(block, count - sent)
                for index in range(now):
                    stamp.pack_into(buffer, index * len(one) + at, first + sent + index)
                self.socket.sendall(memoryview(buffer)[:now * len(one)])
                sent += now
                continue
            kind, payload = self.next_frame()
            class_id, method_id, tag, _ = CONFIRM.unpack_from(payload)
            if kind != METHOD or (class_id, method_id) != ACK:
                raise RuntimeError(f"not an ack: {payload[:200]!r}")
            # Window and block are of acks with `multiple` mostly; single ones come in order here.
            confirmed = max(confirmed, tag)
        return time.monotonic() - began

    def consume(self, queue, first, count, size, prefetch=2000, ack_every=500):
        """Takes `count` messages, which must be `first`, `first` + 1 and so on; acknowledges all. Gives (seconds, redelivered)."""
        self.call(method(1, 60, 10, struct.pack(">IHB", 0, prefetch, 0)), 60, 11)
        began = time.monotonic()
        self.call(method(1, 60, 20, b"\x00\x00" + short(queue) + short("c") + b"\x00" + b"\x00\x00\x00\x00"), 60, 21)
        want = first
        end = first + count
        acked = tag = redelivered = 0
        record = None
        chunk = bytearray(1 << 20)
        while want < end:
            if record is None:
                # Every delivery of this queue has the same length: the first one tells.
                need = 0
                lengths = []
                while len(lengths) < 3:
                    if len(self.input) >= need + 7:
                        size_here = struct.unpack_from(">I", self.input, need + 3)[0]
                        lengths.append(need)
                        need += size_here + 8
                    else:
                        self.input += self.socket.recv(1 << 16)
                record = need
                body_at = lengths[2] + 7
                redelivered_at = 7 + 4 + 2 + 8
                fields = struct.Struct(f">{redelivered_at}x?{body_at - redelivered_at - 1}xQ{record - body_at - 8}x")
            whole = len(self.input) // record * record
            if whole:
                for again, number in fields.iter_unpack(memoryview(bytes(self.input[:whole]))):
                    if number != want:
                        raise RuntimeError(f"message {number}, expected {want}")
                    want += 1
                    redelivered += again
                del self.input[:whole]
                tag = want - first
                if tag - acked >= ack_every or want == end:
                    self.socket.sendall(method(1, 60, 80, struct.pack(">QB", tag, 1)))
                    acked = tag
            if want < end:
                got = self.socket.recv_into(chunk)
                if not got:
                    raise ConnectionError("closed by the server")
                self.input += memoryview(chunk)[:got]
        # The answer to anything comes after the acknowledgement was taken in.
        self.call(method(1, 60, 10, struct.pack(">IHB", 0, prefetch, 0)), 60, 11)
        return time.monotonic() - began, redelivered
