#!/usr/bin/env bash
# `make test`: set-up, lints, then every test. Ends with the test runner's own closing line.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup-servers.sh
tools/lint.sh

# With the seconds since the start: what takes long is seen in any run.
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

step "documentation's examples"
cargo test --locked --workspace --doc --quiet
step "tests"
if command -v cargo-nextest >/dev/null; then
    cargo nextest run --locked --workspace --no-fail-fast
    step "guards taken out"
    cargo nextest run --locked -p darkroom-guards --features failpoints --no-fail-fast
else
    cargo test --locked --workspace --no-fail-fast --lib --bins --tests
    step "guards taken out"
    cargo test --locked -p darkroom-guards --features failpoints --no-fail-fast --tests
fi
