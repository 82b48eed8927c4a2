#!/usr/bin/env bash
# The locked client libraries and peers of compat-tests and bench, each fetched once with its ecosystem's own client.
#
#   scripts/clients.sh venv resp|amqp|kafka|cross|peers|jobs|arq|aiopika   prints the Python environment's directory
#   scripts/clients.sh node [node-jobs|node-amqp]      prints the node_modules directory
#   scripts/clients.sh go                              prints the path of the built Go client
#   scripts/clients.sh rust                            prints the path of the built Rust client
#   scripts/clients.sh jars kafka-broker|kafka-tools|rabbitmq-perf-test|redis-clients|amqp-clients   prints the directory of jars
#   scripts/clients.sh all                             all of them
#   scripts/clients.sh lock GROUP                      re-pins compat-tests/clients/python/GROUP.lock from GROUP.in
#
# Everything lies under ${FLOWMESH_CACHE:-~/.cache/flowmesh}, named by the hash of its lock file: a changed lock is a
# new directory, and clones share them.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
locks=$root/compat-tests/clients
cache=${FLOWMESH_CACHE:-$HOME/.cache/flowmesh}
mkdir -p "$cache"

hash_of() { cat "$@" | sha256sum | cut -c1-12; }
retry() { local n; for n in 1 2 3; do "$@" && return 0; [ "$n" = 3 ] || sleep $((n * 5)); done; return 1; }

# once DIR COMMAND...: run COMMAND with a scratch directory as its last argument, then rename it to DIR; a
# half-made environment is never used, and two runs at a time do not meet.
once() {
  local dir=$1; shift
  if [ ! -d "$dir" ]; then
    exec 8>"$dir.lock"; flock 8
    if [ ! -d "$dir" ]; then
      rm -rf "$dir.part"
      "$@" "$dir.part" >"$dir.log" 2>&1 || { tail -20 "$dir.log" >&2; return 1; }
      mv "$dir.part" "$dir"
    fi
    exec 8>&-
  fi
  printf '%s\n' "$dir"
}

make_venv() { # GROUP DIR; scripts in a venv hold its path, so only `bin/python` is used after the rename
  python3 -m venv "$2" && retry "$2/bin/python" -m pip install -q --no-deps -r "$locks/python/$1.lock"
}
make_node() { mkdir -p "$2" && cp "$locks/$1"/package*.json "$2" && (cd "$2" && retry npm ci --ignore-scripts --no-audit --no-fund); }
make_go() { mkdir -p "$1" && (cd "$locks/go" && CGO_ENABLED=0 retry go build -trimpath -o "$1/client" .); }
make_rust() { retry cargo build -q --locked --manifest-path "$locks/rust/Cargo.toml" --target-dir "$1/target" && mv "$1/target/debug/flowmesh-compat-rust" "$1/client" && rm -r "$1/target"; }
make_jars() { mkdir -p "$2" && retry mvn -q -B -f "$locks/java/$1.pom.xml" dependency:copy-dependencies -DoutputDirectory="$2"; }

case ${1:-} in
  venv) once "$cache/venv-$2-$(hash_of "$locks/python/$2.lock")" make_venv "$2" ;;
  node) set="${2:-node}"; echo "$(once "$cache/$set-$(hash_of "$locks/$set/package-lock.json")" make_node "$set")/node_modules" ;;
  go) echo "$(once "$cache/go-$(hash_of "$locks"/go/go.* "$locks"/go/*.go)" make_go)/client" ;;
  rust) echo "$(once "$cache/rust-$(hash_of "$locks"/rust/Cargo.* "$locks"/rust/src/*.rs)" make_rust)/client" ;;
  jars) once "$cache/jars-$2-$(hash_of "$locks/java/$2.pom.xml")" make_jars "$2" ;;
  all)
    for group in resp amqp kafka cross peers jobs arq aiopika; do "$0" venv $group; done
    "$0" node; "$0" node node-jobs; "$0" node node-amqp; "$0" go; "$0" rust
    for name in kafka-tools rabbitmq-perf-test kafka-broker redis-clients amqp-clients; do "$0" jars $name; done ;;
  lock)
    tmp=$(mktemp -d); trap 'rm -rf "$tmp"' EXIT
    python3 -m venv "$tmp/v" && "$tmp/v/bin/python" -m pip install -q -r "$locks/python/$2.in"
    { echo "# generated from $2.in by scripts/clients.sh lock $2; do not edit"; "$tmp/v/bin/python" -m pip freeze; } >"$locks/python/$2.lock" ;;
  *) sed -n '2,14s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
esac
