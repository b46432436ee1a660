"""Runs image-to-image and inpainting with the reference's own pipelines for DeepFloyd IF, and
records them.

The pipelines are built around a fixture's tiny network and scheduler, without text encoder, safety
checker and watermarker. What they draw, what goes into the network and what comes out is recorded
on the way.
"""

import diffusers
import torch
from diffusers.schedulers import scheduling_ddpm

from recording import PERTURBATION, given, make_scheduler

CLASSES = {
    ("image-to-image", False): diffusers.IFImg2ImgPipeline,
    ("inpainting", False): diffusers.IFInpaintingPipeline,
    ("image-to-image", True): diffusers.IFImg2ImgSuperResolutionPipeline,
    ("inpainting", True): diffusers.IFInpaintingSuperResolutionPipeline,
}
UNUSED = {name: None for name in ("tokenizer", "text_encoder", "safety_checker", "feature_extractor", "watermarker")}


@torch.no_grad()
def record_pipeline(unet, config, run, text, negative, size, low_res, noising, seed, disturbance=None):
    """Every tensor of one run, by the names of the trace format."""
    assert run["sampler"] == "ddpm", "the pipelines are made for DDPM"
    level = run.get("noise_level")
    shape = (len(text), 3, *size)
    tensors = given(run, shape, seed)
    generator = torch.Generator().manual_seed(seed)
    timesteps, names = [], iter(["noise.init"] if level is None else ["noise.init", "noise.augmentation"])

    def draw(*_, **__):
        name = next(names, f"noise.step{len(timesteps)}")
        tensors[name] = torch.randn(shape, generator=generator)
        return tensors[name]

    def look_in(_, positional, __):
        if "sample.start" not in tensors:
            rows = positional[0][: len(text)]
            tensors["sample.start"] = rows[:, :3].clone()
            if level is not None:
                tensors["conditioned_low_res"] = rows[:, 3:].clone()

    def look_out(_, __, result):
        if "model_output.step0" not in tensors:
            tensors["model_output.step0"] = result[0].clone()
        if disturbance is not None:
            return (result[0] + PERTURBATION * torch.randn(result[0].shape, generator=disturbance),)

    def after_step(i, t, x):
        timesteps.append(int(t))
        tensors[f"sample.step{i}"] = x.clone()

    kind = CLASSES[run["task"], level is not None]
    parts = UNUSED | {"unet": unet, "scheduler": make_scheduler("ddpm", config), "requires_safety_checker": False}
    inputs = {"strength": run["strength"], "num_inference_steps": run["steps"], "timesteps": run.get("timesteps"),
              "guidance_scale": run["guidance_scale"], "prompt_embeds": text, "negative_prompt_embeds": negative,
              "output_type": "pt", "callback": after_step}
    if level is None:
        inputs["image"] = tensors["init_image"].clone()
    else:
        parts["image_noising_scheduler"] = noising
        tensors["low_res"] = low_res
        inputs |= {"image": low_res, "original_image": tensors["init_image"].clone(), "noise_level": level}
    if "mask" in tensors:
        inputs["mask_image"] = tensors["mask"].clone()  # the pipeline rounds it in place
    pipeline = kind(**parts)
    pipeline.set_progress_bar_config(disable=True)
    module = __import__(kind.__module__, fromlist=["randn_tensor"])
    places = (module, scheduling_ddpm)
    drawn = [place.randn_tensor for place in places]
    hooks = [unet.register_forward_pre_hook(look_in, with_kwargs=True), unet.register_forward_hook(look_out)]
    try:
        for place in places:
            place.randn_tensor = draw
        result = pipeline(**inputs).images
    finally:
        for place, own in zip(places, drawn):
            place.randn_tensor = own
        for hook in hooks:
            hook.remove()
    tensors["timesteps"] = torch.tensor(timesteps)
    tensors["output"] = result.clamp(-1, 1)
    return tensors
