"""Stage transitions a second through the whole farm, and what each process spends on them."""

import time

from farm import Farm, table


def run(farm, pictures, label):
    """Submit to manifest; returns a dictionary of what was measured."""
    prompts = farm.prompts(pictures, label)
    before = farm.cpu()
    begun = time.monotonic()
    job = farm.submit(prompts)
    accepted = time.monotonic()
    farm.cli("watch", job)
    ended = time.monotonic()
    spent = {name: seconds - before.get(name, 0.0) for name, seconds in farm.cpu().items()}
    return {"job": job, "accept": accepted - begun, "seconds": ended - begun, "rate": 4 * pictures / (ended - begun), "cpu": spent}


def measure(pictures):
    with Farm() as farm:
        farm.start_members()
        run(farm, 500, "warm-up")
        result = run(farm, pictures, "whole")
        result["memory"], result["redis"] = farm.memory("coordinator"), farm.redis_memory()
    return result


def report(pictures, result):
    print(f"## Transitions: {pictures} pictures of distinct prompts, four stages each\n")
    print(f"Accepted in {result['accept']:.1f} s, whole with manifest in {result['seconds']:.1f} s: {result['rate']:.0f} transitions/s. "
          f"Peak memory: coordinator {result['memory']:.0f} MiB, Redis {result['redis']:.0f} MiB.\n")
    whole = sum(result["cpu"].values())
    rows = [(name, f"{seconds:.1f}", f"{1e6 * seconds / (4 * pictures):.0f}", f"{100 * seconds / whole:.0f} %") for name, seconds in sorted(result["cpu"].items(), key=lambda one: -one[1])]
    table(["process", "CPU seconds", "µs a transition", "share"], [*rows, ("together", f"{whole:.1f}", f"{1e6 * whole / (4 * pictures):.0f}", "")])
