"""Score pictures against their captions: the cascade's own (rendered here), any folder of PNGs, or
exact drawings (the scorer's own ceiling).

    python tools/train-demo/score.py exact
    python tools/train-demo/score.py render models/demo --stage base \
        --guidance 1 2 3 5 --thresholding dynamic static off
    python tools/train-demo/score.py render models/demo --device cuda --batch 200 --judges 8
    python tools/train-demo/score.py images FOLDER --captions FILE.jsonl
    python tools/train-demo/score.py captions > captions.jsonl

A line of FILE.jsonl is {"file": "0.png", "caption": "a red circle"}. `captions` writes the held-out
captions, to render them elsewhere: training never sees these scenes. Rows count the share of
captions right, in per cent.
"""

import argparse
import json
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy
import torch
from PIL import Image

import judge
import pictures

PAIRS, SINGLES = 140, 60


def share(verdicts, aspect):
    return 100 * sum(getattr(v, aspect) for v in verdicts) / max(1, len(verdicts))


def report(label, scenes, verdicts, as_json):
    """One row for two-object captions, one for one-object captions, one for all."""
    groups = {"two": [v for v, s in zip(verdicts, scenes) if s.relation], "one": [v for v, s in zip(verdicts, scenes) if not s.relation], "all": verdicts}
    for name, group in groups.items():
        if not group:
            continue
        row = {"run": label, "objects": name, "captions": len(group)}
        row |= {a: round(share(group, a), 1) for a in [*judge.ASPECTS, "all"]}
        row["edge_width_px"] = round(sum(v.edge_width for v in group) / len(group), 2)
        if as_json:
            print(json.dumps(row), flush=True)
        else:
            print(f"| {label} | {name} ({len(group)}) | " + " | ".join(f"{row[a]:.0f} %" for a in [*judge.ASPECTS, "all"]) + f" | {row['edge_width_px']:.2f} |", flush=True)


def header():
    names = ["run", "objects", *judge.ASPECTS, "all right", "edge px"]
    print("| " + " | ".join(names) + " |\n|" + " --- |" * len(names))


def evenly(items, count):
    """`count` of the items, keeping the mix of two- and one-object captions."""
    return items if count >= len(items) else [items[i * len(items) // count] for i in range(count)]


def read_png(path):
    return torch.from_numpy(numpy.array(Image.open(path).convert("RGB"))).permute(2, 0, 1).float() / 127.5 - 1


def judge_all(rendered, scenes, judges):
    if judges == 1:
        return [judge.judge(p, s) for p, s in zip(rendered, scenes)]
    with ProcessPoolExecutor(judges, mp_context=multiprocessing.get_context("spawn"), initializer=torch.set_num_threads, initargs=(1,)) as pool:
        return list(pool.map(judge_array, [p.numpy() for p in rendered], scenes, chunksize=max(1, len(scenes) // (4 * judges))))


def judge_array(picture, scene):
    """`judge.judge`, its picture as an array, which goes between processes by itself and not
    through shared memory."""
    return judge.judge(torch.from_numpy(picture), scene)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="rows as JSON lines")
    parser.add_argument("--failures", action="store_true", help="list the captions that were not all right")
    parser.add_argument("--count", type=int, default=PAIRS + SINGLES, help="how many of the held-out captions")
    parser.add_argument("--judges", type=int, default=1, help="processes that judge; one uses all threads")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("captions")
    commands.add_parser("exact")
    images = commands.add_parser("images")
    images.add_argument("folder", type=Path)
    images.add_argument("--captions", type=Path, required=True)
    render = commands.add_parser("render")
    render.add_argument("cascade", type=Path)
    render.add_argument("--stage", default="sr256", help="the last stage to render, and the one that is scored")
    render.add_argument("--guidance", type=float, nargs="+", default=[None])
    render.add_argument("--thresholding", choices=["dynamic", "static", "off"], nargs="+", default=[None], help="default: as configured")
    render.add_argument("--steps", type=int, default=None, help="of the base stage")
    render.add_argument("--seed", type=int, default=0)
    render.add_argument("--batch", type=int, default=8)
    render.add_argument("--dtype", choices=["float32", "bfloat16"], default="bfloat16")
    render.add_argument("--device", default="cpu", help="cpu (default) or cuda")
    render.add_argument("--save", type=Path, help="keep the pictures and their captions.jsonl here")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    scenes = evenly(pictures.held_out_scenes(PAIRS, SINGLES), args.count)
    captions = [pictures.text(pictures.caption(s)) for s in scenes]

    if args.command == "captions":
        for i, text in enumerate(captions):
            print(json.dumps({"file": f"{i:03}.png", "caption": text}))
        return
    if not args.json:
        header()

    def show(label, scenes, verdicts):
        report(label, scenes, verdicts, args.json)
        if args.failures:
            for scene, verdict in zip(scenes, verdicts):
                if not verdict.all:
                    wrong = [a for a in judge.ASPECTS if not getattr(verdict, a)]
                    print(f"{pictures.text(pictures.caption(scene))}: {', '.join(wrong)}", file=sys.stderr)

    if args.command == "exact":
        for size in (64, 256, 1024):
            verdicts = []
            for scene in scenes:
                geometry = pictures.place([scene], torch.Generator().manual_seed(7 + len(verdicts)))
                verdicts.append(judge.judge(pictures.draw_whole(geometry, size)[0], scene))
            show(f"exact {size}", scenes, verdicts)
    elif args.command == "images":
        lines = [json.loads(line) for line in args.captions.read_text().splitlines() if line.strip()]
        scenes = [judge.parse(line["caption"]) for line in lines]
        show(str(args.folder), scenes, [judge.judge(read_png(args.folder / line["file"]), s) for line, s in zip(lines, scenes)])
    else:
        from cascade import Cascade

        cascade = Cascade(args.cascade, dtype=getattr(torch, args.dtype), last_stage=args.stage, device=args.device)
        for thresholding in args.thresholding:
            for guidance in args.guidance:
                changes = {"guidance_scale": guidance, "thresholding": thresholding, "steps": args.steps}
                changes = {k: v for k, v in changes.items() if v is not None}
                rendered, _ = cascade.render(captions, seed=args.seed, batch=args.batch, base_changes=changes)
                label = " ".join([args.stage] + [f"{k}={v}" for k, v in changes.items()])
                show(label, scenes, judge_all(rendered[-1], scenes, args.judges))
                if args.save:
                    keep(args.save, rendered[-1], captions)


def keep(folder, rendered, captions):
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "captions.jsonl", "w") as lines:
        for i, (picture, text) in enumerate(zip(rendered, captions)):
            array = ((picture + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
            Image.fromarray(array).save(folder / f"{i:03}.png")
            lines.write(json.dumps({"file": f"{i:03}.png", "caption": text}) + "\n")


if __name__ == "__main__":
    main()
