#!/usr/bin/env bash
# amqp-tools (librabbitmq, C): publish, get, consume, declare, delete.
set -uo pipefail
url="amqp://guest:guest@$AMQP_ADDR/%2F"
step() { echo "> $*"; }
step "declare"; amqp-declare-queue -u "$url" -q tools.q -d
step "publish and get"; amqp-publish -u "$url" -r tools.q -p -b 'hello'; amqp-get -u "$url" -q tools.q; echo " exit $?"
step "get from an empty queue"; amqp-get -u "$url" -q tools.q; echo "exit $?"
step "lines"; printf 'one\ntwo\nthree\n' | amqp-publish -u "$url" -r tools.q -l
step "consume three"; amqp-consume -u "$url" -q tools.q -c 3 cat
step "binding"; amqp-consume -u "$url" -q tools.bound -e amq.topic -r 'a.#' -c 1 cat >/tmp/amqp-tools.$$ 2>&1 & consumer=$!
for _ in $(seq 100); do amqp-publish -u "$url" -e amq.topic -r a.b.c -b "bound" 2>/dev/null; kill -0 $consumer 2>/dev/null || break; sleep 0.05; done
wait $consumer; head -c 5 /tmp/amqp-tools.$$; echo; rm -f /tmp/amqp-tools.$$
step "missing queue"; amqp-get -u "$url" -q tools.missing 2>&1 | sed 's/^[^:]*: *//'; echo "exit ${PIPESTATUS[0]}"
step "delete"; amqp-delete-queue -u "$url" -q tools.q
