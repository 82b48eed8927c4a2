#!/usr/bin/env bash
# kcat (librdkafka 2.0): metadata, produce and consume with every codec, keys, headers, offsets by number and time.
set -uo pipefail
step() { echo "> $*"; }
# Warnings ("coordinator load in progress: retrying") come or not, as time would have it.
k() { kcat -b "$KAFKA_ADDR" -q -X log_level=3 "$@" 2>&1; }
step "a topic appears when it is first produced to"
echo first | k -P -t kcat.auto
k -C -t kcat.auto -o beginning -e -f '%p/%o key=%k value=%s\n'
for codec in none gzip snappy lz4 zstd; do
  step "produce and consume with $codec"
  seq 1 2000 | sed "s/^/$codec /" | k -P -t "kcat.$codec" -p 0 -z $codec -X linger.ms=50
  k -C -t "kcat.$codec" -o beginning -e -f '%o %s\n' | sha256sum
  k -C -t "kcat.$codec" -p 0 -o 1990 -c 3 -f '%o %s\n'
done
step "keys, headers, null values"
printf 'k1:v1\nk2:\n' | k -P -t kcat.keys -p 0 -K: -Z -H trace=abc -H empty
k -C -t kcat.keys -o beginning -e -f 'key=%k value=%s size=%S headers=%h\n'
step "from the end"; k -C -t kcat.none -p 0 -o -2 -e -f '%o %s\n'
step "past the end"; k -C -t kcat.none -p 0 -o 2000 -e -f '%o %s\n'; echo "exit $?"
step "acks 0, 1 and all"
for acks in 0 1 all; do echo "acks $acks" | k -P -t kcat.acks -p 0 -X acks=$acks; done
for _ in $(seq 50); do [ "$(k -C -t kcat.acks -o beginning -e | wc -l)" = 3 ] && break; sleep 0.1; done
k -C -t kcat.acks -o beginning -e -f '%o %s\n'
step "idempotent producer"
seq 1 500 | k -P -t kcat.idempotent -p 0 -X enable.idempotence=true
k -C -t kcat.idempotent -o beginning -e | sort -n | uniq -d | wc -l
k -C -t kcat.idempotent -o beginning -e | wc -l
step "a record of 900000 bytes"
head -c 900000 /dev/zero | tr '\0' x >"/tmp/kcat.$$"; k -P -t kcat.large -p 0 "/tmp/kcat.$$"; rm -f "/tmp/kcat.$$"
k -C -t kcat.large -o beginning -e -f '%S\n'
step "a record above max.message.bytes"
head -c 1500000 /dev/zero | tr '\0' x >"/tmp/kcat.$$"; kcat -b "$KAFKA_ADDR" -P -t kcat.large -p 0 -X message.max.bytes=2000000 "/tmp/kcat.$$" 2>&1 | grep -o 'Message size too large' | head -1; rm -f "/tmp/kcat.$$"
step "offset by time"
kcat -b "$KAFKA_ADDR" -Q -t kcat.none:0:0 2>&1 | sed 's/ *$//'
kcat -b "$KAFKA_ADDR" -Q -t kcat.none:0:-1 2>&1 | sed 's/ *$//'
kcat -b "$KAFKA_ADDR" -Q -t kcat.none:0:-2 2>&1 | sed 's/ *$//'
kcat -b "$KAFKA_ADDR" -Q -t kcat.none:0:9999999999999 2>&1 | sed 's/ *$//'
step "balanced consumer group"
k -G kcat-group -X auto.offset.reset=earliest -X session.timeout.ms=10000 -e kcat.none kcat.gzip -f '%t %o\n' | grep -v '^%' | sort | uniq -c | sha256sum
step "metadata"
kcat -b "$KAFKA_ADDR" -L -J -t kcat.none 2>/dev/null | python3 -c '
import json, sys
m = json.load(sys.stdin)
print(len(m["brokers"]), [(t["topic"], [(p["partition"], len(p["replicas"]), len(p["isrs"])) for p in t["partitions"]]) for t in m["topics"]])'
