"""Measures rendering on this machine: Darkroom, and the same weights, steps and samplers under
diffusers, in one run.

    make bench-cascade                                           # all: 15 minutes on two cores
    tools/bench-cascade.sh --only demo --images 8 --peers best   # less
    tools/bench-cascade.sh --only if-m --peers best              # the medium base stage

Three parts: the demo cascade; a base stage of IF-I-M's size with random weights; the Efficient
U-Net beside IF's U-Net with the same number of parameters, and how close the demo's two come to the
exact pictures. Darkroom runs in this machine's default format: bf16, and f32 for comparison, where
the CPU has bf16 arithmetic, and f32 elsewhere. diffusers runs at its defaults (f32, one picture at a
time, memory as it comes) and at its best here (the same format, channels-last, batches of 8;
compiled where the compiler comes to an end in time). Prints tables and asserts nothing.

To measure as on a machine with AVX2 alone, set ATEN_CPU_CAPABILITY=avx2 (libtorch, and Darkroom's
kernels) and ONEDNN_MAX_CPU_ISA=AVX2.
"""

import argparse
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PYTHON = sys.executable
PROMPTS = [
    "a red circle above a blue square on a white background",
    "a small green star to the left of a large yellow heart on a black background",
    "a large purple ring on a white background",
    "an orange triangle below a pink diamond",
]
# IF-I-M's shape, but for the width of the text, which is the demo encoder's.
IF_M = {
    "_class_name": "UNet2DConditionModel", "sample_size": 64, "in_channels": 3, "out_channels": 6, "act_fn": "gelu",
    "block_out_channels": [192, 384, 576, 768], "layers_per_block": 3, "attention_head_dim": 64, "cross_attention_dim": 768,
    "down_block_types": ["ResnetDownsampleBlock2D"] + ["SimpleCrossAttnDownBlock2D"] * 3,
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] * 3 + ["ResnetUpsampleBlock2D"],
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_norm": "group_norm", "encoder_hid_dim": 128,
    "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text", "addition_embed_type_num_heads": 64,
    "resnet_time_scale_shift": "scale_shift",
}
# IF's second stage in small: all levels but the lowest without attention, as many parameters as the
# demo's sr256.
IF_SR = {
    "_class_name": "UNet2DConditionModel", "sample_size": 256, "in_channels": 6, "out_channels": 3, "act_fn": "gelu",
    "block_out_channels": [16, 32, 48, 64, 80], "layers_per_block": [1, 1, 1, 2, 1], "attention_head_dim": 16, "cross_attention_dim": 96,
    "down_block_types": ["ResnetDownsampleBlock2D"] * 4 + ["SimpleCrossAttnDownBlock2D"],
    "up_block_types": ["SimpleCrossAttnUpBlock2D"] + ["ResnetUpsampleBlock2D"] * 4, "norm_num_groups": 8,
    "mid_block_type": "UNetMidBlock2DSimpleCrossAttn", "cross_attention_norm": "group_norm", "encoder_hid_dim": 128,
    "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text", "addition_embed_type_num_heads": 8,
    "resnet_time_scale_shift": "scale_shift", "class_embed_type": "timestep", "only_cross_attention": True, "time_embedding_dim": 128,
    "time_embedding_act_fn": "gelu", "resnet_skip_time_act": True,
}
PEERS = ["defaults", "best", "compiled"]
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2"}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=ROOT / "target/debug", help="where the programs were built")
    parser.add_argument("--images", type=int, default=32, help="pictures of the demo's job; a multiple of 4")
    parser.add_argument("--only", nargs="+", default=["demo", "if-m", "efficient"], choices=["demo", "if-m", "efficient"])
    parser.add_argument("--peers", nargs="*", default=PEERS, choices=PEERS, help="how diffusers runs beside it")
    parser.add_argument("--compile-limit", type=int, default=240, help="seconds after which a compiled run is given up")
    args = parser.parse_args()
    args.target = args.target.resolve()
    args.dtype = default_format(args)
    print(f"{cpu()}, {os.cpu_count()} cores; load before: {os.getloadavg()[0]:.1f}; {time.strftime('%Y-%m-%d')}; {args.dtype} by default")
    for part in args.only:
        {"demo": demo, "if-m": if_m, "efficient": efficient}[part](args)


