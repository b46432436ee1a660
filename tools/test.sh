#!/usr/bin/env bash
# `make test`: set-up, lints, then every test. Ends with the table of the browser tests, after the
# test runner's own closing line.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup-servers.sh
tools/setup-clients.sh
tools/lint.sh

# With the seconds since the start: what takes long is seen in any run.
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

# With the guards' tests, which can take guards out; nothing else does. Built apart, they would have
# the coordinator, and all that it stands on, compiled a second time.
tests=(--locked --workspace --features darkroom-guards/failpoints)
if grep -rEq --include='*.rs' '^ *//[/!] *```' --exclude-dir=target .; then
    step "documentation's examples"
    cargo test "${tests[@]}" --doc --quiet
fi
step "building the tests"
cargo build "${tests[@]}" --quiet --bin with-postgres
with_postgres=${CARGO_TARGET_DIR:-target}/debug/with-postgres
if command -v cargo-nextest >/dev/null; then
    cargo nextest run "${tests[@]}" --no-run
    step "tests"
    "$with_postgres" cargo nextest run "${tests[@]}" --no-fail-fast
else
    "$with_postgres" cargo test "${tests[@]}" --no-fail-fast --lib --bins --tests
fi
step "the page in a browser"
tools/test-browser.sh
