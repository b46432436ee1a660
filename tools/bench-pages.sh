#!/usr/bin/env bash
# `make bench-pages`: how long pages of a million-image job take, on SQLite and on Postgres. Prints
# a table; ARGS adds flags (--images N, --rounds N, --url postgres://…).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup-servers.sh
exec cargo run --locked --release -q -p darkroom-coordinator --example page_timings -- "$@"
