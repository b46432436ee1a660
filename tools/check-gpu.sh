#!/usr/bin/env bash
# `make check-gpu`: builds, and checks on this machine's GPU what only a GPU can show; see check_gpu.py.
# `make check-gpu ARGS="--device cpu"` tries it without one.
set -euo pipefail
cd "$(dirname "$0")/.."
case " $* " in
    *" --device cpu "*) ;;
    *)
        if [ ! -e /proc/driver/nvidia/version ] && ! command -v nvidia-smi >/dev/null; then
            echo 'error: this machine has no NVIDIA driver; ARGS="--device cpu" tries the script without a GPU.' >&2
            exit 1
        fi
        ;;
esac
tools/setup.sh
cargo build --locked --quiet -p darkroom-cli
tools/setup-python.sh
exec .venv/bin/python tools/check_gpu.py --target "${CARGO_TARGET_DIR:-target}/debug" "$@"
