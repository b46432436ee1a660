"""The text side: the tokenizer's file, and the small T5 encoder with its pre-training.

An encoder that starts from nothing together with the U-Net learns late which colour belongs to
which shape. So it first learns the captions alone, in minutes: from its outputs, linear heads must
read off what stands in each place of the picture, and from each word of an object that object's own
attributes and place. What stands at the top is then as plain to the U-Net as the background's
colour is. The heads are thrown away and the encoder stays frozen, so that every stage sees the same
embeddings.
"""

import random
from dataclasses import astuple
from pathlib import Path

import numpy
import torch
from torch import nn
from transformers import T5Config, T5EncoderModel

import pictures
from checkpoints import Checkpoint
from pictures import BACKGROUNDS, COLOURS, RELATIONS, SHAPES, SIZES

MAX_LENGTH = 32
STEPS = 1100
PAD, END, UNK = 0, 1, 2
TOKENS = ["<pad>", "</s>", "<unk>", *pictures.vocabulary()]
TOKEN_IDS = {token: i for i, token in enumerate(TOKENS)}


def write_tokenizer(folder: Path):
    """tokenizer.json: one token a word; lower case; punctuation is dropped where it parts words;
    the end token is appended."""
    from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

    tokenizer = Tokenizer(models.WordLevel(TOKEN_IDS, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.WhitespaceSplit(),
        pre_tokenizers.Split(Regex(r"[^\p{L}\p{N}]+"), "removed"),
    ])
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in TOKENS[:3]])
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", END)])
    tokenizer.enable_truncation(MAX_LENGTH)
    tokenizer.enable_padding(length=MAX_LENGTH, pad_id=PAD, pad_token="<pad>")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"), pretty=True)


def encode_words(phrases):
    """Token ids and mask [B, MAX_LENGTH] of phrases (see `pictures`), as the tokenizer would make
    them."""
    ids = torch.tensor([word_ids(phrase) for phrase in phrases])
    return ids, (ids != PAD).long()


def word_ids(phrase):
    words = [TOKEN_IDS.get(word, UNK) for word, _ in phrase[: MAX_LENGTH - 1]] + [END]
    return words + [PAD] * (MAX_LENGTH - len(words))


def pack(scenes, phrases):
    """Scenes' slots and phrases' token ids as bytes [B, 8 + MAX_LENGTH], small enough to send
    between processes."""
    return numpy.array([[*astuple(s)[:7], s.background + 1, *word_ids(p)] for s, p in zip(scenes, phrases)], dtype=numpy.uint8)


def unpack(packed, device):
    """Slots [B,8] and token ids [B, MAX_LENGTH], i64, on a device."""
    both = torch.from_numpy(packed).to(device, non_blocking=True).long()
    slots, ids = both.split([8, MAX_LENGTH], 1)
    return torch.cat([slots[:, :7], slots[:, 7:] - 1], 1), ids.contiguous()


class Embeddings:
    """The frozen encoder, from token ids [B, L] to hidden states [B, L, D] in f32."""

    def __init__(self, folder, device="cpu"):
        self.encoder = T5EncoderModel.from_pretrained(folder, dtype=torch.float32).eval().to(device)
        self.ready_made = torch.device(device).type != "cpu" and self.takes_ready_made_masks(device)

    @torch.no_grad()
    def __call__(self, ids):
        return self.encoder(input_ids=ids, attention_mask=self.mask(ids, self.ready_made)).last_hidden_state

    @staticmethod
    def mask(ids, ready_made):
        if not ready_made:
            return (ids != PAD).long()
        ignored = torch.zeros(ids.shape, device=ids.device).masked_fill(ids == PAD, torch.finfo(torch.float32).min)
        return ignored[:, None, None, :].expand(-1, -1, ids.shape[1], -1)

    def takes_ready_made_masks(self, device):
        """With a mask of 0 and 1 transformers looks whether any is 0, for which a card must be
        waited for. Not every version takes the sum's own mask instead, so it is tried."""
        ids = torch.tensor([[*range(3, 10), END] + [PAD] * (MAX_LENGTH - 8)], device=device)
        try:
            with torch.no_grad():
                ours, theirs = (self.encoder(input_ids=ids, attention_mask=self.mask(ids, m)).last_hidden_state for m in (True, False))
            return torch.allclose(ours, theirs, atol=1e-2)
        except (ValueError, RuntimeError, TypeError):
            return False


