#!/usr/bin/env bash
# `tools/check-spiece.sh FILE`: whether a spiece.model, T5's own say, gives the ids of Python's
# sentencepiece on hostile texts, whole and cut. Installs that library alone into
# .darkroom/sentencepiece once.
set -euo pipefail
[ -f "${1-}" ] || { echo "usage: tools/check-spiece.sh FILE, a spiece.model" >&2; exit 2; }
model=$(realpath "$1")
cd "$(dirname "$0")/.."
tools/setup.sh

python=.darkroom/sentencepiece
wanted=$(grep '^sentencepiece==' tools/reference/requirements.txt)
if [ "$(cat "$python/complete" 2>/dev/null)" != "$wanted" ]; then
    python3 -m venv --clear "$python"
    "$python/bin/python" -m pip install --quiet --disable-pip-version-check "$wanted"
    printf '%s' "$wanted" >"$python/complete"
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"$python/bin/python" tools/reference/spiece_ids.py "$model" "$folder/ids.json"
DARKROOM_SPIECE=$model DARKROOM_SPIECE_IDS=$folder/ids.json cargo test --locked --quiet -p darkroom-diffusion --lib -- \
    --exact tokenizer::tests::a_supplied_sentencepiece_model_gives_the_ids_of_the_library | tee "$folder/result"
# A name that no test has passes too.
grep -q '1 passed' "$folder/result" || { echo "error: the test did not run" >&2; exit 1; }
echo "The ids are those of $wanted."
