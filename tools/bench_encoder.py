"""Measures the text encoder on this machine: Darkroom, and transformers' T5EncoderModel with the
same weights and texts.

    make bench-encoder      # the demo's encoder and a random one of T5 v1.1 base's shape
    tools/bench-encoder.sh --models large --rounds 5    # another

Every text is padded to one length, and all positions are counted: they are all computed, padding
included. Both sides run in turn, in processes of their own, and each number is the median of the
rounds. Prints a table and asserts nothing.
"""

import argparse
import json
import os
import random
import statistics
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DEMO = ROOT / "models/demo"
# d_model, d_ff, layers, heads of the published T5 v1.1 encoders; d_kv is 64 in all of them.
SHAPES = {"base": (768, 2048, 12, 12), "large": (1024, 2816, 24, 16), "xl": (2048, 5120, 24, 32)}
# How transformers runs: number format, texts of a batch.
SETTINGS = [("f32", 1), ("f32", 16), ("bf16", 1), ("bf16", 16), ("bf16", 32)]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--binary", type=Path, default=ROOT / "target/debug/examples/time_encoder")
    parser.add_argument("--models", nargs="+", default=["demo", "base"], choices=["demo", *SHAPES])
    parser.add_argument("--seconds", type=float, default=3.0, help="of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--texts", type=int, default=32)
    parser.add_argument("--reference", nargs=6, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.reference:
        return reference(*args.reference)
    print(f"{cpu()}, {os.cpu_count()} cores; load before: {os.getloadavg()[0]:.1f}")
    for model in args.models:
        measure(model, args)


def cpu():
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")


def measure(model, args):
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        weights, length = (DEMO / "text_encoder", 32) if model == "demo" else (make(folder, model), 77)
        texts = folder / "texts.txt"
        texts.write_text("\n".join(prompts(args.texts)))
        ours, theirs = {}, {}
        for _ in range(args.rounds):
            for dtype in ("f32", "bf16"):
                command = [args.binary, weights, DEMO / "tokenizer", str(length), dtype, texts, str(args.seconds), folder / f"ours.{dtype}"]
                ours.setdefault(dtype, []).append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
            for dtype, batch in SETTINGS:
                command = [sys.executable, __file__, "--reference", weights, dtype, str(batch), texts, str(length), f"{args.seconds}:{folder / f'theirs.{dtype}'}"]
                theirs.setdefault((dtype, batch), []).append(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))
        table(model, length, ours, theirs)
        for dtype in ("f32", "bf16"):
            one, other = values(folder / f"ours.{dtype}"), values(folder / f"theirs.{dtype}")
            worst = max(abs(a - b) for a, b in zip(one, other, strict=True))
            print(f"largest difference of one text's embedding, {dtype}: {worst:.2e} (values up to {max(map(abs, other)):.2f})")


def prompts(count):
    """Sentences as the demo's prompts are, 5 to 25 words of the tokenizer's."""
    draw = random.Random(1)
    things = [f"a {size}{colour} {shape}" for size in ("small ", "large ", "") for colour in ("red", "blue", "green", "yellow", "purple") for shape in ("circle", "square", "star", "heart", "ring")]
    places = [" above ", " below ", " to the left of ", " to the right of "]
    def one():
        text = draw.choice(things)
        for _ in range(draw.randrange(3)):
            text += draw.choice(places) + draw.choice(things)
        return text + draw.choice(["", " on a white background", " on a black background"])
    return [one() for _ in range(count)]


def make(folder, model):
    """A random encoder of a published shape, in f32, that the demo's tokenizer fits."""
    import torch
    from transformers import T5Config, T5EncoderModel
    width, inner, layers, heads = SHAPES[model]
    torch.manual_seed(0)
    config = T5Config(vocab_size=32128, d_model=width, d_ff=inner, d_kv=64, num_layers=layers, num_heads=heads, feed_forward_proj="gated-gelu", tie_word_embeddings=False)
    path = folder / "text_encoder"
    T5EncoderModel(config).save_pretrained(path)
    return path


def reference(weights, dtype, batch, texts, length, rest):
    """transformers, in a process of its own; prints what time_encoder prints."""
    import resource
    import time

    import torch
    from tokenizers import Tokenizer
    from transformers import T5EncoderModel
    seconds, out = rest.split(":", 1)
    batch, length, seconds = int(batch), int(length), float(seconds)
    tokenizer = Tokenizer.from_file(str(DEMO / "tokenizer/tokenizer.json"))
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token="<pad>")
    lines = Path(texts).read_text().splitlines()
    encodings = tokenizer.encode_batch(lines)
    ids = torch.tensor([one.ids for one in encodings])
    mask = torch.tensor([one.attention_mask for one in encodings])
    model = T5EncoderModel.from_pretrained(weights, dtype=torch.bfloat16 if dtype == "bf16" else torch.float32).eval()
    with torch.inference_mode():
        encode = lambda rows: model(input_ids=ids[rows], attention_mask=mask[rows]).last_hidden_state.float()
        first = encode(slice(0, 1))[0].flatten().tolist()
        Path(out).write_bytes(struct.pack(f"<{len(first)}f", *first))
        encode(slice(0, batch))
        begun, count = time.perf_counter(), 0
        while time.perf_counter() - begun < seconds:
            for start in range(0, len(lines), batch):
                count += len(encode(slice(start, start + batch)))
        spent = time.perf_counter() - begun
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"texts": count, "texts_per_second": count / spent, "positions_per_second": count / spent * length, "peak_mib": peak, "threads": torch.get_num_threads()}))


def values(path):
    data = path.read_bytes()
    return struct.unpack(f"<{len(data) // 4}f", data)


def table(model, length, ours, theirs):
    rate = lambda runs: statistics.median(run["positions_per_second"] for run in runs)
    peak = lambda runs: max(run["peak_mib"] for run in runs)
    best = {dtype: max((rate(runs) for (kind, _), runs in theirs.items() if kind == dtype)) for dtype in ("f32", "bf16")}
    print(f"\n{model}: every text padded to {length} positions; all positions counted\n")
    print("| | positions/s | texts/s | peak memory, MiB | Darkroom in the same format / this | Darkroom's bf16 / this |")
    print("| --- | --- | --- | --- | --- | --- |")
    rows = [(f"transformers {dtype}, batches of {batch}", dtype, runs) for (dtype, batch), runs in theirs.items()]
    rows += [(f"Darkroom {dtype}", dtype, runs) for dtype, runs in ours.items()]
    for name, dtype, runs in rows:
        print(f"| {name} | {rate(runs):,.0f} | {rate(runs) / length:.1f} | {peak(runs):,.0f} | {rate(ours[dtype]) / rate(runs):.2f} | {rate(ours['bf16']) / rate(runs):.2f} |")
    print(f"\nDarkroom / transformers at its best: f32 {rate(ours['f32']) / best['f32']:.2f}, bf16 {rate(ours['bf16']) / best['bf16']:.2f}")
    print(f"Darkroom's class of device: {ours['bf16'][0]['class']}")


if __name__ == "__main__":
    main()
