"""How close the super-resolution stages come to the exact pictures: the larger picture made from
the exact smaller one, beside the exact larger one.

    python tools/train-demo/quality.py models/demo --count 16

For each stage and, as a yardstick, for bilinear enlargement: PSNR in dB over all pixels and over
those at outlines (where the exact picture's gradient is not 0), and the gradient at outlines as a
share of the exact picture's: how sharp they are. Prints a table.
"""

import argparse
from pathlib import Path

import torch
from torch.nn import functional as F

import pictures
from cascade import Cascade


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cascade", type=Path)
    parser.add_argument("--count", type=int, default=16, help="held-out scenes")
    parser.add_argument("--large", type=int, default=4, help="of them at sizes above 256")
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    args = parser.parse_args()
    cascade = Cascade(args.cascade, dtype=getattr(torch, args.dtype))
    scenes = pictures.held_out_scenes(args.count - args.count // 3, args.count // 3)
    geometry = pictures.place(scenes)
    text = cascade.encode([pictures.text(pictures.caption(scene)) for scene in scenes])
    empty = cascade.encode([""])
    print("| | PSNR, dB | PSNR at outlines, dB | sharpness of outlines |")
    print("| --- | --- | --- | --- |")
    for index, stage in enumerate(cascade.stages[1:], 1):
        count = args.count if stage["size"] <= 256 else args.large
        some = {key: value[:count] for key, value in geometry.items()}
        below = pictures.draw_whole(some, cascade.stages[index - 1]["size"])
        exact = pictures.draw_whole(some, stage["size"])
        made = []
        for row in range(count):
            generator = [torch.Generator().manual_seed(row)]
            made.append(cascade.run_stage(index, text[row : row + 1], empty, below[row : row + 1], generator))
        plain = F.interpolate(below, size=exact.shape[-2:], mode="bilinear", align_corners=True)
        for name, pictures_of in ((stage["name"], torch.cat(made)), (f"bilinear to {stage['size']}", plain)):
            print(f"| {name} | " + " | ".join(compare(pictures_of, exact)) + " |", flush=True)


def compare(made, exact):
    edges = gradient(exact) > 0.05
    error = (made - exact).square()
    psnr = lambda mean: 10 * torch.log10(4 / mean).item()
    sharpness = gradient(made)[edges].mean() / gradient(exact)[edges].mean()
    at_edges = error.mean(1)[edges].mean()
    return [f"{psnr(error.mean()):.1f}", f"{psnr(at_edges):.1f}", f"{sharpness:.0%}"]


def gradient(rows):
    """The steepest channel's gradient, [B,H,W], the last line and column 0."""
    down = F.pad((rows[:, :, 1:] - rows[:, :, :-1]).abs().amax(1), (0, 0, 0, 1))
    right = F.pad((rows[..., 1:] - rows[..., :-1]).abs().amax(1), (0, 1))
    return torch.maximum(down, right)


if __name__ == "__main__":
    main()
