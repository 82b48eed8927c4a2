#!/usr/bin/env bash
# Debian's prometheus-redis-exporter: the metrics that dashboards and alerts read. What differs by server or moment is only looked at.
set -euo pipefail
host=${RESP_ADDR%:*} port=${RESP_ADDR##*:}
redis() { redis-cli -h "$host" -p "$port" "$@" >/dev/null; }
redis flushall
redis set key:string 12
redis set key:expires x ex 1000
redis rpush key:list 1 2 3
redis hset key:hash a 1 b 2
redis zadd key:zset 1 a
redis -n 3 sadd elsewhere a b
redis xadd stream '1-1' a 1
redis xadd stream '1-2' a 2
redis xgroup create stream group 0
redis xreadgroup GROUP group me COUNT 1 STREAMS stream '>'
redis get key:string
redis get none
listen=127.0.0.1:$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
prometheus-redis-exporter -redis.addr "redis://$RESP_ADDR" -web.listen-address "$listen" -redis-only-metrics -export-client-list \
  -check-keys 'key:*' -check-streams 'stream' -count-keys 'db0=key:*,db3=*' >/dev/null 2>&1 &
exporter=$!
trap 'kill $exporter' EXIT
for _ in $(seq 200); do curl -sf "http://$listen/health" >/dev/null && break; sleep 0.05; done
metrics=$(curl -sf "http://$listen/metrics")
exact() { echo "> $1"; grep -E "^redis_($2)[ {]" <<<"$metrics" | sort; }
positive() { echo "> $1"; awk -v names="$2" 'BEGIN { split(names, n, "|"); for (i in n) want["redis_" n[i]] } { name = $1; sub(/{.*/, "", name) } name in want { if ($NF > 0) print name; else print name " is " $NF }' <<<"$metrics" | sort -u; }
exact "up" "up|exporter_last_scrape_error"
exact "keys" "db_keys|db_keys_expiring|keys_count" | grep -E '>|"db(0|3)"'
exact "sizes and values" "key_size|key_value" | grep -v key:expires
exact "stream" "stream_length|stream_groups|stream_group_consumers|stream_group_messages_pending|stream_group_consumer_messages_pending"
exact "clients" "blocked_clients|rejected_connections_total|pubsub_channels|pubsub_patterns|connected_slaves|loading_dump_file"
echo "> role"; grep '^redis_instance_info' <<<"$metrics" | grep -oE 'role="[a-z]*"'
positive "counted" "commands_processed_total|connections_received_total|keyspace_hits_total|keyspace_misses_total|memory_used_bytes|memory_used_peak_bytes|memory_used_rss_bytes|connected_clients|cpu_user_seconds_total|config_maxclients|process_id|start_time_seconds"
echo "> clients by name"; grep -c '^redis_connected_clients_details' <<<"$metrics" | awk '{ print ($1 > 0) }'
