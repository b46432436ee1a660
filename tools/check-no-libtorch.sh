#!/usr/bin/env bash
# Checks the house's arrows with `cargo tree`: what must build without libtorch does, core stands on
# nothing of ours and diffusion on core alone, and services never import each other. Prints every
# arrow that should not be there.
set -euo pipefail
cd "$(dirname "$0")/.."

wrong=0

tree() { # tree CRATE [FLAGS]: names of all crates it is built from, itself apart.
    local crate=$1 lines
    shift
    lines=$(cargo tree --locked --edges normal,build --prefix none --format '{p}' -p "$crate" "$@") || return 1
    cut -d' ' -f1 <<<"$lines" | sort -u | grep -vx "$crate"
}

without() { # without CRATE FORBIDDEN [FLAGS]
    local crate=$1 forbidden=$2 found
    shift 2
    found=$(tree "$crate" "$@") || { echo "error: cargo tree failed for $crate" >&2; exit 1; }
    found=$(grep -xE "$forbidden" <<<"$found" || true)
    if [ -n "$found" ]; then
        printf 'wrong: %s %s depends on %s\n' "$crate" "$*" "$(echo "$found" | paste -sd' ')" >&2
        wrong=1
    fi
}

torch='tch|torch-sys|darkroom-diffusion'
for crate in darkroom-core darkroom-prompts darkroom-proto darkroom-queue darkroom-artifacts darkroom-runtime darkroom-member darkroom-farm-api darkroom-web darkroom-coordinator darkroom-server; do
    without "$crate" "$torch"
done
for crate in darkroom-worker darkroom-encoder-service darkroom-cli; do
    without "$crate" "$torch" --no-default-features
done

# The ground floor.
without darkroom-core 'darkroom-.*|tokio|sqlx|tonic|tch'
without darkroom-diffusion 'darkroom-(artifacts|proto|prompts|queue|runtime|member|farm-api|web|coordinator|server|worker|encoder-service|cli)|tokio|tonic|sqlx'
# Prompt files are read without a network, a database, or anything of ours but the core.
without darkroom-prompts 'darkroom-(artifacts|proto|queue|runtime|member|diffusion|farm-api|web|coordinator|server|worker|encoder-service|cli)|tokio|tonic|hyper|sqlx'
# Arrows point downward.
without darkroom-proto 'darkroom-(artifacts|queue|runtime|farm-api|web|coordinator|server|worker|encoder-service|cli)'
# Who serves the calls by another protocol must not get the farm's insides with them.
without darkroom-web 'darkroom-(artifacts|prompts|queue|member|diffusion|coordinator|server|worker|encoder-service|cli)|sqlx|redis|object_store'
without darkroom-farm-api 'darkroom-(artifacts|prompts|queue|web|runtime|member|diffusion|coordinator|server|worker|encoder-service|cli)|sqlx|redis|object_store'
without darkroom-queue 'darkroom-(artifacts|proto|runtime|farm-api|web|coordinator|server|worker|encoder-service|cli)|sqlx|tonic'
without darkroom-artifacts 'darkroom-(proto|queue|runtime|farm-api|web|coordinator|server|worker|encoder-service|cli)|sqlx|tonic'
without darkroom-runtime 'darkroom-(queue|artifacts|farm-api|web|coordinator|server|worker|encoder-service|cli)|sqlx'
without darkroom-member 'darkroom-(farm-api|web|coordinator|server|worker|encoder-service|cli)|sqlx'
# The services never import each other.
without darkroom-coordinator 'darkroom-(web|server|worker|encoder-service|member|cli)'
without darkroom-server 'darkroom-(worker|encoder-service|member|cli)'
without darkroom-worker 'darkroom-(farm-api|web|coordinator|server|encoder-service|cli)|sqlx'
without darkroom-encoder-service 'darkroom-(farm-api|web|coordinator|server|worker|cli)|sqlx'
without darkroom-cli 'darkroom-(server|member)'

if [ "$wrong" -ne 0 ]; then exit 1; fi
echo "The house stands: no libtorch where there should be none, no arrow upward."
