"""How long the same cascade takes under PyTorch and diffusers: renders prompts through every stage
and prints seconds per stage as JSON.

    python tools/train-demo/reference_render.py --count 8 --batch 8 --dtype bfloat16

The model is loaded once, one warm-up batch is not counted, and of `--repeats` runs the fastest
counts for each stage. A list of batch sizes is tried in turn; compare against the best.
"""

import argparse
import json
import platform
import time
from pathlib import Path

import numpy
import torch
from PIL import Image

import pictures
from cascade import Cascade

ROOT = Path(__file__).resolve().parents[2]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascade", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--prompt", action="append", help="repeatable; default: held-out captions")
    parser.add_argument("--count", type=int, default=8, help="how many pictures")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--memory-format", choices=["channels_last", "contiguous"], default="channels_last")
    parser.add_argument("--compile", action="store_true", help="torch.compile; the warm-up batch pays for it")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--last-stage", default=None)
    parser.add_argument("--out", type=Path, help="keep the pictures of the last run here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    prompts = args.prompt or [pictures.text(pictures.caption(s)) for s in pictures.held_out_scenes(args.count, 0)]
    prompts = [prompts[i % len(prompts)] for i in range(args.count)]
    rendered = []
    for dtype in args.dtype:
        began = time.perf_counter()
        formats = {"channels_last": torch.channels_last, "contiguous": torch.contiguous_format}
        cascade = Cascade(args.cascade, dtype=getattr(torch, dtype), last_stage=args.last_stage, memory_format=formats[args.memory_format])
        if args.compile:
            cascade.unets = [torch.compile(unet) for unet in cascade.unets]
        loading = time.perf_counter() - began
        for batch in args.batch:
            cascade.render(prompts[:batch], batch=batch)
            best = {}
            for _ in range(args.repeats):
                rendered, seconds = cascade.render(prompts, batch=batch)
                best = {k: min(v, best.get(k, v)) for k, v in seconds.items()}
            per_image = {k: round(v / len(prompts), 4) for k, v in best.items()}
            print(json.dumps({
                "dtype": dtype, "batch": batch, "threads": args.threads, "images": len(prompts), "load_seconds": round(loading, 3),
                "seconds_per_image": per_image | {"total": round(sum(best.values()) / len(prompts), 4)},
                "torch": torch.__version__, "machine": platform.processor() or platform.machine(),
            }), flush=True)
    if args.out:
        args.out.mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(rendered[-1]):
            Image.fromarray(((picture + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy().astype(numpy.uint8)).save(args.out / f"{i:03}.png")


if __name__ == "__main__":
    main()
