"""Commands of Redis after 7.2 that the peer does not have. The oracle is their documentation at redis.io, of the version named with each."""

import os

import redis

from lib.steps import equal, split, step

HOST, PORT = split(os.environ["RESP_ADDR"])


def main():
    r = redis.Redis(HOST, PORT, protocol=2, decode_responses=True)
    r.flushall()
    call = r.execute_command

    def fails(text, *command):
        try:
            answer = call(*command)
        except redis.ResponseError as error:
            equal(text in str(error), True)
            return
        raise AssertionError(f"{command} answered {answer!r}")

    step("DIGEST (8.4): XXH3 of the string, 16 hexadecimal digits")
    r.set("k", "Hello world")
    digest = call("DIGEST", "k")
    equal(digest, "b6acb9d84a38ff74")
    equal(call("DIGEST", "none"), None)
    r.set("n", 12)
    equal(len(call("DIGEST", "n")), 16)
    r.rpush("l", "x")
    fails("WRONGTYPE", "DIGEST", "l")

    step("DELEX (8.4)")
    equal(call("DELEX", "none", "IFEQ", "x"), 0)
    equal(call("DELEX", "none"), 0)
    equal(call("DELEX", "k", "IFEQ", "other"), 0)
    equal(call("DELEX", "k", "IFNE", "Hello world"), 0)
    equal(call("DELEX", "k", "IFDEQ", "0" * 16), 0)
    equal(call("DELEX", "k", "IFDNE", digest), 0)
    equal(call("DELEX", "k", "IFDEQ", digest.upper()), 1)
    equal(r.exists("k"), 0)
    for condition, value in (("IFEQ", "v"), ("IFNE", "w"), ("IFDNE", digest)):
        r.set("k", "v")
        equal(call("DELEX", "k", condition, value), 1)
    fails("WRONGTYPE", "DELEX", "l", "IFEQ", "x")
    equal(call("DELEX", "l"), 1)
    fails("syntax error", "DELEX", "k", "IFXX", "x")
    fails("wrong number of arguments", "DELEX", "k", "IFEQ")
    fails("16 hexadecimal digits", "DELEX", "k", "IFDEQ", "12")

    step("SET with IFNE, IFDEQ, IFDNE (8.4)")
    equal(call("SET", "s", "1", "IFEQ", "x"), None)
    equal(call("SET", "s", "1", "IFNE", "x"), True)
    equal(call("SET", "s", "2", "IFNE", "1"), None)
    equal(call("SET", "s", "2", "IFNE", "3", "GET", get=True), "1")
    equal(call("SET", "s", "3", "IFDEQ", call("DIGEST", "s")), True)
    equal(call("SET", "s", "4", "IFDNE", call("DIGEST", "s")), None)
    equal(call("SET", "s", "4", "IFDEQ", "0" * 16, "GET", get=True), "3")
    equal(r.get("s"), "3")
    equal(call("SET", "new", "1", "IFDNE", "0" * 16, "EX", "100"), True)
    equal(r.ttl("new") > 90, True)
    fails("syntax error", "SET", "s", "1", "IFNE", "x", "NX")
    fails("syntax error", "SET", "s", "1", "IFNE", "x", "IFEQ", "y")
    fails("syntax error", "SET", "s", "1", "IFNE")

    step("INCREX (8.8)")
    equal(call("INCREX", "c"), [1, 1])
    equal(call("INCREX", "c", "BYINT", "5", "UBOUND", "10", "EX", "100"), [6, 5])
    equal(r.ttl("c") > 90, True)
    equal(call("INCREX", "c", "BYINT", "5", "UBOUND", "10", "PERSIST"), [6, 0])
    equal(r.ttl("c") > 90, True)
    equal(call("INCREX", "c", "BYINT", "5", "UBOUND", "10", "SATURATE", "PERSIST"), [10, 4])
    equal(r.ttl("c"), -1)
    equal(call("INCREX", "c", "EX", "100", "ENX"), [11, 1])
    equal(call("INCREX", "c", "EX", "500", "ENX"), [12, 1])
    equal(90 < r.ttl("c") <= 100, True)
    equal(call("INCREX", "gone", "EXAT", "1"), [1, 1])
    equal(r.exists("gone"), 0)
    equal(call("INCREX", "low", "LBOUND", "5"), [0, 0])
    equal(r.exists("low"), 0)
    equal(call("INCREX", "f", "BYFLOAT", "2.5"), ["2.5", "2.5"])
    equal(r.get("f"), "2.5")
    fails("not an integer", "INCREX", "f")
    fails("ENX flag requires an expiration", "INCREX", "c", "ENX")
    fails("invalid expire time", "INCREX", "c", "EX", "0")
    fails("syntax error", "INCREX", "c", "BYINT", "1", "BYFLOAT", "1")
    fails("LBOUND can't be greater than UBOUND", "INCREX", "c", "LBOUND", "2", "UBOUND", "1")
    r.rpush("l", "x")
    fails("WRONGTYPE", "INCREX", "l")
    three = redis.Redis(HOST, PORT, protocol=3)
    equal(three.execute_command("INCREX", "f", "BYFLOAT", "0.5"), [3.0, 0.5])

    step("XDELEX (8.2): -1 no such entry, 1 deleted, 2 still referenced")
    for n in range(1, 6):
        r.xadd("x", {"n": n}, f"{n}-0")
    r.xgroup_create("x", "g", "0")
    r.xreadgroup("g", "c", {"x": ">"}, count=3)
    r.xack("x", "g", "1-0")
    equal(call("XDELEX", "none", "IDS", "2", "1-0", "2-0"), [-1, -1])
    equal(call("XDELEX", "x", "ACKED", "IDS", "4", "1-0", "2-0", "4-0", "9-0"), [1, 2, 2, -1])
    equal(call("XDELEX", "x", "IDS", "1", "2-0"), [1])
    equal(r.xpending("x", "g")["pending"], 2)
    equal(call("XDELEX", "x", "DELREF", "IDS", "1", "3-0"), [1])
    equal([entry["message_id"] for entry in r.xpending_range("x", "g", "-", "+", 10)], ["2-0"])
    # The entry has gone before, what is pending has not.
    equal(call("XDELEX", "x", "DELREF", "IDS", "1", "2-0"), [-1])
    equal(r.xpending("x", "g")["pending"], 0)
    equal(r.xlen("x"), 2)
    # Nobody needs what no group will read: Redis' own test ("XGROUP DESTROY removes all consumer group references") destroys the only
    # group and expects 1, and Valkey 9.2 documents "a message only once no consumer group still needs it".
    r.xgroup_destroy("x", "g")
    equal(call("XDELEX", "x", "ACKED", "IDS", "1", "5-0"), [1])
    equal(r.xlen("x"), 1)
    fails("syntax error", "XDELEX", "x", "NOPE", "IDS", "1", "1-0")
    fails("must be a positive integer", "XDELEX", "x", "IDS", "0", "1-0")
    fails("must match the number of arguments", "XDELEX", "x", "IDS", "2", "1-0")
    fails("Invalid stream ID", "XDELEX", "x", "IDS", "1", "x")

    step("XACKDEL (8.2)")
    r.delete("x")
    for n in range(1, 5):
        r.xadd("x", {"n": n}, f"{n}-0")
    for group in ("g", "h"):
        r.xgroup_create("x", group, "0")
        r.xreadgroup(group, "c", {"x": ">"}, count=3)
    equal(call("XACKDEL", "x", "none", "IDS", "1", "1-0"), [-1])
    equal(call("XACKDEL", "x", "g", "ACKED", "IDS", "2", "1-0", "4-0"), [2, -1])
    equal(call("XACKDEL", "x", "h", "ACKED", "IDS", "1", "1-0"), [1])
    equal(call("XACKDEL", "x", "g", "KEEPREF", "IDS", "1", "2-0"), [1])
    equal(call("XACKDEL", "x", "g", "DELREF", "IDS", "1", "3-0"), [1])
    equal([entry["message_id"] for entry in r.xpending_range("x", "h", "-", "+", 10)], ["2-0"])
    equal(r.xpending("x", "g")["pending"], 0)
    equal(r.xlen("x"), 1)

    step("XADD and XTRIM with KEEPREF, DELREF, ACKED (8.2)")
    r.delete("x")
    for n in range(1, 7):
        r.xadd("x", {"n": n}, f"{n}-0")
    r.xgroup_create("x", "g", "0")
    r.xreadgroup("g", "c", {"x": ">"}, count=4)
    r.xack("x", "g", "1-0", "3-0")
    equal(call("XTRIM", "x", "MAXLEN", "2", "ACKED"), 2)
    equal([id for id, _ in r.xrange("x")], ["2-0", "4-0", "5-0", "6-0"])
    equal(call("XADD", "x", "DELREF", "MAXLEN", "2", "7-0", "n", "7"), "7-0")
    equal([id for id, _ in r.xrange("x")], ["6-0", "7-0"])
    equal(r.xpending("x", "g")["pending"], 0)
    r.xreadgroup("g", "c", {"x": ">"})
    equal(call("XTRIM", "x", "MINID", "8", "KEEPREF"), 2)
    equal(r.xpending("x", "g")["pending"], 2)
    fails("syntax error", "XTRIM", "x", "MAXLEN", "2", "ACKED", "DELREF")


main()
