#!/usr/bin/env bash
# Builds the web page anew and compares it with web/page/dist, which is committed so that cargo needs
# no Node; then its types and its unit tests. The folder itself is not touched.
set -euo pipefail
cd "$(dirname "$0")/.."

# The build of the page needs this Node; older ones are common. Then one comes from npm, into the
# build folder.
needed=20.19
own=22.20.0
node_is_new_enough() {
    command -v node >/dev/null &&
        node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 20 || (major === 20 && minor >= 19) ? 0 : 1)'
}
fetch_node() {
    command -v npm >/dev/null || return 1
    local machine folder
    case "$(uname -sm)" in
        'Linux x86_64') machine=linux-x64 ;;
        'Linux aarch64') machine=linux-arm64 ;;
        *) return 1 ;;
    esac
    folder=$(realpath -m "${CARGO_TARGET_DIR:-target}/node-$own")
    if [ ! -x "$folder/node_modules/node-$machine/bin/node" ]; then
        echo "node is $(node --version 2>/dev/null || echo missing); installing $own for the page" >&2
        mkdir -p "$folder"
        npm install --silent --no-audit --no-fund --ignore-scripts --prefix "$folder" \
            "node-$machine@$own" >&2 || return 1
    fi
    PATH="$folder/node_modules/node-$machine/bin:$PATH"
}
if ! command -v npm >/dev/null || ! { node_is_new_enough || { fetch_node && node_is_new_enough; }; }; then
    told="its build needs Node $needed or newer with npm, and here is $(node --version 2>/dev/null || echo none)"
    # Where nobody reads what is printed, a check that does not run must fail.
    if [ -n "${CI:-}" ]; then
        echo "error: the page was not checked: $told" >&2
        exit 1
    fi
    printf '\n!!! THE PAGE WAS NOT CHECKED: %s\n\n' "$told" >&2
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
