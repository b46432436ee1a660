#!/usr/bin/env bash
# `make chaos`: builds the farm without libtorch, apart from the other builds, and a worker and an
# encoder with it, and breaks all that on purpose. SEED repeats a run; ARGS adds flags of
# darkroom-chaos (`make chaos ARGS=--help` lists them).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
tools/setup-servers.sh
target=${CARGO_TARGET_DIR:-target}
cargo build --locked --quiet -p darkroom-encoder-service -p darkroom-worker
cargo build --locked --quiet --target-dir "$target/chaos" --no-default-features \
    --features darkroom-encoder-service/cluster,darkroom-worker/cluster \
    -p darkroom-chaos -p darkroom-server -p darkroom-encoder-service -p darkroom-worker
seed=()
if [ -n "${RENDER_SEED:-}" ]; then seed=(--seed "$RENDER_SEED"); fi
# shellcheck disable=SC2086 # words are wanted
exec "$target/chaos/debug/darkroom-chaos" --real-binaries "$target/debug" --cascade models/demo "${seed[@]}" ${CHAOS_ARGS:-}
