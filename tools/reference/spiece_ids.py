"""Writes what the sentencepiece library makes of the fixture's hostile texts, and of those with
many equally likely cuts, with a model of one's own.

    python tools/reference/spiece_ids.py spiece.model ids.json

`tools/check-spiece.sh` runs it and holds darkroom's ids against it.
"""

import json
import sys
from pathlib import Path

import sentencepiece

FIXTURES = Path(__file__).resolve().parents[2] / "diffusion/tests/fixtures/spiece"


def write(model_file, out):
    model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    texts = [text for name in ("hostile.json", "ties.json") for text in json.loads((FIXTURES / name).read_text())["texts"]]
    out.write_text(json.dumps({"texts": texts, "ids": model.encode(texts), "end": model.eos_id()}) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
