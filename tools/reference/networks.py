"""Makes the models of a fixture cascade and saves them as published checkpoints are laid out."""

import json
import sys
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel
from safetensors.torch import save_file
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from transformers import T5Config, T5EncoderModel, T5ForConditionalGeneration

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "train-demo"))
from efficient_unet import EfficientUNet2DModel  # noqa: E402

WORDS = "a an the red green blue yellow circle square dog bike snow cat above below on of in with and to three riding".split()


def randomise(module, seed):
    """Weights that leave no part idle: the default ones make norms, biases and last layers
    trivial."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, p in sorted(module.named_parameters()):
            noise = torch.randn(p.shape, generator=generator)
            if p.dim() > 1:
                p.copy_(noise * (0.7 / p[0].numel() ** 0.5))
            elif name.endswith("weight"):
                p.copy_(1 + 0.2 * noise)
            else:
                p.copy_(0.1 * noise)
    return module.eval()


def make_tokenizer(folder, length):
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("▁", -2.5)]
    pieces += [("▁" + word, -3.0 - 0.07 * i) for i, word in enumerate(WORDS)]
    pieces += [(letter, -6.0 - 0.03 * i) for i, letter in enumerate("abcdefghijklmnopqrstuvwxyz,s.")if letter]
    pieces = list(dict(pieces).items())
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=2, byte_fallback=False))
    tokenizer.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Replace(Regex(" {2,}"), " ")])
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always")
    tokenizer.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    tokenizer.enable_truncation(length)
    tokenizer.enable_padding(length=length, pad_id=0, pad_token="<pad>")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    return tokenizer


def make_text_encoder(folder, options, vocab, seed, whole):
    """With `whole`, saves a full T5 in two shards, as the big checkpoints are: decoder, head and a
    second embedding."""
    config = T5Config(vocab_size=vocab, feed_forward_proj="gated-gelu", dropout_rate=0.0, num_decoder_layers=1, **options)
    encoder = randomise(T5EncoderModel(config), seed)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    state = {name: tensor.clone().contiguous() for name, tensor in encoder.state_dict().items()}
    state.pop("encoder.embed_tokens.weight", None)
    if not whole:
        save_file(state, str(folder / "model.safetensors"), metadata={"format": "pt"})
        return encoder
    full = T5ForConditionalGeneration(config).state_dict()
    extras = {name: tensor.clone().contiguous() for name, tensor in full.items() if name.startswith(("decoder.", "lm_head"))}
    extras["encoder.embed_tokens.weight"] = state["shared.weight"].clone()
    names = sorted(state)
    shards = {
        "model-00001-of-00002.safetensors": {name: state[name] for name in names[: len(names) // 2]},
        "model-00002-of-00002.safetensors": {name: state[name] for name in names[len(names) // 2 :]} | extras,
    }
    for file, tensors in shards.items():
        save_file(tensors, str(folder / file), metadata={"format": "pt"})
    places = {name: file for file, tensors in shards.items() for name in tensors}
    index = {"metadata": {"total_size": 0}, "weight_map": dict(sorted(places.items()))}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=1) + "\n")
    return encoder


def make_unet(folder, config, seed, dtype):
    """Saves the network's weights in `dtype` and returns it in f32 with the values as saved."""
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    efficient = config["_class_name"] == "EfficientUNet2DModel"
    unet = randomise((EfficientUNet2DModel if efficient else UNet2DConditionModel)(**options), seed)
    unet = unet.to(getattr(torch, dtype)).float()
    folder.mkdir(parents=True, exist_ok=True)
    if efficient:
        unet.save_pretrained(folder)
    else:
        unet.save_config(folder)
    state = {name: t.to(getattr(torch, dtype)).contiguous() for name, t in unet.state_dict().items()}
    save_file(state, str(folder / "diffusion_pytorch_model.safetensors"), metadata={"format": "pt"})
    return unet
