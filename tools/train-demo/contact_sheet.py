"""Draw docs/contact-sheet.png: captions and what the cascade makes of them, at 256 pixels each.

    python tools/train-demo/contact_sheet.py                         # renders here
    python tools/train-demo/contact_sheet.py --images DIR --captions FILE.jsonl   # others' pictures
"""

import argparse
import json
import textwrap
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont

import pictures

ROOT = Path(__file__).resolve().parents[2]
PICTURE, GAP, WORDS = 256, 12, 44
PROMPTS = ["a red circle above a blue square on a white background"]


def as_image(picture):
    array = ((picture + 1) * 127.5).round().clamp(0, 255).byte().permute(1, 2, 0).numpy()
    return Image.fromarray(array).resize((PICTURE, PICTURE), Image.Resampling.LANCZOS)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cascade", type=Path, default=ROOT / "models" / "demo")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "contact-sheet.png")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--captions", type=Path)
    parser.add_argument("--stage", default="sr1024", help="the last stage to render")
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--columns", type=int, default=4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    if args.images:
        lines = [json.loads(line) for line in args.captions.read_text().splitlines() if line.strip()][: args.count]
        prompts = [line["caption"] for line in lines]
        images = [Image.open(args.images / line["file"]).convert("RGB").resize((PICTURE, PICTURE), Image.Resampling.LANCZOS) for line in lines]
    else:
        from cascade import Cascade

        held_out = pictures.held_out_scenes(args.count * 3 // 4, args.count)
        prompts = (PROMPTS + [pictures.text(pictures.caption(s)) for s in held_out])[: args.count]
        rendered, _ = Cascade(args.cascade, dtype=torch.bfloat16, last_stage=args.stage).render(prompts, seed=args.seed, batch=4)
        images = [as_image(p) for p in rendered[-1]]

    rows = -(-len(images) // args.columns)
    sheet = Image.new("RGB", (args.columns * (PICTURE + GAP) + GAP, rows * (PICTURE + WORDS + GAP) + GAP), (250, 250, 250))
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=14)
    for i, (image, prompt) in enumerate(zip(images, prompts)):
        x, y = GAP + i % args.columns * (PICTURE + GAP), GAP + i // args.columns * (PICTURE + WORDS + GAP)
        sheet.paste(image, (x, y))
        pen.rectangle((x - 1, y - 1, x + PICTURE, y + PICTURE), outline=(210, 210, 210))
        pen.multiline_text((x, y + PICTURE + 4), "\n".join(textwrap.wrap(prompt, 40)[:2]), fill=(30, 30, 30), font=font, spacing=3)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    sheet.quantize(256, dither=Image.Dither.NONE).save(args.out, optimize=True)
    print(f"{args.out}: {args.out.stat().st_size // 1024} KB")


if __name__ == "__main__":
    main()
