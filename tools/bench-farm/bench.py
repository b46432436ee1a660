"""`make bench-farm`: how far the farm goes on this machine, as tables. BENCH chooses sections, by
default all of them:

    BENCH=transitions,peers     stage transitions a second; the same pipeline on BullMQ and Celery
    BENCH=million               one job of BENCH_IMAGES (1,000,000) images
    BENCH=through               the same job from submit to manifest, undisturbed: some minutes
    BENCH=held                  from ready to held, on an idle farm
    BENCH=utilisation           BENCH_WORKERS (1,10,100,1000) simulated workers
    BENCH=snapshot              with and without a held snapshot
    BENCH=texts                 BENCH_IMAGES distinct prompts through a real encoder, which `make
                                bench-texts` builds; not among the default

BENCH_PICTURES is the number of pictures of a run (20000), BENCH_SECONDS the length of those that go
by time (30).
"""

import os
import time

import held
import million
import peers
import snapshot
import texts
import through
import transitions
import utilisation

SECTIONS = ("transitions", "peers", "million", "through", "held", "utilisation", "snapshot")


def main():
    asked = os.environ.get("BENCH", "").replace(",", " ").split() or list(SECTIONS)
    if unknown := set(asked) - {*SECTIONS, "texts"}:
        raise SystemExit(f"BENCH names {', '.join(sorted(unknown))}; accepted: {', '.join(SECTIONS)}, texts")
    pictures, seconds = int(os.environ.get("BENCH_PICTURES", "20000")), int(os.environ.get("BENCH_SECONDS", "30"))
    print(f"# The farm on {os.cpu_count()} cores, {time.strftime('%Y-%m-%d %H:%M', time.gmtime())} UTC; load before: {os.getloadavg()[0]:.1f}\n", flush=True)
    # The rates that others compare themselves with.
    highest = None
    if {"transitions", "peers", "million"} & set(asked):
        result = transitions.measure(pictures)
        highest = result["rate"]
        transitions.report(pictures, result)
    if "peers" in asked:
        peers.report(highest, peers.measure(pictures))
    if "million" in asked:
        images = int(os.environ.get("BENCH_IMAGES", "1000000"))
        million.report(images, million.measure(images, seconds, highest))
    if "through" in asked:
        images = int(os.environ.get("BENCH_IMAGES", "1000000"))
        through.report(images, through.measure(images))
    if "held" in asked:
        held.report(held.measure(200))
    if "utilisation" in asked:
        counts = [int(count) for count in os.environ.get("BENCH_WORKERS", "1,10,100,1000").split(",")]
        utilisation.report(utilisation.measure(counts, seconds), seconds)
    if "snapshot" in asked:
        snapshot.report(pictures, snapshot.measure(pictures, 2))
    if "texts" in asked:
        images = int(os.environ.get("BENCH_IMAGES", "1000000"))
        texts.report(images, texts.measure(images))


if __name__ == "__main__":
    main()
