"""Checks on this machine's GPU what only a GPU can show, and prints a table; ends with 1 if a line
failed.

    make check-gpu                                      # everything, some minutes
    make check-gpu ARGS="--only traces pictures"        # parts of it
    make check-gpu ARGS="--device cpu"                  # tries the script without a GPU

- traces: recorded runs of diffusers and transformers, replayed on the card in f32, tensor by
  tensor.
- pictures: the same pixels from recorded graphs and without, alone and in a batch, in another
  process, with memory for one model at a time; and how far they are from the CPU's.
- memory: the same pixels when another program holds nearly all of the card's memory.
- speed: a whole farm in one process, prompt to PNG, pictures a second.

Needs the program `darkroom` and Python with pillow and numpy; `memory` needs PyTorch too.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = ROOT / "diffusion/tests/fixtures"
PROMPT = "a large red circle above a small blue square on a white background"
PARTS = ["traces", "pictures", "memory", "speed"]
SECONDS = 240  # for one call of the program


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", type=Path, default=ROOT / "target/debug", help="where `darkroom` was built")
    parser.add_argument("--device", default="cuda:0")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--pictures", type=int, default=1024, help="of `speed`")
    parser.add_argument("--leave-mib", type=int, nargs="+", default=[1500], help="of `memory`: what the other program leaves free")
    parser.add_argument("--logs", type=Path, help="folder for the programs' logs; none are kept when absent")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        checks = Checks(args, Path(scratch))
        print("| what | result | |\n| --- | --- | --- |", flush=True)
        for part in args.only:
            getattr(checks, part)()
    sys.exit(1 if checks.failed else 0)


class Checks:
    def __init__(self, args, scratch):
        self.args, self.scratch, self.failed, self.calls = args, scratch, False, 0
        self.program = args.target.resolve() / "darkroom"

    def tell(self, what, good, figures):
        self.failed |= good is False
        print(f"| {what} | {'' if good is None else 'as it should be' if good else 'NOT AS IT SHOULD BE'} | {figures} |", flush=True)

    def call(self, *words, logs="warn"):
        """Runs the program; its output, or None with what it said on a line of the table."""
        self.calls += 1
        environment = os.environ | {"RUST_LOG": logs}
        command = [self.program, *map(str, words)]
        done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=SECONDS, cwd=self.scratch)
        if self.args.logs:
            self.args.logs.mkdir(parents=True, exist_ok=True)
            (self.args.logs / f"{self.calls:02}-{words[0]}.log").write_text(" ".join(map(str, command)) + "\n" + done.stderr + done.stdout)
        for line in done.stderr.splitlines():
            if " WARN " in line or " ERROR " in line or done.returncode != 0:
                print(f"  {words[0]}: {line}", file=sys.stderr, flush=True)
        return done

    def render(self, name, *words, device=None, count=1, size=1024, seed=1):
        """Pixels of pictures rendered by a farm of their own, [count, size, size, 3], and the
        seconds that took; or None."""
        out = self.scratch / name
        begun = time.monotonic()
        done = self.call(
            "render", PROMPT, "--quiet", "--images", count, "--seed", seed, "--size", size, "--device", device or self.args.device,
            "--state", self.scratch / f"{name}-state", "--out", out, "--cascade", ROOT / "models/demo", *words,
        )
        seconds = time.monotonic() - begun
        if done.returncode != 0:
            self.tell(name, False, (done.stderr.strip() or "no message").splitlines()[-1])
            return None, seconds
        return numpy.stack([numpy.array(Image.open(file)) for file in sorted(out.glob("*.png"))]), seconds

    def traces(self):
        for cascade in ["example", "deep", "odd"]:
            files = sorted((FIXTURES / cascade).glob("*.trace.safetensors"))
            done = self.call("model", "check", "--json", "--device", self.args.device, FIXTURES / cascade, *files)
            try:
                reports = json.loads(done.stdout)["traces"]
            except (ValueError, KeyError):
                self.tell(f"traces of {cascade}", False, (done.stderr.strip() or "no message").splitlines()[-1])
                continue
            rows = [row | {"trace": Path(report["trace"]).name} for report in reports for row in report["rows"]]
            share = lambda row: (row["max_difference"] if row["max_difference"] is not None else float("inf")) / max(row["tolerance"], 1e-12)
            worst = max(rows, key=share)
            passed = sum(row["pass"] for row in rows)
            figures = f"{passed} of {len(rows)} tensors of {len(reports)} runs; the worst, {worst['trace']} {worst['name']}: {share(worst):.2f} of its tolerance"
            self.tell(f"traces of {cascade}, f32", passed == len(rows) and len(reports) == len(files), figures)

    def pictures(self):
        first, cold = self.render("graphs", count=5)
        if first is None:
            return
        self.tell("five pictures of 1024 pixels", True, f"{cold:.1f} s with the program's start")
        same = lambda other: other is not None and other.shape == first[: len(other)].shape and bool((other == first[: len(other)]).all())
        for what, words, count in [
            ("another process", [], 5), ("without graphs", ["--eager"], 5), ("alone", [], 1), ("batches of two", ["--batch", 2], 5),
            ("one model in memory at a time", ["--model-memory-mib", 22 if self.args.device.startswith("cuda") else 30], 5),
        ]:
            others, seconds = self.render(what.replace(" ", "-"), *words, count=count)
            if others is not None:
                differing = float((others != first[: len(others)]).any(-1).mean()) if others.shape[1:] == first.shape[1:] else 1.0
                self.tell(f"{what}: the same pixels", same(others), f"{differing:.2%} of the pixels differ, {seconds:.1f} s")
        onward = self.call("rerender", self.scratch / "graphs/000000.png", "--state", self.scratch / "again", "--cascade", ROOT / "models/demo", "--device", self.args.device)
        self.tell("rerender from the file", onward.returncode == 0, (onward.stdout.strip() or onward.stderr.strip()).splitlines()[-1])
        for dtype in ["bf16", "f32"]:
            cpu, _ = self.render(f"cpu-{dtype}", "--dtype", dtype, device="cpu")
            gpu, _ = self.render(f"gpu-{dtype}", "--dtype", dtype)
            if cpu is not None and gpu is not None:
                off = numpy.abs(cpu.astype(float) - gpu.astype(float))
                self.tell(f"beside the CPU, {dtype}", bool(off.mean() < 2), f"{off.mean():.3f} of 255 off on average, {(off > 8).mean():.2%} by more than 8")

    def memory(self):
        if not self.args.device.startswith("cuda"):
            return
        first, _ = self.render("free", count=16)
        for left in self.args.leave_mib:
            with occupied(left, int(self.args.device.partition(":")[2] or 0)) as free:
                others, seconds = self.render(f"left-{left}", count=16)
                if others is not None and first is not None:
                    self.tell(f"{free} MiB free: the same pixels", bool((others == first).all()), f"16 pictures in {seconds:.1f} s")

    def speed(self):
        for size, count in [(256, self.args.pictures), (1024, self.args.pictures // 8)]:
            for label, words in [("", []), (", without graphs", ["--eager"])]:
                # In one state, so that batches are known; the time of more pictures less that of
                # fewer, so that the start is in neither.
                name = f"speed-{size}{'-eager' if words else ''}"
                self.render(name, *words, count=1, size=size, seed=10**7)
                _, few = self.render(name, *words, count=count // 4, size=size, seed=10**6)
                pictures, many = self.render(name, *words, count=count + count // 4, size=size)
                if pictures is not None:
                    self.tell(f"pictures of {size} pixels{label}", None, f"{count / (many - few):.1f} a second, {count} of them; {few:.1f} s for {count // 4} with the start")


@contextlib.contextmanager
def occupied(left_mib, index):
    """Another program holds all of the card's memory but `left_mib`; gives what is free in MiB."""
    holder = (
        "import sys, torch\n"
        f"device = torch.device('cuda:{index}')\n"
        "torch.zeros(1, device=device)\n"
        f"held = torch.empty(max(0, torch.cuda.mem_get_info(device)[0] - ({left_mib} << 20)), dtype=torch.uint8, device=device)\n"
        "print(torch.cuda.mem_get_info(device)[0] >> 20, flush=True)\n"
        "sys.stdin.read()\n"
    )
    process = subprocess.Popen([sys.executable, "-c", holder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        told = process.stdout.readline().strip()
        if not told.isdigit() or process.poll() is not None:
            raise SystemExit(f"error: the program that is to hold the card's memory ended: {told or 'no message'}")
        yield int(told)
    finally:
        process.stdin.close()
        process.wait(timeout=60)


if __name__ == "__main__":
    main()
