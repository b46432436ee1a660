"""Measures rendering on a GPU: pictures a second, the share of the card's matrix peak that this is, and diffusers beside it.

    make bench-gpu                                    # the demo cascade and a base stage of IF-I-M's size
    .venv/bin/python tools/bench_gpu.py --device cpu  # the same on a CPU: tries the script, its figures mean little

The peak is measured, not looked up: products of large bf16 matrices. A picture's operations are counted by PyTorch on the same network.
diffusers runs in bf16, channels-last, in batches, as it is and compiled. Prints a table and asserts nothing.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

import bench_cascade

sys.path.insert(0, str(Path(__file__).resolve().parent / "train-demo"))
from cascade import load_unet  # noqa: E402

DEMO = [("base", 64, 20, 1.5, None), ("sr256", 256, 4, 1.0, 120), ("sr1024", 1024, 4, 1.0, 50)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=bench_cascade.ROOT / "target/debug")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    args.target = args.target.resolve()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: PyTorch sees no CUDA device; --device cpu tries the script without one")
    peak = matrix_peak(args.device)
    name = torch.cuda.get_device_name() if args.device == "cuda" else bench_cascade.cpu()
    print(f"{name}, {time.strftime('%Y-%m-%d')}; bf16 matrix products: {peak / 1e12:.1f} TFLOP/s\n")
    print("| stage | darkroom, images/s | share of the peak | diffusers eager | diffusers compiled | ratio to eager | to compiled |\n|" + " --- |" * 7)
    for stage in DEMO:
        row(args, bench_cascade.ROOT / "models/demo", stage, peak)
    with tempfile.TemporaryDirectory() as folder:
        toml = 'name = "base"\nfolder = "base"\nsize = 64\nsampler = "dpmsolver++"\nsteps = 4\nguidance_scale = 7.0\n'
        bench_cascade.random_cascade(Path(folder), "base", bench_cascade.IF_M, toml)
        row(args, Path(folder), ("base", 64, 4, 7.0, None), peak, "IF-I-M's size")


def row(args, cascade, stage, peak, label=None):
    name, size, steps, guidance, level = stage
    words = ":".join(str(word) for word in (name, size, steps, guidance, level) if word is not None)
    command = [args.target / "examples/time_stages", cascade, "bf16", f"images={args.images}", words]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    ours = args.images / (lambda run: run["seconds_per_image"] * run["images"])(json.loads(done.stdout.splitlines()[-1]))
    operations, eager = reference(args, cascade, stage, compiled=False)
    compiled = None if args.no_compile else reference(args, cascade, stage, compiled=True)[1]
    cells = [label or name, f"{ours:.2f}", f"{ours * operations / peak:.1%}", f"{eager:.2f}", f"{compiled:.2f}" if compiled else ""]
    print("| " + " | ".join([*cells, f"{ours / eager:.2f}", f"{ours / compiled:.2f}" if compiled else ""]) + " |", flush=True)


@torch.inference_mode()
def reference(args, cascade, stage, compiled):
    """Operations a picture, and pictures a second of the bare network loop: no scheduler, which flatters it."""
    from torch.utils.flop_counter import FlopCounterMode
    name, size, steps, guidance, level = stage
    network = load_unet(cascade / name / "unet").to(args.device, torch.bfloat16).to(memory_format=torch.channels_last).eval()
    rows = args.images * (2 if guidance != 1 else 1)
    channels = network.config["in_channels"]
    x = torch.randn(rows, channels, size, size, device=args.device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    width = network.config.get("encoder_hid_dim") or network.config["cross_attention_dim"]
    text = torch.randn(rows, 32, width, device=args.device, dtype=torch.bfloat16)
    labels = {} if level is None else {"class_labels": torch.full((rows,), level, device=args.device)}
    time_of = torch.full((rows,), 500, device=args.device)
    with FlopCounterMode(display=False) as counter:
        network(x, time_of, text, **labels)
    operations = counter.get_total_flops() * steps / args.images
    run = torch.compile(network) if compiled else network
    for _ in range(2):
        run(x, time_of, text, **labels)
    wait(args.device)
    begun = time.perf_counter()
    for _ in range(steps):
        run(x, time_of, text, **labels)
    wait(args.device)
    return operations, args.images / (time.perf_counter() - begun)


def matrix_peak(device):
    """Operations a second of products of large bf16 matrices, the best of five."""
    size = 8192 if device == "cuda" else 1024
    a, b = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in range(2))
    best = float("inf")
    for _ in range(5):
        wait(device)
        begun = time.perf_counter()
        for _ in range(4):
            a @ b
        wait(device)
        best = min(best, (time.perf_counter() - begun) / 4)
    return 2 * size**3 / best


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
