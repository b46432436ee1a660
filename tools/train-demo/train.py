"""Train the demo cascade from nothing and write it, ready to ship: `python
tools/train-demo/train.py`.

Phases, each resumable: text (the encoder, minutes), base (the long one), sr256, sr1024, then the
cascade folder. State lives in `.train/`, written atomically every few minutes: kill it at any time
and give the same command again.

With `--device cuda`, or with `--seconds`, the three U-Nets train side by side, by the clock: see
`timed.py`.
"""

import argparse
import os
import shutil
from dataclasses import replace
from pathlib import Path

# Threads that wait must not burn the cores that others need.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

import torch

import base
import super_resolution
import text
import timed
from export import export
from training import default_workers

ROOT = Path(__file__).resolve().parents[2]
PHASES = ["text", "base", "sr256", "sr1024", "export"]


SECONDS = 300.0  # of a card, for each U-Net: all three at once


def train_text(state, share, device, text_from):
    folder = state / "text_encoder"
    if (folder / "model.safetensors").exists():
        return
    if text_from:
        if not (text_from / "model.safetensors").exists():
            raise SystemExit(f"error: --text-from {text_from} has no model.safetensors")
        new = folder.with_name("text_encoder.new")
        shutil.copytree(text_from, new, dirs_exist_ok=True)
        new.rename(folder)
    else:
        text.train(state, steps=max(1, round(text.STEPS * share)), device=device).save_pretrained(folder)


def train_by_the_clock(args):
    encoder = args.state / "text_encoder"
    stages = [(base.ON_A_CARD, base.Setup(encoder))]
    stages += [(stage.on_a_card, super_resolution.Setup(stage, encoder)) for stage in (super_resolution.SR256, super_resolution.SR1024)]
    stages = [(plan, setup) for plan, setup in stages if plan.name in args.phases]
    if stages:
        timed.train_all(stages, timed.Run(
            args.state, args.seconds or SECONDS, args.device, args.loaders, args.batch_scale, args.rate_scale, args.start_from,
        ))


def train_in_steps(args):
    shortened = lambda plan: replace(plan, steps=max(1, round(plan.steps * args.share)))
    if "base" in args.phases:
        base.train(args.state, args.workers, shortened(base.PLAN))
    for stage in (super_resolution.SR256, super_resolution.SR1024):
        if stage.plan.name in args.phases:
            super_resolution.train(stage, args.state, args.workers, shortened(stage.plan))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=ROOT / ".train", help="where checkpoints live")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "demo", help="the cascade folder to replace")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes, one core each (default: every core, at most 8)")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--share", type=float, default=1.0, help="of every phase's steps; 0.005 rehearses the whole in minutes")
    parser.add_argument("--text-from", type=Path, help="take this trained text encoder's folder instead of training one")
    clock = parser.add_argument_group("by the clock, on a card")
    clock.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    clock.add_argument("--seconds", type=float, help=f"how long the U-Nets train, all at once (default on cuda: {SECONDS:.0f}; on cpu they train in steps)")
    clock.add_argument("--loaders", type=int, default=4, help="processes that make captions, for each U-Net")
    clock.add_argument("--batch-scale", type=float, default=1.0, help="of every batch; 0.02 rehearses on a CPU")
    clock.add_argument("--rate-scale", type=float, default=1.0, help="of every learning rate")
    clock.add_argument("--start-from", type=Path, help="a cascade folder whose U-Nets to begin with, instead of with nothing")
    args = parser.parse_args()
    if args.device.startswith("cuda") and not torch.cuda.is_available():
        raise SystemExit("error: --device cuda, but PyTorch sees no card")
    args.state.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.workers)
    if "text" in args.phases:
        train_text(args.state, args.share, args.device, args.text_from)
    if args.seconds or args.device != "cpu":
        train_by_the_clock(args)
    else:
        train_in_steps(args)
    if "export" in args.phases:
        taken = export(args.state, args.out)
        print(f"wrote {args.out}: " + ", ".join(f"{name} at step {step}" for name, step in taken.items()))


if __name__ == "__main__":
    main()
