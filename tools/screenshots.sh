#!/usr/bin/env bash
# `make screenshots`: builds the farm and makes the README's screenshots in docs/ anew. They show real
# pictures of the demo cascade, so this takes some minutes.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup.sh
cargo build --locked --quiet --bin darkroom
tools/test-browser.sh --screenshots
