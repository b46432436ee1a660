#!/usr/bin/env bash
# Checks that suites of tests are in tests/suites alone: no crate that ships has a module, file or
# feature called `conformance`, and none of them is built from a crate of tests.
set -euo pipefail
cd "$(dirname "$0")/.."

wrong=0
complain() { # complain WHAT LINES
    [ -z "$2" ] && return
    printf 'wrong: %s:\n%s\n' "$1" "$2" >&2
    wrong=1
}

tree() { cargo tree --locked --prefix none --format '{p}' "$@" | cut -d' ' -f1 | sort -u; }

test_crates='darkroom-(suites|test-servers|tests|guards|chaos|fuzz)'
crates=0
for manifest in */Cargo.toml; do
    folder=$(dirname "$manifest")
    case $folder in tests | fuzz) continue ;; esac
    crates=$((crates + 1))
    complain "a file of $folder is called conformance" "$(find "$folder/src" -name '*conformance*')"
    complain "$folder has a module called conformance" \
        "$(grep -rnE '^\s*(pub(\([a-z]+\))? )?mod \w*conformance' "$folder/src" || true)"
    complain "$folder has a feature called conformance" \
        "$(grep -nE '^[a-z0-9_-]*conformance[a-z0-9_-]* *=|"[^"]*conformance[^"]*"' "$manifest" || true)"
    crate=$(sed -n 's/^name = "\(darkroom-[a-z-]*\)"$/\1/p' "$manifest" | head -n 1)
    built_from=$(tree --edges normal,build -p "$crate" --all-features) || exit 1
    complain "$crate is built from a crate of tests" "$(grep -xE "$test_crates" <<<"$built_from" || true)"
done
# That the look sees anything at all.
seen=$(tree --edges normal,dev -p darkroom-queue)
if [ "$crates" -lt 10 ] || ! grep -qx darkroom-suites <<<"$seen"; then
    echo "wrong: the look at $crates crates does not see what is there" >&2
    exit 1
fi
[ "$wrong" -eq 0 ] || exit 1
echo "No suite of tests is in what ships."
