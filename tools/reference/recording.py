"""Runs one stage with the reference's schedulers and records every tensor that a port must
reproduce."""

import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler
from diffusers.schedulers import scheduling_ddpm
from torch.nn.functional import interpolate

PERTURBATION = 1e-6
TRIES = 4


def make_scheduler(sampler, config, spacing=None, thresholding=None):
    """The stage's configuration under another class: spacing is the class's own unless the file is
    of that class.

    `spacing` and `thresholding` (as the trace's metadata has them) replace what that comes to."""
    scheduler = configured(sampler, config)
    changes = {} if spacing is None else {"timestep_spacing": spacing}
    if thresholding is not None:
        kind, *numbers = thresholding.split()
        changes |= {"thresholding": kind == "dynamic", "clip_sample": kind == "static"}
        if kind == "static":
            changes["clip_sample_range"] = float(numbers[0])
        if kind == "dynamic":
            changes |= {"dynamic_thresholding_ratio": float(numbers[0]), "sample_max_value": float(numbers[1])}
    return type(scheduler).from_config(scheduler.config, **changes) if changes else scheduler


def configured(sampler, config):
    options = {key: value for key, value in config.items() if not key.startswith("_")}
    own = config["_class_name"]
    if sampler == "ddpm":
        if own != "DDPMScheduler":
            options |= {"timestep_spacing": "leading", "steps_offset": 0}
        return DDPMScheduler.from_config(options)
    if sampler == "ddim":
        if own != "DDIMScheduler":
            options |= {"timestep_spacing": "leading", "steps_offset": 0}
        return DDIMScheduler.from_config(options)
    if own != "DPMSolverMultistepScheduler":
        options |= {"timestep_spacing": "linspace", "steps_offset": 0}
    return DPMSolverMultistepScheduler.from_config(options, algorithm_type=sampler)


def guidance_weights(schedule, scale, timesteps):
    """The weight of each step: `timesteps FROM TO` and `steps FROM TO` have `scale` within and 1
    without (Kynkäänniemi et al. 2024), `oscillating FIRST LOW` has `scale` at first and then LOW
    and `scale` in turn (Imagen Video)."""
    if schedule is None:
        return [scale] * len(timesteps)
    kind, low, high = schedule.split()
    if kind == "timesteps":
        return [scale if int(low) <= t <= int(high) else 1.0 for t in timesteps.tolist()]
    if kind == "steps":
        return [scale if float(low) <= i / len(timesteps) < float(high) else 1.0 for i in range(len(timesteps))]
    return [float(high) if i >= int(low) and (i - int(low)) % 2 == 0 else scale for i in range(len(timesteps))]


def given(run, shape, seed):
    """The picture to start from and, for inpainting, the mask (white repaints): hard values, and
    soft ones that count as the nearer end. Every row has its own."""
    generator = torch.Generator().manual_seed(seed + 7)
    tensors = {}
    if run["task"] != "text-to-image":
        tensors["init_image"] = torch.rand(shape, generator=generator) * 2 - 1
    if run["task"] == "inpainting":
        mask = torch.rand((shape[0], 1, *shape[2:]), generator=generator)
        tensors["mask"] = torch.where(mask < 0.3, 0.0, torch.where(mask > 0.7, 1.0, mask))
    return tensors


def predict(unet, x, timestep, text, noise_level):
    label = None if noise_level is None else torch.full((len(x),), noise_level)
    if type(unet).__name__ == "EfficientUNet2DModel":
        return unet(x, torch.full((len(x),), int(timestep)), text, label)
    return unet(x, timestep, encoder_hidden_states=text, class_labels=label).sample


