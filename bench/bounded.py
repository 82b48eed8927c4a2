"""Does a memory limit hold? FlowMesh alone, with --memory-limit=512MiB, under the loads that are larger than memory: keys,
a backlog, a topic, and clients that do not read; and with 200 MiB under collections of 10 M elements. Shown is the highest RSS (VmHWM, mapped pages of the log included) of the
whole process beside the limit."""

import contextlib
import socket
import subprocess
import time

from amqp_face import backlog
from kafka_face import create, produce, tool
from measure import Case, client, peak_mb, rss_mb, servers, table
from redis_face import VALUE, ask, pipe

LIMIT_MB = 512
COLLECTION_MB = 200
LONG = (VALUE * 8)[:1024]
COLUMNS = [("peak", "peak RSS MB"), ("rss", "RSS MB then"), ("share", "peak / limit"), ("data", "MB of data"), ("rate", "per second")]


@contextlib.contextmanager
def limited(*extra, limit=LIMIT_MB):
    with servers.FlowMesh(extra=[f"--memory-limit={limit}MiB", "--resp-durability=os", "--amqp-durability=os", "--kafka-durability=os", *extra]) as server:
        yield server


def figures(server, data, rate, peak=None, limit=LIMIT_MB):
    peak = max(peak or 0, peak_mb(server.pid))
    return {"peak": peak, "rss": rss_mb(server.pid), "share": peak / limit, "data": data, "rate": rate}


