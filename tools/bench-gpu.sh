#!/usr/bin/env bash
# `make bench-gpu`: builds, sets up diffusers beside it, measures both on this machine's GPU.
# `make bench-gpu ARGS="--device cpu --images 1 --no-compile"` tries it without one.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/need-gpu.sh
tools/setup.sh
cargo build --locked --quiet -p darkroom-diffusion --example time_stages
tools/setup-python.sh
exec .venv/bin/python tools/bench_gpu.py --target "${CARGO_TARGET_DIR:-target}/debug" "$@"
