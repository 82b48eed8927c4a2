#!/usr/bin/env bash
# redis-cli: commands, --scan, --pipe, scripts on stdin, big keys; and a short redis-benchmark.
set -uo pipefail
host=${RESP_ADDR%:*} port=${RESP_ADDR##*:}
cli() { redis-cli -h "$host" -p "$port" "$@"; }
step() { echo "> $*"; }

step "ping"; cli ping
cli flushall >/dev/null
step "set and get"; cli set greeting "hello world"; cli get greeting; cli get missing
step "errors"; cli incr greeting; cli nosuch; echo "exit $?"
step "RESP3"; cli -3 hset h a 1 b 2; cli -3 hgetall h; cli -3 zadd z 1.5 m; cli -3 zrange z 0 -1 withscores; cli -3 smembers none
step "commands on stdin"; printf 'multi\nset a 1\nincr a\nexec\nlrange none 0 -1\n' | cli
step "argument from stdin"; printf 'from\nstdin' | cli -x set x; cli --no-raw get x
step "--pipe with 100000 commands"
python3 - <<'PY' | cli --pipe 2>&1 | grep -E 'errors|replies'
import sys
out = []
for i in range(100000):
    key, value = f"pipe:{i}", f"value-{i}"
    out.append(f"*3\r\n$3\r\nSET\r\n${len(key)}\r\n{key}\r\n${len(value)}\r\n{value}\r\n")
sys.stdout.write("".join(out))
PY
step "dbsize"; cli dbsize; cli get pipe:99999
step "--scan finds each of them"; cli --scan --pattern 'pipe:*' | sort -u | wc -l
step "--scan with a pattern"; cli --scan --pattern 'pipe:1234?' | sort
step "--bigkeys runs"; cli --bigkeys 2>&1 | grep -c 'strings with'
step "what help says of arguments"
for command in get mset zadd blmove bitfield "xgroup create" xread sort geoadd "script load" fcall "function restore" hexpire eval ping; do
  # shellcheck disable=SC2086 # two words of a name
  cli help $command | sed -n '2s/\x1b\[[0-9;]*m//gp'
done
step "repeat"; cli -r 3 incr counter
step "csv"; cli rpush l 1 two 'th"ree' >/dev/null; cli --csv lrange l 0 -1
step "database"; cli -n 3 set only3 x; cli -n 3 get only3; cli get only3
step "url"; redis-cli -u "redis://$host:$port/3" get only3
step "blocking with timeout"; cli blpop nolist 0.05
step "redis-benchmark"
redis-benchmark -h "$host" -p "$port" -n 20000 -P 16 -q -t ping,set,get,incr,lpush,rpop,sadd,hset,spop,zadd,zpopmin,lrange_100,mset 2>&1 | tr '\r' '\n' | sed -nE 's/: [0-9.]+ requests per second.*//p' | sort -u
