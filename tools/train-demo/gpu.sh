#!/bin/sh
# Trains the demo cascade on one NVIDIA card and scores it there: `tools/train-demo/gpu.sh OUT
# [SECONDS [options of train.py]]`. The cascade goes to OUT, checkpoints to OUT.state (or $STATE),
# the scores to OUT.scores. DEVICE=cpu rehearses it.
set -eu
cd "$(dirname "$0")/../.."
out="${1:?the folder for the cascade}"
seconds="${2:-300}"
[ $# -lt 2 ] && shift $# || shift 2
python="${PYTHON:-$([ -x .venv/bin/python ] && echo .venv/bin/python || echo python3)}"
device="${DEVICE:-cuda}"
export PYTHONUNBUFFERED=1

"$python" tools/train-demo/train.py --device "$device" --seconds "$seconds" --text-from "${TEXT:-models/demo/text_encoder}" \
    --state "${STATE:-$out.state}" --out "$out" "$@"

# Both at once; whatever they cost, they end.
score() {
    timeout "${SCORE_SECONDS:-60}" "$python" tools/train-demo/score.py --count "$2" --judges "${JUDGES:-7}" render "$out" \
        --stage "$1" --device "$device" --batch "$2" > "$out.$1.score" 2> "$out.$1.errors" || { cat "$out.$1.errors"; echo "$1 was not scored"; }
}
score sr1024 "${LARGE:-24}" &
score sr256 "${SMALL:-200}"
wait
cat "$out.sr256.score" "$out.sr1024.score" | tee "$out.scores"
