#!/usr/bin/env bash
# `make bench-farm`: stage transitions a second through the whole farm, from submit to manifest, with workers that do
# nothing, on Postgres and Redis with durable settings; and the same four-step pipeline on BullMQ and Celery on the same
# Redis, in the same run. Prints a table. BENCH_PICTURES sets the number of pictures (distinct
# prompts, four transitions each); Celery gets a tenth of them.
set -euo pipefail
cd "$(dirname "$0")/.."
tools/setup-servers.sh
pictures=${BENCH_PICTURES:-20000}
here=$PWD
target=${CARGO_TARGET_DIR:-$here/target}
cargo build --locked --quiet --release --no-default-features \
    -p darkroom-coordinator -p darkroom-encoder-service -p darkroom-worker -p darkroom-cli
bin="$target/release"

work=$(mktemp -d /tmp/darkroom-bench-XXXXXX)
pids=()
# shellcheck disable=SC2329 # called by the trap
clean_up() {
    kill "${pids[@]}" 2>/dev/null || true
    for _ in $(seq 50); do
        local left=0 pid
        for pid in "${pids[@]}"; do if kill -0 "$pid" 2>/dev/null; then left=1; fi; done
        [ "$left" -eq 0 ] && break
        sleep 0.1
    done
    kill -KILL "${pids[@]}" 2>/dev/null || true
    rm -rf "$work"
}
trap clean_up EXIT

free_port() { python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'; }
launch() { "$@" >>"$work/log" 2>&1 </dev/null & pids+=($!); }
until_true() { for _ in $(seq 300); do if "$@" >/dev/null 2>&1; then return; fi; sleep 0.1; done; tail -n 20 "$work/log" >&2; exit 1; }

redis_port=$(free_port) postgres_port=$(free_port) farm_port=$(free_port)
mkdir "$work/redis" "$work/postgres"
launch "$(command -v redis-server || command -v valkey-server)" --port "$redis_port" --bind 127.0.0.1 --dir "$work/redis" \
    --appendonly yes --appendfsync everysec --save "" --maxmemory-policy noeviction
until_true bash -c "</dev/tcp/127.0.0.1/$redis_port"

postgres_bin=$(dirname "$(readlink -f "$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")")
as=()
if [ "$(id -u)" -eq 0 ]; then
    as=(setpriv --reuid=postgres --regid=postgres --clear-groups)
    chmod 755 "$work"
    chown postgres:postgres "$work/postgres"
fi
"${as[@]}" "$postgres_bin/initdb" -D "$work/postgres" -U darkroom --auth=trust --encoding=UTF8 --locale=C >>"$work/log" 2>&1
launch "${as[@]}" "$postgres_bin/postgres" -D "$work/postgres" -p "$postgres_port" -c listen_addresses=127.0.0.1 \
    -c unix_socket_directories= -c fsync=on -c synchronous_commit=on -c shared_buffers=512MB -c max_wal_size=4GB
until_true "$postgres_bin/pg_isready" -h 127.0.0.1 -p "$postgres_port" -U darkroom -d postgres

export DARKROOM_DATABASE="postgres://darkroom@127.0.0.1:$postgres_port/postgres" DARKROOM_REDIS="redis://127.0.0.1:$redis_port"
export DARKROOM_ARTIFACTS="$work/artifacts" DARKROOM_FARM="127.0.0.1:$farm_port" DARKROOM_LOG=warn
launch "$bin/darkroom-coordinator" --listen "$DARKROOM_FARM" --cascade tests/cascades/tiny --without-files
until_true "$bin/darkroom" cascades
launch "$bin/darkroom-encoder" --renderer noop --batch 256 --cache "$work/cache"
launch "$bin/darkroom-worker" --renderer noop --batch 256 --cache "$work/cache"
until_true bash -c "[ \$('$bin/darkroom' --json workers | tr '{' '\n' | grep -c device_class) -ge 2 ]"

seq -f 'picture %.0f of the benchmark' "$pictures" >"$work/prompts.txt"
begun=$(date +%s.%N)
job=$("$bin/darkroom" submit --batch "$work/prompts.txt" | tail -n 1)
accepted=$(date +%s.%N)
"$bin/darkroom" watch "$job" >/dev/null
ended=$(date +%s.%N)
memory=$(awk '/VmHWM/ { print int($2 / 1024) }' "/proc/${pids[2]}/status")
redis_memory=$(exec 3<>"/dev/tcp/127.0.0.1/$redis_port"; printf 'INFO memory\r\n' >&3; timeout 1 cat <&3 | tr -d '\r' | sed -n 's/^used_memory_peak_human://p' || true)

# The peers have the machine to themselves, as the farm had.
kill "${pids[@]:1}"
wait "${pids[@]:1}" 2>/dev/null || true

peers() {
    python3 -m venv "$work/venv" && "$work/venv/bin/pip" install --quiet celery==5.5.3 redis || return
    "$work/venv/bin/python" tools/bench-farm/celery_peer.py "$redis_port" "$((pictures / 10))" || echo '{"peer": "Celery"}'
    cp tools/bench-farm/package.json tools/bench-farm/bullmq.mjs "$work/"
    if command -v npm >/dev/null && (cd "$work" && npm install --silent --no-audit --no-fund >/dev/null); then
        (cd "$work" && timeout 300 node bullmq.mjs "$redis_port" "$pictures") || echo '{"peer": "BullMQ"}'
    fi
}
peers >"$work/peers.jsonl" 2>>"$work/log" || true

python3 - "$pictures" "$begun" "$accepted" "$ended" "$memory" "$redis_memory" "$work/peers.jsonl" <<'PY'
import json, sys

pictures, begun, accepted, ended = int(sys.argv[1]), *map(float, sys.argv[2:5])
ours = 4 * pictures / (ended - begun)
print(f"{pictures} pictures of distinct prompts: accepted in {accepted - begun:.1f} s, whole with manifest in {ended - begun:.1f} s;")
print(f"coordinator's peak memory {sys.argv[5]} MiB, Redis's {sys.argv[6]}\n")
print("| | transitions/s | darkroom is | SQL record |\n| --- | --- | --- | --- |")
print(f"| darkroom | {ours:.0f} | 1.00 × | yes |")
for line in open(sys.argv[7]):
    peer = json.loads(line)
    rate = peer.get("transitions_per_second")
    print(f"| {peer['peer']} | {rate:.0f} | {ours / rate:.2f} × | no |" if rate else f"| {peer['peer']} | did not finish | | no |")
PY
