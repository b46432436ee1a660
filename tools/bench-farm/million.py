"""One job of a million images: how soon it is accepted, what it takes in memory, and how fast
questions about it are answered while it runs at half the highest rate; and the same questions about
a job of a thousand images beside it."""

import json
import subprocess
import threading
import time

from farm import BIN, Farm, table
from simulated import Workers


class Watch(threading.Thread):
    """The most memory that coordinator and Redis had, looked at four times a second."""

    def __init__(self, farm):
        super().__init__(daemon=True)
        self.farm, self.over = farm, threading.Event()
        self.coordinator = self.redis = 0.0

    def run(self):
        while not self.over.wait(0.25):
            self.coordinator = max(self.coordinator, self.farm.memory("coordinator"))
            self.redis = max(self.redis, self.farm.redis_memory())


def latency(farm, job, images, seconds):
    done = subprocess.run([BIN / "api_latency", farm.environment["DARKROOM_FARM"], job, str(images), str(seconds), "40"], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(done.stderr)
    return json.loads(done.stdout)


def passed(farm):
    return int(farm.sql("SELECT coalesce(sum((SELECT sum(n) FROM unnest(passed) AS n)), 0) FROM job_progress"))


def measure(images, seconds, highest):
    with Farm() as farm:
        watch = Watch(farm)
        watch.start()
        small, large = farm.prompts(1000, "small"), farm.prompts(images, "large")
        begun = time.monotonic()
        job = farm.submit(large)
        accepted = time.monotonic() - begun
        other = farm.submit(small)
        idle = {job: latency(farm, job, images, 5), other: latency(farm, other, 1000, 5)}
        # An encoder and a worker whose batches of 256 take so long that together they go at half
        # the highest rate.
        seconds_each = 256 * 4 / 3 / (highest / 2)
        # The encoder has a third as much to do.
        with Workers(farm, 1, 256, {"encode": 3 * seconds_each}), Workers(farm, 1, 256, dict.fromkeys(("base", "sr256", "sr1024"), seconds_each)):
            time.sleep(3)
            before, began = passed(farm), time.monotonic()
            busy = {job: latency(farm, job, images, seconds), other: latency(farm, other, 1000, seconds)}
            rate = (passed(farm) - before) / (time.monotonic() - began)
            farm.cli("cancel", job)
        watch.over.set()
        watch.join()
    return {"accepted": accepted, "rate": rate, "coordinator": watch.coordinator, "redis": watch.redis, "idle": (idle[job], idle[other]), "busy": (busy[job], busy[other])}


def report(images, result):
    print(f"## A job of {images} images\n")
    print(f"Accepted in {result['accepted']:.1f} s by streaming submit of the command line's client. Most memory from then to its cancel: "
          f"coordinator {result['coordinator']:.0f} MiB, Redis {result['redis']:.1f} MiB. It ran for a part of its length, at {result['rate']:.0f} transitions/s.\n")
    rows = []
    for what, pairs in (("nothing runs", result["idle"]), ("at half the highest rate", result["busy"])):
        for size, times in zip((images, 1000), pairs):
            rows.append([f"{size} images, {what}", *[f"{ms:.1f}" for ms in (*times["get"], *times["page"])]])
    table(["milliseconds", "GetJob p50", "GetJob p99", "ListImages (100) p50", "ListImages p99"], rows)