def new_encoder():
    return T5EncoderModel(T5Config(
        vocab_size=-(-len(TOKENS) // 8) * 8, d_model=128, d_kv=32, num_heads=4, num_layers=3, d_ff=256, feed_forward_proj="gated-gelu",
        dropout_rate=0.0, is_encoder_decoder=False, use_cache=False, pad_token_id=PAD, eos_token_id=END,
    ))


# What stands in each place (0: nothing), then the background; and one object's own view of itself.
PLACES = ["centre", "top", "bottom", "left", "right"]
SCENE_CLASSES = [len(SIZES) + 1, len(COLOURS) + 1, len(SHAPES) + 1] * len(PLACES) + [len(BACKGROUNDS)]
OBJECT_CLASSES = [len(SIZES), len(COLOURS), len(SHAPES), len(PLACES)]
# The place of the second object, where the first stands in PLACES[relation].
OPPOSITE = [0, 2, 1, 4, 3]


def labels(scenes, phrases):
    """Classes of the scenes [B, len(SCENE_CLASSES)], and of the object that each position's word
    describes [B, MAX_LENGTH, 4] (−100: none)."""
    whole = numpy.zeros((len(scenes), len(SCENE_CLASSES)), dtype=numpy.int64)
    own = numpy.full((len(scenes), MAX_LENGTH, len(OBJECT_CLASSES)), -100)
    for row, (s, phrase) in enumerate(zip(scenes, phrases)):
        views = [None, (s.size1, s.colour1, s.shape1, s.relation), (s.size2, s.colour2, s.shape2, OPPOSITE[s.relation])]
        for *attributes, place in views[1 : 3 if s.relation else 2]:
            whole[row, 3 * place : 3 * place + 3] = [a + 1 for a in attributes]
        whole[row, -1] = s.drawn_background
        for column, (_, owner) in enumerate(phrase[: MAX_LENGTH - 1]):
            if owner:
                own[row, column] = views[owner]
    return torch.from_numpy(whole), torch.from_numpy(own)


def sample_phrases(rng, count, canonical_share=0.5):
    scenes = [pictures.random_training_scene(rng) for _ in range(count)]
    return scenes, [pictures.caption(s) if rng.random() < canonical_share else pictures.paraphrase(s, rng) for s in scenes]


def read_off(logits, classes, target):
    """Mean cross-entropy and the share right, over the slots that `target` [..., slots] defines
    (−100: none)."""
    loss, right = 0.0, []
    for part, slot in zip(logits.split(classes, -1), target.unbind(-1)):
        part, slot = part.flatten(0, -2), slot.flatten()
        loss = loss + nn.functional.cross_entropy(part, slot, ignore_index=-100)
        right.append((part.argmax(-1) == slot)[slot != -100].float().mean())
    return loss, torch.stack(right)


def train(state_folder: Path, steps=STEPS, batch=192, rate=1.5e-3, device="cpu", log=print):
    """Pre-train the encoder; resumable. Returns it in evaluation mode."""
    torch.manual_seed(11)
    encoder = new_encoder()
    heads = nn.ModuleDict({
        # From the mean over all positions, padding included, as the U-Nets pool it.
        "pooled": nn.Linear(128, sum(SCENE_CLASSES)),
        "everywhere": nn.Linear(128, sum(SCENE_CLASSES)),
        "object": nn.Linear(128, sum(OBJECT_CLASSES)),
    })
    both = nn.ModuleDict({"encoder": encoder, "heads": heads}).to(device)
    optimiser = torch.optim.AdamW(both.parameters(), lr=rate, betas=(0.9, 0.99), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda i: min((i + 1) / 50, 1.0) * max(0.0, 1 - i / steps))
    checkpoint = Checkpoint(state_folder / "text.pt", model=both, optimiser=optimiser, schedule=schedule)
    start = checkpoint.restore()
    for step in range(start, steps):
        scenes, phrases = sample_phrases(random.Random(f"text {step}"), batch)
        ids, mask, whole, own = (x.to(device) for x in (*encode_words(phrases), *labels(scenes, phrases)))
        hidden = encoder(input_ids=ids, attention_mask=mask).last_hidden_state
        pooled, pooled_right = read_off(heads["pooled"](hidden.mean(1)), SCENE_CLASSES, whole)
        everywhere, _ = read_off(heads["everywhere"](hidden[:, ::3]), SCENE_CLASSES, whole[:, None].expand(-1, len(range(0, MAX_LENGTH, 3)), -1))
        objects, object_right = read_off(heads["object"](hidden), OBJECT_CLASSES, own)
        loss = (pooled + 0.5 * everywhere + objects) / 8
        optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(both.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        if step % 50 == 49:
            log(f"text {step + 1}/{steps} loss {loss.item():.4f} right: scene {pooled_right.min():.3f} object {object_right.min():.3f}")
        checkpoint.tick(step + 1)
    checkpoint.save(steps)
    return encoder.eval().cpu()
