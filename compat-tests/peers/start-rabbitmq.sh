#!/usr/bin/env bash
# Debian's rabbitmq-server as one plain foreground process: start-rabbitmq.sh PORT DIR
# All state lies in DIR, every port follows from PORT; no service, no system cookie, no change of user.
#   ready: the port answers.   stop: kill -TERM "$(cat DIR/pid)" (the Erlang VM's own pid) or DIR/ctl stop
#   RABBIT_PLUGINS  comma list (default: none)    RABBIT_CONF  lines for rabbitmq.conf    RABBIT_SCHEDULERS  N
set -euo pipefail
port=${1:?PORT} dir=${2:?DIR}
mkdir -p "$dir/home" "$dir/mnesia" "$dir/log"; dir=$(cd "$dir" && pwd)
inner=$(ls -d /usr/lib/rabbitmq/lib/rabbitmq_server-*/sbin | tail -1)   # the wrappers in /usr/sbin change the user
cat >"$dir/rabbitmq.conf" <<CONF
listeners.tcp.1 = 127.0.0.1:$port
log.console = false
disk_free_limit.absolute = 50MB
vm_memory_high_watermark.relative = 0.6
${RABBIT_CONF:-}
CONF
echo "[${RABBIT_PLUGINS:-}]." >"$dir/enabled_plugins"
: >"$dir/env.conf"
cat >"$dir/environment" <<ENV
export HOME='$dir/home' RABBITMQ_NODENAME=flowmesh$port@localhost
export RABBITMQ_NODE_PORT=$port RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_DIST_PORT=$((port + 1))
export ERL_EPMD_PORT=$((port + 2)) ERL_EPMD_ADDRESS=127.0.0.1
export RABBITMQ_MNESIA_BASE='$dir/mnesia' RABBITMQ_LOG_BASE='$dir/log' RABBITMQ_PID_FILE='$dir/pid'
export RABBITMQ_CONFIG_FILE='$dir/rabbitmq.conf' RABBITMQ_CONF_ENV_FILE='$dir/env.conf'
export RABBITMQ_ADVANCED_CONFIG_FILE='$dir/none.config' RABBITMQ_GENERATED_CONFIG_DIR='$dir/generated'
export RABBITMQ_ENABLED_PLUGINS_FILE='$dir/enabled_plugins'
ENV
printf '#!/bin/sh\n. "%s/environment"\nexec "%s/rabbitmqctl" "$@"\n' "$dir" "$inner" >"$dir/ctl"; chmod +x "$dir/ctl"
# shellcheck disable=SC1091
. "$dir/environment"
[ -z "${RABBIT_SCHEDULERS:-}" ] || export RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS="+S $RABBIT_SCHEDULERS:$RABBIT_SCHEDULERS"
exec "$inner/rabbitmq-server"
