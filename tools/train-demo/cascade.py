"""The cascade as Python runs it: transformers' T5, diffusers' U-Net and samplers, this folder's
Efficient U-Net.

The samplers follow diffusers exactly ("dpmsolver++" is its DPMSolverMultistepScheduler made from
the stage's own scheduler config), so that pictures rendered here and by Darkroom differ only by
their noise.
"""

import json
import time
import tomllib
from pathlib import Path

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, UNet2DConditionModel
from tokenizers import Tokenizer
from torch.nn import functional as F
from transformers import T5EncoderModel

from efficient_unet import EfficientUNet2DModel

SAMPLERS = {"ddpm": DDPMScheduler, "ddim": DDIMScheduler, "dpmsolver++": DPMSolverMultistepScheduler}


def load_unet(folder: Path):
    kind = json.loads((folder / "config.json").read_text())["_class_name"]
    return {"EfficientUNet2DModel": EfficientUNet2DModel, "UNet2DConditionModel": UNet2DConditionModel}[kind].from_pretrained(folder)


class Cascade:
    """A cascade folder, loaded. `stages` are the entries of its cascade.toml."""

    def __init__(self, folder, dtype=torch.float32, last_stage=None, memory_format=torch.channels_last, device="cpu"):
        self.folder, self.dtype, self.memory_format, self.device = Path(folder), dtype, memory_format, torch.device(device)
        description = tomllib.loads((self.folder / "cascade.toml").read_text())
        encoder = description["encoder"]
        self.tokenizer = Tokenizer.from_file(str(self.folder / encoder["tokenizer"] / "tokenizer.json"))
        self.lower = encoder["text_preparation"] == "lowercase-strip"
        self.encoder = T5EncoderModel.from_pretrained(self.folder / encoder["folder"], dtype=torch.float32).eval().to(self.device)
        self.stages, self.unets = [], []
        for stage in description["stages"]:
            self.stages.append(stage)
            unet = load_unet(self.folder / stage["folder"] / "unet")
            self.unets.append(unet.to(dtype).to(self.device, memory_format=memory_format).eval())
            if stage["name"] == last_stage:
                break

    @torch.inference_mode()
    def encode(self, prompts):
        """[N, L, D] in f32."""
        found = self.tokenizer.encode_batch([p.lower().strip() if self.lower else p for p in prompts])
        ids, mask = (torch.tensor([getattr(e, name) for e in found], device=self.device) for name in ("ids", "attention_mask"))
        return self.encoder(input_ids=ids, attention_mask=mask).last_hidden_state

    def scheduler(self, stage, thresholding=None):
        config = json.loads((self.folder / stage["folder"] / "scheduler" / "scheduler_config.json").read_text())
        # "static" is a clamp to −1…1. Dynamic thresholding comes down to that where
        # sample_max_value is 1.
        if thresholding is not None:
            config["thresholding"] = thresholding != "off"
            config["sample_max_value"] = {"static": 1.0, "dynamic": 1.5, "off": 1.0}[thresholding]
        return SAMPLERS[stage["sampler"]].from_config(config)

    @torch.inference_mode()
    def run_stage(self, index, embeddings, unconditional, low_res, generators, **changes):
        """One stage for a batch: embeddings [N,L,D], unconditional [1,L,D], low_res [N,3,h,w] or
        None → [N,3,size,size], f32 in −1…1. `changes` override the stage's settings (steps,
        guidance_scale, noise_level, sampler, thresholding). Noise is drawn by the generators, which
        are the processor's, so that it is the same on every device."""
        stage = self.stages[index] | changes
        unet, size, rows = self.unets[index], stage["size"], len(embeddings)
        noise = lambda: torch.stack([torch.randn(3, size, size, generator=g) for g in generators]).to(self.device)
        x, condition, kwargs = noise(), None, {}
        guided = stage["guidance_scale"] != 1.0
        text = torch.cat([unconditional.expand(rows, -1, -1), embeddings]) if guided else embeddings
        text = text.to(self.dtype)
        if low_res is not None:
            level = torch.full((rows,), stage["noise_level"], device=self.device)
            config = json.loads((self.folder / stage["folder"] / "image_noising_scheduler" / "scheduler_config.json").read_text())
            condition = F.interpolate(low_res, size=(size, size), mode="bilinear", align_corners=True)
            condition = DDPMScheduler.from_config(config).add_noise(condition, noise(), level)
            kwargs["class_labels"] = torch.cat([level, level]) if guided else level
        scheduler = self.scheduler(stage, stage.get("thresholding"))
        scheduler.set_timesteps(stage["steps"], device=self.device)
        for t in scheduler.timesteps:
            given = x if condition is None else torch.cat([x, condition], 1)
            given = torch.cat([given, given]) if guided else given
            out = unet(given.to(self.dtype).to(memory_format=self.memory_format), t.expand(len(given)), text, **kwargs)
            out = (out if isinstance(out, torch.Tensor) else out.sample).float()
            if guided:
                without, with_text = out.chunk(2)
                out = without + stage["guidance_scale"] * (with_text - without)
            x = scheduler.step(out, t, x).prev_sample
        return x.clamp(-1, 1)

    def render(self, prompts, seed=0, batch=8, base_changes=None):
        """Every stage for every prompt. Returns the stages' pictures (lists of [N,3,s,s], on the
        processor) and the seconds each stage took, encoding first."""
        base_changes, seconds = base_changes or {}, {}
        began = time.perf_counter()
        embeddings, empty = self.encode(prompts), self.encode([""])
        seconds["encode"] = time.perf_counter() - began
        pictures, low_res = [], None
        for index, stage in enumerate(self.stages):
            began, parts = time.perf_counter(), []
            for at in range(0, len(prompts), batch):
                rows = slice(at, at + batch)
                generators = [torch.Generator().manual_seed((seed + i) * 10 + index) for i in range(len(prompts))[rows]]
                below = None if low_res is None else low_res[rows]
                parts.append(self.run_stage(index, embeddings[rows], empty, below, generators, **(base_changes if index == 0 else {})))
            low_res = torch.cat(parts)
            pictures.append(low_res.cpu())
            seconds[stage["name"]] = time.perf_counter() - began
        return pictures, seconds
