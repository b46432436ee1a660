"""The fixture cascades: tiny random networks of many shapes, in the layout Hugging Face checkpoints
have.

Between them they set every option that DeepFloyd IF's networks and schedulers use to something
other than its default at least once. Widths are as small as the options allow: what is tested is
the arithmetic, not the pictures.
"""

from diffusers.pipelines.deepfloyd_if import fast27_timesteps

COSINE = {"beta_schedule": "squaredcos_cap_v2"}
LINEAR = {"beta_schedule": "linear", "beta_start": 0.0001, "beta_end": 0.02}

NOISING = {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, **COSINE}


def run(sampler, steps, guidance, name=None, **more):
    """One trace to record. `more`: noise_level, eta, timesteps (a list of one's own), size (not the
    stage's), task, strength; `pipeline` where the reference's own pipeline can run it; spacing,
    guidance_schedule and thresholding, the last two in the words of the trace's metadata."""
    return {"sampler": sampler, "steps": steps, "guidance_scale": guidance, "name": name or sampler, "task": "text-to-image", **more}


def changed(strength, **more):
    """Image-to-image: how far from the picture given."""
    return {"task": "image-to-image", "strength": strength, **more}


def repainted(strength, **more):
    """Inpainting: how far from the picture given where the mask is white."""
    return {"task": "inpainting", "strength": strength, **more}


def scheduler(**options):
    return {"_class_name": "DDPMScheduler", "num_train_timesteps": 1000, **options}


def if_unet(channels, attends, **options):
    """A UNet2DConditionModel config: one level per entry of `channels`, attention where `attends`
    says so."""
    down = ["SimpleCrossAttnDownBlock2D" if a else "ResnetDownsampleBlock2D" for a in attends]
    up = ["SimpleCrossAttnUpBlock2D" if a else "ResnetUpsampleBlock2D" for a in reversed(attends)]
    return {
        "_class_name": "UNet2DConditionModel",
        "block_out_channels": channels,
        "down_block_types": down,
        "up_block_types": up,
        "mid_block_type": "UNetMidBlock2DSimpleCrossAttn",
        "resnet_time_scale_shift": "scale_shift",
        "norm_num_groups": 4,
        **options,
    }


