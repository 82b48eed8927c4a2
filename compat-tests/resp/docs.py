"""COMMAND DOCS and COMMAND INFO: the shape in both versions of the protocol; of many commands the arguments, in which versions up to 7.2 they
changed, hints, and where their keys are and what happens to them. Sentences are each server's own."""

import os

from lib import respwire

ADDRESS = os.environ["RESP_ADDR"]
COMMANDS = """
append auth bitcount bitfield bitfield_ro bitop bitpos blmove blmpop blpop brpoplpush bzmpop bzpopmin client|caching client|pause client|reply
client|setinfo client|tracking client|unblock command|docs command|getkeys command|list config|get config|set copy decrby del delifeq dump eval evalsha_ro
expire expireat expiretime fcall fcall_ro flushall function|delete function|flush function|list function|load function|restore geoadd geodist geopos
georadius georadiusbymember_ro geosearch geosearchstore get getex getrange hdel hello hexpire hexpireat hgetdel hgetex hincrbyfloat hrandfield hscan hset
hsetex httl incr info keys latency|histogram lcs linsert lmpop lpop lpos lrange memory|usage mget move mset msetex object|encoding pexpireat pfcount
pfmerge ping psetex publish pubsub|channels pubsub|numsub rename restore rpush sadd scan script|exists script|flush script|load sdiffstore select
setbit sintercard slowlog|get smismember smove sort sort_ro spop subscribe substr swapdb touch unsubscribe wait waitaof watch xack xautoclaim xclaim
xdel xgroup|create xgroup|setid xinfo|stream xpending xrange xread xreadgroup xsetid zadd zcount zdiff zinter zinterstore zlexcount zmpop zmscore
zrandmember zrange zrangebylex zrangebyscore zrangestore zrank zrem zremrangebyscore zrevrange zrevrangebylex zscan zunionstore
""".split()


def fields(reply):
    """The fields of a map, whichever way it comes."""
    kind, items = reply
    assert kind in "*%", reply
    return {name.decode(): value for (_, name), value in zip(items[::2], items[1::2])}


def line(argument):
    """An argument in one line: what clients make hints of."""
    known = fields(argument)
    text = lambda name: known[name][1].decode()
    kind = text("type")
    # Where a value is no key, its name is the server's own.
    shown = [kind] if kind in ("oneof", "block") else [kind, text("display_text")] if kind == "key" else [kind]
    if "token" in known:
        shown.append(repr(text("token")))
    if "flags" in known:
        shown.append("+".join(sorted(flag.decode() for _, flag in known["flags"][1])))
    inner = "(" + ", ".join(line(one) for one in known["arguments"][1]) + ")" if "arguments" in known else ""
    return " ".join(shown) + inner


def plain(reply):
    """Without what kinds of strings and lists there are."""
    kind, value = reply
    if kind == "%":
        return {plain(name): plain(inner) for name, inner in zip(value[::2], value[1::2]) if plain(name) != "notes"}
    if kind in "*~":
        return [plain(inner) for inner in value]
    return value.decode() if isinstance(value, bytes) else value


def main():
    for version in (b"2", b"3"):
        wire = respwire.Wire(ADDRESS)
        wire.call(b"HELLO", version)
        reply = wire.call(b"COMMAND", b"DOCS", b"get", b"nosuch", b"config")
        print(f"> shape in RESP{version.decode()}\n{reply[0]}, {', '.join(sorted(fields(reply)))}")
        get = fields(fields(reply)["get"])
        for name in ("summary", "since", "group", "complexity", "arguments"):
            print(f"> its {name}\n{get[name][0]}")
        print(f"> its only argument\n{respwire.show(get['arguments'])}")
        print(f"> none\n{respwire.show(wire.call(b'COMMAND', b'DOCS', b'nosuch'))}")
        config = fields(fields(reply)["config"])
        print(f"> subcommands\n{config['subcommands'][0]}, {', '.join(sorted(fields(config['subcommands'])))}")
    for name in COMMANDS:
        known = fields(fields(wire.call(b"COMMAND", b"DOCS", name.encode()))[name])
        arguments = known["arguments"][1] if "arguments" in known else []
        print(f"> {name}, since {known['since'][1].decode()}, {known['group'][1].decode()}\n{'; '.join(line(one) for one in arguments)}")
        changes = {plain(change)[0] for change in known["history"][1]} if "history" in known else set()
        print(f"> {name}, changed in\n{', '.join(sorted(version for version in changes if version <= '7.2.9'))}")
        _, _, _, first, last, step, _, tips, keys, _ = wire.call(b"COMMAND", b"INFO", name.encode())[1][0][1]
        print(f"> {name}, told to proxies\n{[int(plain(place)) for place in (first, last, step)]} {plain(tips)} {plain(keys)}")


main()
