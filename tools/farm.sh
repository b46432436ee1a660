#!/usr/bin/env bash
# `make farm`: a whole farm of separate processes on this machine, on real servers of its own: Redis, Postgres, two
# coordinators, two encoders, two workers of each stage. State is in .darkroom/farm and stays over a stop; run by root
# where the user postgres cannot reach that folder, Postgres' part of it is under /var/tmp.
#   tools/farm.sh start    sets up, builds, starts what does not run, and says how to use it
#   tools/farm.sh stop     lets the workers drain, then ends everything it started, by process id
#   tools/farm.sh status   what runs
set -euo pipefail
cd "$(dirname "$0")/.."

mkdir -p .darkroom/farm
farm=$(cd .darkroom/farm && pwd)
run="$farm/run"
logs="$farm/logs"
mkdir -p "$run" "$logs"
redis_port=${FARM_REDIS_PORT:-7871}
postgres_port=${FARM_POSTGRES_PORT:-7872}
port=${FARM_PORT:-7878}
second_port=$((port + 1))
cascade=${FARM_CASCADE:-models/demo}
stages=${FARM_STAGES:-base sr256 sr1024}
copies=${FARM_WORKERS:-2}

say() { printf '%s\n' "$*" >&2; }

alive() { # alive NAME: whether the process started under this name still runs.
    local file="$run/$1.pid" pid started
    [ -e "$file" ] || return 1
    read -r pid started <"$file"
    [ -e "/proc/$pid/stat" ] && [ "$(started_at "$pid")" = "$started" ]
}

started_at() { # the process's start time: with it a number that was given to another process is not mistaken. None for
    # one that has ended and waits for its parent to notice.
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
}

launch() { # launch NAME COMMAND...: starts it in the background, its output in a log.
    local name=$1 pid
    shift
    if alive "$name"; then return; fi
    setsid "$@" >>"$logs/$name.log" 2>&1 </dev/null &
    pid=$!
    printf '%s %s\n' "$pid" "$(started_at "$pid")" >"$run/$name.pid"
    disown
}

halt() { # halt SIGNAL NAME...: signals them, and waits for their ends.
    local signal=$1 name pid
    shift
    for name in "$@"; do
        if alive "$name"; then read -r pid _ <"$run/$name.pid" && kill -"$signal" "$pid"; fi
    done
    for name in "$@"; do
        for _ in $(seq 600); do
            alive "$name" || break
            sleep 0.1
        done
        if alive "$name"; then
            say "$name does not end; killed"
            read -r pid _ <"$run/$name.pid" && kill -KILL "$pid"
        fi
        rm -f "$run/$name.pid"
    done
}

names() { # names GLOB: what was started under such a name.
    local file
    for file in "$run"/$1.pid; do
        if [ -e "$file" ]; then basename "$file" .pid; fi
    done
}

wait_for() { # wait_for WHAT NAME COMMAND...: until the command succeeds, while NAME lives.
    local what=$1 name=$2
    shift 2
    for _ in $(seq 600); do
        if "$@" >/dev/null 2>&1; then return; fi
        if ! alive "$name"; then
            say "error: $what did not start; the end of its log, $logs/$name.log:"
            tail -n 5 "$logs/$name.log" >&2
            exit 1
        fi
        sleep 0.1
    done
    say "error: $what does not answer; see $logs/$name.log"
    exit 1
}

# Postgres refuses to run as root: then an unprivileged user runs it, on files that user can reach.
as_server_user() { if [ "$(id -u)" -eq 0 ]; then setpriv --reuid=postgres --regid=postgres --clear-groups "$@"; else "$@"; fi; }
server_user() { if [ "$(id -u)" -eq 0 ]; then echo setpriv --reuid=postgres --regid=postgres --clear-groups; fi; }

