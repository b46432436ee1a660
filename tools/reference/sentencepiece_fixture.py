"""Trains a tiny SentencePiece model in T5's layout and records what the sentencepiece library makes of some texts."""

import json
import tempfile
from pathlib import Path

import sentencepiece

WORDS = "a red circle above the blue square, a dog riding on snow; green and yellow dogs ride bikes with cats in snowy towns"
TEXTS = [
    "a red circle above a blue square",
    "  Two   dogs,\tridi\u200bng  ",
    "ﬁne café № ½ ｆｕｌｌｗｉｄｔｈ",
    "狗 rides",
    "",
    "a" * 40,
]
LENGTH = 16


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        corpus = Path(scratch) / "corpus.txt"
        corpus.write_text("\n".join([WORDS, WORDS.replace("a ", "the "), *WORDS.split()] * 20))
        sentencepiece.SentencePieceTrainer.train(
            input=str(corpus), model_prefix=str(Path(scratch) / "spiece"), vocab_size=64, model_type="unigram",
            normalization_rule_name="nmt_nfkc", pad_id=0, eos_id=1, unk_id=2, bos_id=-1, hard_vocab_limit=False, minloglevel=2,
        )
        (folder / "spiece.model").write_bytes((Path(scratch) / "spiece.model").read_bytes())
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    rows = []
    for text in TEXTS:
        ids = model.encode(text)[: LENGTH - 1] + [model.eos_id()]
        padding = LENGTH - len(ids)
        rows.append({"text": text, "ids": ids + [0] * padding, "mask": [1] * len(ids) + [0] * padding})
    (folder / "expected.json").write_text(json.dumps({"length": LENGTH, "rows": rows}, indent=1) + "\n")
    for row in rows:
        print(row["text"][:20], row["ids"])


if __name__ == "__main__":
    import sys

    write(Path(sys.argv[1]))
