#!/usr/bin/env bash
# `make bench-farm`: how far the farm goes on this machine, with workers that do nothing or sleep,
# on Postgres and Redis with durable settings. Prints tables; tools/bench-farm/bench.py says which,
# and how to choose some of them.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup-servers.sh
target=${CARGO_TARGET_DIR:-$PWD/target}
cargo build --locked --quiet --release --no-default-features \
    --features darkroom-encoder-service/cluster,darkroom-worker/cluster \
    -p darkroom-server -p darkroom-encoder-service -p darkroom-worker -p darkroom-cli -p darkroom-bench
BENCH_BIN="$target/release" exec python3 tools/bench-farm/bench.py
