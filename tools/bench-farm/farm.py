"""A farm of real processes on this machine: Redis and Postgres with durable settings, coordinator,
encoder, worker.

The program `measured_farm` starts them, as the tests and `make chaos` do; all of them end with it.
CPU seconds and memory are read from /proc, per process (Postgres with its children).
"""

import contextlib
import json
import os
import pathlib
import socket
import subprocess
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = pathlib.Path(os.environ["BENCH_BIN"])
TICKS = os.sysconf("SC_CLK_TCK")


def wait_for(what, true, seconds=30):
    deadline = time.monotonic() + seconds
    while not true():
        if time.monotonic() > deadline:
            raise TimeoutError(what)
        time.sleep(0.05)


class Farm:
    """`with Farm() as farm`: servers and coordinator run; encoder and worker are started by whoever
    wants them."""

    def __init__(self, postgres=(), cascade=None):
        self.command = [BIN / "measured_farm", "--binaries", BIN]
        self.command += [word for setting in postgres for word in ("--postgres", setting)]
        if cascade:
            self.command += ["--cascade", cascade]

    def __enter__(self):
        # /tmp is memory on many machines. A session of its own: it ends in order when this program
        # does, even by Ctrl-C.
        environment = os.environ | {"TMPDIR": "/var/tmp"}
        words = [str(word) for word in self.command]
        self.farm = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment, start_new_session=True)
        try:
            facts = self.answer()
            self.work, self.address, self.redis_port = pathlib.Path(facts["folder"]), facts["address"], facts["redis_port"]
            self.psql = [facts["psql"], "-X", "-q", "-d", facts["database"]]
            self.processes = facts["processes"]
            self.environment = os.environ | {"DARKROOM_FARM": self.address, "DARKROOM_REDIS": facts["redis"]}
            self.log = open(self.work / "log", "ab")
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "log"):
            self.log.close()
        self.farm.stdin.close()
        self.farm.wait()

    def answer(self):
        line = self.farm.stdout.readline()
        if not line:
            raise RuntimeError("the farm has ended; see above")
        return json.loads(line)

    def ask(self, **request):
        self.farm.stdin.write(json.dumps(request) + "\n")
        self.farm.stdin.flush()
        return self.answer()

    def start(self, name, renderer, *arguments):
        """Starts an `encoder` or a `worker` with a renderer: `noop` or `model`."""
        self.processes[name] = self.ask(start=name, renderer=renderer, arguments=[str(word) for word in arguments])["id"]

    def stop(self, name):
        self.ask(stop=name)
        del self.processes[name]

    def start_members(self, batch=256):
        self.start("encoder", "noop", "--batch", batch)
        self.start("worker", "noop", "--batch", batch)
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
        return subprocess.run([*self.psql, "-A", "-t", "-c", query], capture_output=True, text=True, check=True).stdout.strip()

    def hold_snapshot(self):
        """A REPEATABLE READ reader that stays open; `close` ends it."""
        reader = subprocess.Popen(self.psql, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
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
        for line in pathlib.Path(f"/proc/{self.processes[name]}/status").read_text().splitlines():
            if line.startswith(which):
                return int(line.split()[1]) / 1024
        return 0.0

    def cpu(self):
        """CPU seconds so far of each process."""
        return {name: cpu_seconds(pid, name == "postgres") for name, pid in self.processes.items()}


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
