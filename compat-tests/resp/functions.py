"""A function that does not end: what others are told, and how it is ended."""

import os
import time

from lib import respwire

ADDRESS = os.environ["RESP_ADDR"]
LIBRARY = b"""#!lua name=lib
redis.register_function('loop', function() while true do end end)
redis.register_function('wrote', function(keys)
  redis.call('set', keys[1], 'v')
  local till = os.clock() + 2
  while os.clock() < till do end
  return 'done'
end)
"""


def show(title, reply):
    print(f"> {title}\n{respwire.show(reply)}", flush=True)


def busy(wire):
    """The answer of a server that waits no more, without its maker's name."""
    for _ in range(500):
        reply = wire.call(b"PING")
        if reply[0] == "-":
            return reply[0], reply[1].replace(b"Valkey", b"Redis")
        time.sleep(0.01)
    return reply


def free(wire):
    for _ in range(500):
        reply = wire.call(b"PING")
        if reply[0] == "+":
            return reply
        time.sleep(0.01)
    return reply


def without_maker(reply):
    return reply[0], reply[1].replace(b"Valkey", b"Redis") if isinstance(reply[1], bytes) else reply[1]


def running(reply):
    """What FUNCTION STATS says, but for how long."""
    fields = dict(zip((name for _, name in reply[1][::2]), reply[1][1::2]))
    script = fields[b"running_script"]
    if script[1] is None:
        return script
    named = dict(zip((name for _, name in script[1][::2]), script[1][1::2]))
    assert int(named[b"duration_ms"][1]) > 0
    return "*", [named[b"name"], named[b"command"]]


def main():
    one, two = respwire.Wire(ADDRESS), respwire.Wire(ADDRESS)
    two.call(b"FLUSHALL")
    two.call(b"FUNCTION", b"FLUSH")
    show("CONFIG SET busy-reply-threshold", two.call(b"CONFIG", b"SET", b"busy-reply-threshold", b"30"))
    show("FUNCTION LOAD", two.call(b"FUNCTION", b"LOAD", LIBRARY))
    one.send(b"FCALL", b"loop", b"1", b"k", b"x")
    show("others", busy(two))
    show("FUNCTION STATS", running(two.call(b"FUNCTION", b"STATS")))
    show("SCRIPT KILL", without_maker(two.call(b"SCRIPT", b"KILL")))
    show("FUNCTION LIST", without_maker(two.call(b"FUNCTION", b"LIST")))
    show("FUNCTION KILL", two.call(b"FUNCTION", b"KILL"))
    reply = one.read()
    show("the caller", (reply[0], reply[1][:len("ERR Script killed by user with FUNCTION KILL.")]))
    show("others", free(two))
    show("FUNCTION STATS", running(two.call(b"FUNCTION", b"STATS")))
    show("FUNCTION KILL", two.call(b"FUNCTION", b"KILL"))
    one.send(b"EVAL", b"while true do end", b"0")
    show("others, while a script runs", busy(two))
    show("FUNCTION KILL", without_maker(two.call(b"FUNCTION", b"KILL")))
    show("FUNCTION STATS", without_maker(two.call(b"FUNCTION", b"STATS")))
    show("SCRIPT KILL", two.call(b"SCRIPT", b"KILL"))
    one.read()
    show("others", free(two))
    one.send(b"FCALL", b"wrote", b"1", b"k")
    show("others, while one that wrote runs", busy(two))
    reply = two.call(b"FUNCTION", b"KILL")
    show("FUNCTION KILL", (reply[0], reply[1].split()[0]))
    show("the caller", one.read())
    show("GET", two.call(b"GET", b"k"))
    show("CONFIG SET busy-reply-threshold", two.call(b"CONFIG", b"SET", b"busy-reply-threshold", b"5000"))


main()
