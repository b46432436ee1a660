#!/usr/bin/env bash
# Installs what the tests and a farm of several processes stand on, where it is missing: Redis (or
# Valkey) and Postgres; the pooler and the proxies that may stand before them, PgBouncer, HAProxy
# and nginx; and ImageMagick. As root it takes them from the system's packages, else it names the
# line that does. They are not started as services.
set -euo pipefail

missing=()
command -v redis-server >/dev/null || command -v valkey-server >/dev/null || missing+=(redis-server)
if ! command -v initdb >/dev/null && ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
    missing+=(postgresql)
fi
# Not a server: tests run the commands that errors about pictures print.
{ command -v convert && convert -version | grep -q ImageMagick; } >/dev/null 2>&1 || missing+=(imagemagick)
# Proxies lie in sbin, which is not on everyone's path.
for proxy in haproxy nginx; do
    PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$proxy" >/dev/null || missing+=("${proxy/nginx/nginx-light}")
done
# One test asks it for a server with TLS.
command -v openssl >/dev/null || missing+=(openssl)
command -v pgbouncer >/dev/null || [ -x /usr/sbin/pgbouncer ] || missing+=(pgbouncer)
# `make chaos` and some tests make clocks wrong with it; without it that is skipped, and said so.
if [ ! -e /usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1 ] && [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
    missing+=(faketime)
fi
if [ "${#missing[@]}" -eq 0 ]; then exit 0; fi

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    printf 'error: %s is not installed.\n       install it with:  sudo apt-get install -y --no-install-recommends %s\n' \
        "${missing[*]}" "${missing[*]}" >&2
    exit 1
fi
echo "installing ${missing[*]}" >&2
# Debian makes and starts a cluster and a service of its own on installing; this keeps it from doing
# so.
mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo "create_main_cluster = false" >/etc/postgresql-common/createcluster.conf
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod +x "$policy"
    trap 'rm -f "$policy"' EXIT
fi
export DEBIAN_FRONTEND=noninteractive
apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2 || {
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends "${missing[@]}" >&2
}
