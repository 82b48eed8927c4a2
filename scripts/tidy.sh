#!/usr/bin/env bash
# Rules about the tree that no compiler checks. Prints each breach; exit 1 if there is one.
set -uo pipefail
cd "$(dirname "$0")/.." || exit 1
bad=0
breach() { echo "tidy: $*"; bad=1; }

# Nothing outside the repository may be named, nor the places packages come from (brackets keep this file from matching).
hits=$(git grep -nIE '\.\./shar[e]d|\.librar[y]/|/wor[k]/|registry\.npmj[s]|pypi\.or[g]|pythonhoste[d]|static\.crate[s]|proxy\.golan[g]|repo1?\.mave[n]|deb\.debia[n]' -- . ':!Cargo.lock') \
  && breach "names a place outside the repository:"$'\n'"$hits"
hits=$(git grep -nI '"resolved"' -- '*package-lock.json') && breach "package-lock.json names a host:"$'\n'"$hits"
# cargo test does not see a crate outside default-members
members=$(cargo metadata --locked --no-deps --format-version 1 2>/dev/null | python3 -c '
import json, sys
m = json.load(sys.stdin)
extra = set(m["workspace_members"]) - set(m["workspace_default_members"])
print("\n".join(sorted(extra)))')
[ -z "$members" ] || breach "not in default-members: $members"
# Who may know whom: codecs know bytes only, the engine no protocol, the broker no socket, runtime or table engine.
cargo metadata --locked --no-deps --format-version 1 2>/dev/null | python3 -c '
import json, sys
rules = {
    "flowmesh-storage": {"flowmesh-broker", "tokio", "kafka-protocol"},
    "flowmesh-broker": {"tokio", "fjall", "lsm-tree", "socket2", "getrandom", "kafka-protocol"},
    "flowmesh-protocol-resp": {"flowmesh-storage", "flowmesh-broker", "tokio", "fjall"},
    "flowmesh-protocol-amqp": {"flowmesh-storage", "flowmesh-broker", "tokio", "fjall"},
    "flowmesh-protocol-kafka": {"flowmesh-storage", "flowmesh-broker", "tokio", "fjall"},
}
bad = [f"{p['"'name'"']} may not depend on {d['"'name'"']}"
       for p in json.load(sys.stdin)["packages"] for d in p["dependencies"]
       if d["kind"] is None and d["name"] in rules.get(p["name"], ())]
print("\n".join(bad)); sys.exit(bool(bad))' || breach "a crate knows what it must not"
# Past 800 lines ask which two nouns share the file; past 1200 they must part.
while read -r lines file; do
  [ "$file" = total ] || [ "$lines" -le 1200 ] || breach "$file has $lines lines"
done < <(git ls-files '*.rs' '*.py' '*.go' '*.js' | grep -v testdata | xargs -r wc -l)
[ $bad = 0 ] && echo "tidy: clean"
exit $bad
