#!/usr/bin/env bash
# RabbitMQ's own load tool (Java client): counts what arrives for each durability; rates are not compared.
set -uo pipefail
perf() { java -Xmx256m -XX:+UseSerialGC -cp "$RABBITMQ_PERF_TEST_JARS/*" com.rabbitmq.perf.PerfTest -h "amqp://guest:guest@$AMQP_ADDR/%2F" "$@" 2>&1; }
verdict() { grep -qiE 'exception|error|closed|refused' <<<"$1" && echo "$1" | head -20; grep -cE 'receiving rate avg: [1-9]' <<<"$1"; }
echo "> transient, automatic acknowledgement"; verdict "$(perf -x 1 -y 1 -s 16 -a -u perf.t -C 20000 -D 20000)"
echo "> persistent, confirms, prefetch, multiple acknowledgement"; verdict "$(perf -x 1 -y 1 -s 1024 -f persistent -c 100 -q 200 -A 50 -u perf.p -ad false -C 5000 -D 5000)"
echo "> one confirm at a time"; verdict "$(perf -x 1 -y 1 -s 1024 -f persistent -c 1 -q 10 -u perf.s -ad false -C 200 -D 200)"
echo "> fan-out to 8 queues"; verdict "$(perf -t fanout -e perf.fan -x 1 -y 8 -s 256 -f persistent -c 100 -q 200 -A 50 -qp 'perf.f-%d' -qpf 1 -qpt 8 -C 1000 -D 1000)"
