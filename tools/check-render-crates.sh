#!/usr/bin/env bash
# Checks that the program `make render` builds has gained no crate: each makes everybody's first
# picture later. The crates it may have are listed in tools/render-crates.txt. With --write the list
# is made anew: do that in a commit that says why a crate is worth its time, which `make
# bench-build` measures.
set -euo pipefail
cd "$(dirname "$0")/.."

list=tools/render-crates.txt
export LC_ALL=C
tree=$(cargo tree --locked --edges normal,build --prefix none --format '{p}' -p darkroom-cli)
now=$(cut -d' ' -f1 <<<"$tree" | sort -u)

if [ "${1:-}" = --write ]; then
    printf '%s\n' "$now" >"$list"
    echo "$list names $(wc -l <"$list") crates now."
    exit 0
fi
gained=$(comm -13 "$list" <(printf '%s\n' "$now"))
gone=$(comm -23 "$list" <(printf '%s\n' "$now"))
if [ -n "$gained" ]; then
    printf 'wrong: the program of `make render` has gained %s\n' "$(paste -sd' ' <<<"$gained")" >&2
    printf '       Leave them out of it by a feature, or run %s --write and say why in the commit.\n' "$0" >&2
    exit 1
fi
if [ -n "$gone" ]; then
    printf 'wrong: %s names crates that are gone: %s; run %s --write\n' "$list" "$(paste -sd' ' <<<"$gone")" "$0" >&2
    exit 1
fi
echo "The program of \`make render\` is built from the $(wc -l <"$list") crates that $list names."
