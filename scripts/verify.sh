#!/usr/bin/env bash
# Say what this machine lacks for building and testing FlowMesh, and how to get it. Changes nothing; exit 1 if something is missing.
set -u
missing=0
need() { # need WHAT HOW-TO-GET COMMAND...
  local what=$1 how=$2; shift 2
  if "$@" >/dev/null 2>&1; then printf 'ok       %s\n' "$what"; else printf 'missing  %-28s %s\n' "$what" "$how"; missing=1; fi
}
has() { command -v "$1" || [ -x "/usr/sbin/$1" ]; }
setup='scripts/dev-setup.sh'
root=$(cd "$(dirname "$0")/.." && pwd)
channel=$(sed -n 's/^channel = "\(.*\)"/\1/p' "$root/rust-toolchain.toml")
need "Rust $channel" "install rustup; it reads rust-toolchain.toml" sh -c "cd '$root' && cargo --version | grep -qF $channel"
need "rustfmt, clippy" "rustup component add rustfmt clippy" sh -c "cd '$root' && cargo fmt --version && cargo clippy --version"
need "C compiler" "$setup" has cc
need "shellcheck" "$setup" has shellcheck
need "redis-cli, redis-benchmark" "$setup" has redis-benchmark
need "kcat" "$setup" has kcat
need "amqp-tools" "$setup" has amqp-publish
need "Sidekiq (with Ruby)" "$setup" has sidekiq
need "Laravel's queue (with PHP)" "$setup" php -r 'require "Illuminate/Queue/autoload.php"; extension_loaded("redis") || exit(1);'
need "prometheus-redis-exporter" "$setup" has prometheus-redis-exporter
need "Python 3.10+ with venv" "$setup" python3 -c 'import sys, venv, ensurepip; assert sys.version_info >= (3, 10)'
need "Node.js 20+" "$setup; Debian 12 has 18, and ioredis asks for 20" node -e 'process.exit(+(parseInt(process.versions.node) < 20))'
need "npm" "$setup" has npm
# Older ones do not understand the go.mod, and so cannot fetch the version that it names.
need "Go 1.21+" "$setup; Debian 12 has 1.19, its backports a newer one" sh -c 'go version | awk "{ split(\$3, v, /[.a-z]+/); exit !(v[2] > 1 || v[3] >= 21) }"'
need "JDK 17+" "$setup" has javac
need "Maven" "$setup" has mvn
need "RabbitMQ (only as a peer)" "$setup" has rabbitmq-server
need "FUSE (power-cut tests)" "$setup; /dev/fuse must exist and be readable" test -r /dev/fuse -a -w /dev/fuse
need "fusermount3" "$setup" has fusermount3
[ $missing = 0 ] && echo "all there" || echo "something is missing: run $setup"
exit $missing
