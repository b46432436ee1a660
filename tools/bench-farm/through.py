"""One job of a million images, from submit to manifest: what it takes in memory and on disk, and
whether it is whole."""

import time

from farm import Farm, table
from million import Watch

COUNTS = "SELECT count(*), count(*) FILTER (WHERE state = 'done') FROM images"
SIZES = "SELECT relname, pg_total_relation_size(oid) / 1048576 FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace ORDER BY 2 DESC LIMIT 6"


def measure(images):
    with Farm() as farm:
        farm.start_members()
        watch = Watch(farm)
        watch.start()
        prompts = farm.prompts(images, "through")
        before, begun = farm.cpu(), time.monotonic()
        job = farm.submit(prompts)
        accepted = time.monotonic()
        farm.cli("watch", job)
        ended = time.monotonic()
        spent = {name: seconds - before.get(name, 0.0) for name, seconds in farm.cpu().items()}
        watch.over.set()
        watch.join()
        members = {name: farm.memory(name) for name in ("encoder", "worker")}
        rows, done = map(int, farm.sql(COUNTS).split("|"))
        outputs = int(farm.sql("SELECT count(*) FROM outputs"))
        manifest = farm.sql("SELECT manifest_key FROM jobs")
        lines = sum(1 for _ in open(farm.work / "artifacts" / manifest, "rb"))
        time.sleep(1.5)
        versions = int(farm.sql("SELECT sum(n_tup_upd + n_tup_del)::bigint FROM pg_stat_user_tables"))
        runs = int(farm.sql("SELECT count(*) FROM image_changes"))
        sizes = [row.split("|") for row in farm.sql(SIZES).splitlines()]
    return {
        "accepted": accepted - begun, "members": members, "seconds": ended - begun, "cpu": spent, "coordinator": watch.coordinator, "redis": watch.redis,
        "rows": rows, "done": done, "outputs": outputs, "lines": lines, "versions": versions / (4 * images), "runs": runs, "sizes": sizes,
    }


def report(images, result):
    print(f"## A job of {images} images, through to its manifest\n")
    whole = sum(result["cpu"].values())
    print(f"Accepted in {result['accepted']:.1f} s, ended with its manifest after {result['seconds']:.0f} s: {4 * images / result['seconds']:.0f} transitions/s, "
          f"{1e6 * whole / (4 * images):.0f} µs CPU each. Most memory: coordinator {result['coordinator']:.0f} MiB, Redis {result['redis']:.1f} MiB, "
          + ", ".join(f"{name} {most:.0f} MiB" for name, most in result["members"].items()) + ". "
          f"{result['done']} of {result['rows']} images done, {result['outputs']} outputs, {result['lines']} lines in the manifest; "
          f"{result['versions']:.2f} dead row versions a transition, {result['runs']} runs of changes kept.\n")
    table(["table", "MiB with indexes"], result["sizes"])
