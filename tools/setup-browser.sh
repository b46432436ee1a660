#!/usr/bin/env bash
# Installs what the browser tests stand on, where it is missing: Chromium, Node (18.19 or newer) and
# npm from the system's packages, and the two libraries of tests/browser. As root it installs the
# packages, else it names the line that does. With DARKROOM_SCREENSHOTS=1 it also
# installs ImageMagick.
set -euo pipefail
cd "$(dirname "$0")/.."

node_is_new_enough() {
    command -v node >/dev/null &&
        node -e 'const [major, minor] = process.versions.node.split(".").map(Number); process.exit(major > 18 || (major === 18 && minor >= 19) ? 0 : 1)'
}

missing=()
[ -n "${CHROMIUM:-}" ] || command -v chromium >/dev/null || command -v chromium-browser >/dev/null || missing+=(chromium)
node_is_new_enough || missing+=(nodejs)
command -v npm >/dev/null || missing+=(npm)
[ "${DARKROOM_SCREENSHOTS:-}" != 1 ] || command -v convert >/dev/null || missing+=(imagemagick)
if [ "${#missing[@]}" -gt 0 ]; then
    if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
        printf 'error: %s is not installed.\n       install it with:  sudo apt-get install -y --no-install-recommends %s\n' \
            "${missing[*]}" "${missing[*]}" >&2
        exit 1
    fi
    echo "installing ${missing[*]}" >&2
    export DEBIAN_FRONTEND=noninteractive
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || {
        apt-get update -qq
        apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
    }
fi
node_is_new_enough || {
    echo "error: node is $(node --version), and the browser tests need 18.19 or newer" >&2
    exit 1
}

# npm writes node_modules/.package-lock.json last.
cd tests/browser
if [ node_modules/.package-lock.json -ot package-lock.json ]; then
    npm ci --silent --no-audit --no-fund
    touch node_modules/.package-lock.json
fi
