#!/usr/bin/env python3
"""`resp-cluster-mode emulated`: what it answers beside a live Valkey that is a cluster of one node, and that cluster clients work with it.
Its own oracle: exits non-zero at the first answer that is not as it should be.

    cluster.py beside|redis-py|ioredis|go-redis|jvm ...
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import redis
import scenarios
from lib import respwire, servers
from lib.steps import equal, same, split, step, until

HERE = Path(__file__).resolve().parent

# One command a line; words are split at spaces. `multi: a; b` are sent one after the other on one connection.
COMMANDS = r"""
CLUSTER INFO
CLUSTER MYID
CLUSTER MYID x
CLUSTER MYSHARDID
CLUSTER NODES
CLUSTER SLOTS
CLUSTER SHARDS
CLUSTER LINKS
CLUSTER REPLICAS nope
CLUSTER SLAVES nope
CLUSTER REPLICAS
CLUSTER COUNT-FAILURE-REPORTS nope
CLUSTER KEYSLOT foo
CLUSTER KEYSLOT {foo}bar
CLUSTER KEYSLOT
CLUSTER COUNTKEYSINSLOT 12182
SET foo 1
SET {foo}bar 1
CLUSTER COUNTKEYSINSLOT 12182
CLUSTER COUNTKEYSINSLOT 0
CLUSTER COUNTKEYSINSLOT 16384
CLUSTER COUNTKEYSINSLOT -1
CLUSTER COUNTKEYSINSLOT x
CLUSTER GETKEYSINSLOT 12182 10
CLUSTER GETKEYSINSLOT 12182 0
CLUSTER GETKEYSINSLOT 12182 -1
CLUSTER GETKEYSINSLOT 16384 1
CLUSTER GETKEYSINSLOT 1 x
CLUSTER NOSUCH
CLUSTER
READONLY
READWRITE
ASKING
READONLY x
MSET a 1 b 2
MSET {t}a 1 {t}b 2
MGET a b
MGET {t}a {t}b
DEL a b
EXISTS foo bar
UNLINK foo bar baz
SINTERSTORE d a b
SUNION {t}x y
RENAME a b
COPY foo bar
COPY foo {foo}2
BITOP OR d a b
ZUNIONSTORE d 2 a b
ZUNIONSTORE d x a b
LMPOP 2 a b LEFT
XREAD STREAMS a b 0 0
BLPOP a b 0.01
SORT foo BY w_* GET #
SORT_RO nolist BY nosort GET x_*
GEOSEARCHSTORE a b FROMLONLAT 1 1 BYRADIUS 1 m
PFCOUNT a b
MSETNX a 1 b 2
SMOVE a b m
LCS a b
SPUBLISH c m
SELECT 0
MOVE foo 1
multi: MULTI; SET a 1; SET b 1; EXEC; GET a
multi: MULTI; SET {t}a 1; SET {t}b 1; EXEC
multi: MULTI; MGET a b; EXEC
multi: MULTI; PING; EXEC
multi: WATCH a b; UNWATCH
multi: WATCH a; MULTI; SET b 1; EXEC
EVAL return{KEYS[1],KEYS[2]} 2 a b
EVAL return{KEYS[1],KEYS[2]} 2 {t}a {t}b
EVAL return(redis.call('mget','x','y')) 0
script: #!lua\nreturn redis.call('get', 'y')
script: #!lua flags=no-cluster\nreturn 1
script: #!lua flags=allow-cross-slot-keys\nreturn redis.call('get', 'y')
script: #!lua\nredis.call('get', 'x') return redis.call('get', 'y')
COMMAND GETKEYS MSET a 1 b 2
CONFIG GET cluster-enabled
DBSIZE
"""

# Step → why ours differs.
DEVIATIONS = {
    "MOVE foo 1": "Redis 7.2's text: Valkey 9 may have several databases in a cluster",
    "EVAL return(redis.call('mget','x','y')) 0": "Redis' text (7.0.15 asked): Valkey's does not begin with Script",
    **dict.fromkeys(
        ["script: #!lua\\nreturn redis.call('get', 'y')", "script: #!lua flags=allow-cross-slot-keys\\nreturn redis.call('get', 'y')",
         "script: #!lua\\nredis.call('get', 'x') return redis.call('get', 'y')"],
        "Redis 7.0.15, asked: other texts, and allow-cross-slot-keys allows it; Valkey 9.1 looks at the slot of the call itself"),
}


class Cluster(servers.Valkey):
    def __init__(self):
        super().__init__(fsync="off", options=["--cluster-enabled", "yes", "--cluster-port", str(servers.free_ports(1)), "--cluster-announce-ip", "127.0.0.1"])

    def await_ready(self):
        wire = respwire.Wire(self.addresses["resp"])
        equal(wire.call(b"CLUSTER", b"ADDSLOTSRANGE", b"0", b"16383"), ("+", b"OK"))
        until(lambda: b"cluster_state:ok" in wire.call(b"CLUSTER", b"INFO")[1])


def masked(server, reply):
    """Without what is each server's own: ids, ports, how much was sent."""
    text = respwire.show(reply)
    text = re.sub(r"[0-9a-f]{40}", "ID", text).replace(server.addresses["resp"].rsplit(":", 1)[1], "PORT")
    text = re.sub(r"PORT@\d+", "PORT@BUS", text)
    text = re.sub(r'"replication-offset" => :\d+|"replication-offset", :\d+', "OFFSET", text)
    text = re.sub(r"script: ID.*?\"|script: ID.*", "script", text)
    return re.sub(r"connected\b", "connected", re.sub(r"myself,master - 0 \d+ \d+", "myself,master - 0 0 0", text))


