"""A million distinct prompts through a real encoder: how fast, and what memory it takes from the
first text to the last."""

import contextlib
import os
import threading
import time

from farm import ROOT, Farm, table

# Texts that are encoded when memory is looked at, as parts of all.
LOOKS = (0.01, 0.05, 0.1, 0.25, 0.5, 0.75, 1.0)
PASSED = "SELECT coalesce(max(passed[1]), 0) FROM job_progress"


class Sweep(threading.Thread):
    """Deletes embeddings half a minute after they were stored: a million of the demo's take 20 GB,
    and nobody reads them here."""

    def __init__(self, folder):
        super().__init__(daemon=True)
        self.folder, self.over = folder, threading.Event()

    def run(self):
        while not self.over.wait(10):
            self.delete(time.time() - 30)

    def delete(self, before):
        for place, _, names in os.walk(self.folder):
            for name in names:
                with contextlib.suppress(OSError):
                    path = os.path.join(place, name)
                    if os.stat(path).st_mtime < before:
                        os.unlink(path)
                        os.rmdir(place)
            if self.over.is_set():
                return


def measure(texts):
    with Farm(cascade=ROOT / "models/demo") as farm:
        farm.start("encoder", "model")
        farm.wait_for_workers(1)
        rows = [["before the first", *memory(farm), ""]]
        sweep = Sweep(farm.work / "artifacts" / "embeddings")
        sweep.start()
        begun = time.monotonic()
        job = farm.submit(farm.prompts(texts, "texts"))
        accepted = time.monotonic() - begun
        looks = [round(texts * part) for part in LOOKS]
        while looks:
            time.sleep(1)
            passed = int(farm.sql(PASSED))
            if passed >= looks[0]:
                looks = [look for look in looks if look > passed]
                rows.append([f"{passed:,}", *memory(farm), f"{passed / (time.monotonic() - begun):.0f}"])
                print(f"{passed:,} texts encoded; resident, MiB: encoder {rows[-1][1]}, coordinator {rows[-1][2]}", flush=True)
        seconds = time.monotonic() - begun
        most = {name: farm.memory(name) for name in ("encoder", "coordinator")}
        files, size = map(int, farm.sql("SELECT count(*), sum(size)::bigint FROM embeddings WHERE state = 'done'").split("|"))
        farm.cli("cancel", job)
        sweep.over.set()
        sweep.join()
    return {"accepted": accepted, "seconds": seconds, "rows": rows, "most": most, "files": files, "bytes": size}


def memory(farm):
    return [f"{farm.memory(name, 'VmRSS'):.0f}" for name in ("encoder", "coordinator")]


def report(texts, result):
    print(f"\n## {texts:,} distinct prompts through the demo cascade's encoder\n")
    print(f"Accepted in {result['accepted']:.1f} s, encoded and stored {result['seconds']:.0f} s after the submit began: {texts / result['seconds']:.0f} texts a second. "
          f"{result['files']:,} embeddings, {result['bytes'] / 1e9:.1f} GB. Most memory: encoder {result['most']['encoder']:.0f} MiB, "
          f"coordinator {result['most']['coordinator']:.0f} MiB.\n")
    table(["texts encoded", "encoder, MiB", "coordinator, MiB", "texts a second so far"], result["rows"])
