#!/usr/bin/env bash
# `make bench-render`: builds, sets up diffusers beside it, measures both on this machine, prints one table.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
cargo build --locked --quiet -p darkroom-cli
tools/setup-python.sh
exec python3 tools/bench_render.py --binary "${CARGO_TARGET_DIR:-target}/debug/darkroom" "$@"
