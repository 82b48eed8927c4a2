#!/usr/bin/env bash
# Makes the data directories that cross/upgrade opens, with the server of a commit (default: origin's main, else main):
#   scripts/upgrade-fixture.sh [COMMIT]
# They are named after the commit. To be run after a version has landed; older ones stay as long as their format is read.
set -euo pipefail
root=$(cd "$(dirname "$0")/.." && pwd)
commit=$(git -C "$root" rev-parse --short=7 "${1:-main}")
tree=$(mktemp -d)
trap 'git -C "$root" worktree remove --force "$tree"' EXIT
git -C "$root" worktree add --quiet --detach "$tree" "$commit"
target=${CARGO_TARGET_DIR:-$root/target}
(cd "$tree" && CARGO_TARGET_DIR="$target" cargo build --locked --profile ci --workspace --bins)
cp "$target/ci/flowmesh" "$tree/flowmesh"
mkdir -p "$root/compat-tests/fixtures"
python=$("$root/scripts/clients.sh" venv cross)/bin/python
FLOWMESH_BIN=$tree/flowmesh PYTHONPATH=$root/compat-tests "$python" "$root/compat-tests/cross/upgrade.py" write "$root/compat-tests/fixtures/$commit.tar.xz"
