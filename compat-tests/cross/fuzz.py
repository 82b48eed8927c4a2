#!/usr/bin/env python3
"""FlowMesh beside a live Valkey under commands made by chance, valid ones and broken ones, over RESP2 and RESP3: replies, their types, their
order where it is defined, and errors must be the same, and so must the data at the end of each round. A difference is shrunk to the
commands that it takes, and printed with the seed. Its own oracle: exits non-zero at the first difference.

    fuzz.py [--seconds N] [--rounds N] [--seed N] [--all]      SEED=N repeats, too; --all: go on after a difference, and count

The grammar below has a line for each way to write a command. A command that both servers have and that no line nor `LEFT_OUT` names fails
the run, so that what is added later is not forgotten.
"""

import argparse
import os
import random
import re
import sys
import time

from lib import respwire, servers
from lib.steps import step

# What the angle brackets stand for is below (`Maker`); [a|b] is left out or one of them, (a|b) is one of them, {…}+ is once or more.
GRAMMAR = """
SET <s> <v> [NX|XX] [GET] [<lasting>|KEEPTTL]
SET <s> <v>
SETNX <s> <v>
SETEX <s> <secs> <v>
PSETEX <s> <millis> <v>
GET <s>
GETDEL <s>
GETSET <s> <v>
GETEX <s> [<lasting>|PERSIST]
APPEND <s> <v>
STRLEN <s>
INCR <s>
DECR <s>
INCRBY <s> <int>
DECRBY <s> <int>
INCRBYFLOAT <s> <float>
GETRANGE <s> <index> <index>
SUBSTR <s> <index> <index>
SETRANGE <s> <offset> <v>
MGET {<s>}+
MSET {<s> <v>}+
MSETNX {<s> <v>}+
LCS <s> <s> [LEN|IDX|IDX MINMATCHLEN <small>|IDX WITHMATCHLEN]
SETBIT <s> <offset> <bit>
GETBIT <s> <offset>
BITCOUNT <s> [<index> <index>|<index> <index> (BYTE|BIT)]
BITPOS <s> <bit> [<index>|<index> <index>|<index> <index> (BYTE|BIT)]
BITOP (AND|OR|XOR|NOT) <s> {<s>}+
BITFIELD <s> {(GET <field> <offset>|SET <field> <offset> <int>|INCRBY <field> <offset> <int>|OVERFLOW (WRAP|SAT|FAIL))}+
BITFIELD_RO <s> {GET <field> <offset>}+
LPUSH <l> {<v>}+
RPUSH <l> {<v>}+
LPUSHX <l> {<v>}+
RPUSHX <l> {<v>}+
LPOP <l> [<small>]
RPOP <l> [<small>]
LLEN <l>
LRANGE <l> <index> <index>
LINDEX <l> <index>
LSET <l> <index> <v>
LINSERT <l> (BEFORE|AFTER) <v> <v>
LREM <l> <index> <v>
LTRIM <l> <index> <index>
LPOS <l> <v> [RANK <index>] [COUNT <small>] [MAXLEN <small>]
LMOVE <l> <l> (LEFT|RIGHT) (LEFT|RIGHT)
RPOPLPUSH <l> <l>
LMPOP <n> {<l>} (LEFT|RIGHT) [COUNT <small>]
BLPOP {<l>}+ <wait>
BRPOP {<l>}+ <wait>
BLMOVE <l> <l> (LEFT|RIGHT) (LEFT|RIGHT) <wait>
BRPOPLPUSH <l> <l> <wait>
BLMPOP <wait> <n> {<l>} (LEFT|RIGHT) [COUNT <small>]
SADD <t> {<m>}+
SREM <t> {<m>}+
SCARD <t>
SISMEMBER <t> <m>
SMISMEMBER <t> {<m>}+
~SMEMBERS <t>
SMOVE <t> <t> <m>
~SPOP <t> 1000
?SRANDMEMBER <t> [<index>]
~SINTER {<t>}+
~SUNION {<t>}+
~SDIFF {<t>}+
SINTERSTORE <t> {<t>}+
SUNIONSTORE <t> {<t>}+
SDIFFSTORE <t> {<t>}+
SINTERCARD <n> {<t>} [LIMIT <small>]
HSET <h> {<f> <v>}+
HMSET <h> {<f> <v>}+
HSETNX <h> <f> <v>
HGET <h> <f>
HMGET <h> {<f>}+
HDEL <h> {<f>}+
HLEN <h>
HEXISTS <h> <f>
HSTRLEN <h> <f>
HINCRBY <h> <f> <int>
HINCRBYFLOAT <h> <f> <float>
%HGETALL <h>
~HKEYS <h>
~HVALS <h>
?HRANDFIELD <h> [<index>|<index> WITHVALUES]
HEXPIRE <h> <farsecs> [NX|XX|GT|LT] FIELDS <n> {<f>}
HPEXPIRE <h> <farmillis> [NX|XX|GT|LT] FIELDS <n> {<f>}
HEXPIREAT <h> <at> [NX|XX|GT|LT] FIELDS <n> {<f>}
HPEXPIREAT <h> <atms> [NX|XX|GT|LT] FIELDS <n> {<f>}
HPERSIST <h> FIELDS <n> {<f>}
^HTTL <h> FIELDS <n> {<f>}
^HPTTL <h> FIELDS <n> {<f>}
^HEXPIRETIME <h> FIELDS <n> {<f>}
^HPEXPIRETIME <h> FIELDS <n> {<f>}
HGETEX <h> [<lasting>|PERSIST] FIELDS <n> {<f>}
HSETEX <h> [FNX|FXX|NX|XX] [<lasting>|KEEPTTL] FIELDS <n> {<f> <v>}
HGETDEL <h> FIELDS <n> {<f>}
ZADD <z> [NX|XX|GT|LT] [CH] [INCR] <score> <m>
ZADD <z> [NX|XX|GT|LT] [CH] {<score> <m>}+
ZINCRBY <z> <score> <m>
ZREM <z> {<m>}+
ZCARD <z>
ZSCORE <z> <m>
ZMSCORE <z> {<m>}+
ZRANK <z> <m> [WITHSCORE]
ZREVRANK <z> <m> [WITHSCORE]
ZCOUNT <z> <min> <max>
ZLEXCOUNT <lexz> <lexmin> <lexmax>
ZRANGE <z> <index> <index> [REV] [WITHSCORES]
ZRANGE <z> <min> <max> BYSCORE [LIMIT <small> <index>] [WITHSCORES]
ZRANGE <z> <max> <min> BYSCORE REV [LIMIT <small> <index>] [WITHSCORES]
ZRANGE <lexz> <lexmin> <lexmax> BYLEX [LIMIT <small> <index>]
ZRANGE <lexz> <lexmax> <lexmin> BYLEX REV [LIMIT <small> <index>]
ZRANGESTORE <z> <z> <index> <index> [REV]
ZRANGESTORE <z> <z> <min> <max> BYSCORE [LIMIT <small> <index>]
ZREVRANGE <z> <index> <index> [WITHSCORES]
ZRANGEBYSCORE <z> <min> <max> [WITHSCORES] [LIMIT <small> <index>]
ZREVRANGEBYSCORE <z> <max> <min> [WITHSCORES] [LIMIT <small> <index>]
ZRANGEBYLEX <lexz> <lexmin> <lexmax> [LIMIT <small> <index>]
ZREVRANGEBYLEX <lexz> <lexmax> <lexmin> [LIMIT <small> <index>]
ZADD <lexz> {0 <m>}+
ZREMRANGEBYRANK <z> <index> <index>
ZREMRANGEBYSCORE <z> <min> <max>
ZREMRANGEBYLEX <lexz> <lexmin> <lexmax>
ZPOPMIN <z> [<small>]
ZPOPMAX <z> [<small>]
ZMPOP <n> {<z>} (MIN|MAX) [COUNT <small>]
BZPOPMIN {<z>}+ <wait>
BZPOPMAX {<z>}+ <wait>
BZMPOP <wait> <n> {<z>} (MIN|MAX) [COUNT <small>]
ZUNION <n> {<z>} [AGGREGATE (SUM|MIN|MAX)] [WITHSCORES]
ZINTER <n> {<z>} [AGGREGATE (SUM|MIN|MAX)] [WITHSCORES]
ZUNION 2 <z> <z> WEIGHTS <float> <float> [AGGREGATE (SUM|MIN|MAX)] [WITHSCORES]
ZINTER 2 <z> <t> WEIGHTS <float> <float> [WITHSCORES]
ZDIFF <n> {<z>} [WITHSCORES]
ZUNIONSTORE <z> <n> {<z>} [AGGREGATE (SUM|MIN|MAX)]
ZINTERSTORE <z> <n> {<z>} [AGGREGATE (SUM|MIN|MAX)]
ZDIFFSTORE <z> <n> {<z>}
ZINTERCARD <n> {<z>} [LIMIT <small>]
?ZRANDMEMBER <z> [<index>|<index> WITHSCORES]
GEOADD <g> [NX|XX] [CH] {<lon> <lat> <m>}+
GEODIST <g> <m> <m> [<unit>]
GEOPOS <g> {<m>}+
GEOHASH <g> {<m>}+
~GEOSEARCH <g> (FROMMEMBER <m>|FROMLONLAT <lon> <lat>) (BYRADIUS <radius> <unit>|BYBOX <radius> <radius> <unit>) [WITHDIST] [WITHCOORD] [WITHHASH]
GEOSEARCHSTORE <g> <g> (FROMMEMBER <m>|FROMLONLAT <lon> <lat>) BYRADIUS <radius> <unit> [STOREDIST]
~GEORADIUS <g> <lon> <lat> <radius> <unit> [WITHDIST] [WITHHASH]
~GEORADIUS_RO <g> <lon> <lat> <radius> <unit> [WITHCOORD]
~GEORADIUSBYMEMBER <g> <m> <radius> <unit> [WITHDIST]
~GEORADIUSBYMEMBER_RO <g> <m> <radius> <unit> [WITHDIST]
PFADD <p> {<m>}+
PFCOUNT {<p>}+
PFMERGE <p> {<p>}+
XADD <x> [NOMKSTREAM] [MAXLEN = <small>|MINID = <id>] <id> {<f> <v>}+
XADD <x> <id> {<f> <v>}+
XLEN <x>
XRANGE <x> <from> <to> [COUNT <small>]
XREVRANGE <x> <to> <from> [COUNT <small>]
XDEL <x> {<id>}+
XTRIM <x> (MAXLEN [=] <small>|MINID [=] <id>)
XREAD [COUNT <small>] STREAMS <x> <id>
XREAD [COUNT <small>] [BLOCK 1] STREAMS <x> <x> (<id>|$) <id>
XSETID <x> <id> [ENTRIESADDED <small> MAXDELETEDID <id>]
XGROUP CREATE <x> <group> (<id>|$) [MKSTREAM] [ENTRIESREAD <index>]
XGROUP SETID <x> <group> (<id>|$) [ENTRIESREAD <index>]
XGROUP DESTROY <x> <group>
XGROUP CREATECONSUMER <x> <group> <consumer>
XGROUP DELCONSUMER <x> <group> <consumer>
XREADGROUP GROUP <group> <consumer> [COUNT <small>] [NOACK] STREAMS <x> (>|<id>)
XACK <x> <group> {<id>}+
XPENDING <x> <group>
|XPENDING <x> <group> <from> <to> <small> [<consumer>]
XCLAIM <x> <group> <consumer> 0 {<id>}+ [RETRYCOUNT <small>] [FORCE] [JUSTID]
XAUTOCLAIM <x> <group> <consumer> 0 <id> [COUNT <small>] [JUSTID]
?XINFO STREAM <x>
|XINFO GROUPS <x>
|XINFO CONSUMERS <x> <group>
DEL {<k>}+
UNLINK {<k>}+
EXISTS {<k>}+
TOUCH {<k>}+
TYPE <k>
EXPIRE <k> <farsecs> [NX|XX|GT|LT]
PEXPIRE <k> <farmillis> [NX|XX|GT|LT]
EXPIREAT <k> <at> [NX|XX|GT|LT]
PEXPIREAT <k> <atms> [NX|XX|GT|LT]
^TTL <k>
^PTTL <k>
^EXPIRETIME <k>
^PEXPIRETIME <k>
PERSIST <k>
RENAME <k> <k>
RENAMENX <k> <k>
COPY <k> <k> [DB <db>] [REPLACE]
MOVE <k> <db>
~KEYS <pattern>
DBSIZE
SORT <l> [LIMIT <small> <index>] [ASC|DESC] ALPHA
SORT <numbers> [BY <sortby>] [LIMIT <small> <index>] [GET #] [ASC|DESC] [STORE <l>]
SORT_RO <numbers> [BY nosort] [GET <sortby>]
RPUSH <numbers> {<int>}+
OBJECT REFCOUNT <missing>
SELECT <db>
SELECT 0
ECHO <v>
PING [<v>]
PUBLISH <f> <v>
SPUBLISH <f> <v>
PUBSUB NUMPAT
WATCH {<k>}+
UNWATCH
MULTI
EXEC
DISCARD
EVAL <script> 1 <s> <int>
EVAL_RO <roscript> 1 <s> <int>
EVALSHA <sha> 0
EVALSHA_RO <sha> 0
SCRIPT EXISTS <sha>
CLIENT GETNAME
CLIENT SETNAME <f>
COMMAND COUNT x
COMMAND GETKEYS SET <k> <v>
COMMAND GETKEYS ZUNIONSTORE <k> <n> {<k>}
SWAPDB <db> <db>
FLUSHDB
"""

