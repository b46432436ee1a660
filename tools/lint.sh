#!/usr/bin/env bash
# Everything that is checked without running the code: formatting, clippy, rustdoc, the house's arrows, and
# licences and sources of dependencies where cargo-deny is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh

step() { printf '\n== %s\n' "$*"; }

step "formatting"
cargo fmt --all --check
step "the house's arrows"
tools/check-no-libtorch.sh
tools/check-no-failpoints.sh
step "clippy"
cargo clippy --locked --workspace --all-targets -- -D warnings
step "clippy, client and services without libtorch"
cargo clippy --locked -p darkroom-cli -p darkroom-worker -p darkroom-encoder-service --no-default-features --all-targets -- -D warnings
step "clippy, the guards' tests"
cargo clippy --locked -p darkroom-guards --features failpoints --all-targets -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc --locked --workspace --no-deps --quiet
step "dependencies"
if command -v cargo-deny >/dev/null; then
    # It reads the crates of every platform, and a build fetches only this one's.
    cargo fetch --locked --quiet
    cargo deny --offline check bans licenses sources
else
    echo "cargo-deny is not installed; skipped (install it with: cargo install --locked cargo-deny)"
fi