def keys(scale):
    """Ten times the limit in strings of 1 KiB, then as many random reads and writes as a tenth of them."""
    count = int(10 * LIMIT_MB * 1024 * scale)
    with limited() as server:
        began = time.monotonic()
        pipe(server, (f"*3\r\n$3\r\nSET\r\n$16\r\nkey:{n:012d}\r\n$1024\r\n{LONG}\r\n" for n in range(count)))
        loaded = time.monotonic() - began
        port = server.addresses["resp"].rsplit(":", 1)[1]
        loads = [subprocess.Popen(["redis-benchmark", "-h", "127.0.0.1", "-p", port, "-n", str(count // 10), "-c", "25", "-P", "8", "-r", str(count), *command], stdout=subprocess.DEVNULL)
                 for command in (["SET", "key:__rand_int__", LONG], ["GET", "key:__rand_int__"])]
        if any(load.wait() for load in loads):
            raise RuntimeError("redis-benchmark failed")
        known = int(ask(server, "DBSIZE"))
        if known != count:
            raise RuntimeError(f"{known} keys of {count}")
        return figures(server, count / 1024, count / loaded)


def messages(scale):
    count = int(10_000_000 * scale)
    with limited() as server:
        result = backlog(server, count)
        return figures(server, count / 1024, result["published"], max(result["peak"], result["drain_peak"]))


def topic(scale):
    """Produced beside a reader at the tail, then read from the start beside another producer with its reader."""
    records = int(20 * 1024 * 1024 * scale)
    jars = client("jars", "kafka-tools")

    def tail(server, count):
        return subprocess.Popen(["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", "org.apache.kafka.tools.ConsumerPerformance", "--bootstrap-server", server.addresses["kafka"],
                                 "--topic", "tail", "--from-latest", "--num-records", str(count), "--timeout", "60000"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    with limited() as server:
        create(server, "long")
        create(server, "tail", partitions=1)
        produce(server, "long", records, "1")
        reader = tail(server, records // 20)
        writer = subprocess.Popen(["java", "-Xmx256m", "-XX:+UseSerialGC", "-cp", f"{jars}/*", "org.apache.kafka.tools.ProducerPerformance", "--bootstrap-server", server.addresses["kafka"],
                                   "--topic", "tail", "--num-records", str(records // 10), "--record-size", "1024", "--throughput", "5000"], stdout=subprocess.DEVNULL)
        began = time.monotonic()
        tool(server, "ConsumerPerformance", "--topic", "long", "--num-records", records, "--timeout", 60000)
        read = time.monotonic() - began
        for process in (reader, writer):
            process.kill()
            process.wait()
        return figures(server, records / 1024, records / read)


def connections(scale):
    """10,000 clients, of which a tenth ask for far more than they read; the others are answered all the while."""
    count, deaf, ask_for = int(10_000 * scale), int(1_000 * scale), 100
    with limited(f"--max-connections={count + 100}") as server, contextlib.ExitStack() as opened:
        host, port = server.addresses["resp"].rsplit(":", 1)
        with socket.create_connection((host, int(port))) as one:
            one.sendall(b"*3\r\n$3\r\nSET\r\n$3\r\nbig\r\n$1048576\r\n" + b"v" * 1048576 + b"\r\n")
            one.recv(16)
        clients = [opened.enter_context(socket.create_connection((host, int(port)))) for _ in range(count)]
        idle = peak_mb(server.pid)
        for deaf_one in clients[:deaf]:
            deaf_one.setblocking(False)
            with contextlib.suppress(BlockingIOError, ConnectionError):
                deaf_one.sendall(b"*2\r\n$3\r\nGET\r\n$3\r\nbig\r\n" * ask_for)
        began, served = time.monotonic(), 0
        while time.monotonic() < began + 20:
            for listener in clients[deaf:]:
                listener.sendall(b"PING\r\n")
                if listener.recv(16) != b"+PONG\r\n":
                    raise RuntimeError("somebody who reads was not answered")
                served += 1
        print(f"  {count} idle clients: peak {idle:.0f} MB", flush=True)
        return figures(server, deaf * ask_for, served / (time.monotonic() - began))


def loads(server, count, keys, commands):
    """All of these commands at once, `count` of each, with random numbers below `keys`."""
    port = server.addresses["resp"].rsplit(":", 1)[1]
    running = [subprocess.Popen(["redis-benchmark", "-h", "127.0.0.1", "-p", port, "-n", str(count), "-c", "10", "-P", "8", "-r", str(keys), *command], stdout=subprocess.DEVNULL) for command in commands]
    if any([load.wait() for load in running]):
        raise RuntimeError("redis-benchmark failed")


def sorted_set(scale):
    """One of 10 M members of 14 octets, added in an order that is not its own; then looked at and changed everywhere, and used as a queue."""
    count = int(10_000_000 * scale)
    step = 7919  # its multiples are all numbers below count, which it does not divide
    with limited(limit=COLLECTION_MB) as server:
        def adds():
            for first in range(0, count, 10):
                words = ["ZADD", "z"]
                for n in range(first, min(first + 10, count)):
                    score = n * step % count
                    words += [str(score), f"m:{score:012d}"]
                yield f"*{len(words)}\r\n" + "".join(f"${len(word)}\r\n{word}\r\n" for word in words)

        began = time.monotonic()
        pipe(server, adds())
        loaded = time.monotonic() - began
        print(f"  loaded: {count / loaded:,.0f} members/s, RSS {rss_mb(server.pid):.0f} MB", flush=True)
        for rank in range(0, count, max(1, count // 1000)):
            wanted = f"m:{rank:012d}"
            answers = ask(server, "ZRANGE", "z", str(rank), str(rank)), ask(server, "ZRANK", "z", wanted), ask(server, "ZCOUNT", "z", "-inf", f"({rank}")
            if answers != (wanted, str(rank), str(rank)):
                raise RuntimeError(f"rank {rank}: {answers}")
        began = time.monotonic()
        rounds = max(1000, count // 20)
        loads(server, rounds, count, [["ZADD", "z", "__rand_int__", "m:__rand_int__"], ["ZRANK", "z", "m:__rand_int__"], ["ZRANGE", "z", "__rand_int__", "__rand_int__", "BYSCORE", "LIMIT", "0", "10"]])
        rate = 3 * rounds / (time.monotonic() - began)
        loads(server, rounds, count, [["ZADD", "z", "-__rand_int__", "q:__rand_int__"], ["ZPOPMIN", "z"]])
        return figures(server, count * 22 / 1e6, rate, limit=COLLECTION_MB)


def stream(scale):
    """One of 10 M entries of 100 octets; then read, deleted from and claimed everywhere, read by a group from its beginning, and used as a queue."""
    count = int(10_000_000 * scale)
    body = (VALUE * 2)[:100]
    with limited(limit=COLLECTION_MB) as server:
        began = time.monotonic()
        pipe(server, (f"*5\r\n$4\r\nXADD\r\n$1\r\nx\r\n$14\r\n{n:012d}-1\r\n$1\r\nf\r\n$100\r\n{body}\r\n" for n in range(1, count + 1)))
        loaded = time.monotonic() - began
        print(f"  loaded: {count / loaded:,.0f} entries/s, RSS {rss_mb(server.pid):.0f} MB", flush=True)
        for n in range(1, count, max(1, count // 1000)):
            wanted = f"{n}-1\nf\n{body}"
            answers = ask(server, "XRANGE", "x", str(n), "+", "COUNT", "1"), ask(server, "XREVRANGE", "x", str(n), "-", "COUNT", "1"), ask(server, "XREAD", "COUNT", "1", "STREAMS", "x", f"{n}-0")
            if answers != (wanted, wanted, "x\n" + wanted):
                raise RuntimeError(f"entry {n}: {answers}")
        if ask(server, "XLEN", "x") != str(count):
            raise RuntimeError("entries are missing")
        ask(server, "XGROUP", "CREATE", "x", "g", "0")
        rounds = max(1000, count // 100)
        anywhere = "__rand_int__"  # of twelve digits
        began = time.monotonic()
        loads(server, rounds, count, [["XRANGE", "x", anywhere, "+", "COUNT", "10"], ["XDEL", "x", f"{anywhere}-1"], ["XADD", "x", "*", "f", body],
                                      ["XREADGROUP", "GROUP", "g", "c", "COUNT", "10", "NOACK", "STREAMS", "x", ">"]])
        rate = 4 * rounds / (time.monotonic() - began)
        print(f"  read and changed everywhere: {rate:,.0f} commands/s, RSS {rss_mb(server.pid):.0f} MB", flush=True)
        if int(ask(server, "XTRIM", "x", "MAXLEN", str(count // 2))) < count // 3:
            raise RuntimeError("too little was trimmed")
        loads(server, rounds, count, [["XADD", "x", "MAXLEN", "~", str(count // 2), "*", "f", body], ["XREVRANGE", "x", "+", "-", "COUNT", "10"]])
        if int(ask(server, "XLEN", "x")) > count // 2 + 512:
            raise RuntimeError("it was not trimmed")
        return figures(server, count * 120 / 1e6, rate, limit=COLLECTION_MB)


def queue(scale):
    """A list of 10 M items of 100 octets, pushed at one end; looked at everywhere, and taken from the other end while more come."""
    count = int(10_000_000 * scale)
    body = (VALUE * 2)[:84]
    with limited(limit=COLLECTION_MB) as server:
        def pushes():
            for first in range(0, count, 10):
                items = [f"job:{n:012d}{body}" for n in range(first, min(first + 10, count))]
                yield f"*{len(items) + 2}\r\n$5\r\nLPUSH\r\n$1\r\nl\r\n" + "".join(f"${len(item)}\r\n{item}\r\n" for item in items)

        began = time.monotonic()
        pipe(server, pushes())
        loaded = time.monotonic() - began
        print(f"  loaded: {count / loaded:,.0f} items/s, RSS {rss_mb(server.pid):.0f} MB", flush=True)
        for n in range(0, count, max(1, count // 1000)):
            wanted = f"job:{n:012d}{body}"
            answers = ask(server, "LINDEX", "l", str(-1 - n)), ask(server, "LRANGE", "l", str(count - 1 - n), str(count - 1 - n))
            if answers != (wanted, wanted):
                raise RuntimeError(f"item {n}: {answers}")
        began = time.monotonic()
        rounds = max(1000, count // 20)
        loads(server, rounds, count, [["LPUSH", "l", f"job:__rand_int__{body}"], ["RPOP", "l"]])
        # redis-benchmark's numbers begin with zeros, which is none for LINDEX.
        places = [str(n * 7919 % count) for n in range(rounds)]
        pipe(server, (f"*3\r\n$6\r\nLINDEX\r\n$1\r\nl\r\n${len(place)}\r\n{place}\r\n" for place in places))
        rate = 3 * rounds / (time.monotonic() - began)
        if ask(server, "LLEN", "l") != str(count):
            raise RuntimeError("items are missing")
        return figures(server, count * 100 / 1e6, rate, limit=COLLECTION_MB)


LOADS = {"keys": ("strings of 10 times the limit", keys), "backlog": ("backlog of 10 M messages", messages), "topic": ("topic of 20 GB, read from the start", topic),
         "connections": ("10,000 clients, 1,000 never read 100 MB each", connections), "sorted_set": (f"sorted set of 10 M members, with {COLLECTION_MB} MiB", sorted_set),
         "stream": (f"stream of 10 M entries of 100 octets, with {COLLECTION_MB} MiB", stream),
         "list": (f"list of 10 M items of 100 octets, with {COLLECTION_MB} MiB", queue)}


def run(rounds, scale, only=None):
    cases = []
    for name in only or LOADS:
        title, load = LOADS[name]
        case = Case(title if scale == 1 else f"{title}, at {scale:g} of it")
        result = load(scale)
        case.add("flowmesh", result)
        print(f"  {case.name}: " + " ".join(f"{k}={v:.4g}" for k, v in result.items()), flush=True)
        cases.append(case)
    return [(f"--memory-limit={LIMIT_MB}MiB", table(cases, COLUMNS))]