# Commands of both servers that chance does not write, and why.
LEFT_OUT = {
    "other scenarios compare them (admin, clients, tracking, data, governor)": "acl auth hello client config info memory slowlog latency debug module monitor reset quit "
        "role lastsave save bgsave bgrewriteaof wait waitaof shutdown replicaof slaveof psync sync replconf failover command lolwut time cluster readonly readwrite asking "
        "dump restore restore-asking migrate object script pubsub",
    "their order or choice is each server's own": "scan sscan hscan zscan randomkey",
    "they change how the connection speaks": "subscribe unsubscribe psubscribe punsubscribe ssubscribe sunsubscribe",
    "they would end the run": "flushall",
    "served elsewhere or newer than what INFO names": "function fcall fcall_ro delifeq msetex commandlog clusterscan",
}

# Where FlowMesh keeps to Redis 7.2, which INFO names, and Valkey 9 does not: the commands' names, ours, theirs.
KNOWN = [
    (re.compile("GEO"), re.compile("ERR could not decode requested zset member"), re.compile("ERR member .* does not exist", re.S)),
]

KINDS = {"s": 4, "l": 3, "t": 3, "h": 3, "z": 3, "lexz": 2, "g": 2, "p": 2, "x": 3, "numbers": 2}
MIXED = [kind for kind in KINDS if kind != "lexz"]
JUNK = ["", "0", "-1", "1", "-0", "+1", "1 ", "01", "1e3", "nan", "inf", "-inf", "9223372036854775807", "9223372036854775808", "-9223372036854775808",
        "-9223372036854775809", "18446744073709551615", "18446744073709551616", "4294967296", "536870912", "1.5", "abc", "*", "$", ">", "-", "+", "(1", "[a", "NX", "XX", "GET",
        "COUNT", "LIMIT", "WITHSCORES", "FIELDS", "BYSCORE", "STREAMS", "é", "a" * 100]


