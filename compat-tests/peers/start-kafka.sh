#!/usr/bin/env bash
# The Apache Kafka broker (KRaft, one node) as a plain foreground process: start-kafka.sh PORT DIR
# The controller listens on PORT + 1. The process that runs is java itself (exec), so its pid is this script's.
#   KAFKA_HEAP (512m)    KAFKA_EXTRA  "key=value key=value" for server.properties
set -euo pipefail
port=${1:?PORT} dir=${2:?DIR}
root=$(cd "$(dirname "$0")/../.." && pwd)
jars=$("$root/scripts/clients.sh" jars kafka-broker)
mkdir -p "$dir"
cat >"$dir/server.properties" <<PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$((port + 1))
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$((port + 1))
advertised.listeners=PLAINTEXT://127.0.0.1:$port
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT
log.dirs=$dir/logs
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
group.initial.rebalance.delay.ms=0
log.cleaner.dedupe.buffer.size=16777216
PROPERTIES
for pair in ${KAFKA_EXTRA:-}; do echo "$pair" >>"$dir/server.properties"; done
cat >"$dir/log4j2.xml" <<'XML'
<Configuration status="ERROR"><Appenders><Console name="c"><PatternLayout pattern="%d{ABSOLUTE} %p %c{1}: %m%n"/></Console></Appenders>
<Loggers><Root level="WARN"><AppenderRef ref="c"/></Root></Loggers></Configuration>
XML
java=(java "-Xmx${KAFKA_HEAP:-512m}" "-Xms${KAFKA_HEAP:-512m}" -XX:+UseG1GC "-Dlog4j2.configurationFile=file:$dir/log4j2.xml" -cp "$jars/*")
[ -e "$dir/logs/meta.properties" ] || "${java[@]}" kafka.tools.StorageTool format -t FlowMeshCompatPeer0001A -c "$dir/server.properties" >"$dir/format.log" 2>&1 \
  || { cat "$dir/format.log" >&2; exit 1; }
exec "${java[@]}" kafka.Kafka "$dir/server.properties"