def demo(args):
    cascade, binary = ROOT / "models/demo", args.target / "darkroom"
    print(f"\n## The demo cascade, {args.images} pictures\n\nfirst 1024 image of a cold process, everything included: {cold_start(binary, cascade):.1f} s")
    columns = {f"darkroom {dtype}": farm(binary, cascade, dtype, args.images) for dtype in dict.fromkeys((args.dtype, "f32"))}
    columns |= diffusers(args, cascade, few=max(2, args.images // 8), many=max(8, args.images // 2))
    table(columns)
    breakdown(args, cascade, ["base:64:20:1.5", "sr256:256:4:1:120", "sr1024:1024:4:1:50"], images=4)


def if_m(args):
    with tempfile.TemporaryDirectory() as folder:
        cascade = Path(folder)
        stage = 'name = "base"\nfolder = "base"\nsize = 64\nsampler = "dpmsolver++"\nsteps = 2\nguidance_scale = 7.0\n'
        random_cascade(cascade, "base", IF_M, stage)
        print("\n## A base stage of IF-I-M's size, random weights, 2 steps, guidance 7, 8 pictures")
        columns = {f"darkroom {args.dtype}": farm(args.target / "darkroom", cascade, args.dtype, 8)}
        columns |= diffusers(args, cascade, few=2, many=8)
        table(columns)
        breakdown(args, cascade, ["base:64:2:7"], images=4)


def efficient(args):
    with tempfile.TemporaryDirectory() as folder:
        cascade = Path(folder)
        random_cascade(cascade, "sr256", IF_SR, "")
        print(f"\n## The Efficient U-Net beside IF's, 256 × 256, 4 steps, {args.dtype}, one picture at a time")
        stage, runs = ["sr256:256:4:1:120"], {"Efficient U-Net": [], "IF's U-Net": []}
        # In turns, since they are short.
        for _ in range(5):
            runs["Efficient U-Net"].append(time_stages(args, ROOT / "models/demo", stage, 4)[0])
            runs["IF's U-Net"].append(time_stages(args, cascade, stage, 4)[0])
        speeds = {}
        for name, of in runs.items():
            speeds[name] = statistics.median(run["steps"] / run["seconds_per_image"] for run in of)
            print(f"{name:<16} {of[0]['parameters']:>9,} parameters  {speeds[name]:6.1f} steps/s  {of[0]['peak_mib']} MiB at most")
        ratios = sorted(theirs["seconds_per_image"] / ours["seconds_per_image"] for ours, theirs in zip(*runs.values()))
        ours, theirs = speeds.values()
        print(f"ratio of the medians {ours / theirs:.2f}, of neighbours {ratios[0]:.2f} to {ratios[-1]:.2f}")
    print("\nthe demo's super-resolution stages beside the exact 256 and 1024 pictures, given the exact smaller ones:\n", flush=True)
    subprocess.run([PYTHON, ROOT / "tools/train-demo/quality.py", ROOT / "models/demo", "--count", "12", "--large", "3", "--dtype", python_name(args.dtype)], check=True)


def default_format(args):
    """The number format that Darkroom chooses here, as its class of device says."""
    args.dtype = "auto"
    words = time_stages(args, ROOT / "models/demo", ["base:64:1:1"], 1)[0]["class"].split("/")
    return next(word for word in reversed(words) if word in ("bf16", "f32"))


def python_name(dtype):
    return {"bf16": "bfloat16", "f32": "float32"}[dtype]


def random_cascade(folder, stage, config, toml):
    """A cascade of one stage with random weights, behind the demo's encoder."""
    from diffusers import UNet2DConditionModel
    network = UNet2DConditionModel(**{key: value for key, value in config.items() if not key.startswith("_")})
    network.save_pretrained(folder / stage / "unet")
    variance = {"variance_type": "learned_range" if config["out_channels"] == 6 else "fixed_small"}
    for part in ["scheduler"] + ["image_noising_scheduler"] * (config["in_channels"] == 6):
        (folder / stage / part).mkdir()
        (folder / stage / part / "scheduler_config.json").write_text(json.dumps(SCHEDULER | variance))
    for part in ("text_encoder", "tokenizer"):
        shutil.copytree(ROOT / "models/demo" / part, folder / part)
    lines = (ROOT / "models/demo/cascade.toml").read_text()
    encoder = lines[lines.index("[encoder]") : lines.index("[[stages]]")]
    (folder / "cascade.toml").write_text(f'format = 1\nname = "random"\nlicence = "none"\n\n{encoder}[[stages]]\n{toml}')


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


def farm(binary, cascade, dtype, images):
    """A farm renders a batch: model seconds per image and stage, wall seconds per image, busy
    share, peak memory."""
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "up", "--json", "--listen", "127.0.0.1:0", "--cascade", cascade, "--dtype", dtype]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        try:
            json.loads(process.stdout.readline())
            run = lambda *words: subprocess.run([binary, *words], cwd=folder, check=True, capture_output=True, text=True).stdout
            # One picture first: libtorch's own set-up is part of the cold start above, not of this.
            job = run("submit", "--seed", "999", PROMPTS[0]).strip()
            run("watch", job)
            job = run("submit", "--seed", "1", "-n", str(max(1, images // len(PROMPTS))), *PROMPTS).strip()
            run("watch", job)
            status = json.loads(run("--json", "status", job))
            rows = [json.loads(line) for line in run("--json", "ls", job).splitlines()]
            peak = next(int(line.split()[1]) for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if line.startswith("VmHWM"))
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(timeout=60)
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


def diffusers(args, cascade, few, many):
    """At its defaults with `few` pictures, at its best without and with a compiler with `many`."""
    best = ["--dtype", python_name(args.dtype), "--memory-format", "channels_last", "--batch", "8", "--count", str(many)]
    columns = {}
    if "defaults" in args.peers:
        plain = ["--dtype", "float32", "--memory-format", "contiguous", "--batch", "1", "--count", str(few)]
        columns["diffusers, defaults"] = reference(cascade, plain)
    if "best" in args.peers:
        columns["diffusers, best"] = reference(cascade, best)
    if "compiled" in args.peers:
        compiled = reference(cascade, [*best, "--compile"], limit=args.compile_limit)
        columns |= {"diffusers, compiled": compiled} if compiled else {}
        if not compiled:
            print(f"torch.compile came to no end within {args.compile_limit} s, or failed")
    return columns


def reference(cascade, options, limit=None):
    command = [PYTHON, ROOT / "tools/train-demo/reference_render.py", "--cascade", cascade, *options]
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(command, cwd=ROOT, stdout=out, stderr=subprocess.DEVNULL if limit else None, text=True)
        deadline = time.monotonic() + (limit or 1e9)
        while True:
            pid, status, usage = os.wait4(process.pid, os.WNOHANG)
            if pid:
                break
            if time.monotonic() > deadline:
                process.kill()
                os.wait4(process.pid, 0)
                return None
            time.sleep(0.2)
        process.returncode = os.waitstatus_to_exitcode(status)
        out.seek(0)
        runs = [json.loads(line) for line in out if line.startswith("{")]
    if process.returncode != 0 or not runs:
        if limit:
            return None
        raise SystemExit(f"error: {command[1]} ended with {process.returncode}")
    run = runs[-1]
    stages = {stage: seconds for stage, seconds in run["seconds_per_image"].items() if stage not in ("total", "encode")}
    return {"stages": stages, "wall": run["seconds_per_image"]["total"], "busy": None, "peak": usage.ru_maxrss / 1024, "images": run["images"]}


def time_stages(args, cascade, stages, images):
    formats = [] if args.dtype == "auto" else [args.dtype]
    command = [args.target / "examples/time_stages", cascade, *formats, f"images={images}", *stages]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def breakdown(args, cascade, stages, images):
    runs = time_stages(args, cascade, stages, images)
    print(f"\nwhere Darkroom's time goes, {args.dtype}, {images} pictures at once, ms a picture ({runs[0]['class']}):\n")
    print("|  | " + " | ".join(run["stage"] for run in runs) + " |\n|" + " --- |" * (len(runs) + 1))
    for part in runs[0]["parts"]:
        print(f"| {part} | " + " | ".join(f"{run['parts'][part] * 1e3:.1f}" for run in runs) + " |")
    print("| all | " + " | ".join(f"{run['seconds_per_image'] * 1e3:.1f}" for run in runs) + " |")


def table(columns):
    stages = list(next(iter(columns.values()))["stages"])
    rows = [(f"{stage}, s/image", lambda column, stage=stage: number(column["stages"].get(stage), ".3f")) for stage in stages]
    ours = next(iter(columns.values()))["wall"]
    rows += [
        ("whole image, s", lambda column: number(column["wall"], ".3f")),
        ("times as long as the first column", lambda column: number(column["wall"] / ours, ".2f")),
        ("share of the time the model was busy", lambda column: number(column["busy"], ".1%")),
        ("peak memory, MiB", lambda column: number(column["peak"], ".0f")),
        ("pictures", lambda column: str(column["images"])),
    ]
    print("\n|  | " + " | ".join(columns) + " |\n|" + " --- |" * (len(columns) + 1))
    for name, cell in rows:
        print(f"| {name} | " + " | ".join(cell(column) for column in columns.values()) + " |")


def number(value, form):
    return "" if value is None else format(value, form)


if __name__ == "__main__":
    main()