class Maker:
    """Words of a command, by chance."""

    def __init__(self, chance):
        self.chance, self.count = chance, None

    def some(self, *choices):
        return self.chance.choice(choices)

    def word(self, name):
        """The words that `<name>` stands for."""
        chance = self.chance
        if name in KINDS:
            # Where scores differ, an order by names is nothing.
            kind = name if name == "lexz" or chance.random() < 0.93 else chance.choice(MIXED)
            return [f"{kind}{chance.randrange(KINDS[kind])}"]
        make = getattr(self, f"a_{name}")()
        return [str(word) for word in (make if isinstance(make, list) else [make])]

    def a_k(self):
        return self.word(self.chance.choice(MIXED))

    def a_v(self):
        return self.some("", "a", "hello", "10", "-5", "3.25", "x" * 70, "0", "a b", "\r\n", self.chance.randrange(100))

    def a_m(self):
        return f"m{self.chance.randrange(12)}" if self.chance.random() < 0.8 else self.some(1, 7, "", "z" * 70)

    def a_f(self):
        return f"f{self.chance.randrange(8)}"

    def a_int(self):
        return self.some(1, -1, 0, 7, 100, self.chance.randrange(-1000, 1000), 1 << 40, (1 << 63) - 1, -(1 << 63))

    def a_small(self):
        return self.some(0, 1, 2, 3, 10)

    def a_index(self):
        return self.some(0, -1, 1, 2, -2, 3, 5, -100, 100)

    def a_offset(self):
        return self.some(0, 1, 7, 8, 100, "#1")

    def a_bit(self):
        return self.some(0, 1)

    def a_field(self):
        return self.some("u8", "i8", "u4", "i16", "u63", "i64", "u1")

    def a_float(self):
        return self.some("1.5", "-0.25", "0", "1e3", "3", "-7", "0.1", "1e-5", "inf")

    def a_score(self):
        return self.some(0, 1, 2, 3, -1, "1.5", "inf", "-inf", "1e15", "0.1", 1000000)

    def a_min(self):
        return self.some("-inf", "0", "(0", "1", "(1", "-1")

    def a_max(self):
        return self.some("+inf", "inf", "2", "(2", "3", "1e15")

    def a_lexmin(self):
        return self.some("-", "[m1", "(m1", "[", "[m3")

    def a_lexmax(self):
        return self.some("+", "[m5", "(m5", "[m9", "[z")

    def a_lon(self):
        return self.some("13.361389", "15.087269", "-122.4", "0", "179", "181")

    def a_lat(self):
        return self.some("38.115556", "37.502669", "37.7", "0", "85", "86")

    def a_radius(self):
        return self.some("0", "100", "200", "5000", "20000.5")

    def a_unit(self):
        return self.some("m", "km", "ft", "mi")

    def a_id(self):
        return self.some(f"{self.chance.randrange(1, 30)}-{self.chance.randrange(3)}", f"{self.chance.randrange(1, 40)}", "0", "0-0", "5-*")

    def a_from(self):
        return self.some("-", "0", "3-1", "(3-1", "5")

    def a_to(self):
        return self.some("+", "20", "9-1", "(9-1", "30-0")

    def a_group(self):
        return self.some("ga", "gb")

    def a_consumer(self):
        return self.some("ca", "cb", "cc")

    def a_secs(self):
        return self.some(1000, 100000)

    def a_millis(self):
        return self.some(1000000, 100000000)

    def a_farsecs(self):
        return self.some(1000, 100000, 0, -1)

    def a_farmillis(self):
        return self.some(1000000, 100000000, 0, -1)

    def a_at(self):
        return self.some(33177117420, 33177117421, 33177117422, 1)

    def a_atms(self):
        return self.some(33177117420000, 33177117420001, 33177117420002, 1)

    def a_lasting(self):
        return self.some(["EX", 1000], ["PX", 1000000], ["EXAT", 33177117420], ["PXAT", 33177117420001], ["EXAT", 1])

    def a_wait(self):
        return "0.001"

    def a_db(self):
        return self.some(0, 1, 1, 2)

    def a_pattern(self):
        return self.some("*", "s*", "[sl]?", "z[0-1]", "nothing", "*0")

    def a_sortby(self):
        return self.some("s*", "h*->f1", "nosort", "#")

    def a_missing(self):
        return "missing"

    def a_script(self):
        return self.some("return redis.call('incrby', KEYS[1], ARGV[1])", "return redis.call('get', KEYS[1])", "redis.call('set', KEYS[1], ARGV[1]) return {1, 2.9, 'x', false, 4}",
                         "return redis.pcall('lpush', KEYS[1], ARGV[1])", "return {ok = 'fine'}", "return {err = 'ERR mine'}", "return tonumber(ARGV[1])",
                         "return redis.call('lrange', KEYS[1], 0, -1)", "return #ARGV + #KEYS")

    def a_roscript(self):
        return self.some("return redis.call('get', KEYS[1])", "return redis.call('set', KEYS[1], 'x')", "return {KEYS[1], ARGV[1]}")

    def a_sha(self):
        return self.some("a" * 40, "x")

    def a_n(self):
        self.count = self.chance.choice([1, 1, 2, 2, 3])
        return self.count