start_servers() {
    local redis bin data
    redis=$(command -v redis-server || command -v valkey-server)
    mkdir -p "$farm/redis"
    launch redis "$redis" --port "$redis_port" --bind 127.0.0.1 --dir "$farm/redis" --appendonly yes \
        --maxmemory-policy noeviction
    wait_for Redis redis bash -c "</dev/tcp/127.0.0.1/$redis_port"

    bin=$(dirname "$(readlink -f "$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")")
    data="$farm/postgres"
    if [ "$(id -u)" -eq 0 ] && ! as_server_user test -x "$farm"; then
        data="/var/tmp/darkroom-farm-$(cksum <<<"$farm" | cut -d' ' -f1)"
    fi
    # A folder in a place that others may write to must be ours.
    if [ -L "$data" ] || { [ "$(id -u)" -eq 0 ] && [ -e "$data" ] && [ "$(stat -c %U "$data")" != postgres ]; }; then
        say "error: $data is not a folder of the user postgres; remove it"
        exit 1
    fi
    if [ ! -e "$data/PG_VERSION" ]; then
        mkdir -p "$data"
        if [ "$(id -u)" -eq 0 ]; then chown postgres:postgres "$data"; fi
        as_server_user "$bin/initdb" -D "$data" -U darkroom --auth=trust --encoding=UTF8 --locale=C >>"$logs/postgres.log" 2>&1
    fi
    # shellcheck disable=SC2046 # words are wanted
    launch postgres $(server_user) "$bin/postgres" -D "$data" -p "$postgres_port" -c listen_addresses=127.0.0.1 \
        -c unix_socket_directories=
    wait_for Postgres postgres "$bin/pg_isready" -h 127.0.0.1 -p "$postgres_port" -U darkroom -d postgres
    "$bin/psql" -h 127.0.0.1 -p "$postgres_port" -U darkroom -d postgres -tAc \
        "SELECT 1 FROM pg_database WHERE datname = 'darkroom'" | grep -q 1 \
        || "$bin/createdb" -h 127.0.0.1 -p "$postgres_port" -U darkroom darkroom
}

start_farm() {
    local target=${CARGO_TARGET_DIR:-target}/debug copy stage listen
    export DARKROOM_REDIS="redis://127.0.0.1:$redis_port"
    export DARKROOM_DATABASE="postgres://darkroom@127.0.0.1:$postgres_port/darkroom"
    export DARKROOM_ARTIFACTS="${FARM_ARTIFACTS:-$farm/artifacts}"
    export DARKROOM_CACHE="$farm/cache"
    export OMP_WAIT_POLICY=passive # the processes share cores: one that waits must not burn them
    for copy in 1 2; do
        listen=$port
        if [ "$copy" -eq 2 ]; then listen=$second_port; fi
        launch "coordinator-$copy" env -u DARKROOM_CASCADE "$target/darkroom-coordinator" \
            --listen "127.0.0.1:$listen" --cascade "$cascade"
    done
    wait_for "the coordinator" coordinator-1 "$target/darkroom" --farm "127.0.0.1:$port" cascades
    unset DARKROOM_CASCADE
    export DARKROOM_FARM="127.0.0.1:$port"
    for copy in $(seq "$copies"); do
        launch "encoder-$copy" "$target/darkroom-encoder" --threads 1
        for stage in $stages; do
            launch "worker-$stage-$copy" "$target/darkroom-worker" --stage "$stage" --threads 1
        done
    done
    local wanted=$((copies * ($(wc -w <<<"$stages") + 1)))
    wait_for "a worker" coordinator-1 bash -c \
        "[ \$('$target/darkroom' --json workers | tr '{' '\n' | grep -c device_class) -ge $wanted ]"
}

case "${1:-start}" in
    start)
        tools/setup.sh
        tools/setup-servers.sh
        say "building"
        cargo build --locked --quiet -p darkroom-coordinator -p darkroom-encoder-service -p darkroom-worker -p darkroom-cli
        start_servers
        start_farm
        say "The farm runs: coordinators at 127.0.0.1:$port and 127.0.0.1:$second_port, Redis at $redis_port, Postgres at $postgres_port,"
        say "$copies encoders and $copies workers of each of: $stages. Logs are in $logs."
        say "Use it:   cargo run -q -p darkroom-cli -- --farm 127.0.0.1:$port render \"a red circle above a blue square\""
        say "Stop it:  make farm-stop"
        ;;
    stop)
        # shellcheck disable=SC2046 # words are wanted
        { halt TERM $(names 'worker-*') $(names 'encoder-*')
          halt TERM $(names 'coordinator-*')
          halt INT $(names postgres)
          halt TERM $(names redis); }
        say "The farm is stopped; its state stays in $farm."
        ;;
    status)
        for name in $(names '*'); do
            if alive "$name"; then echo "$name runs"; else echo "$name is gone; its log is $logs/$name.log"; fi
        done
        ;;
    *)
        say "usage: tools/farm.sh start|stop|status"
        exit 2
        ;;
esac
