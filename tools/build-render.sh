#!/usr/bin/env bash
# Builds the program that `make render` runs. libtorch is fetched while the crates that do not need
# it compile: the C++ compiler (tools/compilers/c++) and diffusion/build.rs wait until the fetch has
# ended.
set -euo pipefail
cd "$(dirname "$0")/.."

tools/setup.sh --checks-only
if [ ! -e "${CARGO_TARGET_DIR:-target}/debug/darkroom" ]; then
    echo "Building darkroom (the first time takes a few minutes; cargo tells how far it is) ..."
fi
quiet=()
if [ ! -t 2 ]; then quiet=(--quiet); fi
build=(cargo build --locked "${quiet[@]}" -p darkroom-cli)

if tools/setup-libtorch.sh --is-complete; then
    exec "${build[@]}"
fi
log=$(mktemp)
tools/setup-libtorch.sh >"$log" 2>&1 </dev/null &
fetch=$!
trap 'rm -f "$log"; kill "$fetch" 2>/dev/null || true' EXIT
echo "Fetching libtorch beside it (about 600 MB, 1.2 GB on disk, once) ..."
built=0
PATH="$PWD/tools/compilers:$PATH" DARKROOM_FETCH_PID=$fetch "${build[@]}" || built=$?
# What the fetch says is told last: without libtorch, the compiler's errors only follow from it.
wait "$fetch" || { cat "$log" >&2; exit 1; }
grep '^warning:' "$log" >&2 || true
exit "$built"