@torch.no_grad()
def record(unet, config, run, text, negative, size, low_res, noising, seed, disturbance=None):
    """Every tensor of one run, by the names of the trace format."""
    generator = torch.Generator().manual_seed(seed)
    shape = (len(text), 3, *size)
    draw = lambda: torch.randn(shape, generator=generator)  # noqa: E731
    scheduler = make_scheduler(run["sampler"], config, run.get("spacing"), run.get("thresholding"))
    if "timesteps" in run:
        scheduler.set_timesteps(timesteps=run["timesteps"])
    else:
        scheduler.set_timesteps(run["steps"])
    x = draw()
    tensors = {"noise.init": x, **given(run, shape, seed)}
    timesteps, mask = scheduler.timesteps.clone(), None
    if "init_image" in tensors:
        asked = len(run["timesteps"]) if "timesteps" in run else run["steps"]
        first = asked - min(int(asked * run["strength"]), asked)
        timesteps = timesteps[first:]
        if hasattr(scheduler, "set_begin_index"):
            scheduler.set_begin_index(first)
        x = scheduler.add_noise(tensors["init_image"], x, timesteps[:1].repeat(len(x)))
        if "mask" in tensors:
            mask = (tensors["mask"] >= 0.5).float()
            x = (1 - mask) * tensors["init_image"] + mask * x
        tensors["sample.start"] = x
    tensors["timesteps"] = timesteps
    level, scale = run.get("noise_level"), run["guidance_scale"]
    conditioned = None
    if level is not None:
        noise = draw()
        resized = interpolate(low_res, size, mode="bilinear", align_corners=True)
        conditioned = noising.add_noise(resized, noise, torch.full((len(x),), level))
        tensors |= {"low_res": low_res, "noise.augmentation": noise, "conditioned_low_res": conditioned}
    weights = guidance_weights(run.get("guidance_schedule"), scale, timesteps)
    for i, (t, weight) in enumerate(zip(timesteps, weights)):
        guided = weight != 1.0
        states = torch.cat([negative, text]) if guided else text
        joined = x if conditioned is None else torch.cat([x, conditioned], 1)
        joined = torch.cat([joined, joined]) if guided else joined
        output = predict(unet, joined, t, states, level)
        if i == 0:
            tensors["model_output.step0"] = output
        if disturbance is not None:
            output = output + PERTURBATION * torch.randn(output.shape, generator=disturbance)
        variance = None
        if guided:
            without, with_text = output.chunk(2)
            variance = with_text[:, 3:]
            output = without[:, :3] + weight * (with_text[:, :3] - without[:, :3])
        else:
            output, variance = output[:, :3], output[:, 3:]
        learned = str(scheduler.config.get("variance_type")).startswith("learned")
        if variance.shape[1] and learned:
            output = torch.cat([output, variance], 1)
        noise = draw()
        arguments = {}
        if run["sampler"] == "ddpm":
            tensors[f"noise.step{i}"] = noise
            scheduling_ddpm.randn_tensor = lambda *_, noise=noise, **__: noise
        elif run["sampler"] == "sde-dpmsolver++":
            tensors[f"noise.step{i}"] = noise
            arguments = {"variance_noise": noise}
        elif run.get("eta"):
            tensors[f"noise.step{i}"] = noise
            arguments = {"eta": run["eta"], "variance_noise": noise}
        if run["sampler"] == "ddim":
            output = output[:, :3]
        before, x = x, scheduler.step(output, t, x, **arguments).prev_sample
        if mask is not None:
            x = (1 - mask) * before + mask * x
        tensors[f"sample.step{i}"] = x
    tensors["output"] = x.clamp(-1, 1)
    return tensors


def sensitivity(record, tensors, arguments):
    """How far any tensor moves when the network's output moves by about 1e-6: the most of several
    tries, since what matters is a few pixels where large numbers nearly cancel."""
    moved = 0.0
    for seed in range(TRIES):
        disturbed = record(*arguments, disturbance=torch.Generator().manual_seed(seed))
        names = [name for name in tensors if name.startswith(("sample.", "output"))]
        moved = max([moved] + [(tensors[name] - disturbed[name]).abs().max().item() for name in names])
    return moved