TOKEN = re.compile(r"\s*(<\w+>|\{|\}\+|\}|\[|\]|\(|\)|\||[^\s\[\](){}|]+)")


def parsed(line):
    """A line of the grammar as a tree: ("word", w), ("make", name), ("one", [seq]), ("maybe", [seq]), ("many", seq), ("counted", seq)."""
    tokens = TOKEN.findall(line)
    place = 0

    def sequence(ends):
        nonlocal place
        parts = []
        while place < len(tokens) and tokens[place] not in ends:
            token = tokens[place]
            place += 1
            if token in "[(":
                end = "]" if token == "[" else ")"
                choices = [sequence((end, "|"))]
                while tokens[place] == "|":
                    place += 1
                    choices.append(sequence((end, "|")))
                place += 1
                parts.append(("maybe" if token == "[" else "one", choices))
            elif token == "{":
                inner = sequence(("}+", "}"))
                parts.append(("many" if tokens[place] == "}+" else "counted", inner))
                place += 1
            elif token.startswith("<") and len(token) > 1:
                parts.append(("make", token[1:-1]))
            else:
                parts.append(("word", token))
        return parts

    return sequence(())


def made(parts, maker):
    words = []
    for kind, what in parts:
        if kind == "word":
            words.append(what)
        elif kind == "make":
            words += maker.word(what)
        elif kind == "one":
            words += made(maker.chance.choice(what), maker)
        elif kind == "maybe":
            if maker.chance.random() < 0.4:
                words += made(maker.chance.choice(what), maker)
        else:
            times = maker.chance.choice([1, 1, 2, 3]) if kind == "many" else maker.count
            for _ in range(times):
                words += made(what, maker)
    return words


