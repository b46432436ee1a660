#!/usr/bin/env bash
# Checks with `cargo tree` that the feature `failpoints` is on neither in the workspace as cargo builds
# it by itself nor in any program alone. Only `make test` and `make lint` turn it on.
set -euo pipefail
cd "$(dirname "$0")/.."

features() { # features FLAGS...: every crate of a build with its features.
    cargo tree --locked --edges normal,build,dev --prefix none --no-dedupe --format '{p} [{f}]' "$@" | sort -u
}

without() { # without FLAGS...
    local found
    found=$(features "$@") || exit 1
    if grep -F failpoints <<<"$found"; then
        echo "wrong: guards can be taken out of what 'cargo build $*' makes" >&2
        exit 1
    fi
}

without --workspace
for crate in darkroom-cli darkroom-server darkroom-encoder-service darkroom-worker; do
    without -p "$crate"
done
# That the look sees anything at all.
seen=$(features -p darkroom-guards --features failpoints)
if ! grep -q '^darkroom-core .*failpoints' <<<"$seen"; then
    echo "wrong: the feature is not seen where it is on" >&2
    exit 1
fi
echo "No guard can be taken out of what is built."
