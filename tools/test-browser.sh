#!/usr/bin/env bash
# Tests the web page in a real browser: the short flows, or the full tour with --slow (every page
# through axe, and jobs of 100,000 and of a million images). Each test starts a farm of its own from the program
# `darkroom`, which has the page inside: DARKROOM_BIN, or the one that cargo built last.
# --screenshots makes the README's screenshots instead (`make screenshots`).
set -euo pipefail
cd "$(dirname "$0")/.."

tour=flows.mjs
case "${1:-}" in
    '') ;;
    --slow) tour=slow.mjs ;;
    --screenshots)
        tour=screenshots.mjs
        export DARKROOM_SCREENSHOTS=1
        ;;
    *)
        echo "error: unknown argument $1; accepted: --slow, --screenshots" >&2
        exit 2
        ;;
esac

DARKROOM_BIN=$(realpath -m "${DARKROOM_BIN:-${CARGO_TARGET_DIR:-target}/debug/darkroom}")
export DARKROOM_BIN
if [ ! -x "$DARKROOM_BIN" ]; then
    echo "error: there is no program $DARKROOM_BIN; build it with:  cargo build --bin darkroom" >&2
    exit 1
fi
# Otherwise the page that was built last would be thought tested.
for file in web/page/dist/assets/*.js; do
    if ! grep -qaF "$(basename "$file")" "$DARKROOM_BIN"; then
        echo "error: $DARKROOM_BIN has an older page than web/page/dist; build it again:  cargo build --bin darkroom" >&2
        exit 1
    fi
done
tools/setup-browser.sh

cd tests/browser
run() { node --test-reporter=./support/times.mjs "$1"; }
run "$tour"