CASCADES = {
    "deep": {
        "text": {"d_model": 64, "d_kv": 8, "d_ff": 48, "num_layers": 3, "num_heads": 5, "relative_attention_num_buckets": 16,
                 "relative_attention_max_distance": 10},
        "length": 14,
        "prompts": ["a green square in the snow", "three dogs riding bikes, and a cat above them", "yellow"],
        "negative_prompts": ["", "blue", "the dog"],
        "stages": {
            # Stage I's kind: three levels, a list of layers and of head widths, no text norm,
            # default time shift.
            "base": {
                "size": (8, 12),
                "unet": if_unet([8, 12, 16], [False, True, True], in_channels=3, out_channels=6, sample_size=[8, 12],
                                layers_per_block=[1, 2, 1], attention_head_dim=[8, 6, 4], act_fn="silu",
                                resnet_time_scale_shift="default", cross_attention_norm=None, encoder_hid_dim=64,
                                cross_attention_dim=40, addition_embed_type="text", addition_embed_type_num_heads=8,
                                time_embedding_dim=52, norm_eps=1e-4),
                "scheduler": scheduler(**COSINE, variance_type="learned_range", thresholding=True, sample_max_value=1.5,
                                       dynamic_thresholding_ratio=0.9, lambda_min_clipped=-5.1, timestep_spacing="trailing"),
                "runs": [run("ddpm", 5, 5.0), run("ddim", 7, 2.5), run("ddim", 5, 3.0, "ddim-eta", eta=0.6),
                         run("dpmsolver++", 5, 7.0),
                         run("sde-dpmsolver++", 5, 3.0), run("sde-dpmsolver++", 5, 1.0, "sde-off", thresholding="off"),
                         run("ddim", 4, 3.0, "ddim-trailing", spacing="trailing", guidance_schedule="steps 0.25 0.75"),
                         run("ddpm", 6, 1.0, "ddpm-custom", timesteps=[999, 800, 620, 300, 111, 0]),
                         run("dpmsolver++", 4, 3.0, "dpmsolver++-custom", timesteps=[990, 700, 350, 60]),
                         run("ddpm", 7, 5.0, "ddpm-image", size=(4, 8), **changed(0.6, pipeline=True)),
                         run("ddpm", 6, 3.0, "ddpm-mask", size=(8, 4), **repainted(0.7, pipeline=True)),
                         run("ddpm", 6, 1.0, "ddpm-custom-mask", size=(4, 8), timesteps=[999, 800, 620, 300, 111, 0],
                             **repainted(0.5, pipeline=True)),
                         run("ddpm", 3, 2.0, "ddpm-mask-full", size=(4, 8), **repainted(1.0, pipeline=True)),
                         run("ddim", 10, 2.5, "ddim-image", size=(4, 8), **changed(0.4)),
                         run("ddim", 5, 3.0, "ddim-eta-mask", size=(4, 8), eta=0.6, **repainted(0.8)),
                         run("dpmsolver++", 10, 7.0, "dpmsolver++-image", size=(4, 8), **changed(0.5)),
                         run("dpmsolver++", 17, 3.0, "dpmsolver++-mask", size=(8, 4), **repainted(0.3))],
            },
            # Stage II's kind: crossing only, scaled residuals, skipped time activation, learned
            # variance.
            "sr": {
                "size": (16, 24),
                "unet": if_unet([8, 32, 32], [False, True, True], in_channels=6, out_channels=6, sample_size=32,
                                layers_per_block=[2, 1, 1], attention_head_dim=16, act_fn="gelu", only_cross_attention=True,
                                cross_attention_norm="layer_norm", encoder_hid_dim=64, cross_attention_dim=32,
                                addition_embed_type="text", addition_embed_type_num_heads=4, class_embed_type="timestep",
                                resnet_out_scale_factor=1.4142135623730951, mid_block_scale_factor=1.4142135623730951,
                                resnet_skip_time_act=True, time_embedding_act_fn="gelu", time_embedding_dim=36),
                "scheduler": scheduler(**LINEAR, variance_type="learned_range", thresholding=True, sample_max_value=1.0,
                                       dynamic_thresholding_ratio=0.95, lambda_min_clipped=-5.1, timestep_spacing="linspace"),
                "runs": [run("ddpm", 5, 4.0, noise_level=100), run("ddim", 4, 4.0, noise_level=0),
                         run("dpmsolver++", 16, 3.0, noise_level=250),
                         run("ddpm", 3, 4.0, "ddpm-image", size=(8, 16), noise_level=100, **changed(0.67, pipeline=True)),
                         run("ddpm", 4, 2.0, "ddpm-mask", size=(16, 8), noise_level=0, **repainted(0.5, pipeline=True)),
                         run("dpmsolver++", 6, 3.0, "dpmsolver++-mask", size=(8, 16), noise_level=250, **repainted(0.5))],
            },
            # The paper's Efficient U-Net, seeing pixels and text at its lowest level.
            "efficient": {
                "size": (24, 32),
                "unet": {"_class_name": "EfficientUNet2DModel", "sample_size": 32, "in_channels": 6, "out_channels": 3,
                         "conv_in_channels": 8, "block_out_channels": [12, 16, 32], "layers_per_block": [1, 2, 1],
                         "norm_num_groups": 4, "norm_eps": 1e-5, "attention_head_dim": 16, "self_attention": True,
                         "cross_attention_dim": 64, "time_projection_dim": 20, "time_embedding_dim": 28},
                "scheduler": scheduler(**COSINE, variance_type="fixed_small", prediction_type="v_prediction",
                                       clip_sample=True, clip_sample_range=1.2, lambda_min_clipped=-5.1,
                                       timestep_spacing="linspace"),
                "runs": [run("ddpm", 4, 1.0, noise_level=50), run("ddim", 4, 2.0, noise_level=400),
                         run("dpmsolver++", 4, 1.0, noise_level=50),
                         run("ddim", 6, 2.0, "ddim-mask", size=(8, 16), noise_level=50, **repainted(0.4))],
            },
        },
    },
    "odd": {
        "text": {"d_model": 32, "d_kv": 16, "d_ff": 40, "num_layers": 2, "num_heads": 2},
        "length": 9,
        "prompts": ["the bike"],
        "negative_prompts": ["a red circle on snow with a dog and two cats"],
        "stages": {
            # Every remaining option of the networks, each off its default; weights stored as f16.
            "base": {
                "size": (8, 8),
                "dtype": "float16",
                "unet": if_unet([16, 32], [True, True], in_channels=3, out_channels=3, sample_size=None, layers_per_block=1,
                                attention_head_dim=8, act_fn="silu", only_cross_attention=[True, False],
                                mid_block_only_cross_attention=True, cross_attention_norm="group_norm",
                                encoder_hid_dim=None, cross_attention_dim=32, addition_embed_type=None,
                                center_input_sample=True, flip_sin_to_cos=False, freq_shift=1, conv_in_kernel=5,
                                conv_out_kernel=1, timestep_post_act="silu", time_embedding_act_fn="silu"),
                "scheduler": {"_class_name": "DDIMScheduler", "num_train_timesteps": 1000, "beta_schedule": "scaled_linear",
                              "beta_start": 0.00085, "beta_end": 0.012, "prediction_type": "sample", "clip_sample": False,
                              "set_alpha_to_one": False, "steps_offset": 1, "timestep_spacing": "leading"},
                "runs": [run("ddim", 5, 3.0), run("ddpm", 5, 1.0),
                         run("ddim", 5, 3.0, "ddim-dynamic", thresholding="dynamic 0.99 1.7", spacing="linspace"),
                         run("ddpm", 5, 3.0, "ddpm-leading", thresholding="static 0.6", spacing="leading",
                             guidance_schedule="steps 0.2 0.6"),
                         run("ddpm", 27, 4.0, "ddpm-fast27", timesteps=fast27_timesteps, guidance_schedule="timesteps 200 799"),
                         run("dpmsolver++", 6, 4.0, "dpmsolver++-oscillating", guidance_schedule="oscillating 2 1.5",
                             spacing="trailing"),
                         run("sde-dpmsolver++", 5, 2.0), run("sde-dpmsolver++", 16, 2.0, "sde-dynamic", thresholding="dynamic 0.99 1.4"),
                         run("dpmsolver++", 5, 2.0),
                         run("ddim", 5, 2.0, "ddim-image", **changed(0.75)),
                         run("ddpm", 5, 2.0, "ddpm-mask", **repainted(0.5))],
            },
            # A schedule that ends in pure noise, sampled by its own DPM-Solver++; weights stored as
            # bf16.
            "plain": {
                "size": (12, 8),
                "dtype": "bfloat16",
                "unet": if_unet([8, 16], [False, False], in_channels=6, out_channels=3, sample_size=12, layers_per_block=2,
                                mid_block_type=None, act_fn="relu", encoder_hid_dim=32, encoder_hid_dim_type="text_proj",
                                cross_attention_dim=24, addition_embed_type="text", addition_embed_type_num_heads=2),
                "scheduler": {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000, **COSINE,
                              "prediction_type": "v_prediction", "rescale_betas_zero_snr": True, "thresholding": False,
                              "timestep_spacing": "trailing", "final_sigmas_type": "sigma_min", "euler_at_final": True,
                              "clip_sample": False},
                "runs": [run("sde-dpmsolver++", 6, 2.0, noise_level=300, guidance_schedule="oscillating 1 1"),
                         run("sde-dpmsolver++", 4, 1.0, "sde-leading", noise_level=300, spacing="leading",
                             thresholding="dynamic 0.9 1.2"),
                         run("dpmsolver++", 6, 2.0, noise_level=999), run("ddim", 4, 1.0, noise_level=20),
                         run("dpmsolver++", 6, 1.0, "dpmsolver++-image", noise_level=20, **changed(1.0)),
                         run("dpmsolver++", 6, 2.0, "dpmsolver++-mask", noise_level=20, **repainted(0.5))],
            },
            # The Efficient U-Net that only crosses, trained betas.
            "efficient": {
                "size": (16, 16),
                "unet": {"_class_name": "EfficientUNet2DModel", "sample_size": 16, "conv_in_channels": 6,
                         "block_out_channels": [8, 24], "layers_per_block": [2, 1], "norm_num_groups": 2, "norm_eps": 1e-3,
                         "attention_head_dim": 12, "self_attention": False, "cross_attention_dim": 32,
                         "time_projection_dim": 12, "time_embedding_dim": 20},
                "scheduler": scheduler(num_train_timesteps=40, trained_betas=[0.001 + 0.005 * i for i in range(40)],
                                       variance_type="fixed_large", clip_sample=True, timestep_spacing="leading", steps_offset=2),
                "runs": [run("ddpm", 5, 2.0, noise_level=7), run("ddim", 5, 1.0, noise_level=3),
                         run("dpmsolver++", 5, 1.0, noise_level=11),
                         run("ddpm", 5, 2.0, "ddpm-mask", size=(12, 8), noise_level=7, **repainted(0.6))],
            },
            # DPM-Solver++ that ends above 0: how many steps were asked for decides the order of the
            # last one.
            "solver": {
                "size": (8, 8),
                "unet": if_unet([8], [True], in_channels=3, out_channels=3, sample_size=8, layers_per_block=1,
                                mid_block_type=None, attention_head_dim=8, act_fn="silu", encoder_hid_dim=None,
                                cross_attention_dim=32, addition_embed_type=None),
                "scheduler": {"_class_name": "DPMSolverMultistepScheduler", "num_train_timesteps": 1000, **LINEAR,
                              "timestep_spacing": "trailing", "final_sigmas_type": "sigma_min", "clip_sample": False},
                "runs": [run("dpmsolver++", 6, 2.0), run("dpmsolver++", 16, 2.0, "dpmsolver++-16"),
                         run("dpmsolver++", 20, 2.0, "dpmsolver++-image", **changed(0.25)),
                         run("dpmsolver++", 14, 2.0, "dpmsolver++-mask", **repainted(0.3)),
                         run("sde-dpmsolver++", 8, 2.0, "sde-image", guidance_schedule="steps 0.25 0.75", **changed(0.5)),
                         run("sde-dpmsolver++", 16, 3.0, "sde-mask", guidance_schedule="oscillating 1 1.5", **repainted(0.25))],
            },
        },
    },
}
