#!/usr/bin/env python3
"""Generated pages: docs/COMPATIBILITY.md from the tables of a running server and the list of client scenarios.

    scripts/docs.py BINARY check|write     check: exit 1 if a page in the tree is stale
"""

import difflib
import os
import socket
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "compat-tests"))
from lib import respwire, servers  # noqa: E402
from run import DEVIATIONS, read_golden  # noqa: E402
from scenarios import SCENARIOS  # noqa: E402

API_NAMES = {0: "Produce", 1: "Fetch", 2: "ListOffsets", 3: "Metadata", 8: "OffsetCommit", 9: "OffsetFetch", 10: "FindCoordinator", 11: "JoinGroup",
             12: "Heartbeat", 13: "LeaveGroup", 14: "SyncGroup", 15: "DescribeGroups", 16: "ListGroups", 17: "SaslHandshake", 18: "ApiVersions",
             19: "CreateTopics", 20: "DeleteTopics", 21: "DeleteRecords", 22: "InitProducerId", 23: "OffsetForLeaderEpoch", 24: "AddPartitionsToTxn",
             25: "AddOffsetsToTxn", 26: "EndTxn", 28: "TxnOffsetCommit", 29: "DescribeAcls", 30: "CreateAcls", 31: "DeleteAcls", 32: "DescribeConfigs",
             33: "AlterConfigs", 34: "AlterReplicaLogDirs", 35: "DescribeLogDirs", 36: "SaslAuthenticate", 37: "CreatePartitions", 42: "DeleteGroups",
             43: "ElectLeaders", 44: "IncrementalAlterConfigs", 46: "ListPartitionReassignments", 47: "OffsetDelete", 48: "DescribeClientQuotas",
             50: "DescribeUserScramCredentials", 55: "DescribeQuorum", 57: "UpdateFeatures", 60: "DescribeCluster", 61: "DescribeProducers",
             65: "DescribeTransactions", 66: "ListTransactions", 68: "ConsumerGroupHeartbeat", 69: "ConsumerGroupDescribe", 74: "ListConfigResources",
             75: "DescribeTopicPartitions"}


def redis_commands(address):
    """{group: [names]} from COMMAND LIST and COMMAND DOCS."""
    wire = respwire.Wire(address)
    names = sorted(name.decode() for _, name in wire.call(b"COMMAND", b"LIST")[1])
    flat = wire.call(b"COMMAND", b"DOCS")[1]
    docs = {key[1].decode(): value[1] for key, value in zip(flat[::2], flat[1::2])}
    groups = {}
    for name in (n for n in names if "|" not in n):
        pairs = docs.get(name, [])
        fields = {k[1]: v[1] for k, v in zip(pairs[::2], pairs[1::2]) if v[0] in "$+"}
        groups.setdefault((fields.get(b"group") or b"other").decode(), []).append(name.upper())
    wire.close()
    return groups


def kafka_apis(address):
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), 10) as sock:
        request = struct.pack(">hhih", 18, 0, 1, -1)
        sock.sendall(struct.pack(">i", len(request)) + request)
        stream = sock.makefile("rb")
        body = stream.read(struct.unpack(">i", stream.read(4))[0])
    count = struct.unpack(">i", body[6:10])[0]
    return [struct.unpack(">hhh", body[10 + 6 * i:16 + 6 * i]) for i in range(count)]