# How replies are compared: the mark in front of a line.
MARKS = "~?^|%"


def grammar():
    """[(mark, name, tree)]; the mark says how replies are compared."""
    lines = []
    for line in filter(None, GRAMMAR.splitlines()):
        mark = line[0] if line[0] in MARKS else ""
        line = line.removeprefix(mark) if mark else line
        lines.append((mark, line.split()[0].lower(), parsed(line)))
    return lines


def broken(words, chance):
    """The same command with something wrong, or right by chance."""
    words = list(words)
    for _ in range(chance.choice([1, 1, 2])):
        place = chance.randrange(1, len(words)) if len(words) > 1 else 0
        what = chance.randrange(5)
        if what == 0 and place:
            words[place] = chance.choice(JUNK)
        elif what == 1 and place:
            del words[place]
        elif what == 2:
            words.insert(place + 1, chance.choice(JUNK))
        elif what == 3 and place:
            words.insert(place, words[place])
        elif place:
            words[place] = words[place].swapcase() if chance.random() < 0.5 else words[chance.randrange(1, len(words))]
    return words


# A junk word in these would block for ever, take all memory, or change what is compared; GETEX of Valkey 9 reads its numbers before it looks
# for the key, that of Redis 7.2 does not.
FRAGILE = {"getex", "hgetex", "hsetex", "hgetdel", "blpop", "brpop", "blmove", "brpoplpush", "blmpop", "bzpopmin", "bzpopmax", "bzmpop", "xread", "xreadgroup", "setbit", "setrange", "bitfield", "spop", "xautoclaim",
           "xclaim", "select", "swapdb", "flushdb", "eval", "eval_ro", "command", "client", "srandmember", "hrandfield", "zrandmember", "move", "copy"}


