#!/usr/bin/env bash
# `make bench-texts`: distinct prompts (BENCH_IMAGES, 1,000,000) through the demo cascade's encoder
# in a farm of real processes; some minutes, and a few GB of disk at a time. Prints a table;
# tools/bench-farm/texts.py says more.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
tools/setup-servers.sh
cargo build --locked --quiet -p darkroom-server -p darkroom-encoder-service -p darkroom-cli -p darkroom-bench
BENCH_BIN="${CARGO_TARGET_DIR:-$PWD/target}/debug" BENCH=texts exec python3 tools/bench-farm/bench.py
