"""The four-step pipeline that does nothing, on Celery: a chain of four tasks for each job, as
Celery's canvas documentation recommends, results ignored, prefetching as its optimising guide says
for very short tasks. Prints one JSON line.

    python celery_peer.py REDIS_PORT JOBS
"""

import json
import os
import subprocess
import sys
import time

from celery import Celery, chain

port = os.environ.get("PEER_REDIS_PORT") or sys.argv[1]
app = Celery("celery_peer", broker=f"redis://127.0.0.1:{port}/1")
app.conf.update(
    task_ignore_result=True,
    worker_prefetch_multiplier=64,
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)
COUNTER = "celery-peer-done"


@app.task(name="encode")
def encode(job):
    return job


@app.task(name="base")
def base(job):
    return job


@app.task(name="sr256")
def sr256(job):
    return job


@app.task(name="sr1024")
def sr1024(job):
    app.backend_client.incr(COUNTER)
    return job


def client():
    import redis

    return redis.Redis(port=int(port), db=2)


app.backend_client = client()


def main():
    jobs = int(sys.argv[2])
    app.backend_client.delete(COUNTER)
    worker = subprocess.Popen(
        [sys.executable, "-m", "celery", "-A", "celery_peer", "worker", "--concurrency", "2", "--loglevel", "ERROR", "--without-gossip", "--without-mingle"],
        cwd=os.path.dirname(os.path.abspath(__file__)),
        env=os.environ | {"PEER_REDIS_PORT": port, "C_FORCE_ROOT": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    deadline = time.monotonic() + 300
    try:
        while not app.control.ping(timeout=0.5):
            if time.monotonic() > deadline or worker.poll() is not None:
                sys.exit("the worker does not answer")
        start = time.monotonic()
        for k in range(jobs):
            chain(encode.s({"prompt": f"picture {k}", "seed": k}), base.s(), sr256.s(), sr1024.s()).apply_async()
        while int(app.backend_client.get(COUNTER) or 0) < jobs:
            if time.monotonic() > deadline:
                sys.exit("not done in time")
            time.sleep(0.01)
        seconds = time.monotonic() - start
        print(json.dumps({"peer": "Celery", "jobs": jobs, "seconds": seconds, "transitions_per_second": 4 * jobs / seconds}))
    finally:
        worker.terminate()
        worker.wait(30)


if __name__ == "__main__":
    main()
