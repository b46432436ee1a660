#!/usr/bin/env bash
# Sets up `.clients`, where tests find other people's clients of the HTTP API: schemathesis, and
# OpenAI's own client. Tests call it, too; whoever comes second waits.
set -euo pipefail
cd "$(dirname "$0")/.."

wanted=$(cat tests/clients/requirements.txt tests/openai/requirements.txt)
[ "$(cat .clients/complete 2>/dev/null)" != "$wanted" ] || exit 0
exec 9>.clients.lock
flock 9
[ "$(cat .clients/complete 2>/dev/null)" != "$wanted" ] || exit 0
if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    if [ "$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >&2
    else
        echo "error: python3 has no venv; install it with:  sudo apt-get install -y python3-venv" >&2
        exit 1
    fi
fi
echo "Setting up clients for the tests in .clients (once) ..." >&2
[ -x .clients/bin/python ] || python3 -m venv .clients
pip=(.clients/bin/python -m pip install --quiet --disable-pip-version-check)
"${pip[@]}" -r tests/clients/requirements.txt
"${pip[@]}" -r tests/openai/requirements.txt
printf '%s' "$wanted" >.clients/complete
