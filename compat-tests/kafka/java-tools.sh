#!/usr/bin/env bash
# Kafka's own Java tools: topics, producer and consumer perf tests, console consumer, groups. Rates are not compared.
set -uo pipefail
tool() { local class=$1; shift; java -Xmx256m -XX:+UseSerialGC -XX:TieredStopAtLevel=1 -cp "$KAFKA_TOOLS_JARS/*" "org.apache.kafka.tools.$class" "$@" 2>&1; }
broker="--bootstrap-server $KAFKA_ADDR"
step() { echo "> $*"; }
# shellcheck disable=SC2086
{
step "create"; tool TopicCommand $broker --create --topic java.perf --partitions 3
step "list"; tool TopicCommand $broker --list | grep '^java'
for acks in 1 all; do
  step "producer perf, acks=$acks"
  tool ProducerPerformance $broker --topic java.perf --num-records 20000 --record-size 1024 --throughput -1 --command-property acks=$acks linger.ms=5 batch.size=65536 | sed -nE 's/^([0-9]+ records sent), .*99.9th.*/\1/p'
done
step "consumer perf"; tool ConsumerPerformance $broker --topic java.perf --num-records 40000 --timeout 20000 | tail -1 | cut -d, -f5
step "end to end latency"; tool EndToEndLatency $broker --topic java.e2e --num-records 200 --producer-acks all --record-size 100 2>&1 | grep -c Percentiles
step "offsets"; tool GetOffsetShell $broker --topic java.perf 2>&1 | awk -F: '{n += $3} END {print n}'
step "delete"; tool TopicCommand $broker --delete --topic java.perf
}