class Fuzz:
    def __init__(self, chance, shared):
        self.chance, self.queues = chance, set()
        self.lines = [line for line in grammar() if line[1] in shared]

    def command(self):
        """(mark, RESP version, words)"""
        version = self.chance.choice([2, 3])
        mark, name, tree = self.chance.choice(self.lines)
        while version in self.queues and name in ("multi", "watch"):
            # Valkey 9 answers otherwise than Redis 7.2, and gives the transaction up.
            mark, name, tree = self.chance.choice(self.lines)
        words = made(tree, Maker(self.chance))
        if name == "multi":
            self.queues.add(version)
        elif name in ("exec", "discard"):
            self.queues.discard(version)
        # Valkey 9 does not take a number with a space in front, which the C library does.
        whole = name in FRAGILE or name in ("multi", "exec", "discard") or any(word.startswith("numbers") for word in words)
        if self.chance.random() < 0.15 and not whole:
            words = broken(words, self.chance)
            # A count or an option more makes another reply of it.
            mark = "?" if mark in ("?", "~") else mark
            if name in ("sort", "sort_ro", "georadius", "georadiusbymember"):
                mark = "~"
        return mark, version, words


def leaves(reply):
    kind, value = reply
    if isinstance(value, list):
        return (kind, tuple(leaves(part) for part in value))
    return reply


