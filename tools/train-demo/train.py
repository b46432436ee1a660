"""Train the demo cascade from nothing and write it, ready to ship: `python tools/train-demo/train.py`.

Phases, each resumable: text (the encoder, minutes), base (the long one), sr256, sr1024, then the cascade folder. State lives in `.train/`,
written atomically every few minutes: kill it at any time and give the same command again.
"""

import argparse
import os
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


def train_text(state):
    if not (state / "text_encoder" / "model.safetensors").exists():
        text.train(state).save_pretrained(state / "text_encoder")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--state", type=Path, default=ROOT / ".train", help="where checkpoints live")
    parser.add_argument("--out", type=Path, default=ROOT / "models" / "demo", help="the cascade folder to replace")
    parser.add_argument("--workers", type=int, default=default_workers(), help="processes, one core each (default: every core, at most 8)")
    parser.add_argument("--phases", nargs="+", choices=PHASES, default=PHASES)
    args = parser.parse_args()
    torch.set_num_threads(args.workers)
    if "text" in args.phases:
        train_text(args.state)
    if "base" in args.phases:
        base.train(args.state, args.workers)
    if "sr256" in args.phases:
        super_resolution.train(super_resolution.SR256, args.state, args.workers)
    if "sr1024" in args.phases:
        super_resolution.train(super_resolution.SR1024, args.state, args.workers)
    if "export" in args.phases:
        taken = export(args.state, args.out)
        print(f"wrote {args.out}: " + ", ".join(f"{name} at step {step}" for name, step in taken.items()))


if __name__ == "__main__":
    main()