def page(server):
    lines = ["# Compatibility", "", "<!-- Written by `make docs` from the server's own tables; CI fails when it is stale. -->", "",
             "What FlowMesh serves, as it says itself, and which unchanged clients are run against it in CI. A request that is not listed gets the",
             "protocol's own answer for something unknown; nothing is accepted and then ignored.", "",
             "## Clients", "", "Each scenario prints what the client saw; the same scenario was recorded from the real server (the golden), and every step must be equal.", "",
             "| Scenario | Judged by | Steps | Known deviations |", "| --- | --- | --- | --- |"]
    for scenario in SCENARIOS:
        peer, _, golden = read_golden(scenario)
        listed = DEVIATIONS / f"{scenario.name}.json"
        known = listed.read_text().count('"step"') if listed.exists() else 0
        count = sum(line.startswith("> ") for line in golden.splitlines()) if golden else ""
        lines.append(f"| {scenario.name} | {peer or 'its own expectations'} | {count} | {known or ''} |")
    lines += ["", "Deviations and their reasons: `compat-tests/deviations/`.", "", "## Redis commands", "",
              "RESP2 and RESP3; `INFO` names version 7.2.4. Errors and reply types are compared with Valkey's for each command below (`compat-tests/resp/commands.txt`).", "", "| Group | Commands |", "| --- | --- |"]
    for group, names in sorted(redis_commands(server.addresses["resp"]).items()):
        lines.append(f"| {group} | {' '.join(sorted(names))} |")
    lines += ["", "Functions (`FUNCTION`, `FCALL`): libraries are kept as any data is. What a library keeps in Lua variables between calls belongs to one thread of the server, so two calls may",
              "not see the same; keys are for that. What commands of Redis after 7.2 that Valkey 9.1 lacks do is judged by their documentation (`compat-tests/resp/newer.py`).",
              ""]
    lines += ["ACL: users are principals, rules grants and restrictions (`docs/adr/0009-redis-acl.md`), on the disk before `ACL SETUSER` is answered; so `ACL SAVE` and `LOAD` answer as where no",
              "`aclfile` is configured. `requirepass` is `--password`, or `CONFIG SET requirepass` or `ACL SETUSER default >…`, which outlive a restart. `db=` and `resetdbs` are refused: the namespaces of grants say in which database."]
    lines += ["", "`SORT` keeps 1 GiB of elements and weights at once at most, with `LIMIT` and without `BY` only as many as are wanted; a set larger than memory is read from the tables.",
              "", "Lists: of one larger than memory the middle is read from the tables. `LPOP`, `RPOP`, `LINSERT`, `LREM` and `LTRIM` that would take, move or remove more than half of the cache may hold (64 MiB at least) are refused before",
              "anything changes. Strings: `SETRANGE`, `SETBIT`, `BITFIELD` and `APPEND` do not make one longer than a quarter of `--memory-limit` (1 MiB at least); the answer is `-OOM`.",
              "", "Streams: of one larger than memory the entries are read from the tables when they are asked for. Its groups and pending entries (80 bytes each) are in memory with it: they must fit the cache. `XREADGROUP` and",
              "`XINFO STREAM` with `FULL` that ask for more than half of the cache may hold (64 MiB at least) at once, and `XTRIM` with `DELREF` or `ACKED` that removes more, are refused before anything changes. `XINFO STREAM` counts",
              "the pieces as `radix-tree-keys`. A reader that waits for streams of several",
              "hash slots gets what came to the streams of one shard (2,048 slots) at once. `XINFO STREAM` has the members of Redis 8.6 about producers (`idmp-duration` and the following) once",
              "`XADD IDMP` or `XCFGSET` was used on the stream, and a group's `nacked-count` while `XNACK` has released something. `DUMP` of such a stream is in those versions' format, of any other in one that Valkey reads.",
              "`XREADGROUP` has no `CLAIM` (Redis 8.4); what `XNACK` released is for `XCLAIM` and `XAUTOCLAIM`, whatever their idle time.",
              "", "## AMQP 0-9-1", "",
              "As RabbitMQ 3.13 says it is (`amqp-announced-product`, `amqp-announced-version`); what is refused is refused with RabbitMQ's code and text",
              "(`compat-tests/goldens/amqp/errors.txt`, `queues.txt`, `exchanges.txt`), or with 540 NOT_IMPLEMENTED for what is not served.", "",
              "| | Served | Not served |", "| --- | --- | --- |",
              "| Protocol | all classes, `tx` as one record, confirms with `multiple`, `basic.nack`, `basic.return` before its ack, consumer cancel notification, `connection.blocked`, `update-secret` (a no-op, as for RabbitMQ's own users), PLAIN, AMQPLAIN, EXTERNAL, the headers of 0-8 | AMQP 1.0; vhosts other than `/` |",
              "| Exchanges | direct, fanout, topic, headers (all forms of `x-match`), `x-consistent-hash` (`hash-header`, `hash-property`), `x-modulus-hash`, `x-random`, `x-local-random`, `x-recent-history`, `x-delayed-message`; `amq.rabbitmq.event` (queues, exchanges, bindings, consumers, channels, connections, logins, users, grants, alarms) and `amq.rabbitmq.trace` (`POST /api/v1/amqp/trace`, or `--amqp-trace`); alternate, internal and auto-delete exchanges, exchange-to-exchange bindings | `x-jms-topic`; events of vhosts, policies and parameters, which are not there |",
              "| Queues | classic and quorum: `x-max-priority` 1 to 255, `x-message-ttl`, `x-expires`, `x-max-length(-bytes)` with all three overflows, dead letters with `x-death`, `x-single-active-consumer`, `x-delivery-limit` and `x-delivery-count`, `x-dead-letter-strategy`, `x-consumer-timeout`, `x-message-deduplication`, consumer priorities, exclusive consumers, direct reply-to; `x-queue-mode`, `x-queue-version` and the arguments of clusters are checked and have no effect | policies; `x-delayed-retry-*` |",
              "| Streams | a stream is a Kafka topic of one partition with the same name and offsets (`docs/adr/0011-stream-queues.md`): `x-stream-offset` in all forms, prefetch and credit, `x-max-age`, `x-max-length-bytes`, `x-stream-filter`, `x-stream-match-unfiltered`, consumer cancel notification; `x-stream-filter-size-bytes` and `x-stream-max-segment-size-bytes` are checked and have no effect | `basic.get`, `basic.nack` and `basic.reject`, `queue.purge`, consumers without acknowledgements, `x-single-active-consumer` (refused as in RabbitMQ 3); the stream protocol (port 5552); names that are not topic names |",
              "| Messages | CC, BCC, validated `user-id`, `expiration`, `priority`, `x-delay` on every exchange | `immediate` (540, as in RabbitMQ) |",
              "",
              "Where it differs, on purpose:", "",
              "- A header `x-delay` (milliseconds, up to 2^32 - 1) delays a message at every exchange, the default one too. A delayed message is a row from its confirm on, survives a restart whatever its",
              "  delivery mode, and is routed by the bindings of the moment when it is due, looked for each 20 ms. It is never returned as unroutable.",
              "- Which queue a hash exchange chooses is not what RabbitMQ's hash would choose. It does not change with the order of bindings or a restart, and a queue that comes or goes moves only its own share.",
              "- `x-recent-history` keeps at most 16 MiB per exchange and 64 MiB in all, and like RabbitMQ nothing over a restart.",
              "- A message expires when its time has come, looked for each 50 ms, wherever it stands and whatever is its priority; in RabbitMQ it does when it is the oldest of its queue.",
              "- A queue declared with `x-message-deduplication` takes no message that it has already, acknowledged ones excepted; with `x-cache-ttl` (milliseconds) none that it took within that time. It is confirmed all the same.",
              "  The same is what has the same `x-deduplication-header`, or without that the same message-id; at most `x-cache-size` of them (100,000) are remembered, over a restart if their messages are. Dead letters are always taken.",
              "- A negative `x-delivery-limit` is no limit if the announced version is 4.0 or later; before that, as in RabbitMQ 3.10.8, a message goes when it is given back first.",
              "- A delivery count is kept over a restart; that a client had a message when the server died does not count.",
              "- Filters of streams are exact; RabbitMQ's let records of other values pass. Compressed batches of Kafka producers are unpacked, up to a zstd window of 8 MiB and a block of snappy of 32 MiB;",
              "  what needs more is skipped, as is what a transaction that was aborted has written. Tables and arrays in a message's headers are kept, which RabbitMQ drops in streams. A message that its topic's `max.message.bytes`",
              "  forbids is nacked. `queue.delete` of a stream honours `if-unused` and `if-empty`. A stream asks for the rights of its queue and of its topic, on both faces.",
              "- At-least-once dead letters without a queue to go to stay on the disk with their queue, are tried again each second, and are not counted as ready.",
              "", "## Kafka requests", "", "| Key | Request | Versions |", "| --- | --- | --- |"]
    for key, low, high in sorted(kafka_apis(server.addresses["kafka"])):
        lines.append(f"| {key} | {API_NAMES.get(key, '?')} | {low} to {high} |")
    lines += ["", "Refused: the topic configuration `cleanup.policy=compact` with INVALID_CONFIG, since there is no compaction yet (Kafka Streams and Connect need it);",
              "ListTransactions with a pattern (version 2); WriteTxnMarkers, which is for brokers. A transaction has at most 100,000 partitions and 64 groups, a server 100,000 transactional ids of 1,024 octets; its end is one record, so it is never seen half done. Configurations that are taken and have no effect on one node without files say so: `broker/src/stream/config.rs`."]
    return "\n".join(lines) + "\n"


def main():
    binary, action = sys.argv[1:]
    os.environ["FLOWMESH_BIN"] = binary
    with servers.FlowMesh() as server:
        pages = {"docs/COMPATIBILITY.md": page(server)}
    pages["docs/CONFIGURATION.md"] = subprocess.run([binary, "config", "reference"], capture_output=True, text=True, check=True).stdout
    stale = 0
    for name, text in pages.items():
        path = ROOT / name
        before = path.read_text() if path.exists() else ""
        if before == text:
            continue
        if action == "write":
            path.write_text(text)
            print(f"wrote {name}")
        else:
            stale += 1
            print(f"stale: {name} (run `make docs`)")
            print("\n".join(list(difflib.unified_diff(before.splitlines(), text.splitlines(), "tree", "server", lineterm=""))[:40]))
    print(f"docs: {len(pages) - stale} passed, {stale} failed")
    sys.exit(1 if stale else 0)


if __name__ == "__main__":
    main()
