"""Measures rendering on a GPU: pictures a second, the share of the card's matrix peak that this is,
and diffusers beside it.

    make bench-gpu          # the demo cascade and a base stage of IF-I-M's size
    # Tries the script without a GPU; its figures mean little.
    make bench-gpu ARGS="--device cpu --images 1 --no-compile"

The peak is measured, not looked up: products of large bf16 matrices. A picture's operations are
counted by PyTorch on the same network. Darkroom runs each stage with CUDA graphs and without.
diffusers runs in bf16, channels-last, in one batch, as it is and compiled. Prints a table and
asserts nothing; a cell is empty where memory ran out or the compiler gave up.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ.setdefault("DIFFUSERS_VERBOSITY", "error")

import torch  # noqa: E402

import bench_cascade  # noqa: E402

sys.path.insert(0, str(Path(__file__).resolve().parent / "train-demo"))
from cascade import load_unet  # noqa: E402

DEMO = [("base", 64, 20, 1.5, None), ("sr256", 256, 4, 1.0, 120), ("sr1024", 1024, 4, 1.0, 50)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=bench_cascade.ROOT / "target/debug")
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--images", type=int, nargs="+", default=[1, 8, 32], help="pictures in a batch")
    parser.add_argument("--only", nargs="+", default=["base", "sr256", "sr1024", "if-m"], choices=["base", "sr256", "sr1024", "if-m"])
    parser.add_argument("--steps", type=int, help="steps of every stage; each stage's usual ones when absent")
    parser.add_argument("--no-compile", action="store_true")
    args = parser.parse_args()
    args.target = args.target.resolve()
    if args.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("error: PyTorch sees no CUDA device; --device cpu tries the script without one")
    if not (args.target / "examples/time_stages").exists():
        raise SystemExit(f"error: {args.target}/examples/time_stages is not there; build it: cargo build -p darkroom-diffusion --example time_stages")
    peak = matrix_peak(args.device)
    name = torch.cuda.get_device_name() if args.device == "cuda" else bench_cascade.cpu()
    print(f"{name}, {time.strftime('%Y-%m-%d')}; bf16 matrix products: {peak / 1e12:.1f} TFLOP/s; images/s\n")
    columns = ["stage", "images", "darkroom", "without graphs", "share of the peak", "diffusers eager", "compiled", "ratio to eager", "to compiled"]
    print("| " + " | ".join(columns) + " |\n|" + " --- |" * len(columns), flush=True)
    for stage in DEMO:
        if stage[0] in args.only:
            rows(args, bench_cascade.ROOT / "models/demo", stage, peak)
    if "if-m" in args.only:
        with tempfile.TemporaryDirectory() as folder:
            toml = 'name = "base"\nfolder = "base"\nsize = 64\nsampler = "dpmsolver++"\nsteps = 4\nguidance_scale = 7.0\n'
            bench_cascade.random_cascade(Path(folder), "base", bench_cascade.IF_M, toml)
            rows(args, Path(folder), ("base", 64, 4, 7.0, None), peak, "IF-I-M's size")


def rows(args, cascade, stage, peak, label=None):
    """One line for each size of batch."""
    stage = (*stage[:2], args.steps or stage[2], *stage[3:])
    for images in args.images:
        ours, plain = (darkroom(args, cascade, stage, images, words) for words in ([], ["eager"]))
        operations, eager = reference(args, cascade, stage, images, compiled=False)
        compiled = None if args.no_compile else reference(args, cascade, stage, images, compiled=True)[1]
        share = f"{ours * operations / peak:.1%}" if operations else ""
        ratio = lambda theirs: f"{ours / theirs:.2f}" if theirs else ""
        cells = [label or stage[0], str(images), figure(ours), figure(plain), share, figure(eager), figure(compiled), ratio(eager), ratio(compiled)]
        print("| " + " | ".join(cells) + " |", flush=True)


def figure(value):
    return f"{value:.2f}" if value else ""


def darkroom(args, cascade, stage, images, words):
    """Pictures a second of a batch, the sampler, noise and copies to the host included; graphs are
    recorded before."""
    name, size, steps, guidance, level = stage
    described = ":".join(str(word) for word in (name, size, steps, guidance, level) if word is not None)
    command = [args.target / "examples/time_stages", cascade, "bf16", args.device, f"images={images}", "warm=6", *words, described]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"error: {' '.join(map(str, command))}: {(done.stderr.strip() or 'no message').splitlines()[-1]}")
    run = json.loads(done.stdout.splitlines()[-1])
    # A number of graphs, or why there are none.
    if args.device == "cuda" and not words and not isinstance(run["graphs"], int):
        print(f"{name}, {images} images: no CUDA graphs: {run['graphs']}", file=sys.stderr)
    return 1 / run["seconds_per_image"]


@torch.inference_mode()
def reference(args, cascade, stage, images, compiled):
    """Operations a picture, and pictures a second of the bare network loop: no scheduler, which
    flatters it. None for what memory or the compiler does not allow."""
    try:
        return measured_reference(args, cascade, stage, images, compiled)
    except torch.OutOfMemoryError:
        torch.cuda.empty_cache()
        print(f"{stage[0]}, {images} images, compiled: {compiled}: diffusers ran out of memory", file=sys.stderr)
    except torch._dynamo.exc.TorchDynamoException as error:
        print(f"{stage[0]}: not compiled: {str(error).splitlines()[0]}", file=sys.stderr)
    return None, None


def measured_reference(args, cascade, stage, images, compiled):
    from torch.utils.flop_counter import FlopCounterMode
    name, size, steps, guidance, level = stage
    network = load_unet(cascade / name / "unet").to(args.device, torch.bfloat16).to(memory_format=torch.channels_last).eval()
    rows = images * (2 if guidance != 1 else 1)
    channels = network.config["in_channels"]
    x = torch.randn(rows, channels, size, size, device=args.device, dtype=torch.bfloat16).to(memory_format=torch.channels_last)
    width = network.config.get("encoder_hid_dim") or network.config["cross_attention_dim"]
    text = torch.randn(rows, 32, width, device=args.device, dtype=torch.bfloat16)
    labels = {} if level is None else {"class_labels": torch.full((rows,), level, device=args.device)}
    time_of = torch.full((rows,), 500, device=args.device)
    with FlopCounterMode(display=False) as counter:
        network(x, time_of, text, **labels)
    operations = counter.get_total_flops() * steps / images
    # CUDA graphs on its side too.
    mode = "reduce-overhead" if args.device == "cuda" else None
    run = torch.compile(network, mode=mode) if compiled else network
    for _ in range(4 if compiled else 2):
        run(x, time_of, text, **labels)
    wait(args.device)
    begun = time.perf_counter()
    for _ in range(steps):
        run(x, time_of, text, **labels)
    wait(args.device)
    return operations, images / (time.perf_counter() - begun)


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
