#!/usr/bin/env bash
# `make farm`: a whole farm of separate processes on this machine, on real servers of its own:
# Redis, Postgres, two coordinators, two encoders, two workers of each stage. State is in
# .darkroom/farm and stays over a stop; run by root where the servers' users cannot reach that
# folder, their parts of it are under /var/tmp. Both servers listen on loopback and ask for
# passwords, which are in .darkroom/farm/secrets.
#   tools/farm.sh start    sets up, builds, starts what does not run, and says how to use it;
#   FARM_BINARIES names a folder
#                          of programs that are built already
#   tools/farm.sh stop     lets the workers drain, then ends everything it started, by process id
#   tools/farm.sh servers  starts Redis and Postgres alone
#   tools/farm.sh status   what runs
set -euo pipefail
cd "$(dirname "$0")/.."

folder=${FARM_FOLDER:-.darkroom/farm}
mkdir -p "$folder"
farm=$(cd "$folder" && pwd)
chmod go-rwx "$farm" # logs and results, and the passwords
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

# started_at PID: the process's start time, so that a number that was given to another process is
# not mistaken. None for one that has ended and waits for its parent to notice.
started_at() {
    sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | awk '$1 != "Z" { print $20 }'
}

launch() { # launch NAME COMMAND...: starts it in the background, its output in a log.
    local name=$1 pid others
    shift
    if alive "$name"; then return; fi
    # Its log and its files are its owner's alone.
    others=$(umask)
    umask 077
    setsid "$@" >>"$logs/$name.log" 2>&1 </dev/null &
    pid=$!
    umask "$others"
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

# Neither server runs as root: then an unprivileged user runs it, on files that user can reach. Each
# asks for a password, which is made once, lies in a folder that only the farm's owner can read, and
# is never on a command line.
user_of() { # user_of SERVER: who runs it when root starts the farm.
    local user
    for user in "$1" postgres nobody; do
        if id -u "$user" >/dev/null 2>&1; then echo "$user" && return; fi
    done
}
as() { # as USER COMMAND...: runs it as that user, if root runs this.
    local user=$1
    shift
    if [ "$(id -u)" -eq 0 ]; then
        setpriv --reuid="$user" --regid="$(id -g "$user")" --clear-groups "$@"
    else
        "$@"
    fi
}
prefix() { # prefix USER: the words before a command that is to run as that user.
    if [ "$(id -u)" -eq 0 ]; then echo setpriv --reuid="$1" --regid="$(id -g "$1")" --clear-groups; fi
}

secret() { # secret NAME: the password of that name, made the first time.
    local file="$farm/secrets/$1"
    if [ ! -s "$file" ]; then
        (umask 077 && mkdir -p "$farm/secrets" && head -c 32 /dev/urandom | sha256sum | cut -c1-48 >"$file")
    fi
    cat "$file"
}

# folder_of SERVER USER: its data folder, made and given to the user. What lies elsewhere from
# before moves.
folder_of() {
    local user=$2 data="$farm/$1" outside
    if [ "$(id -u)" -eq 0 ]; then
        outside="/var/tmp/darkroom-farm-$(cksum <<<"$farm" | cut -d' ' -f1)"
        if [ "$1" != postgres ]; then outside="$outside-$1"; fi
        if ! as "$user" test -x "$farm"; then
            if [ -d "$data" ] && [ ! -e "$outside" ]; then mv "$data" "$outside"; fi
            data=$outside
        fi
    fi
    # Made before it is looked at: where others may write, nobody can put another in its place then.
    mkdir -m 700 "$data" 2>/dev/null || true
    # A folder in a place that others may write to must be ours.
    if [ -L "$data" ] || { [ -e "$data" ] && [ "$(id -u)" -eq 0 ] \
        && ! [[ "$(stat -c %U "$data")" =~ ^(root|$user)$ ]]; }; then
        say "error: $data is not a folder of the user $user; remove it"
        exit 1
    fi
    chmod 700 "$data"
    if [ "$(id -u)" -eq 0 ]; then chown -R "$user:$(id -g "$user")" "$data"; fi
    echo "$data" >"$run/$1.folder"
    echo "$data"
}

start_redis() {
    local redis user data conf
    if alive redis; then return; fi
    redis=$(command -v redis-server || command -v valkey-server)
    user=$(user_of redis)
    data=$(folder_of redis "$user")
    conf="$data/redis.conf"
    rm -f "$conf"
    (umask 077 && printf '%s\n' "port $redis_port" "bind 127.0.0.1" "dir $data" "appendonly yes" \
        "maxmemory-policy noeviction" "requirepass $(secret redis)" >"$conf")
    if [ "$(id -u)" -eq 0 ]; then chown "$user" "$conf"; fi
    # shellcheck disable=SC2046 # words are wanted
    launch redis $(prefix "$user") "$redis" "$conf"
    wait_for Redis redis bash -c "</dev/tcp/127.0.0.1/$redis_port"
}

# The server's own superuser is `admin`, with a password of its own. The farm's role `darkroom` owns
# its database and no more.
start_postgres() {
    local bin data user password old=""
    bin=$(dirname "$(readlink -f "$(command -v initdb || compgen -G '/usr/lib/postgresql/*/bin/initdb' | sort -V | tail -n 1)")")
    user=$(user_of postgres)
    if ! alive postgres; then
        data=$(folder_of postgres "$user")
        if [ ! -e "$data/PG_VERSION" ]; then
            password=$(mktemp)
            secret admin >"$password"
            if [ "$(id -u)" -eq 0 ]; then chown "$user" "$password"; fi
            as "$user" "$bin/initdb" -D "$data" -U admin --auth=scram-sha-256 --pwfile="$password" \
                --encoding=UTF8 --locale=C >>"$logs/postgres.log" 2>&1 || { rm -f "$password"; exit 1; }
            rm -f "$password"
        elif [ ! -e "$farm/secrets/settled" ]; then
            # Made by an older version, which trusted everybody on this machine and worked as a
            # superuser; or this was interrupted the first time.
            say "Postgres gets passwords"
            old=yes
            printf "CREATE ROLE keeper SUPERUSER LOGIN\nALTER ROLE keeper PASSWORD '%s'\n" "$(secret admin)" \
                | as "$user" "$bin/postgres" --single -D "$data" postgres >>"$logs/postgres.log" 2>&1
        fi
        printf '%s\n' "local all all scram-sha-256" "host all all 127.0.0.1/32 scram-sha-256" \
            | as "$user" tee "$data/pg_hba.conf" >/dev/null
        # shellcheck disable=SC2046 # words are wanted
        launch postgres $(prefix "$user") "$bin/postgres" -D "$data" -p "$postgres_port" -c listen_addresses=127.0.0.1 \
            -c unix_socket_directories= -c password_encryption=scram-sha-256
    fi
    wait_for Postgres postgres "$bin/pg_isready" -h 127.0.0.1 -p "$postgres_port" -d postgres
    if [ -n "$old" ]; then
        sql keeper postgres <<SQL
DO \$\$ BEGIN
    IF EXISTS (SELECT 1 FROM pg_roles WHERE rolname = 'darkroom' AND rolsuper) THEN
        ALTER ROLE darkroom RENAME TO admin;
    END IF;
END \$\$;
ALTER ROLE admin PASSWORD '$(secret admin)';
SQL
        sql admin postgres <<<"DROP ROLE keeper;"
    fi
    if ! sql admin postgres <<<"SELECT 'there' FROM pg_roles WHERE rolname = 'darkroom';" | grep -q there; then
        sql admin postgres <<<"CREATE ROLE darkroom LOGIN PASSWORD '$(secret postgres)';"
    fi
    if ! sql admin postgres <<<"SELECT 'there' FROM pg_database WHERE datname = 'darkroom';" | grep -q there; then
        sql admin postgres <<<"CREATE DATABASE darkroom OWNER darkroom;"
    fi
    if [ -n "$old" ]; then
        sql admin darkroom <<'SQL'
ALTER DATABASE darkroom OWNER TO darkroom;
ALTER SCHEMA public OWNER TO darkroom;
DO $$ DECLARE one record; BEGIN
    FOR one IN SELECT c.oid::regclass AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE n.nspname = 'public' AND c.relkind IN ('r', 'p', 'v', 'm', 'S')
          AND NOT EXISTS (SELECT 1 FROM pg_depend d WHERE d.objid = c.oid AND d.deptype IN ('a', 'i') AND c.relkind = 'S')
    LOOP EXECUTE format('ALTER TABLE %s OWNER TO darkroom', one.name); END LOOP;
    FOR one IN SELECT p.oid::regprocedure AS name FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace
        WHERE n.nspname = 'public'
    LOOP EXECUTE format('ALTER ROUTINE %s OWNER TO darkroom', one.name); END LOOP;
    FOR one IN SELECT t.oid::regtype AS name FROM pg_type t JOIN pg_namespace n ON n.oid = t.typnamespace
        WHERE n.nspname = 'public' AND t.typtype IN ('e', 'd')
    LOOP EXECUTE format('ALTER TYPE %s OWNER TO darkroom', one.name); END LOOP;
END $$;
SQL
    fi
    touch "$farm/secrets/settled"
}

# sql ROLE DATABASE: runs what comes on standard input; passwords go through a file, not through
# arguments.
sql() {
    local role=$1 database=$2
    PGPASSFILE=$(pass_file) "$(dirname "$(command -v psql || compgen -G '/usr/lib/postgresql/*/bin/psql' | sort -V | tail -n 1)")/psql" \
        -h 127.0.0.1 -p "$postgres_port" -U "$role" -d "$database" -qtA -v ON_ERROR_STOP=1
}

pass_file() {
    local file="$farm/secrets/pgpass"
    (umask 077 && printf '127.0.0.1:*:*:admin:%s\n127.0.0.1:*:*:keeper:%s\n127.0.0.1:*:*:darkroom:%s\n' \
        "$(secret admin)" "$(secret admin)" "$(secret postgres)" >"$file")
    echo "$file"
}

start_servers() {
    if [ ! -e "$farm/secrets" ] && { alive redis || alive postgres; }; then
        say "error: a farm runs that was started without passwords; stop it first (make farm-stop), then start it again"
        exit 1
    fi
    start_redis
    start_postgres
}

start_farm() {
    local target=${FARM_BINARIES:-${CARGO_TARGET_DIR:-target}/debug} copy stage listen
    DARKROOM_REDIS="redis://:$(secret redis)@127.0.0.1:$redis_port"
    DARKROOM_DATABASE="postgres://darkroom:$(secret postgres)@127.0.0.1:$postgres_port/darkroom"
    export DARKROOM_REDIS DARKROOM_DATABASE
    export DARKROOM_ARTIFACTS="${FARM_ARTIFACTS:-$farm/artifacts}"
    export DARKROOM_CACHE="$farm/cache"
    export OMP_WAIT_POLICY=passive # the processes share cores: one that waits must not burn them
    for copy in 1 2; do
        listen=$port
        if [ "$copy" -eq 2 ]; then listen=$second_port; fi
        launch "coordinator-$copy" env -u DARKROOM_CASCADE "$target/darkroom-coordinator" \
            --listen "127.0.0.1:$listen" --open --cascade "$cascade"
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
        if [ -z "${FARM_BINARIES:-}" ]; then
            tools/setup.sh
            tools/setup-servers.sh
            say "building"
            cargo build --locked --quiet -p darkroom-server -p darkroom-encoder-service -p darkroom-worker -p darkroom-cli
        fi
        start_servers
        start_farm
        say "The farm runs: coordinators at 127.0.0.1:$port and 127.0.0.1:$second_port, Redis at $redis_port, Postgres at $postgres_port,"
        say "$copies encoders and $copies workers of each of: $stages. Logs are in $logs."
        say "Use it:   cargo run -q -p darkroom-cli -- --farm 127.0.0.1:$port render \"a red circle above a blue square\""
        say "Stop it:  make farm-stop"
        ;;
    servers)
        start_servers
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
        say "usage: tools/farm.sh start|servers|stop|status"
        exit 2
        ;;
esac
