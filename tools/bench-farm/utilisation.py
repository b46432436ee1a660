"""How busy 1, 10, 100 and 1,000 workers are kept: time in which their models ran, of the time while
there is work."""

import time

from farm import Farm, table
from simulated import Workers

# Seconds of a batch of eight. Those of a data-centre GPU with the published checkpoints are some
# ten times as long, so each simulated worker asks of the farm what ten such GPUs would.
STAGES = {"base": 2.5, "sr256": 1.5, "sr1024": 4.0}
BATCH = 8


def measure(counts, seconds):
    results = []
    for count in counts:
        with Farm() as farm:
            whole = sum(STAGES.values())
            images = int(count * BATCH * (seconds + 40) / whole) + 4 * BATCH * count
            job = farm.submit(farm.prompts(images, "utilisation"))
            # Every text is encoded first: how fast that goes is another table's business.
            with Workers(farm, 1, 256, {"encode": 0}):
                while farm.sql("SELECT bool_and(passed[1] = texts) FROM job_progress") != "t":
                    time.sleep(0.2)
            with Workers(farm, count, BATCH, STAGES) as workers:
                # Until the first batches are through and the workers are out of step with each
                # other.
                time.sleep(whole + 2)
                cpu, (began, before) = farm.cpu(), workers.busy()
                time.sleep(seconds)
                (ended, after), spent = workers.busy(), farm.cpu()
                ready = int(farm.sql("SELECT ready[2] + ready[3] + ready[4] FROM job_progress"))
                clients = farm.redis("INFO", "clients").split("connected_clients:")[1].split()[0]
                rate = (after - before) / (ended - began) / whole * BATCH * len(STAGES)
                farm.cli("cancel", job)
        cores = {name: (spent[name] - cpu.get(name, 0)) / (ended - began) for name in spent}
        results.append({"count": count, "share": (after - before) / count / (ended - began), "rate": rate, "ready": ready, "clients": clients, "cores": cores})
    return results


def report(results, seconds):
    times = ", ".join(f"{stage} {time} s" for stage, time in STAGES.items())
    print(f"## Utilisation: simulated workers, a batch of {BATCH}: {times}; {seconds} s each\n")
    rows = []
    for one in results:
        cores = ", ".join(f"{name.split('-')[0]} {share:.2f}" for name, share in sorted(one["cores"].items(), key=lambda pair: -pair[1]))
        rows.append([one["count"], f"{100 * one['share']:.2f} %", f"{one['rate']:.0f}", one["ready"], one["clients"], cores])
    table(["workers", "utilisation", "transitions/s", "images ready at the end", "connections to Redis", "cores used"], rows)
