#!/usr/bin/env bash
# Install what building and testing FlowMesh needs on a fresh Debian (12+) machine. Idempotent; safe to run again.
#
#   scripts/dev-setup.sh            everything (clients, peers, FUSE)
#   scripts/dev-setup.sh packages   only the Debian packages
#   scripts/dev-setup.sh clients    only the client libraries (Python venvs, npm, Go, Maven)
#
# No service is ever started: the packages of the peers are installed under a policy-rc.d that forbids it,
# so ports 6379, 5672 and 9092 stay free. What is fetched lies under ${FLOWMESH_CACHE:-~/.cache/flowmesh}.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
what=${1:-all}

# command it gives -> Debian package; the package is asked for only if the command is missing
PACKAGES=(
  cc:build-essential cmake:cmake pkg-config:pkg-config curl:curl
  redis-cli:redis-tools kcat:kcat amqp-publish:amqp-tools
  rabbitmq-server:rabbitmq-server javac:default-jdk-headless mvn:maven php:php-cli
  fusermount3:fuse3 shellcheck:shellcheck python3:python3 node:nodejs npm:npm go:golang-go
)

# Frameworks that later Debians may have dropped: without them their scenarios fail, nothing else.
FRAMEWORKS=(ruby-sidekiq ruby-bunny php-amqplib php-illuminate-queue php-illuminate-redis php-redis prometheus-redis-exporter)

log() { printf '%s\n' "dev-setup: $*" >&2; }

retry() { # retry COMMAND...: mirrors hiccup; three tries, growing pauses
  local n
  for n in 1 2 3; do "$@" && return 0; log "failed (try $n of 3): $*"; [ "$n" = 3 ] || sleep $((n * 5)); done
  return 1
}

missing_packages() {
  local pair cmd
  for pair in "${PACKAGES[@]}"; do
    cmd=${pair%%:*}
    command -v "$cmd" >/dev/null 2>&1 || [ -x "/usr/sbin/$cmd" ] || echo "${pair#*:}"
  done
  python3 -c 'import venv, ensurepip' >/dev/null 2>&1 || echo python3-venv
  dpkg -s libfuse3-dev >/dev/null 2>&1 || echo libfuse3-dev
}

install_packages() {
  command -v apt-get >/dev/null || { log "not Debian: install by hand: $(missing_packages | xargs)"; return 0; }
  local want sudo=() frameworks=() package
  mapfile -t want < <(missing_packages)
  for package in "${FRAMEWORKS[@]}"; do dpkg -s "$package" >/dev/null 2>&1 || frameworks+=("$package"); done
  [ $((${#want[@]} + ${#frameworks[@]})) -gt 0 ] || { log "Debian packages: nothing missing"; return 0; }
  [ "$(id -u)" = 0 ] || sudo=(sudo)
  log "installing: ${want[*]} ${frameworks[*]}"
  # 101 = "action forbidden by policy": maintainer scripts then start nothing. A policy that was there is put back.
  local policy=/usr/sbin/policy-rc.d saved='' rc=0
  if [ -e $policy ]; then saved=$(mktemp); "${sudo[@]}" cp -p $policy "$saved"; fi
  printf '#!/bin/sh\nexit 101\n' | "${sudo[@]}" tee $policy >/dev/null
  "${sudo[@]}" chmod 755 $policy
  local install=("${sudo[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends)
  retry "${sudo[@]}" apt-get update -q >&2 || rc=$?
  if [ $rc = 0 ] && ! retry "${install[@]}" "${want[@]}" "${frameworks[@]}" >&2; then
    retry "${install[@]}" "${want[@]}" >&2 || rc=$?
    for package in "${frameworks[@]}"; do "${install[@]}" "$package" >&2 || log "not to be had here: $package"; done
  fi
  if [ -n "$saved" ]; then "${sudo[@]}" cp -p "$saved" $policy; rm -f "$saved"; else "${sudo[@]}" rm -f $policy; fi
  return $rc
}

case $what in
  all) install_packages; "$here/clients.sh" all ;;
  packages) install_packages ;;
  clients) "$here/clients.sh" all ;;
  *) log "unknown: $what (all, packages, clients)"; exit 2 ;;
esac
[ "$what" = all ] && "$here/verify.sh"
log "done"
