"""Writes what the sentencepiece library makes of the fixture's hostile texts with a model of one's own.

    python tools/reference/spiece_ids.py spiece.model ids.json

`tools/check-spiece.sh` runs it and holds darkroom's ids against it.
"""

import json
import sys
from pathlib import Path

import sentencepiece

HOSTILE = Path(__file__).resolve().parents[2] / "diffusion/tests/fixtures/spiece/hostile.json"


def write(model_file, out):
    model = sentencepiece.SentencePieceProcessor(model_file=str(model_file))
    texts = json.loads(HOSTILE.read_text())["texts"]
    out.write_text(json.dumps({"texts": texts, "ids": model.encode(texts), "end": model.eos_id()}) + "\n")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
