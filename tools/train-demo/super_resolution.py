"""The two super-resolution stages, 64 → 256 and 256 → 1024 pixels: `EfficientUNet2DModel`s trained
on crops.

The input is the exact smaller picture of the same scene, spoiled in the ways in which the stage
before really errs (soft edges, outlines that waver, colours a little off), then resized and noised
as at inference. The target is the exact larger picture, so a stage learns to draw what the caption
and the small picture mean, not to enlarge the small picture's faults. The networks predict the
picture itself ("sample"): with four steps, the last prediction is the result.
"""

import functools
import random
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch.nn import functional as F

import pictures
import text
from efficient_unet import EfficientUNet2DModel
from training import Plan, alpha_sigma, run


@dataclass
class Stage:
    plan: Plan
    size: int  # of the output; the input has a quarter of it
    # Pairs: side in output pixels, and its share of the steps. The count is for the first side;
    # larger ones get fewer crops.
    crops: tuple
    highest_noise_level: int
    wander: float  # how far outlines waver in the input, in its pixels
    colour_error: float
    options: dict

    @property
    def on_a_card(self):
        """Eight times the pictures of a step on two cores."""
        return replace(self.plan, batch=8 * self.plan.batch, rate=1.5e-3, decay_from=0.5)


SR256 = Stage(
    Plan("sr256", steps=3800, batch=32, rate=1e-3, average=0.995), size=256, crops=((64, 0.6), (128, 0.2), (256, 0.2)),
    highest_noise_level=300, wander=0.4, colour_error=0.03,
    options={"conv_in_channels": 16, "block_out_channels": [32, 64, 96, 96], "layers_per_block": [1, 1, 2, 2], "self_attention": True},
)
SR1024 = Stage(
    Plan("sr1024", steps=3000, batch=16, rate=1e-3, average=0.995), size=1024, crops=((128, 0.6), (256, 0.3), (512, 0.1)),
    highest_noise_level=200, wander=0.25, colour_error=0.01,
    options={"conv_in_channels": 8, "block_out_channels": [16, 32, 64, 64], "layers_per_block": [1, 1, 1, 1], "self_attention": False},
)

SCHEDULER = {
    "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02,
    "prediction_type": "sample", "variance_type": "fixed_small", "clip_sample": True, "clip_sample_range": 1.0,
    "thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0,
    "timestep_spacing": "linspace", "steps_offset": 0, "rescale_betas_zero_snr": False, "trained_betas": None, "lambda_min_clipped": -5.1,
}
VISITED = [995, 746, 498, 249]  # the timesteps of four DPM-Solver++ steps on that schedule
NOISING_SCHEDULER = {
    "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02,
    "prediction_type": "epsilon", "variance_type": "fixed_small", "clip_sample": True, "clip_sample_range": 1.0,
    "thresholding": False, "dynamic_thresholding_ratio": 0.995, "sample_max_value": 1.0,
    "timestep_spacing": "leading", "steps_offset": 0, "rescale_betas_zero_snr": False, "trained_betas": None,
}


def new_unet(stage):
    unet = EfficientUNet2DModel(sample_size=stage.size, **stage.options)
    torch.nn.init.zeros_(unet.conv_out.weight)
    torch.nn.init.zeros_(unet.conv_out.bias)
    return unet


def choose_crops(geometry, side, size, generator):
    """Origins [B,2] (x, y) in output pixels: mostly where an outline passes, since flat colour
    teaches little."""
    rows = len(geometry["radius"])
    uniform = lambda *shape: torch.rand(*shape, generator=generator, device=generator.device)
    second = (uniform(rows) < 0.5) & (geometry["radius"][:, 1] > 0)
    pick = second.long()
    row = torch.arange(rows, device=generator.device)
    centre = geometry["centre"][row, pick]
    radius = geometry["radius"][row, pick]
    angle = 2 * torch.pi * uniform(rows)
    towards = torch.stack([angle.cos(), angle.sin()], -1) * (radius * (0.6 + 0.5 * uniform(rows)))[:, None]
    target = torch.where(uniform(rows, 1) < 0.85, centre + towards, uniform(rows, 2))
    shift = (uniform(rows, 2) - 0.5) * side * 0.8
    return (target * size - side / 2 + shift).round().clamp(0, size - side).long()


