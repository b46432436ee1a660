#!/usr/bin/env bash
# `make bench-quotas`: how long GetJob takes for a tenant while another sends ten times the calls
# that its quota allows, on Postgres. Prints a table, and whether the p99 stays within twice its calm
# value or 20 ms; ARGS adds flags (--rate N, --seconds N, --url postgres://…).
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup-servers.sh
exec cargo run --locked --release -q -p darkroom-coordinator --example quota_flood -- "$@"
