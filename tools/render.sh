#!/usr/bin/env bash
# `make render`: builds the command line and renders. The request comes in the environment, never
# through a shell's or make's hands, so that a prompt may hold any character.
set -euo pipefail
cd "$(dirname "$0")/.."

if [ -z "${RENDER_PROMPT:-}" ]; then
    printf 'error: PROMPT is empty; say what to draw:  make render PROMPT="a red circle above a blue square"\n' >&2
    exit 2
fi

arguments=(--out "${RENDER_OUT:-renders}")
if [ -n "${RENDER_N:-}" ]; then arguments+=(--images "$RENDER_N"); fi
if [ -n "${RENDER_SEED:-}" ]; then arguments+=(--seed "$RENDER_SEED"); fi
if [ -n "${RENDER_SIZE:-}" ]; then arguments+=(--size "$RENDER_SIZE"); fi
if [ -n "${RENDER_NEGATIVE:-}" ]; then arguments+=("--negative=$RENDER_NEGATIVE"); fi

tools/build-render.sh
exec "${CARGO_TARGET_DIR:-target}/debug/darkroom" render "${arguments[@]}" -- "$RENDER_PROMPT"
