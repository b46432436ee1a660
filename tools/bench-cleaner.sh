#!/usr/bin/env bash
# `make bench-cleaner`: whether the cleaner keeps up with jobs that end, day after day, and whether
# record and storage stay as large as they are, on SQLite and on Postgres. Prints a table for each;
# ARGS adds flags (--days N, --jobs N, --rounds N, --sqlite, --url postgres://…).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup-servers.sh
exec cargo run --locked --release -q -p darkroom-coordinator --example cleaner_days -- "$@"
