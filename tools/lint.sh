#!/usr/bin/env bash
# Everything that is checked without running the code: formatting, clippy, rustdoc, the house's
# arrows, and licences and sources of dependencies where cargo-deny is installed.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh

# With the seconds since the start: what takes long is seen in any run.
step() { printf '\n== %s (%d s)\n' "$*" "$SECONDS"; }

step "formatting"
cargo fmt --all --check
step "the house's arrows"
tools/check-no-libtorch.sh
tools/check-no-failpoints.sh
tools/check-no-suites.sh
tools/check-render-crates.sh
# Every crate but darkroom-diffusion.
for crate in artifacts bench chaos cli coordinator core encoder-service farm-api fuzz guards member \
    prompts proto queue runtime server test-servers tests web worker; do
    tools/count-import-cycles.py --crate "darkroom-$crate" --at-most 0
done
step "the page"
tools/check-page.sh
step "clippy"
# With the features of `make test`, so that the guards' tests are checked too.
all=(--locked --workspace --features darkroom-guards/failpoints)
cargo clippy "${all[@]}" --all-targets -- -D warnings
step "clippy, client without libtorch"
cargo clippy --locked -p darkroom-cli --no-default-features --all-targets -- -D warnings
# Apart from the client: `darkroom-worker/cluster` beside it would give it the embedded farm.
step "clippy, services without libtorch"
cargo clippy --locked -p darkroom-worker -p darkroom-encoder-service --no-default-features \
    --features cluster --all-targets -- -D warnings
step "clippy, the program of make render"
cargo clippy --locked -p darkroom-cli -- -D warnings
step "documentation"
RUSTDOCFLAGS="-D warnings" cargo doc "${all[@]}" --no-deps --quiet
step "dependencies"
if command -v cargo-deny >/dev/null; then
    # It reads the crates of every platform, and a build fetches only this one's.
    cargo fetch --locked --quiet
    cargo deny --offline check bans licenses sources
    # Their database comes from elsewhere, which not every machine reaches. Then nobody has looked.
    if timeout 120 cargo deny fetch db; then
        cargo deny --offline check advisories
    else
        echo "ADVISORIES WERE NOT CHECKED: their database (github.com/rustsec/advisory-db) cannot be" \
            "fetched here; run \`cargo deny check advisories\` where the net allows it"
    fi
else
    echo "cargo-deny is not installed; licences, sources and ADVISORIES WERE NOT CHECKED" \
        "(install it with: cargo install --locked cargo-deny)"
fi
