#!/usr/bin/env bash
# `make fuzz`: tries every target with mutated inputs, and stops at the first that breaks a promise.
# COUNT is the number of inputs per target (200,000), SEED makes other inputs, ARGS adds arguments
# of darkroom-fuzz (`make fuzz ARGS=--help` lists them; `ARGS='run prompts cascades'` tries two
# targets).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
target=${CARGO_TARGET_DIR:-target}
cargo build --locked --quiet --profile fuzz -p darkroom-fuzz
# Words as a shell would read them: a path may have blanks.
words=()
if [ -n "${FUZZ_ARGS:-}" ]; then eval "words=($FUZZ_ARGS)"; fi
case "${words[0]:-}" in
    '' | -*) words=(run "${words[@]}") ;;
esac
if [ "${words[0]}" = run ]; then
    if [ -n "${FUZZ_COUNT:-}" ]; then words+=(--count "$FUZZ_COUNT"); fi
    if [ -n "${RENDER_SEED:-}" ]; then words+=(--seed "$RENDER_SEED"); fi
fi
exec "$target/fuzz/darkroom-fuzz" "${words[@]}"
