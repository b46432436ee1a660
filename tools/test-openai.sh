#!/usr/bin/env bash
# The long tests of OpenAI's API, each class against a farm of its own: `Patience` of tests/openai,
# where a step takes three seconds, and `Large`, a batch of 50,000 requests. The program is
# DARKROOM_BIN, or the one that cargo built last.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$(realpath -m "${DARKROOM_BIN:-${CARGO_TARGET_DIR:-target}/debug/darkroom}")
if [ ! -x "$bin" ]; then
    echo "error: there is no program $bin; build it with:  cargo build --bin darkroom" >&2
    exit 1
fi
tools/setup-clients.sh

folder=$(mktemp -d)
python=$PWD/.clients/bin/python
farm=
finish() {
    if [ -n "$farm" ]; then
        kill "$farm" 2>/dev/null || true
        wait "$farm" 2>/dev/null || true
    fi
    farm=
    rm -rf "$folder"
}
trap finish EXIT

run() { # run CLASS FLAG...: the class against a farm with these flags.
    local class=$1 address
    shift
    mkdir -p "$folder"
    "$bin" up --json --open --listen 127.0.0.1:0 --state "$folder/state" --cascade models/demo \
        --renderer fake "$@" >"$folder/told" 2>"$folder/log" &
    farm=$!
    # It says where it listens once it serves.
    until [ -s "$folder/told" ]; do
        kill -0 "$farm" 2>/dev/null || {
            cat "$folder/log" >&2
            exit 1
        }
        sleep 0.1
    done
    address=$(head -n 1 "$folder/told" | "$python" -c 'import json, sys; print(json.load(sys.stdin)["address"])')
    (cd tests/openai && DARKROOM_SLOW=1 DARKROOM_URL="http://$address" "$python" -B -m unittest -v "$class") || {
        cat "$folder/log" >&2
        exit 1
    }
    finish
}
run test_images.Patience --fake-step-ms 3000
run test_batches.Large
