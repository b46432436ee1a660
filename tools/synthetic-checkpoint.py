#!/usr/bin/env python3
"""Writes a checkpoint with the shapes of a published model and random weights, to try loading at
full size.

    python tools/synthetic-checkpoint.py IF-I-XL /tmp/if --dtype bf16
    python tools/synthetic-checkpoint.py T5-XXL /tmp/t5 --dtype bf16
    python tools/synthetic-checkpoint.py stage /tmp/if-ii --config unet/config.json

Names and shapes come from diffusers' and transformers' own classes, made without memory; the values
are one block of normal noise (deviation 0.02), begun elsewhere for every tensor. Shards and their
index are laid out as published. Known shapes: IF-I-M, -L, -XL and T5 v1.1 of every size. IF-I's
widths are those whose parameters come to what the model cards say (0.4, 0.9 and 4.3 billion).
IF-II-L's published configuration was not at hand: `IF-II-L-candidate` has 1.2 billion parameters as
published and the layers per level that diffusers' conversion script tells, but its widths are a
guess; with the real unet/config.json use `stage --config`.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch

SHARD = 10 * 2**30
WIDTHS = {"IF-I-M": 192, "IF-I-L": 320, "IF-I-XL": 704}
T5 = {  # d_model, d_ff, layers, heads
    "T5-SMALL": (512, 1024, 8, 6), "T5-BASE": (768, 2048, 12, 12), "T5-LARGE": (1024, 2816, 24, 16),
    "T5-XL": (2048, 5120, 24, 32), "T5-XXL": (4096, 10240, 24, 64),
}
IF = {"out_channels": 6, "act_fn": "gelu", "attention_head_dim": 64, "cross_attention_norm": "group_norm",
      "encoder_hid_dim": 4096, "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text",
      "addition_embed_type_num_heads": 64, "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
      "resnet_time_scale_shift": "scale_shift"}
SCHEDULER = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2",
             "variance_type": "learned_range", "prediction_type": "epsilon", "thresholding": True,
             "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5}


def levels(widths, attends):
    down = ["SimpleCrossAttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends]
    up = ["SimpleCrossAttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attends)]
    return {"block_out_channels": widths, "down_block_types": down, "up_block_types": up}


def stage_one(width):
    return {**IF, **levels([width * i for i in (1, 2, 3, 4)], [False, True, True, True]), "sample_size": 64,
            "in_channels": 3, "layers_per_block": 3, "cross_attention_dim": 4 * width}


def stage_two_candidate():
    return {**IF, **levels([192, 384, 768, 1152, 1152], [False, False, False, False, True]), "sample_size": 256,
            "in_channels": 6, "layers_per_block": [2, 2, 3, 5, 5], "cross_attention_dim": 1152, "class_embed_type": "timestep",
            "only_cross_attention": True, "time_embedding_dim": 1152, "time_embedding_act_fn": "gelu",
            "resnet_skip_time_act": True, "resnet_out_scale_factor": 1 / 0.7071, "mid_block_scale_factor": 1 / 0.7071}


def shapes_of_unet(config):
    from diffusers import UNet2DConditionModel
    with torch.device("meta"):
        model = UNet2DConditionModel(**{key: value for key, value in config.items() if not key.startswith("_")})
    return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}


def t5_config(size):
    width, inner, layers, heads = T5[size]
    return {"model_type": "t5", "architectures": ["T5EncoderModel"], "feed_forward_proj": "gated-gelu", "vocab_size": 32128,
            "d_model": width, "d_ff": inner, "d_kv": 64, "num_layers": layers, "num_heads": heads, "layer_norm_epsilon": 1e-6,
            "relative_attention_num_buckets": 32, "relative_attention_max_distance": 128, "pad_token_id": 0, "eos_token_id": 1}


def shapes_of_t5(config):
    from transformers import T5Config, T5EncoderModel
    with torch.device("meta"):
        model = T5EncoderModel(T5Config(**{key: value for key, value in config.items() if key != "model_type"}))
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    shapes.pop("encoder.embed_tokens.weight", None)  # Saved once, as shared.weight.
    return shapes


class Noise:
    """Bytes of a block of noise, from ever new places."""

    def __init__(self, dtype):
        values = np.random.default_rng(0).standard_normal(8 << 20, dtype=np.float32) * 0.02
        self.block = torch.from_numpy(values).to(dtype).view(torch.uint8).numpy()
        self.width = dtype.itemsize
        self.place = 0

    def write(self, file, count):
        self.place = (self.place + 7919 * self.width) % len(self.block)
        left, place = count * self.width, self.place
        while left:
            piece = self.block[place : place + left]
            file.write(piece)
            left, place = left - len(piece), 0


def write(folder, stem, shapes, dtype, variant):
    """Writes shards and an index, or one file."""
    name = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16"}[dtype]
    shards, size = [[]], 0
    for tensor, shape in shapes.items():
        count = int(np.prod(shape))
        if shards[-1] and size + count * dtype.itemsize > SHARD:
            shards.append([])
            size = 0
        shards[-1].append((tensor, shape, count))
        size += count * dtype.itemsize
    folder.mkdir(parents=True, exist_ok=True)
    dotted, noise, weight_map = f".{variant}" if variant else "", Noise(dtype), {}
    for number, shard in enumerate(shards, 1):
        place = f"-{number:05}-of-{len(shards):05}" if len(shards) > 1 else ""
        file, begin, header = f"{stem}{dotted}{place}.safetensors", 0, {}
        for tensor, shape, count in shard:
            end = begin + count * dtype.itemsize
            header[tensor] = {"dtype": name, "shape": shape, "data_offsets": [begin, end]}
            weight_map[tensor], begin = file, end
        text = json.dumps(header).encode()
        text += b" " * (-len(text) % 8)
        with open(folder / file, "wb") as out:
            out.write(len(text).to_bytes(8, "little") + text)
            for _, _, count in shard:
                noise.write(out, count)
    total = sum(int(np.prod(shape)) for shape in shapes.values())
    if len(shards) > 1:
        index = {"metadata": {"total_size": total * dtype.itemsize}, "weight_map": weight_map}
        (folder / f"{stem}.safetensors.index{dotted}.json").write_text(json.dumps(index) + "\n")
    print(f"{folder}: {total:,} parameters, {total * dtype.itemsize / 2**30:.2f} GiB of {name} in {len(shards)} file(s)")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    known = [*WIDTHS, "IF-II-L-candidate", *T5, "stage"]
    parser.add_argument("model", choices=known)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--config", type=Path, help="unet/config.json of `stage`")
    parser.add_argument("--dtype", choices=["f32", "fp16", "bf16"], default="bf16")
    parser.add_argument("--spiece", type=Path, help="a spiece.model to put beside a T5; without one it is an encoder alone")
    options = parser.parse_args()
    dtype = {"f32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[options.dtype]
    variant = "" if options.dtype == "f32" else options.dtype
    if options.model in T5:
        config = t5_config(options.model)
        write(options.folder, "model", shapes_of_t5(config), dtype, variant)
        (options.folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
        if options.spiece:
            (options.folder / "spiece.model").write_bytes(options.spiece.read_bytes())
        return
    if options.model == "stage":
        config = json.loads(options.config.read_text())
    else:
        config = stage_two_candidate() if options.model == "IF-II-L-candidate" else stage_one(WIDTHS[options.model])
        config = {"_class_name": "UNet2DConditionModel", **config}
    write(options.folder / "unet", "diffusion_pytorch_model", shapes_of_unet(config), dtype, variant)
    files = {"unet/config.json": config, "scheduler/scheduler_config.json": SCHEDULER}
    if config["in_channels"] == 6:
        files["image_noising_scheduler/scheduler_config.json"] = {"_class_name": "DDPMScheduler", "beta_schedule": "squaredcos_cap_v2"}
    for name, content in files.items():
        (options.folder / name).parent.mkdir(exist_ok=True)
        (options.folder / name).write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
