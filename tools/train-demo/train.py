"""Train the demo cascade from nothing and write it, ready to ship: `python tools/train-demo/train.py`.

Phases, each resumable: text (the encoder, minutes), base (the long one), sr256, sr1024, then the cascade folder. State lives in `.train/`,
written atomically every few minutes: kill it at any time and give the same command again.
"""

import argparse
import os
from dataclasses import replace
from pathlib import Path

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # threads that wait must not burn the cores that others need

import torch

import base
import super_resolution
import text
from export import export
from training import default_workers

ROOT = Path(__file__).resolve().parents[2]
PHASES = ["text", "base", "sr256", "sr1024", "export"]


def train_text(state, share):
    if not (state / "text_encoder" / "model.safetensors").exists():
        text.train(state, steps=max(1, round(text.STEPS * share))).save_pretrained(state / "text_encoder")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=ROOT / ".train", help="where checkpoints live")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "demo", help="the cascade folder to replace")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes, one core each (default: every core, at most 8)")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    parser.add_argument("--share", type=float, default=1.0, help="of every phase's steps; 0.005 rehearses the whole in minutes")
    args = parser.parse_args()
    shortened = lambda plan: replace(plan, steps=max(1, round(plan.steps * args.share)))
    args.state.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(args.workers)
    if "text" in args.phases:
        train_text(args.state, args.share)
    if "base" in args.phases:
        base.train(args.state, args.workers, shortened(base.PLAN))
    if "sr256" in args.phases:
        super_resolution.train(super_resolution.SR256, args.state, args.workers, shortened(super_resolution.SR256.plan))
    if "sr1024" in args.phases:
        super_resolution.train(super_resolution.SR1024, args.state, args.workers, shortened(super_resolution.SR1024.plan))
    if "export" in args.phases:
        taken = export(args.state, args.out)
        print(f"wrote {args.out}: " + ", ".join(f"{name} at step {step}" for name, step in taken.items()))


if __name__ == "__main__":
    main()