def spoiled(geometry, stage, x, y, generator):
    """The input at pixel indices x [B,1,w], y [B,h,1], with the faults of the stage before:
    [B,3,h,w]."""
    low, rows = stage.size // 4, len(x)
    uniform = lambda *shape: torch.rand(*shape, generator=generator, device=generator.device)
    xs, ys = (x + 0.5) / low, (y + 0.5) / low
    wander = stage.wander / low * uniform(rows, 1, 1)
    waves = []
    for _ in range(2):  # a smooth wave of a few pixels' length in each direction
        f, phase = (2 * uniform(2, rows, 1, 1) - 1) * low * 0.9, 2 * torch.pi * uniform(rows, 1, 1)
        waves.append(wander * torch.sin(f[0] * xs + f[1] * ys + phase))
    picture = pictures.draw(geometry, xs + waves[0], ys + waves[1], 1 / low)
    soft = F.avg_pool2d(F.pad(picture, (1, 1, 1, 1), mode="replicate"), 3, 1)
    picture = torch.lerp(picture, soft, uniform(rows, 1, 1, 1) * (uniform(rows, 1, 1, 1) < 0.7))
    tint = 2 * stage.colour_error * (2 * uniform(rows, 3, 1, 1) - 1) * (uniform(rows, 1, 1, 1) < 0.7)
    grain = torch.randn(rows, 3, -(-picture.shape[2] // 3), -(-picture.shape[3] // 3), generator=generator, device=generator.device)
    grain = grain * stage.colour_error * uniform(rows, 1, 1, 1)
    grain = F.interpolate(grain, size=picture.shape[2:], mode="bilinear", align_corners=True)
    return (picture + tint + grain).clamp(-1, 1)


def enlarged_crop(geometry, stage, origin, side, generator):
    """What resizing the spoiled input (bilinear, align_corners=True) shows in the crop:
    [B,3,side,side]. Only the window in question is drawn."""
    low = stage.size // 4
    # [B, 2, side] in input pixels.
    source = (origin[:, :, None] + torch.arange(side, device=origin.device)) * ((low - 1) / (stage.size - 1))
    start = source[:, :, 0].floor().long().clamp(max=low - 2)
    width = min(low, side // 4 + 2)
    start = start.clamp(max=low - width)
    index = start[:, :, None] + torch.arange(width, device=origin.device)
    window = spoiled(geometry, stage, index[:, 0, None, :].float(), index[:, 1, :, None].float(), generator)
    grid = (source - start[:, :, None]) * (2 / (width - 1)) - 1
    grid = torch.stack([grid[:, 0, None, :].expand(-1, side, -1), grid[:, 1, :, None].expand(-1, -1, side)], -1)
    return F.grid_sample(window, grid, mode="bilinear", align_corners=True, padding_mode="border")


class Setup:
    """For `training.run` and `timed.run`: the network, and its loss on freshly drawn crops."""

    def __init__(self, stage, encoder_folder):
        self.stage, self.encoder_folder = stage, encoder_folder

    def __call__(self):
        embed = text.Embeddings(self.encoder_folder)

        def loss_of(unet, generator, count, progress):
            captions = self.captions(random.Random(torch.randint(2**62, (), generator=generator).item()), count)
            return self.loss(unet, self.examples(embed, captions, generator, progress))

        return new_unet(self.stage), loss_of

    def network(self):
        return new_unet(self.stage)

    def captions(self, rng, count):
        """The side of this step's crops, and scenes and captions for as many as make `count` crops
        of the first side."""
        stage = self.stage
        side = rng.choices([s for s, _ in stage.crops], [share for _, share in stage.crops])[0]
        scenes, phrases = text.sample_phrases(rng, max(1, count * stage.crops[0][0] ** 2 // side**2))
        phrases = [[] if rng.random() < 0.1 else phrase for phrase in phrases]
        return {"rows": text.pack(scenes, phrases), "side": side}

    def examples(self, embed, captions, generator, progress):
        """Noisy crops beside the enlarged input, their timesteps, texts and noise levels, and the
        exact crops, on the generator's device."""
        stage, side, device = self.stage, captions["side"], generator.device
        slots, ids = text.unpack(captions["rows"], device)
        geometry = pictures.place_slots(slots, generator, position_jitter=0.03, size_jitter=0.1)
        origin = choose_crops(geometry, side, stage.size, generator)
        points = (origin[:, :, None] + torch.arange(side, device=device) + 0.5) / stage.size
        picture = pictures.draw(geometry, points[:, 0, None, :], points[:, 1, :, None], 1 / stage.size)
        condition = enlarged_crop(geometry, stage, origin, side, generator)
        level = torch.randint(0, stage.highest_noise_level, (len(slots),), generator=generator, device=device)
        condition = noised(condition, level, generator)
        t = timesteps(len(slots), generator)
        noisy = torch.cat([noised(picture, t, generator), condition], 1).to(memory_format=torch.channels_last)
        return {"given": (noisy, t, embed(ids), level), "target": picture}

    @staticmethod
    def loss(unet, examples):
        error = unet(*examples["given"]).float() - examples["target"]
        # Mostly absolute: its best guess at a doubtful outline is a sharp one.
        return error.abs().mean() + 0.2 * error.square().mean()


def timesteps(count, generator):
    """Half of them anywhere, half near those of four DPM-Solver++ steps, on which the shipped
    settings rest."""
    integers = lambda low, high: torch.randint(low, high, (count,), generator=generator, device=generator.device)
    anywhere = integers(0, 1000)
    near = visited_on(generator.device)[integers(0, len(VISITED))] + integers(-20, 21)
    return torch.where(torch.rand(count, generator=generator, device=generator.device) < 0.5, anywhere, near).clamp(0, 999)


@functools.cache
def visited_on(device):
    return torch.tensor(VISITED, device=device)


def noised(picture, t, generator):
    alpha, sigma = (x[:, None, None, None] for x in alpha_sigma(t))
    return alpha * picture + sigma * torch.randn(picture.shape, generator=generator, device=generator.device)


def train(stage: Stage, state_folder: Path, workers, plan):
    run(plan, workers, state_folder, Setup(stage, state_folder / "text_encoder"))
