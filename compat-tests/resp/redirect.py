"""CLIENT TRACKING with REDIRECT: changes are told over another connection, in RESP2 as messages of a channel. Numbers of
connections are shown as letters."""

import os
import socket

from lib import respwire

ADDRESS = os.environ["RESP_ADDR"]
IDS = {}


class Named:
    def __init__(self, letter, version=2):
        self.letter, self.wire = letter, respwire.Wire(ADDRESS, 1)
        if version == 3:
            self.wire.call(b"HELLO", b"3")
        self.id = self.wire.call(b"CLIENT", b"ID")[1].decode()
        IDS[self.id] = letter

    def call(self, *words):
        shown = " ".join(f"<{IDS[word]}>" if word in IDS and words[0] == "CLIENT" else word for word in words)
        print(f"> {self.letter}: {shown}")
        self.wire.send(*(word.encode() for word in words))
        self.hear()

    def hear(self):
        try:
            reply = respwire.show(self.wire.read())
        except (TimeoutError, socket.timeout):
            reply = "(nothing)"
        for number, letter in IDS.items():
            reply = reply.replace(f":{number}", f":<{letter}>")
        print(reply, flush=True)

    def wait(self):
        print(f"> {self.letter} hears")
        self.hear()


def main():
    writer = Named("w")
    writer.call("FLUSHALL")
    for version in (2, 3):
        print(f"> == RESP{version}")
        reader, listener = Named("r", version), Named("l", version)
        listener.call("SUBSCRIBE", "__redis__:invalidate")
        reader.call("CLIENT", "TRACKING", "on", "REDIRECT", listener.id)
        reader.call("CLIENT", "TRACKINGINFO")
        reader.call("CLIENT", "GETREDIR")
        reader.call("GET", "a")
        writer.call("SET", "a", "1")
        listener.wait()
        reader.call("MGET", "a", "b")
        writer.call("MSET", "a", "2", "b", "2")
        listener.wait()
        listener.wait()
        writer.call("FLUSHALL")
        listener.wait()
        reader.call("CLIENT", "TRACKING", "on", "REDIRECT", listener.id, "REDIRECT", listener.id)
        reader.call("CLIENT", "TRACKING", "off")
        reader.call("CLIENT", "TRACKING", "on", "REDIRECT", listener.id, "BCAST", "PREFIX", "x", "NOLOOP")
        writer.call("MSET", "x2", "1", "x1", "1", "y", "1")
        listener.wait()
        reader.call("SET", "x1", "2")
        reader.call("CLIENT", "TRACKING", "off")
        print("> the listener is gone")
        reader.call("CLIENT", "TRACKING", "on", "REDIRECT", listener.id)
        reader.call("GET", "a")
        listener.wire.close()
        while listener.id in [line.split("=")[1].split()[0] for line in writer.wire.call(b"CLIENT", b"LIST")[1].decode().splitlines()]:
            pass
        writer.call("SET", "a", "3")
        if version == 3:
            reader.wait()
        reader.call("CLIENT", "TRACKINGINFO")
        reader.call("CLIENT", "GETREDIR")
        reader.call("CLIENT", "TRACKING", "on", "REDIRECT", listener.id)
        reader.call("RESET")
        reader.wire.close()
        writer.call("FLUSHALL")
    print("> == to itself")
    own = Named("o", 3)
    own.call("CLIENT", "TRACKING", "on", "REDIRECT", own.id)
    own.call("GET", "a")
    writer.call("SET", "a", "1")
    own.wait()
    print("> == a listener that does not subscribe")
    deaf = Named("d")
    own.call("CLIENT", "TRACKING", "on", "REDIRECT", deaf.id)
    own.call("GET", "a")
    writer.call("SET", "a", "2")
    deaf.wait()


main()
