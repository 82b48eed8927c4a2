#!/usr/bin/env bash
# Fuzz each decoder for SECONDS_EACH (60) seconds: fuzz/run.sh [TARGET...]. Needs a nightly toolchain and cargo-fuzz
# (rustup toolchain install nightly; cargo install cargo-fuzz). Seeds: the codecs' testdata and recorded requests.
# A crash is kept under fuzz/artifacts; make it a named test of the codec before mending it.
set -euo pipefail
cd "$(dirname "$0")"
command -v cargo-fuzz >/dev/null || { echo "cargo-fuzz is missing: cargo install cargo-fuzz" >&2; exit 1; }
rustup toolchain list | grep -q nightly || { echo "a nightly toolchain is missing: rustup toolchain install nightly" >&2; exit 1; }
targets=("$@"); [ ${#targets[@]} -gt 0 ] || targets=(resp_decode amqp_decode kafka_decode)
for target in "${targets[@]}"; do
  python3 seeds.py "$target" "corpus/$target"
  cargo +nightly fuzz run "$target" -- -max_total_time="${SECONDS_EACH:-60}" -timeout=5 -rss_limit_mb=1024
done
