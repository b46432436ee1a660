#!/usr/bin/env bash
# `make bench-cascade`: builds, sets up diffusers beside it, measures both on this machine, prints
# tables.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
cargo build --locked --quiet -p darkroom-cli
cargo build --locked --quiet -p darkroom-diffusion --example time_stages
tools/setup-python.sh
exec .venv/bin/python tools/bench_cascade.py --target "${CARGO_TARGET_DIR:-target}/debug" "$@"
