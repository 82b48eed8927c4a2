#!/usr/bin/env bash
# Fuzz each decoder for SECONDS_EACH (60) seconds: fuzz/run.sh [TARGET...]. Needs cargo-fuzz (cargo install cargo-fuzz) and
# a nightly toolchain; without one, the pinned compiler is told to allow what cargo-fuzz needs of nightly.
# Seeds: what clients sent (protocols/*/testdata, see record.py) and requests of compat-tests.
# A crash is kept under fuzz/artifacts; make it a named test of the codec before mending it.
set -euo pipefail
cd "$(dirname "$0")"
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install --locked cargo-fuzz" >&2; exit 1; }
fuzz=(cargo +nightly fuzz)
if ! rustup toolchain list | grep -q '^nightly'; then export RUSTC_BOOTSTRAP=1; fuzz=(cargo fuzz); fi
targets=("$@"); [ ${#targets[@]} -gt 0 ] || targets=(resp_decode rdb_restore amqp_decode kafka_decode)
log=$(mktemp); trap 'rm -f "$log"' EXIT
for target in "${targets[@]}"; do
  python3 seeds.py "$target" "corpus/$target"
  "${fuzz[@]}" run "$target" -- -max_total_time="${SECONDS_EACH:-60}" -timeout=5 -rss_limit_mb=1024 -print_final_stats=1 2>&1 | tee "$log"
  echo "$target: $(sed -n 's/^stat::number_of_executed_units: *//p' "$log") executions"
done
