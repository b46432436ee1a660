#!/usr/bin/env bash
# `make bench-sampling`: builds, sets up the scorer's Python, renders captions with other settings,
# scores them, prints one table.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
cargo build --locked --quiet -p darkroom-cli
tools/setup-python.sh
exec .venv/bin/python tools/bench_sampling.py --binary "${CARGO_TARGET_DIR:-target}/debug/darkroom" "$@"
