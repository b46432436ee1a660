#!/usr/bin/env bash
# Sets up `.venv` for the Python side: training the demo cascade, reference traces, and diffusers to
# measure against. Nothing of it is needed to render.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(cat tools/train-demo/requirements.txt)
if [ "$(cat .venv/complete 2>/dev/null)" = "$wanted" ]; then exit 0; fi
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    printf 'error: python3 has no venv.\n       install it with:  %sapt-get install -y python3-venv\n' \
        "$([ "$(id -u)" -eq 0 ] || printf 'sudo ')" >&2
    exit 1
fi
echo "Setting up Python in .venv (torch, diffusers and transformers; several GB, once) ..."
[ -x .venv/bin/python ] || python3 -m venv .venv
.venv/bin/python -m pip install --quiet --disable-pip-version-check -r tools/train-demo/requirements.txt
printf '%s' "$wanted" >.venv/complete
