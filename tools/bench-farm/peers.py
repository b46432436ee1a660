"""The same four-step pipeline on BullMQ and Celery, each as its documentation recommends, on the
farm's kind of Redis."""

import json
import pathlib
import shutil
import subprocess
import sys
import time

from farm import Farm, table

HERE = pathlib.Path(__file__).resolve().parent


def measure(pictures):
    """A dictionary per peer; one that did not finish has no rate."""
    with Farm() as farm:
        # The peers have the machine to themselves, as the farm had.
        for name in ("coordinator", "postgres"):
            farm.stop(name)
        return [celery(farm, pictures // 10), *bullmq(farm, pictures)]


def last_line(farm, command, name, seconds, **more):
    try:
        done = subprocess.run([str(word) for word in command], stdout=subprocess.PIPE, stderr=farm.log, text=True, timeout=seconds, check=True, **more)
        return json.loads(done.stdout.strip().splitlines()[-1])
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return {"peer": name}


def celery(farm, pictures):
    python = farm.work / "venv/bin/python"
    if subprocess.run([sys.executable, "-m", "venv", farm.work / "venv"], stdout=farm.log, stderr=farm.log, check=False).returncode:
        return {"peer": "Celery"}
    subprocess.run([python, "-m", "pip", "install", "--quiet", "celery==5.5.3", "redis"], stdout=farm.log, stderr=farm.log, check=False)
    return last_line(farm, [python, HERE / "celery_peer.py", farm.redis_port, pictures], "Celery", 300)


def bullmq(farm, pictures):
    """In one process of Node, which is one core, and in two."""
    if not shutil.which("npm"):
        return [{"peer": "BullMQ"}]
    for name in ("package.json", "bullmq.mjs"):
        shutil.copy(HERE / name, farm.work)
    subprocess.run(["npm", "install", "--silent", "--no-audit", "--no-fund"], cwd=farm.work, stdout=farm.log, stderr=farm.log, check=False)
    time.sleep(1)
    runs = {1: "BullMQ", 2: "BullMQ, 2 processes"}
    return [last_line(farm, ["node", "bullmq.mjs", farm.redis_port, pictures, count], name, 300, cwd=farm.work) for count, name in runs.items()]


def report(ours, peers):
    rows = [["darkroom, submit to manifest", f"{ours:.0f}", "1.00 ×", "yes"]]
    for peer in peers:
        rate = peer.get("transitions_per_second")
        rows.append([peer["peer"], f"{rate:.0f}" if rate else "did not finish", f"{ours / rate:.2f} ×" if rate else "", "no"])
    table(["", "transitions/s", "darkroom is", "SQL record"], rows)
