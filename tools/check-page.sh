#!/usr/bin/env bash
# Builds the web page anew and compares it with web/page/dist, which is committed so that cargo needs
# no Node; then its types and its unit tests. The folder itself is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."

needed=20.19
if ! command -v npm >/dev/null || ! node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)'; then
    echo "THE PAGE WAS NOT CHECKED: its build needs Node $needed or newer with npm, and here is" \
        "$(node --version 2>/dev/null || echo none)"
    exit 0
fi

copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
tar -C web/page --exclude=./node_modules --exclude=./dist -cf - . | tar -C "$copy" -xf -
(
    cd "$copy"
    npm ci --silent --no-audit --no-fund
    npm run --silent build
) >"$copy.log" 2>&1 || {
    cat "$copy.log" >&2
    rm -f "$copy.log"
    exit 1
}
tail -n 1 "$copy.log"
rm -f "$copy.log"
if ! diff -rq "$copy/dist" web/page/dist; then
    echo "error: web/page/dist is not what its source builds; build it with:  cd web/page && npm ci && npm run build" >&2
    exit 1
fi
(
    cd "$copy"
    npm run --silent check
    # Some tests read files of the repository by their place beside the page.
    npm test --silent
)
