"""Writes tiny random models in the layout of published folders, with diffusers' and transformers'
own `save_pretrained`.

    python tools/reference/hub_folders.py diffusion/tests/fixtures/hub diffusion/tests/fixtures/spiece/symbols.model

Two pipelines as people have DeepFloyd IF's: `if-i` with fp32 shards and one fp16 file,
`spiece.model` without tokenizer.json, a safety checker and a watermarker; `if-ii` without an
encoder, fp16 only.
"""

import json
import shutil
import sys
from pathlib import Path

import torch
from diffusers import DDPMScheduler, UNet2DConditionModel
from transformers import T5Config, T5EncoderModel

TEXT = 8
COMMON = {"cross_attention_norm": "group_norm", "cross_attention_dim": 32, "encoder_hid_dim": TEXT,
          "encoder_hid_dim_type": "text_proj", "addition_embed_type": "text", "addition_embed_type_num_heads": 2,
          "attention_head_dim": 4, "norm_num_groups": 2, "act_fn": "gelu", "resnet_time_scale_shift": "scale_shift",
          "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
          "down_block_types": ["ResnetDownsampleBlock2D", "SimpleCrossAttnDownBlock2D"],
          "up_block_types": ["SimpleCrossAttnUpBlock2D", "ResnetUpsampleBlock2D"], "block_out_channels": [4, 4]}
STAGE_I = {**COMMON, "sample_size": 8, "in_channels": 3, "out_channels": 6, "layers_per_block": 1}
STAGE_II = {**COMMON, "sample_size": 16, "in_channels": 6, "out_channels": 6, "layers_per_block": [1, 2],
            "class_embed_type": "timestep", "only_cross_attention": True, "time_embedding_dim": 12,
            "time_embedding_act_fn": "gelu", "resnet_skip_time_act": True, "resnet_out_scale_factor": 1.41421356,
            "mid_block_scale_factor": 1.41421356}
PARTS_I = {"feature_extractor": ["transformers", "CLIPImageProcessor"], "safety_checker": ["deepfloyd_if", "IFSafetyChecker"],
           "scheduler": ["diffusers", "DDPMScheduler"], "text_encoder": ["transformers", "T5EncoderModel"],
           "tokenizer": ["transformers", "T5Tokenizer"], "unet": ["diffusers", "UNet2DConditionModel"],
           "watermarker": ["deepfloyd_if", "IFWatermarker"]}


def scheduler(maximum):
    return DDPMScheduler(beta_schedule="squaredcos_cap_v2", variance_type="learned_range", thresholding=True,
                         dynamic_thresholding_ratio=0.95, sample_max_value=maximum)


def index(folder, pipeline, parts):
    text = {"_class_name": pipeline, "_diffusers_version": "0.16.0.dev0", **parts, "requires_safety_checker": True}
    (folder / "model_index.json").write_text(json.dumps(text, indent=2) + "\n")


def pipeline(folder, name, unet, maximum, parts):
    folder.mkdir(parents=True, exist_ok=True)
    index(folder, name, parts)
    scheduler(maximum).save_pretrained(folder / "scheduler")
    for declined in ("safety_checker", "watermarker"):
        (folder / declined).mkdir(exist_ok=True)
        (folder / declined / "config.json").write_text(json.dumps({"_class_name": parts[declined][1]}) + "\n")
    return UNet2DConditionModel(**unet)


def main(out, spiece):
    torch.manual_seed(0)
    shutil.rmtree(out, ignore_errors=True)
    one = out / "if-i"
    unet = pipeline(one, "IFPipeline", STAGE_I, 1.5, PARTS_I)
    unet.save_pretrained(one / "unet", max_shard_size="16KB")
    unet.half().save_pretrained(one / "unet", variant="fp16")
    text = T5EncoderModel(T5Config(vocab_size=144, d_model=TEXT, d_kv=4, d_ff=12, num_layers=2, num_heads=2,
                                   feed_forward_proj="gated-gelu", tie_word_embeddings=False))
    text.half().save_pretrained(one / "text_encoder", variant="fp16", max_shard_size="4KB")
    (one / "tokenizer").mkdir()
    shutil.copyfile(spiece, one / "tokenizer" / "spiece.model")
    (one / "tokenizer" / "tokenizer_config.json").write_text('{"tokenizer_class": "T5Tokenizer", "model_max_length": 77}\n')
    (one / "LICENSE.md").write_text("A licence would be here.\n")
    two = out / "if-ii"
    parts = {**PARTS_I, "image_noising_scheduler": ["diffusers", "DDPMScheduler"]}
    unet = pipeline(two, "IFSuperResolutionPipeline", STAGE_II, 1.0, parts)
    DDPMScheduler(beta_schedule="squaredcos_cap_v2").save_pretrained(two / "image_noising_scheduler")
    unet.half().save_pretrained(two / "unet", variant="fp16")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
