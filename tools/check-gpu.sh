#!/usr/bin/env bash
# `make check-gpu`: builds, and checks on this machine's GPU what only a GPU can show; see
# check_gpu.py. `make check-gpu ARGS="--device cpu"` tries it without one.
set -euo pipefail
cd "$(dirname "$0")/.."
. tools/need-gpu.sh
tools/setup.sh
cargo build --locked --quiet -p darkroom-cli
tools/setup-python.sh
exec .venv/bin/python tools/check_gpu.py --target "${CARGO_TARGET_DIR:-target}/debug" "$@"
