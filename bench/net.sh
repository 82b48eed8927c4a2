#!/usr/bin/env bash
# CPU per PING of three shapes of the network loop, in alternation (docs/adr/0001-network-loop.md).
#   bench/net.sh [ROUNDS]     needs redis-benchmark and the built example: cargo build --release --example net_probe
set -euo pipefail
cd "$(dirname "$0")/.."
rounds=${1:-3}
probe=${CARGO_TARGET_DIR:-target}/release/examples/net_probe
hz=$(getconf CLK_TCK)
ticks() { awk '{sub(/^.*\) /,""); print $12+$13}' "/proc/$1/stat"; }
pids=(); trap 'kill "${pids[@]}" 2>/dev/null || true' EXIT
declare -A port pid
base=$((20000 + RANDOM % 20000)); i=0
for shape in epoll:1 current-thread:1 multi-thread:1 epoll:2 current-thread:2 multi-thread:2; do
  i=$((i + 1)); port[$shape]=$((base + i))
  "$probe" "${shape%:*}" "127.0.0.1:${port[$shape]}" "${shape#*:}" & pid[$shape]=$!; pids+=($!)
done
for shape in "${!port[@]}"; do until redis-cli -p "${port[$shape]}" ping >/dev/null 2>&1; do :; done; done
printf '%-18s %5s %4s %2s %9s %10s\n' shape conns pipe r rps cpu_us/op
for spec in "50 1 300000" "200 1 300000" "1000 1 300000" "50 16 3000000"; do
  read -r conns pipe n <<<"$spec"
  for r in $(seq "$rounds"); do for shape in epoll:1 current-thread:1 multi-thread:1 epoll:2 current-thread:2 multi-thread:2; do
    a=$(ticks "${pid[$shape]}")
    out=$(redis-benchmark -p "${port[$shape]}" -c "$conns" -P "$pipe" -n "$n" --csv PING 2>/dev/null | tail -1)
    b=$(ticks "${pid[$shape]}")
    awk -v s="$shape" -v c="$conns" -v p="$pipe" -v r="$r" -v o="$out" -v t=$((b - a)) -v hz="$hz" -v n="$n" \
      'BEGIN{gsub(/"/,"",o); split(o,f,","); printf "%-18s %5d %4d %2d %9d %10.3f\n",s,c,p,r,f[2],t/hz*1e6/n}'
  done; done
done
