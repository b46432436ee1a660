"""The base stage: a 64-pixel `UNet2DConditionModel` of the shape of DeepFloyd IF's first stage,
made small.

It is convolutional above 8 pixels and attends to the text, and to itself, only there: at this size
a caption's layout fits in 8 × 8 cells, and on a CPU attention at 16 pixels costs a tenth of a step.
The 64-pixel level is thin because little is decided there.
"""

import random
from dataclasses import replace
from pathlib import Path

import torch
from diffusers import UNet2DConditionModel

import pictures
import text
from training import Plan, alpha_sigma, random_timesteps, run

SIZE = 64
PLAN = Plan("base", steps=3600, batch=24, rate=1e-3, average=0.99)
ON_A_CARD = replace(PLAN, batch=256, rate=1.5e-3, decay_from=0.5)
# Share of the steps after which timesteps come lower: once objects stand where they belong, only
# their outlines are left to learn.
LAYOUT_SHARE = 0.43
# Share of the captions that are left out, so that the network also learns the unconditional
# prediction that guidance needs.
EMPTY_SHARE = 0.1


def new_unet():
    unet = UNet2DConditionModel(
        sample_size=SIZE, in_channels=3, out_channels=3,
        down_block_types=("ResnetDownsampleBlock2D",) * 3 + ("SimpleCrossAttnDownBlock2D",),
        mid_block_type="UNetMidBlock2DSimpleCrossAttn",
        up_block_types=("SimpleCrossAttnUpBlock2D",) + ("ResnetUpsampleBlock2D",) * 3,
        block_out_channels=(16, 32, 96, 192), layers_per_block=(1, 1, 1, 2),
        act_fn="gelu", norm_num_groups=8, resnet_time_scale_shift="scale_shift", time_embedding_dim=256,
        cross_attention_dim=128, cross_attention_norm="group_norm", attention_head_dim=32,
        encoder_hid_dim=128, encoder_hid_dim_type="text_proj", addition_embed_type="text", addition_embed_type_num_heads=4,
    )
    torch.nn.init.zeros_(unet.conv_out.weight)
    return unet


SCHEDULER = {
    "_class_name": "DDPMScheduler", "num_train_timesteps": 1000, "beta_schedule": "squaredcos_cap_v2", "beta_start": 0.0001, "beta_end": 0.02,
    "prediction_type": "v_prediction", "variance_type": "fixed_small", "clip_sample": False, "clip_sample_range": 1.0,
    "thresholding": True, "dynamic_thresholding_ratio": 0.95, "sample_max_value": 1.5,
    "timestep_spacing": "linspace", "steps_offset": 0, "rescale_betas_zero_snr": False, "trained_betas": None, "lambda_min_clipped": -5.1,
}


class Setup:
    """For `training.run` and `timed.run`: the network, and the v-prediction loss on freshly drawn
    pictures."""

    def __init__(self, encoder_folder):
        self.encoder_folder = encoder_folder

    def __call__(self):
        embed = text.Embeddings(self.encoder_folder)

        def loss_of(unet, generator, count, progress):
            captions = self.captions(random.Random(torch.randint(2**62, (), generator=generator).item()), count)
            return self.loss(unet, self.examples(embed, captions, generator, progress))

        return new_unet(), loss_of

    def network(self):
        return new_unet()

    @staticmethod
    def captions(rng, count):
        """Scenes and their captions as `text.pack` has them: what needs no device, and may be made
        ahead."""
        scenes, phrases = text.sample_phrases(rng, count)
        phrases = [[] if rng.random() < EMPTY_SHARE else phrase for phrase in phrases]
        return {"rows": text.pack(scenes, phrases)}

    @staticmethod
    def examples(embed, captions, generator, progress):
        """Noisy pictures, their timesteps and texts, and what the network should make of them, on
        the generator's device."""
        slots, ids = text.unpack(captions["rows"], generator.device)
        picture = pictures.draw_whole(pictures.place_slots(slots, generator), SIZE)
        t = random_timesteps(len(slots), generator, mean=1.6 if progress < LAYOUT_SHARE else 1.0, spread=1.6)
        alpha, sigma = (x[:, None, None, None] for x in alpha_sigma(t))
        noise = torch.randn(picture.shape, generator=generator, device=generator.device)
        noisy = (alpha * picture + sigma * noise).to(memory_format=torch.channels_last)
        return {"given": (noisy, t, embed(ids)), "target": alpha * noise - sigma * picture}

    @staticmethod
    def loss(unet, examples):
        return (unet(*examples["given"]).sample.float() - examples["target"]).square().mean()


def train(state_folder: Path, workers, plan=PLAN):
    run(plan, workers, state_folder, Setup(state_folder / "text_encoder"))