def loose(reply):
    """Only kinds and lengths."""
    kind, value = reply
    if isinstance(value, list):
        return (kind, len(value), sorted({loose(part)[0] for part in value}))
    return (kind, None if value is None else 0)


def near(ours, theirs):
    """The same, but for numbers that are seconds or milliseconds from now on: those are rough."""
    (kind, mine), (other_kind, other) = ours, theirs
    if kind != other_kind:
        return False
    if isinstance(mine, list) and isinstance(other, list):
        return len(mine) == len(other) and all(map(near, mine, other))
    if kind == ":" and len(mine) > 2:
        return abs(int(mine) - int(other)) <= (30 if int(mine) < 900000 else 30000)
    return mine == other


def without_times(reply):
    """Lists of facts without those that tell how long ago something was, and how memory is laid out."""
    kind, value = reply
    if not isinstance(value, list):
        return reply
    parts = [without_times(part) for part in value]
    kept, skip = [], False
    for part in parts:
        if skip:
            skip = False
            continue
        if part[1] in (b"idle", b"inactive", b"radix-tree-keys", b"radix-tree-nodes", b"seen-time", b"active-time"):
            skip = True
            continue
        kept.append(part)
    # [id, consumer, idle ms, deliveries]
    if len(kept) == 4 and kept[2][0] == ":" and kept[3][0] == ":" and kept[0][0] == "$":
        kept = [kept[0], kept[1], kept[3]]
    return (kind, kept)


def comparable(mark, words, reply, ours):
    kind, value = reply
    if kind == "-":
        text = value.decode(errors="replace")
        for name, mine, other in KNOWN:
            if name.match(words[0].upper()) and (mine if ours else other).fullmatch(text):
                return ("known", mine.pattern)
        if words[0].lower().startswith("eval"):
            text = text.split(" script: ")[0].split(" ")[0]
        return ("-", text)
    if words[0].lower().startswith("exec") or mark == "?":
        return loose(reply)
    if mark == "|":
        return leaves(without_times(reply))
    if isinstance(value, list) and mark == "~":
        return (kind, sorted(map(repr, map(leaves, value))))
    if isinstance(value, list) and mark == "%":
        return (kind, sorted(zip(map(repr, value[::2]), map(repr, value[1::2]))))
    return leaves(reply)


class Side:
    def __init__(self, server):
        self.server = server
        self.open()

    def open(self):
        self.wires = {}
        for version in (2, 3):
            self.wires[version] = respwire.Wire(self.server.addresses["resp"])
            self.wires[version].call(b"HELLO", str(version).encode())

    def clear(self):
        for wire in self.wires.values():
            wire.close()
        self.open()
        assert self.wires[2].call(b"FLUSHALL")[0] == "+"

    def __call__(self, version, words):
        return self.wires[version].call(*(word.encode() for word in words))


READS = {b"string": ["GET"], b"list": ["LRANGE", 0, -1], b"set": ["SMEMBERS"], b"hash": ["HGETALL"], b"zset": ["ZRANGE", 0, -1, "WITHSCORES"], b"stream": ["XRANGE", "-", "+"]}


def data(side):
    """All keys of the first databases with what they hold, and whether they have a deadline."""
    found = {}
    for db in range(3):
        side(2, ["SELECT", str(db)])
        for _, key in side(2, ["KEYS", "*"])[1]:
            name = key.decode(errors="surrogateescape")
            kind = side(2, ["TYPE", name])[1]
            read = READS[kind]
            reply = side(2, [read[0], name, *map(str, read[1:])])
            if kind in (b"set",):
                reply = sorted(map(repr, reply[1]))
            elif kind == b"hash":
                reply = sorted(zip(map(repr, reply[1][::2]), map(repr, reply[1][1::2])))
            found[db, name] = (kind, reply, side(2, ["TTL", name])[1] != b"-1")
    return found


