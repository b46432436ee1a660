#!/usr/bin/env bash
# `make test-stores`: the suite of object storage on a server that speaks Azure's protocol: Azurite,
# Microsoft's own emulator (npm). Fetches it into .darkroom/servers once; it listens on loopback
# only and ends with this. Google's protocol has no such server: the emulators there are know its
# JSON uploads, and the client uses the XML ones.
set -euo pipefail
cd "$(dirname "$0")/.."
at=$PWD/.darkroom/servers
mkdir -p "$at"
[ -d "$at/azurite/node_modules" ] || npm install --silent --no-audit --no-fund --prefix "$at/azurite" azurite@3.37.0
exec python3 tools/test_stores.py "$at" "$@"
