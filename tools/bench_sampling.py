"""Measures what sampling settings do to the demo cascade's pictures: caption score beside cost, for
settings that change a picture a little.

    make bench-sampling                                    # all: half an hour on two idle cores
    tools/bench-sampling.sh --captions 20 --rows guidance  # less

A farm of the built `darkroom` renders held-out captions at 64 pixels (the base stage, seed i for
caption i, the same for every row), and the scorer of `tools/train-demo` judges the PNGs. Prints a
Markdown table as it goes and asserts nothing.
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tools/train-demo"))
import judge  # noqa: E402
import pictures  # noqa: E402
from score import PAIRS, SINGLES, evenly, read_png, share  # noqa: E402

DEFAULT = ("as shipped: dpmsolver++ 20 steps, guidance 1.5", [])
ROWS = {
    "guidance": [
        ("guidance 1", ["--guidance", "1"]),
        ("guidance 2", ["--guidance", "2"]),
        ("guidance 3", ["--guidance", "3"]),
    ],
    "interval": [
        ("guidance 1.5 at timesteps 500..999", ["--guidance-schedule", "500..999"]),
        ("guidance 1.5 at timesteps 0..500", ["--guidance-schedule", "0..500"]),
        ("guidance 1.5 at timesteps 200..800", ["--guidance-schedule", "200..800"]),
        ("guidance 1.5 oscillating:5:1", ["--guidance-schedule", "oscillating:5:1"]),
    ],
    "steps": [
        ("10 steps", ["--steps", "10"]),
        ("6 steps", ["--steps", "6"]),
        ("6 steps, trailing", ["--steps", "6", "--spacing", "trailing"]),
        ("4 steps", ["--steps", "4"]),
    ],
    "cache": [
        ("features every 2 steps", ["--cache-interval", "2"]),
        ("features every 3 steps", ["--cache-interval", "3"]),
        ("features every 5 steps", ["--cache-interval", "5"]),
    ],
    "sampler": [
        ("sde-dpmsolver++", ["--sampler", "sde-dpmsolver++"]),
        ("ddim", ["--sampler", "ddim"]),
        ("ddim, trailing", ["--sampler", "ddim", "--spacing", "trailing"]),
        ("ddpm, fast27", ["--sampler", "ddpm", "--preset", "fast27"]),
    ],
    # The shipped settings in f32, by a farm of its own.
    "format": [],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/debug/darkroom")
    parser.add_argument("--cascade", type=Path, default=ROOT / "models/demo")
    parser.add_argument("--captions", type=int, default=60, help="how many of the held-out captions, evenly chosen")
    parser.add_argument("--rows", nargs="+", choices=ROWS, default=list(ROWS), help="which groups of settings; the shipped ones always go first")
    parser.add_argument("--threads", type=int, default=None, help="of the model")
    args = parser.parse_args()
    torch.set_num_threads(1)
    scenes = evenly(pictures.held_out_scenes(PAIRS, SINGLES), args.captions)
    with tempfile.TemporaryDirectory() as folder:
        lines = [{"prompt": pictures.text(pictures.caption(s)), "seed": i} for i, s in enumerate(scenes)]
        print(f"{args.captions} captions, {os.cpu_count()} cores, bf16 but where it says f32\n")
        print("| base stage | rows of forward passes | model s/image | " + " | ".join(judge.ASPECTS) + " | all right | grey levels moved |")
        print("| --- " * (5 + len(judge.ASPECTS)) + "|")
        shipped = None
        rows = [("bf16", [DEFAULT] + [row for group in args.rows for row in ROWS[group]])]
        if "format" in args.rows:
            rows.append(("f32", [("as shipped, in f32", [])]))
        for dtype, of_dtype in rows:
            # A farm of its own state: another would use the first one's pictures again.
            state = Path(folder, dtype)
            state.mkdir()
            (state / "captions.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
            with farm(args, state, dtype):
                for label, flags in of_dtype:
                    rendered, settings, seconds = render(args.binary.resolve(), state, flags)
                    shipped = rendered if shipped is None else shipped
                    verdicts = [judge.judge(picture, scene) for picture, scene in zip(rendered, scenes)]
                    moved = sum((a - b).abs().mean().item() for a, b in zip(rendered, shipped)) / len(scenes) * 127.5
                    cells = [label, str(forward_rows(settings)), f"{seconds:.2f}"]
                    cells += [f"{share(verdicts, aspect):.0f} %" for aspect in [*judge.ASPECTS, "all"]] + [f"{moved:.1f}"]
                    print("| " + " | ".join(cells) + " |", flush=True)


@contextlib.contextmanager
def farm(args, folder, dtype):
    """A farm in `folder`, which the command line finds there."""
    command = [args.binary.resolve(), "up", "--json", "--listen", "127.0.0.1:0", "--cascade", args.cascade.resolve(), "--dtype", dtype]
    command += ["--threads", str(args.threads)] if args.threads else []
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        json.loads(process.stdout.readline())
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=60)


def render(binary, folder, flags):
    """The captions' pictures, the base stage's effective settings, and the model's seconds per
    image."""
    run = lambda *words: subprocess.run([binary, *words], cwd=folder, check=True, capture_output=True, text=True).stdout
    job = run("submit", "--batch", "captions.jsonl", "--size", "64", *flags).strip()
    run("watch", job)
    out = Path(folder, job)
    run("get", job, "--out", out)
    settings = json.loads(run("--json", "status", job))["settings"][0]
    images = [json.loads(line) for line in run("--json", "ls", job).splitlines()]
    seconds = sum(stage["seconds"] for image in images for stage in image["stage_seconds"]) / len(images)
    return [read_png(path) for path in sorted(out.glob("*.png"))], settings, seconds


def forward_rows(settings):
    """How many rows one image puts through the network: two where a step is guided, one where
    not."""
    steps, scale, schedule = settings["steps"], settings["guidance_scale"], settings["guidance_schedule"]
    if scale == 1:
        return steps
    if schedule.startswith("oscillating"):
        _, first, low = schedule.split(":")
        return 2 * steps - (0 if float(low) != 1 else len(range(int(first), steps, 2)))
    if schedule == "constant":
        return 2 * steps
    low, high = (int(timestep) for timestep in schedule.split(".."))
    # The rows here all spread DPM-Solver++'s steps evenly from where the schedule is clipped.
    timesteps = settings["timesteps"] or [round(995 * (steps - i) / steps) for i in range(steps)]
    return steps + sum(low <= t <= high for t in timesteps)


if __name__ == "__main__":
    main()
