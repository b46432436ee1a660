"""A farm of real processes on this machine: Redis and Postgres with durable settings, coordinator, encoder, worker.

Everything it starts ends with it. CPU seconds and memory are read from /proc, per process (Postgres with its children).
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["BENCH_BIN"])
TICKS = os.sysconf("SC_CLK_TCK")


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def wait_for(what, true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


def quiet(command, **more):
    return subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=False, **more).returncode == 0


class Farm:
    """`with Farm() as farm`: servers and coordinator run; encoder and worker are started by whoever wants them."""

    def __init__(self, postgres=(), cascade=None):
        self.settings, self.cascade = postgres, cascade
        self.processes = {}

    def __enter__(self):
        self.work = pathlib.Path(tempfile.mkdtemp(prefix="darkroom-bench-", dir="/var/tmp"))
        self.log = open(self.work / "log", "ab")
        try:
            self.start_redis()
            self.start_postgres()
            port = free_port()
            self.environment = os.environ | {
                "DARKROOM_DATABASE": f"postgres://darkroom@127.0.0.1:{self.postgres_port}/postgres",
                "DARKROOM_REDIS": f"redis://127.0.0.1:{self.redis_port}",
                "DARKROOM_ARTIFACTS": str(self.work / "artifacts"),
                "DARKROOM_FARM": f"127.0.0.1:{port}",
                "DARKROOM_LOG": "warn",
            }
            cascade = ["--cascade", self.cascade] if self.cascade else ["--cascade", ROOT / "tests/cascades/tiny", "--without-files"]
            self.start("coordinator", BIN / "darkroom-coordinator", "--listen", f"127.0.0.1:{port}", *cascade)
            wait_for("a coordinator", lambda: quiet([BIN / "darkroom", "cascades"], env=self.environment))
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        for name in reversed(list(self.processes)):
            self.stop(name)
        self.log.close()
        shutil.rmtree(self.work, ignore_errors=True)

    def start(self, name, *command, **more):
        more.setdefault("env", getattr(self, "environment", None))
        self.processes[name] = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=more.pop("stdout", self.log), stderr=self.log, **more)
        return self.processes[name]

    def stop(self, name):
        process = self.processes.pop(name)
        process.send_signal(signal.SIGINT if name == "postgres" else signal.SIGTERM)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def start_redis(self):
        self.redis_port = free_port()
        server = shutil.which("redis-server") or shutil.which("valkey-server")
        (self.work / "redis").mkdir()
        settings = "--bind 127.0.0.1 --appendonly yes --appendfsync everysec --save '' --maxmemory-policy noeviction --loglevel warning"
        self.start("redis", server, "--port", self.redis_port, "--dir", self.work / "redis", *[word.strip("'") for word in settings.split()])
        wait_for("redis", lambda: self.redis("PING") == "PONG")

    def start_postgres(self):
        self.postgres_port = free_port()
        folder = self.work / "postgres"
        folder.mkdir()
        initdb = shutil.which("initdb") or max(str(path) for path in pathlib.Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        self.postgres_bin = pathlib.Path(initdb).resolve().parent
        self.user = []
        if os.getuid() == 0:
            self.user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
            os.chmod(self.work, 0o755)
            shutil.chown(folder, "postgres", "postgres")
        subprocess.run([*self.user, initdb, "-D", folder, "-U", "darkroom", "--auth=trust", "--encoding=UTF8", "--locale=C"], stdout=self.log, stderr=self.log, check=True)
        settings = ["listen_addresses=127.0.0.1", "unix_socket_directories=", "fsync=on", "synchronous_commit=on", "shared_buffers=512MB", "max_wal_size=4GB", *self.settings]
        command = [*self.user, self.postgres_bin / "postgres", "-D", folder, "-p", self.postgres_port]
        self.start("postgres", *command, *[word for setting in settings for word in ("-c", setting)])
        ready = [self.postgres_bin / "pg_isready", "-q", "-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "darkroom", "-d", "postgres"]
        wait_for("postgres", lambda: quiet(ready))

    def start_members(self, batch=256):
        self.start("encoder", BIN / "darkroom-encoder", "--renderer", "noop", "--batch", batch, "--cache", self.work / "cache")
        self.start("worker", BIN / "darkroom-worker", "--renderer", "noop", "--batch", batch, "--cache", self.work / "cache")
        self.wait_for_workers(2)

    def wait_for_workers(self, count, seconds=120):
        wait_for(f"{count} workers", lambda: self.cli("--json", "workers").count("device_class") >= count, seconds)

    def cli(self, *words):
        done = subprocess.run([BIN / "darkroom", *map(str, words)], env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise RuntimeError(f"darkroom {' '.join(map(str, words))}: {done.stderr}")
        return done.stdout

    def submit(self, prompts):
        """Submits a file of prompts; returns the job's id."""
        return self.cli("submit", "--batch", prompts).split()[-1]

    def prompts(self, count, label):
        path = self.work / f"prompts-{label}.txt"
        path.write_text("".join(f"picture {number} of the benchmark, {label}\n" for number in range(count)))
        return path

    def sql(self, query):
        """One value, or rows of `|`-separated values."""
        command = [self.postgres_bin / "psql", "-X", "-q", "-A", "-t", "-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "darkroom", "-d", "postgres", "-c", query]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    def hold_snapshot(self):
        """A REPEATABLE READ reader that stays open; `close` ends it."""
        command = [self.postgres_bin / "psql", "-X", "-q", "-h", "127.0.0.1", "-p", str(self.postgres_port), "-U", "darkroom", "-d", "postgres"]
        reader = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        reader.stdin.write("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM jobs;\n")
        reader.stdin.flush()
        reader.stdout.readline()

        def close():
            reader.stdin.close()
            reader.wait()

        return close

    def redis(self, *words):
        """A command's answer as text; empty when Redis does not answer."""
        try:
            with socket.create_connection(("127.0.0.1", self.redis_port), 1) as link:
                link.sendall((" ".join(words) + "\r\n").encode())
                answer = link.recv(1 << 16).decode()
                if answer.startswith("$"):
                    length, _, answer = answer[1:].partition("\r\n")
                    while len(answer) < int(length):
                        answer += link.recv(1 << 16).decode()
                return answer.lstrip("+:").strip()
        except OSError:
            return ""

    def redis_memory(self, which="used_memory_peak"):
        facts = dict(line.split(":", 1) for line in self.redis("INFO", "memory").splitlines() if ":" in line)
        return int(facts[which]) / 2**20

    def memory(self, name, which="VmHWM"):
        """MiB; the most so far, or (`VmRSS`) now."""
        for line in pathlib.Path(f"/proc/{self.processes[name].pid}/status").read_text().splitlines():
            if line.startswith(which):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu(self):
        """CPU seconds so far of each process."""
        return {name: cpu_seconds(process.pid, name == "postgres") for name, process in self.processes.items()}


def cpu_seconds(pid, with_children):
    def fields(stat):
        return stat.read_text().rpartition(")")[2].split()

    with contextlib.suppress(OSError):
        own = fields(pathlib.Path(f"/proc/{pid}/stat"))
        # Children that have ended are in their parent's sums.
        total = sum(map(int, own[11:15]))
        if with_children:
            for stat in pathlib.Path("/proc").glob("[0-9]*/stat"):
                with contextlib.suppress(OSError):
                    of = fields(stat)
                    if int(of[1]) == pid:
                        total += int(of[11]) + int(of[12])
        return total / TICKS
    return 0.0


def table(head, rows):
    print("| " + " | ".join(head) + " |")
    print("|" + " --- |" * len(head))
    for row in rows:
        print("| " + " | ".join(str(cell) for cell in row) + " |")
    print(flush=True)