def info_names(reply):
    """Which figures CLUSTER INFO has, with those that say how it is."""
    lines = reply[1].decode().replace("txt:", "").split()
    return {line for line in lines if not re.match(r"cluster_stats|cluster_(current|my)_epoch|cluster_nodes|total_cluster|cluster_slots_(pfail|fail)$|availability|cluster_voting", line)}


def play(server, version, line):
    wire = respwire.Wire(server.addresses["resp"])
    wire.call(b"HELLO", str(version).encode())
    if line.startswith("multi: "):
        return [masked(server, wire.call(*part.encode().split())) for part in line.removeprefix("multi: ").split("; ")]
    if line.startswith("script: "):
        return masked(server, wire.call(b"EVAL", line.removeprefix("script: ").replace("\\n", "\n").encode(), b"1", b"x"))
    reply = wire.call(*line.encode().split())
    return info_names(reply) if line == "CLUSTER INFO" else masked(server, reply)


def beside(ours):
    with Cluster() as theirs:
        for version in (2, 3):
            step(f"beside Valkey, RESP{version}")
            for server in (ours, theirs):
                wire = respwire.Wire(server.addresses["resp"])
                wire.call(b"FLUSHALL")
            different = 0
            for line in filter(None, COMMANDS.splitlines()):
                a, b = (play(server, version, line) for server in (ours, theirs))
                if a != b and line not in DEVIATIONS:
                    different += 1
                    print(f"{line}\n  flowmesh: {a}\n  valkey:   {b}", flush=True)
            equal(different, 0)
    step("databases, modes")
    wire = respwire.Wire(ours.addresses["resp"])
    equal(wire.call(b"SELECT", b"1"), ("-", b"ERR SELECT is not allowed in cluster mode"))
    equal(wire.call(b"SWAPDB", b"0", b"1"), ("-", b"ERR SWAPDB is not allowed in cluster mode"))
    assert b"redis_mode:cluster" in wire.call(b"INFO", b"server")[1] and b"cluster_enabled:1" in wire.call(b"INFO", b"cluster")[1]
    # Of Redis 7 (Valkey 9.1 does not always allow it): a script that says nothing of itself may go from slot to slot.
    across = b"return redis.call('set', 'x', 1) and redis.call('set', 'y', 1)"
    equal(wire.call(b"EVAL", across, b"1", b"x"), ("+", b"OK"))
    # The client's own address, whichever it is.
    host, port = split(ours.addresses["resp"])
    slots = wire.call(b"CLUSTER", b"SLOTS")[1]
    equal(slots[0][1][2][1][:2], [("$", host.encode()), (":", str(port).encode())])


