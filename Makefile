# Each target calls what it needs; nothing here writes to the tree except `fix`, `peers` and `docs`.
SHELL := /bin/bash
CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
BIN = $(abspath $(CARGO_TARGET_DIR))

.PHONY: help dev build test gate matrix lint fix bench peers soak fuzz docs setup verify
help: ## list the targets
	@sed -n 's/^\([a-z]*\):.*## /\1\t/p' Makefile

dev: ## build and serve all three protocols from .flowmesh/
	cargo run --profile ci -- dev
build: ## the optimised binary: target/release/flowmesh
	cargo build --release --bin flowmesh
test: ## everything CI runs after lint: both lanes, the second also when the first failed
	@rc=0; for lane in gate matrix; do scripts/lane.sh $$lane || rc=1; done; exit $$rc
gate: ## unit and engine tests, crash runs, one client per ecosystem
	scripts/lane.sh gate
matrix: ## more clients, live peers
	scripts/lane.sh matrix
lint: ## format, clippy, shellcheck, tidy
	scripts/lane.sh lint
fix: ## rewrite what lint can rewrite
	cargo fmt --all
	cargo clippy --profile ci --workspace --all-targets --fix --allow-dirty --allow-staged
bench: ## FlowMesh beside each peer, in alternation -> docs/BENCHMARKS.md
	cargo build --release --bin flowmesh
	python3 bench/run.py
peers: ## record the goldens from the real peers
	scripts/dev-setup.sh packages
	python3 compat-tests/run.py record
soak: ## the long runs: kills, crashes, loads (hours)
	scripts/lane.sh soak
fuzz: ## each decoder, nightly toolchain; SECONDS_EACH=60
	fuzz/run.sh
docs: ## regenerate docs/COMPATIBILITY.md and docs/CONFIGURATION.md from the binary
	cargo build --profile ci --bin flowmesh
	scripts/docs.py "$(BIN)/ci/flowmesh" write
setup: ## install what this machine lacks
	scripts/dev-setup.sh
verify: ## say what this machine lacks
	scripts/verify.sh
