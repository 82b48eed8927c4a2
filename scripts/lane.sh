#!/usr/bin/env bash
# One lane of the checks: scripts/lane.sh lint|gate|matrix|soak. Runs every step even after one failed, then prints a
# closing line "LANE: N passed, N failed" (tests where a step counts tests, else one per step) and exits 1 on any failure.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
lane=$1
: "${CARGO_TARGET_DIR:=target}"
CARGO_TARGET_DIR=$(mkdir -p "$CARGO_TARGET_DIR" && cd "$CARGO_TARGET_DIR" && pwd); export CARGO_TARGET_DIR
export FLOWMESH_BIN=$CARGO_TARGET_DIR/ci/flowmesh
passed=0 failed=0 broken=()
log=$(mktemp); trap 'rm -f "$log"' EXIT

step() { # step NAME COMMAND...
  local name=$1 start=$SECONDS rc p f; shift
  [ -z "${FLOWMESH_STEP_FILE:-}" ] || echo "$lane: $name" >"$FLOWMESH_STEP_FILE"
  echo "==> $lane: $name"
  "$@" 2>&1 | tee "$log"; rc=${PIPESTATUS[0]}
  # cargo test: "test result: ok. 12 passed; 0 failed"; our runners: "resp: 12 passed, 0 failed"
  read -r p f < <(awk '/^test result: /{p+=$4; f+=$6} /^([a-z-]+: )?[0-9]+ passed, [0-9]+ failed/{sub(/^[a-z-]+: /,""); p+=$1; f+=$3} END{print p+0, f+0}' "$log")
  if [ "$rc" != 0 ] && [ "$f" = 0 ]; then f=1; fi
  if [ "$rc" = 0 ] && [ "$p" = 0 ]; then p=1; fi
  passed=$((passed + p)); failed=$((failed + f))
  [ "$rc" = 0 ] || broken+=("$name")
  echo "<== $lane: $name: exit $rc, $((SECONDS - start)) s"
}

# One command builds server and tests, so that each dependency is compiled once, with one set of features.
build() { cargo test --locked --profile ci --workspace --no-run; }
compat() { python3 compat-tests/run.py test "$@"; }

case $lane in
  lint)
    command -v shellcheck >/dev/null || scripts/dev-setup.sh packages
    step rustfmt cargo fmt --all --check
    step tidy scripts/tidy.sh
    step shellcheck shellcheck -S warning .ci/run scripts/*.sh compat-tests/*/*.sh bench/*.sh fuzz/*.sh
    step clippy cargo clippy --locked --profile ci --workspace --all-targets -- -D warnings
    ;;
  gate)
    command -v cc >/dev/null || scripts/dev-setup.sh packages
    # Client libraries are fetched while the compiler works.
    (scripts/dev-setup.sh packages && scripts/clients.sh all) >"$CARGO_TARGET_DIR/setup.log" 2>&1 & setup=$!
    step build build
    wait $setup || { tail -20 "$CARGO_TARGET_DIR/setup.log"; failed=$((failed + 1)); broken+=(setup); }
    step unit cargo test --locked --profile ci --workspace --no-fail-fast
    step goldens python3 compat-tests/run.py stale
    step clients compat --lane gate
    step crash python3 compat-tests/crash.py --rounds 10
    step soak python3 compat-tests/soak.py --minutes 1
    step docs scripts/docs.py "$FLOWMESH_BIN" check
    ;;
  matrix)
    scripts/dev-setup.sh packages && scripts/clients.sh all >/dev/null
    [ -x "$FLOWMESH_BIN" ] || step build build
    step clients compat --lane matrix
    step live-peers python3 compat-tests/run.py live
    ;;
  soak)
    scripts/dev-setup.sh packages && scripts/clients.sh all >/dev/null
    step build build
    step slow-tests env RUN_SLOW_TESTS=1 cargo test --locked --profile ci --workspace --no-fail-fast
    step crash python3 compat-tests/crash.py --rounds "${ROUNDS:-1000}"
    step soak python3 compat-tests/soak.py --minutes "${MINUTES:-60}"
    step fuzz env PYTHONPATH=compat-tests python3 compat-tests/cross/fuzz.py --all --seconds "$((${MINUTES:-60} * 60))"
    step clients compat
    ;;
  *) echo "unknown lane: $lane" >&2; exit 2 ;;
esac
[ $failed = 0 ] || echo "$lane failed in: ${broken[*]}"
echo "$lane: $passed passed, $failed failed"
[ $failed = 0 ]
