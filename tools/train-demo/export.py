"""Write the cascade folder from what training left in the state folder: Hugging Face layout, bf16
safetensors, cascade.toml."""

import json
import shutil
from pathlib import Path

import torch

import base
import super_resolution
import text
from training import averaged_weights

CASCADE = """\
format = 1
name = "demo"
description = "Coloured shapes on plain backgrounds, 64 to 256 to 1024 pixels: a cascade small enough to ship"
licence = "MIT OR Apache-2.0"

[encoder]
folder = "text_encoder"
tokenizer = "tokenizer"
max_length = 32
text_preparation = "lowercase-strip"

[[stages]]
name = "base"
folder = "base"
size = 64
sampler = "dpmsolver++"
steps = 20
guidance_scale = 1.5

[[stages]]
name = "sr256"
folder = "sr256"
size = 256
sampler = "dpmsolver++"
steps = 4
guidance_scale = 1.0
noise_level = 120

[[stages]]
name = "sr1024"
folder = "sr1024"
size = 1024
sampler = "dpmsolver++"
steps = 4
guidance_scale = 1.0
noise_level = 50
"""


def write_scheduler(folder: Path, config):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "scheduler_config.json").write_text(json.dumps(config, indent=2) + "\n")


def export(state_folder: Path, out: Path, dtype=torch.bfloat16):
    """Replace the cascade in `out`. Returns the step each stage's weights were taken at."""
    new, taken = out.with_name(out.name + ".new"), {}
    shutil.rmtree(new, ignore_errors=True)
    text.write_tokenizer(new / "tokenizer")
    text.T5EncoderModel.from_pretrained(state_folder / "text_encoder", dtype=dtype).save_pretrained(new / "text_encoder")

    unet = base.new_unet()
    weights, taken["base"] = averaged_weights(state_folder, "base")
    unet.load_state_dict(weights)
    unet.to(dtype).save_pretrained(new / "base" / "unet")
    write_scheduler(new / "base" / "scheduler", base.SCHEDULER)

    for stage in (super_resolution.SR256, super_resolution.SR1024):
        name, unet = stage.plan.name, super_resolution.new_unet(stage)
        if (state_folder / f"{name}.pt").exists():
            weights, taken[name] = averaged_weights(state_folder, name)
            unet.load_state_dict(weights)
        unet.to(dtype).save_pretrained(new / name / "unet")
        write_scheduler(new / name / "scheduler", super_resolution.SCHEDULER)
        write_scheduler(new / name / "image_noising_scheduler", super_resolution.NOISING_SCHEDULER)

    (new / "cascade.toml").write_text(CASCADE)
    for file in new.rglob("*.safetensors"):
        file.chmod(0o644)  # safetensors writes for the owner alone
    if out.exists():
        shutil.rmtree(out)
    new.rename(out)
    return taken
