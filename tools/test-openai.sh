#!/usr/bin/env bash
# The long tests of OpenAI's API (the class `Patience` of tests/openai): OpenAI's client against a
# farm of its own, each of whose steps takes three seconds. The program is DARKROOM_BIN, or the one
# that cargo built last.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(realpath -m "${DARKROOM_BIN:-${CARGO_TARGET_DIR:-target}/debug/darkroom}")
if [ ! -x "$bin" ]; then
    echo "error: there is no program $bin; build it with:  cargo build --bin darkroom" >&2
    exit 1
fi
tools/setup-clients.sh

folder=$(mktemp -d)
farm=
finish() {
    if [ -n "$farm" ]; then
        kill "$farm" 2>/dev/null || true
        wait "$farm" 2>/dev/null || true
    fi
    rm -rf "$folder"
}
trap finish EXIT
"$bin" up --json --open --listen 127.0.0.1:0 --state "$folder/state" --cascade models/demo \
    --renderer fake --fake-step-ms 3000 >"$folder/told" 2>"$folder/log" &
farm=$!
# It says where it listens once it serves.
until [ -s "$folder/told" ]; do
    kill -0 "$farm" 2>/dev/null || {
        cat "$folder/log" >&2
        exit 1
    }
    sleep 0.1
done
python=$PWD/.clients/bin/python
address=$(head -n 1 "$folder/told" | "$python" -c 'import json, sys; print(json.load(sys.stdin)["address"])')
cd tests/openai
DARKROOM_SLOW=1 DARKROOM_URL="http://$address" "$python" -B -m unittest -v test_images.Patience || {
    cat "$folder/log" >&2
    exit 1
}
