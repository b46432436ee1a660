"""Measures rendering with the demo cascade on this machine: Darkroom, and the same networks, steps and sampler under diffusers.

    make bench-render                                     # everything
    tools/bench-render.sh --images 8 --no-reference       # less

Standard library only; the reference runs in `.venv`. Prints a table and asserts nothing.
"""

import argparse
import json
import os
import platform
import signal
import subprocess
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PROMPTS = [
    "a red circle above a blue square on a white background",
    "a small green star to the left of a large yellow heart on a black background",
    "a large purple ring on a white background",
    "an orange triangle below a pink diamond",
]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/debug/darkroom")
    parser.add_argument("--cascade", type=Path, default=ROOT / "models/demo")
    parser.add_argument("--images", type=int, default=32, help="pictures of the batch; a multiple of 4")
    parser.add_argument("--dtype", nargs="+", default=["f32", "bf16"], choices=["f32", "bf16"])
    parser.add_argument("--no-reference", action="store_true", help="without diffusers")
    args = parser.parse_args()
    binary = args.binary.resolve()
    print(f"{cpu()}, {os.cpu_count()} cores; load before: {os.getloadavg()[0]:.1f}")

    cold = cold_start(binary, args.cascade)
    print(f"\nfirst 1024 image of a cold process, everything included: {cold:.1f} s")
    columns = {}
    for dtype in args.dtype:
        columns[f"darkroom {dtype}"] = batch(binary, args.cascade, dtype, args.images)
    if not args.no_reference:
        columns.update(reference(args.cascade, args.dtype))
    table(columns, args.dtype)


def cpu():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.machine()


def cold_start(binary, cascade):
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command = [binary, "render", "--quiet", "--cascade", cascade, PROMPTS[0]]
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
        return time.perf_counter() - began


def batch(binary, cascade, dtype, images):
    """A farm renders a batch: model seconds per image and stage, wall seconds per image, busy share, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "up", "--json", "--listen", "127.0.0.1:0", "--cascade", cascade, "--dtype", dtype]
        farm = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            json.loads(farm.stdout.readline())
            run = lambda *words: subprocess.run([binary, *words], cwd=folder, check=True, capture_output=True, text=True).stdout
            # One picture first: libtorch's own set-up is part of the cold start above, not of this.
            job = run("submit", "--seed", "999", PROMPTS[0]).strip()
            run("watch", job)
            job = run("submit", "--seed", "1", "-n", str(max(1, images // len(PROMPTS))), *PROMPTS).strip()
            run("watch", job)
            status = json.loads(run("--json", "status", job))
            rows = [json.loads(line) for line in run("--json", "ls", job).splitlines()]
            peak = next(int(line.split()[1]) for line in Path(f"/proc/{farm.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        finally:
            farm.send_signal(signal.SIGTERM)
            farm.wait(timeout=60)
    seconds = {}
    for row in rows:
        for stage in row["stage_seconds"]:
            seconds[stage["stage"]] = seconds.get(stage["stage"], 0.0) + stage["seconds"]
    wall = status["finished_at"] - status["created_at"]
    return {
        "stages": {stage: total / len(rows) for stage, total in seconds.items()},
        "wall": wall / len(rows),
        "busy": sum(seconds.values()) / wall,
        "peak": peak / 1024,
        "images": len(rows),
    }


def reference(cascade, dtypes):
    """diffusers at its best batch size, for each number format."""
    names = {"f32": "float32", "bf16": "bfloat16"}
    columns = {}
    for dtype in dtypes:
        command = [ROOT / ".venv/bin/python", ROOT / "tools/train-demo/reference_render.py", "--cascade", cascade, "--dtype", names[dtype]]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        runs = [json.loads(line) for line in process.stdout if line.startswith("{")]
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or not runs:
            raise SystemExit(f"error: {command[1]} ended with {process.returncode}")
        best = min(runs, key=lambda run: run["seconds_per_image"]["total"])
        stages = {stage: seconds for stage, seconds in best["seconds_per_image"].items() if stage not in ("total", "text")}
        columns[f"diffusers {dtype} (batches of {best['batch']})"] = {
            "stages": stages, "wall": best["seconds_per_image"]["total"], "busy": None, "peak": usage.ru_maxrss / 1024, "images": best["images"],
        }
    return columns


def table(columns, dtypes):
    stages = list(next(iter(columns.values()))["stages"])
    rows = [(f"{stage}, s/image", lambda column, stage=stage: number(column["stages"].get(stage), ".3f")) for stage in stages]
    rows += [
        ("whole image, s (wall)", lambda column: number(column["wall"], ".3f")),
        ("model busy", lambda column: number(column["busy"], ".1%")),
        ("peak memory, MiB", lambda column: number(column["peak"], ".0f")),
        ("images", lambda column: str(column["images"])),
    ]
    width = max(len(name) for name in columns) + 2
    print("\n" + " " * 24 + "".join(name.rjust(width) for name in columns))
    for name, cell in rows:
        print(name.ljust(24) + "".join(cell(column).rjust(width) for column in columns.values()))
    for dtype in dtypes:
        ours = columns.get(f"darkroom {dtype}")
        theirs = next((column for name, column in columns.items() if name.startswith(f"diffusers {dtype}")), None)
        if ours and theirs:
            ratios = ", ".join(f"{stage} {theirs['stages'][stage] / ours['stages'][stage]:.2f}" for stage in stages if stage in theirs["stages"])
            print(f"\ndiffusers / darkroom, {dtype}: whole image {theirs['wall'] / ours['wall']:.2f}; {ratios}")


def number(value, form):
    return "-" if value is None else format(value, form)


if __name__ == "__main__":
    main()