def play(sides, commands, last_only=False):
    """Runs commands on both, afresh; the first difference as (place, ours, theirs), or None."""
    for side in sides:
        side.clear()
    for place, (mark, version, words) in enumerate(commands):
        replies = []
        for side in sides:
            try:
                replies.append(side(version, words))
            except (respwire.Closed, OSError, ValueError) as error:
                replies.append(("!", repr(error).encode()))
        ours, theirs = (comparable(mark, words, reply, side is sides[0]) for side, reply in zip(sides, replies))
        if ours != theirs and not (mark == "^" and near(*replies)):
            return place, *replies
    for side in sides:
        for version in (2, 3):
            side(version, ["DISCARD"])
    ours, theirs = (data(side) for side in sides)
    if ours != theirs:
        keys = sorted(key for key in ours.keys() | theirs.keys() if ours.get(key) != theirs.get(key))
        return len(commands), [(key, ours.get(key)) for key in keys[:3]], [(key, theirs.get(key)) for key in keys[:3]]
    return None


def shrunk(sides, commands, seconds=60):
    """Fewer commands that still end in a difference."""
    until = time.monotonic() + seconds
    found = play(sides, commands)
    if found is None:
        return commands, None
    commands = commands[:found[0] + 1]
    # The same command must differ, not one that the others lead to when some are missing.
    last = commands[-1] if found[0] < len(commands) else None
    size = max(1, len(commands) // 2)
    while size and time.monotonic() < until:
        place, changed = 0, False
        while place < len(commands) - 1 and time.monotonic() < until:
            fewer = commands[:place] + commands[place + size:]
            difference = play(sides, fewer) if fewer else None
            met = difference and (fewer[difference[0]] if difference[0] < len(fewer) else None)
            if difference and met == last:
                commands, found, changed = fewer[:difference[0] + 1], difference, True
            else:
                place += size
        size = size if changed and size == 1 else size // 2
    return commands, found


def shown(reply):
    return respwire.show(reply) if isinstance(reply, tuple) and len(reply) == 2 and reply[0] != "!" else repr(reply)


def report(sides, seed, round_, commands):
    few, found = shrunk(sides, commands)
    print(f"DIFFERENCE: SEED={seed}, round {round_}", flush=True)
    if found is None:
        print(f"  not met again when repeated; the last commands of {len(commands)}:")
        few = commands[-20:]
    for mark, version, words in few:
        print(f"  RESP{version} {words!r}")
    if found:
        _, ours, theirs = found
        print(f"  flowmesh: {shown(ours)[:1500]}\n  valkey:   {shown(theirs)[:1500]}", flush=True)


def shared_commands(sides):
    """Names that both have; each must be in the grammar or left out."""
    names = [{name.decode().lower() for _, name in side(2, ["COMMAND", "LIST"])[1] if b"|" not in name} for side in sides]
    both = names[0] & names[1]
    lines = {name for _, name, _ in grammar()}
    left = {name for words in LEFT_OUT.values() for name in words.split()}
    forgotten = both - lines - left
    if forgotten:
        raise SystemExit(f"in the grammar of {__file__} or LEFT_OUT must stand: {' '.join(sorted(forgotten))}")
    return both


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rounds", type=int, default=1 << 60)
    parser.add_argument("--length", type=int, default=300, help="commands of a round")
    parser.add_argument("--all", action="store_true")
    parser.add_argument("--seed", type=int, default=int(os.environ.get("SEED") or random.SystemRandom().randrange(1 << 32)))
    args = parser.parse_args()
    seed = args.seed
    print(f"> SEED={seed}", flush=True)
    started = [servers.FlowMesh(extra=[servers.CHECK_LAW, "--resp-durability=os"]), servers.Valkey(fsync="off")]
    until, rounds, commands_run, differences = time.monotonic() + args.seconds, 0, 0, 0
    try:
        for server in started:
            server.start()
        sides = [Side(server) for server in started]
        shared = shared_commands(sides)
        while time.monotonic() < until and rounds < args.rounds:
            # Each round can be repeated alone.
            fuzz = Fuzz(random.Random(f"{seed} {rounds}"), shared)
            commands = [fuzz.command() for _ in range(args.length)]
            if play(sides, commands):
                report(sides, seed, rounds, commands)
                differences += 1
                if not args.all:
                    break
            rounds += 1
            commands_run += len(commands)
        step(f"a clean stop after {rounds} rounds, {commands_run} commands")
        if started[0].stop() != 0:
            differences += 1
            print(servers.tail(started[0].log))
    finally:
        for server in started:
            server.stop()
            server.clean()
    if differences:
        sys.exit(f"{differences} differences")
    print("all as it should be", flush=True)


if __name__ == "__main__":
    os.environ.setdefault("LC_ALL", "C")
    main()
