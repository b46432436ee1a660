#!/usr/bin/env bash
# `make bench-encoder`: builds, sets up transformers beside it, measures both on this machine,
# prints one table.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
cargo build --locked --quiet -p darkroom-diffusion --example time_encoder
tools/setup-python.sh
exec .venv/bin/python tools/bench_encoder.py --binary "${CARGO_TARGET_DIR:-target}/debug/examples/time_encoder" "$@"