def off(server):
    step("off: as Redis without a cluster")
    wire = respwire.Wire(server.addresses["resp"])
    for words in (["CLUSTER", "INFO"], ["CLUSTER", "SLOTS"], ["CLUSTER", "KEYSLOT", "a"], ["CLUSTER", "COUNTKEYSINSLOT", "1"], ["READONLY"], ["READWRITE"], ["ASKING"]):
        reply = wire.call(*(word.encode() for word in words))
        equal(reply, ("-", b"ERR This instance has cluster support disabled"))


def redis_py(ours):
    step("redis-py's RedisCluster")
    host, port = split(ours.addresses["resp"])
    for protocol in (2, 3):
        client = redis.RedisCluster(host=host, port=port, protocol=protocol, decode_responses=True)
        client.flushall()
        same([client.set(f"k{n}", n) for n in range(3)], [True] * 3)
        same(client.mget_nonatomic("k0", "k1", "k2"), ["0", "1", "2"])
        same(client.mset_nonatomic({f"m{n}": n for n in range(100)}), [True] * len({client.keyslot(f"m{n}") for n in range(100)}))
        same(client.dbsize(), 103)
        same(sorted(client.scan_iter(match="k*")), ["k0", "k1", "k2"])
        pipe = client.pipeline()
        for n in range(50):
            pipe.incr(f"p{n}")
        same(sum(pipe.execute()), 50)
        with client.pipeline(transaction=True) as pipe:
            pipe.set("{t}a", 1).incr("{t}a").get("{t}a")
            same(pipe.execute()[1:], [2, "2"])
        try:
            client.mget("k0", "k1")
            raise SystemExit("keys of several slots were taken")
        except redis.exceptions.RedisClusterException as error:
            print(type(error).__name__)
        try:
            client.execute_command("MGET", "k0", "k1")
            raise SystemExit("keys of several slots were taken")
        except (redis.exceptions.RedisClusterException, redis.exceptions.ResponseError) as error:
            print(type(error).__name__)
        same(client.eval("return redis.call('get', KEYS[1])", 1, "k2"), "2")
        pubsub = client.pubsub()
        pubsub.ssubscribe("news")
        until(lambda: pubsub.get_sharded_message(timeout=0.1) or None)
        client.spublish("news", "hello")
        message = until(lambda: pubsub.get_sharded_message(timeout=0.1) or None)
        same(message["data"], "hello")
        pubsub.close()
        nodes = client.cluster_nodes()
        same(list(nodes), [f"{host}:{port}"])
        client.close()


def run(ours, command, env):
    env = dict(os.environ, RESP_ADDR=ours.addresses["resp"], **env)
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    print(done.stdout, end="", flush=True)
    if done.returncode:
        raise SystemExit(f"{command[-1]} exits with {done.returncode}\n{done.stderr[-3000:]}")


def ioredis(ours):
    step("ioredis' Cluster")
    run(ours, ["node", str(HERE / "cluster.js")], {"NODE_PATH": scenarios.client("node", "node")})


def go_redis(ours):
    step("go-redis' ClusterClient")
    run(ours, [scenarios.client("go"), "cluster"], {})


def jvm(ours):
    step("Jedis' cluster client and Lettuce's")
    jars = scenarios.client("jars", "redis-clients")
    run(ours, ["java", "-Xmx256m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", f"{jars}/*", str(HERE / "cluster.java")], {})


def main():
    parts = {"beside": beside, "redis-py": redis_py, "ioredis": ioredis, "go-redis": go_redis, "jvm": jvm}
    with servers.FlowMesh(extra=[servers.CHECK_LAW, "--resp-cluster-mode=emulated"]) as ours:
        for name in sys.argv[1:]:
            parts[name](ours)
        equal(ours.stop(), 0)
    if "beside" in sys.argv[1:]:
        with servers.FlowMesh() as plain:
            off(plain)
    print("all as it should be", flush=True)


if __name__ == "__main__":
    main()
