"""Trains tiny SentencePiece models and records what the sentencepiece library makes of some texts:
plain, hostile, and such that many cuts of them are equally likely.

With `--ties-only` the models and texts of before are left as they are. The version counts: 0.2.3
sums in f32 and decides ties another way (docs/adr/0029-sentencepiece.md)."""

import io
import json
import random
from pathlib import Path

import sentencepiece

WORDS = (
    "a red circle above the blue square small large green triangle on white background yellow star left right of picture "
    "photo dog wearing hat oil painting astronaut riding horse café naïve straße Ünder über 狗 猫 犬 日本語 テスト ﬁne ½ №5 ① Ａｂｃ "
    "मानक हिन्दी العربية עברית 🐕 👩‍👩‍👧 ... !!! 12345 3.14 don't it's e-mail http://x.y/z"
).split()
TEXTS = [
    "a red circle above a blue square",
    "  Two   dogs,\tridi\u200bng  ",
    "ﬁne café № ½ ｆｕｌｌｗｉｄｔｈ",
    "狗 rides",
    "",
    "a" * 40,
]
LENGTH = 16
PINNED = "0.2.1"
IDENTITY = {"normalization_rule_name": "identity"}
# T5's own settings, and every option that changes what is done to a text. The table of the first is
# large, so the others have none.
MODELS = {
    "spiece.model": {},
    "identity.model": IDENTITY,
    "blanks-kept.model": IDENTITY | {"remove_extra_whitespaces": False},
    "no-blank-added.model": IDENTITY | {"add_dummy_prefix": False},
    "blank-behind.model": IDENTITY | {"treat_whitespace_as_suffix": True},
    "bytes.model": IDENTITY | {"byte_fallback": True, "vocab_size": 500},
    "symbols.model": IDENTITY | {
        "user_defined_symbols": ["<extra_id_0>", "<extra_id_1>", "red", "狗狗", "▁hat"],
        "control_symbols": ["<ctl>"],
    },
}
FIXED = [
    "", " ", "   ", "a", " a", "a ", "  a   red\tcircle\n", "▁", "▁▁a", "a▁red", "<extra_id_0> red", "x<extra_id_1>y",
    "</s>", "<unk>", "<pad>", "a </s> b", "<ctl>", "e\u0301", "o\u0308\u0301\u0323", "\u0301", "\u0301\u0302", "ｶﾞ",
    "한국어", "각", "ﷺ", "👩‍👩‍👧‍👦 👍🏽 🇩🇪🇫🇷", "مرحبا بالعالم", "שלום", "\u202eabc\u202c", "\x00", "a\x00b",
    "\x01\x02\x7f", " " * 10000, "a" + " " * 10000 + "b", "\n" * 50, "\u3000a\u3000", "\u00a0x\u00a0", "\ufeffred",
    "re\u00add", "z\u0335" * 200, "狗" * 100, "red" * 300, "12345" * 50, "ﬁ ﬂ ﬃ", "½ ⅓ №", "①②③", "Ａ Ｂ Ｃ", "ǅ ß ẞ İ ı",
    "𝒜𝔟", "\U000e0041", "A" * 5000, "don't hat",
]
# Words of repeated letters: pieces of every length of them, whose scores add up to nearly the same
# in any order.
TIE_LETTERS = "nozsae"
TIES = 400
BLOCKS = [
    (0x00, 0x370), (0x590, 0x6FF), (0x900, 0x97F), (0x1100, 0x1200), (0x2000, 0x2070), (0x2460, 0x24FF),
    (0x3000, 0x3100), (0x4E00, 0x4E80), (0xAC00, 0xAC40), (0xF900, 0xF940), (0xFB00, 0xFB50), (0xFE00, 0xFE10),
    (0xFF00, 0xFFEF), (0x1F1E6, 0x1F200), (0x1F300, 0x1F650), (0xE0000, 0xE0080),
]


def hostile(dice):
    characters = [chr(code) for first, last in BLOCKS for code in range(first, last)]
    texts = list(FIXED)
    for _ in range(400):
        kinds = [lambda: dice.choice(characters), lambda: dice.choice(characters), lambda: " ", lambda: dice.choice(WORDS)]
        texts.append("".join(dice.choice(kinds)() for _ in range(dice.randint(1, 24))))
    for _ in range(150):
        texts.append(dice.choice(["", "  ", " "]).join(dice.choices(WORDS, k=dice.randint(1, 12))))
    anything = [*range(0xD800), *range(0xE000, 0x110000)]
    for _ in range(150):
        texts.append("".join(chr(dice.choice(anything)) for _ in range(dice.randint(1, 12))))
    return texts


def repeated(dice, longest, parts, words):
    letters = lambda: dice.choice(TIE_LETTERS) * dice.randint(1, longest)  # noqa: E731
    word = lambda: "".join(letters() for _ in range(dice.randint(1, parts)))  # noqa: E731
    return " ".join(word() for _ in range(dice.randint(*words)))


def write_ties(folder):
    assert sentencepiece.__version__ == PINNED, f"sentencepiece is {sentencepiece.__version__}; the reference is {PINNED}"
    dice = random.Random(7)
    corpus = [repeated(dice, 7, 4, (2, 9)) for _ in range(3000)]
    (folder / "ties.model").write_bytes(train(IDENTITY | {"vocab_size": 300, "character_coverage": 0.9995}, corpus))
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "ties.model"))
    texts = ["noooo zzz soooo"] + [repeated(dice, 9, 4, (1, 5)) for _ in range(TIES)]
    ids = [" ".join(map(str, model.encode(text))) for text in texts]
    (folder / "ties.json").write_text(json.dumps({"texts": texts, "ids": ids}, indent=0) + "\n")


def train(options, corpus):
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(corpus), model_writer=model,
        **({"vocab_size": 260, "model_type": "unigram", "normalization_rule_name": "nmt_nfkc", "character_coverage": 0.98,
            "pad_id": 0, "eos_id": 1, "unk_id": 2, "bos_id": -1, "hard_vocab_limit": False, "minloglevel": 2} | options),
    )
    return model.getvalue()


def write(folder):
    folder.mkdir(parents=True, exist_ok=True)
    dice = random.Random(5)
    corpus = [" ".join(dice.choices(WORDS, k=dice.randint(2, 14))) for _ in range(4000)]
    texts = hostile(dice)
    ids = {}
    for name, options in MODELS.items():
        (folder / name).write_bytes(train(options, corpus))
        model = sentencepiece.SentencePieceProcessor(model_file=str(folder / name))
        ids[name] = [" ".join(map(str, model.encode(text))) for text in texts]
    (folder / "hostile.json").write_text(json.dumps({"texts": texts, "ids": ids}, indent=0, ensure_ascii=True) + "\n")
    model = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    rows = []
    for text in TEXTS:
        row = model.encode(text)[: LENGTH - 1] + [model.eos_id()]
        padding = LENGTH - len(row)
        rows.append({"text": text, "ids": row + [0] * padding, "mask": [1] * len(row) + [0] * padding})
    (folder / "expected.json").write_text(json.dumps({"length": LENGTH, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    import sys

    if "--ties-only" not in sys.argv:
        write(Path(sys.argv[1]))
    write_ties(Path(sys.argv[1]))
