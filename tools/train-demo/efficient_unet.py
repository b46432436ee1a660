"""Imagen's Efficient U-Net, for super-resolution ("Photorealistic Text-to-Image Diffusion Models
with Deep Language Understanding", Saharia et al. 2022, section 2.4, appendices B and F.2–F.3), as
small as a demo allows.

What makes it efficient: most blocks and channels sit at low resolution; down-sampling convolutions
come first in a block and up-sampling ones last, so that no block works at the resolution it could
avoid; skips are scaled by 1/√2; attention happens at the lowest resolution only. Where it is simpler
than the paper, docs/adr/0061-efficient-unet.md says.

Shapes: B rows, H × W pixels (both divisible by 2^n), n = len(block_out_channels) levels, level i
(from 1) being H/2^i × W/2^i; L text positions of D = cross_attention_dim; E = time_embedding_dim;
c0 = conv_in_channels, ci = block_out_channels[i − 1].

    x = concat(x_t, conditioned low_res)          [B, 6, H, W]
    h0 = conv_in(x)                               [B, c0, H, W]
    hi = down_blocks[i−1](h(i−1))                 [B, ci, H/2^i, W/2^i]
    u  = up_blocks[0](hn)                         [B, c(n−1), H/2^(n−1), …]
    u  = up_blocks[k](concat(u, h(n−k) / √2))     … down to [B, c0, H, W]
    out = conv_out(silu(norm_out(concat(u, h0 / √2))))   [B, 3, H, W]
"""

import json
import math
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn import functional as F

DEFAULTS = {
    "_class_name": "EfficientUNet2DModel",
    "sample_size": 256,
    "in_channels": 6,  # x_t, then the low-resolution picture
    "out_channels": 3,
    "conv_in_channels": 16,
    "block_out_channels": [32, 64, 128],
    "layers_per_block": [1, 2, 2],  # residual blocks in each level's down block and in its up block
    "norm_num_groups": 4,  # of every GroupNorm
    "norm_eps": 1e-5,  # of every GroupNorm and LayerNorm
    "attention_head_dim": 32,
    # Whether the attention at the lowest level sees the picture as well as the text.
    "self_attention": True,
    "cross_attention_dim": 128,
    "time_projection_dim": 64,  # sinusoidal features of the timestep and of the noise level
    "time_embedding_dim": 128,
}


def sinusoid(t, dim):
    """[B] → [B, dim]: cosines, then sines, of t · 10000^(−k / (dim/2)), in f32 (diffusers'
    Timesteps, flip_sin_to_cos, freq_shift 0)."""
    half = dim // 2
    frequencies = torch.exp(-math.log(10000) * torch.arange(half, dtype=torch.float32, device=t.device) / half)
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], -1)


class Embedding(nn.Module):
    """A scalar's sinusoid [B, projection] → [B, E]: linear, SiLU, linear."""

    def __init__(self, projection, dim):
        super().__init__()
        self.linear_1 = nn.Linear(projection, dim)
        self.linear_2 = nn.Linear(dim, dim)

    def forward(self, features):
        return self.linear_2(F.silu(self.linear_1(features)))


class ResBlock(nn.Module):
    """[B, inputs, h, w], embedding [B, E] → [B, outputs, h, w]."""

    def __init__(self, inputs, outputs, config):
        super().__init__()
        groups, eps = config["norm_num_groups"], config["norm_eps"]
        self.norm1 = nn.GroupNorm(groups, inputs, eps)
        self.conv1 = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.norm2 = nn.GroupNorm(groups, outputs, eps)
        self.emb_proj = nn.Linear(config["time_embedding_dim"], 2 * outputs)  # scale, then shift
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.conv_shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else None

    def forward(self, x, emb):
        scale, shift = self.emb_proj(emb)[:, :, None, None].chunk(2, 1)
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.norm2(h) * (1 + scale) + shift
        h = self.conv2(F.silu(h))
        return h + (x if self.conv_shortcut is None else self.conv_shortcut(x))


class Attention(nn.Module):
    """Every pixel looks at the text (and, with self-attention, at every pixel): [B, c, h, w], text
    [B, L, D] → [B, c, h, w], added to x. Keys and values: the text's, then the picture's own."""

    def __init__(self, channels, config):
        super().__init__()
        eps, text_dim = config["norm_eps"], config["cross_attention_dim"]
        self.heads = channels // config["attention_head_dim"]
        self.norm = nn.GroupNorm(config["norm_num_groups"], channels, eps)
        self.text_norm = nn.LayerNorm(text_dim, eps)
        self.to_q = nn.Linear(channels, channels, bias=False)
        self.to_k_text = nn.Linear(text_dim, channels, bias=False)
        self.to_v_text = nn.Linear(text_dim, channels, bias=False)
        if config["self_attention"]:
            self.to_k = nn.Linear(channels, channels, bias=False)
            self.to_v = nn.Linear(channels, channels, bias=False)
        self.self_attention = config["self_attention"]
        self.to_out = nn.Linear(channels, channels)

    def forward(self, x, text):
        batch, channels, height, width = x.shape
        tokens = self.norm(x).flatten(2).transpose(1, 2)  # [B, h·w, c]
        text = self.text_norm(text)
        q, k, v = self.to_q(tokens), self.to_k_text(text), self.to_v_text(text)
        if self.self_attention:
            k, v = torch.cat([k, self.to_k(tokens)], 1), torch.cat([v, self.to_v(tokens)], 1)
        # Each is [B, heads, positions, head_dim].
        q, k, v = (a.unflatten(-1, (self.heads, -1)).transpose(1, 2) for a in (q, k, v))
        a = F.scaled_dot_product_attention(q, k, v)  # scale 1/√head_dim
        a = self.to_out(a.transpose(1, 2).flatten(2))  # [B, h·w, c]
        return x + a.transpose(1, 2).reshape(batch, channels, height, width)


class DBlock(nn.Module):
    """Halve the resolution first, then residual blocks, then attention: [B, inputs, h, w] → [B,
    outputs, h/2, w/2]."""

    def __init__(self, inputs, outputs, layers, attention, config):
        super().__init__()
        self.conv_down = nn.Conv2d(inputs, outputs, 3, stride=2, padding=1)
        self.resnets = nn.ModuleList(ResBlock(outputs, outputs, config) for _ in range(layers))
        self.attention = Attention(outputs, config) if attention else None

    def forward(self, x, emb, text):
        x = self.conv_down(x)
        for resnet in self.resnets:
            x = resnet(x, emb)
        return x if self.attention is None else self.attention(x, text)


class UBlock(nn.Module):
    """Residual blocks, then attention, and only then double the resolution: [B, inputs, h, w] → [B,
    outputs, 2h, 2w]. `inputs` counts the skip's channels; `channels` is the level's own width."""

    def __init__(self, inputs, channels, outputs, layers, attention, config):
        super().__init__()
        self.resnets = nn.ModuleList(ResBlock(inputs if i == 0 else channels, channels, config) for i in range(layers))
        self.attention = Attention(channels, config) if attention else None
        self.conv_up = nn.Conv2d(channels, outputs, 3, padding=1)

    def forward(self, x, emb, text):
        for resnet in self.resnets:
            x = resnet(x, emb)
        if self.attention is not None:
            x = self.attention(x, text)
        return self.conv_up(F.interpolate(x, scale_factor=2.0, mode="nearest"))


class EfficientUNet2DModel(nn.Module):
    """See the top of this file. `forward` returns the network's prediction, of the kind that the
    stage's scheduler config names."""

    def __init__(self, **options):
        super().__init__()
        unknown = options.keys() - DEFAULTS.keys()
        if unknown:
            raise ValueError(f"unknown options: {sorted(unknown)}")
        self.config = config = DEFAULTS | options
        widths, layers, emb_dim = config["block_out_channels"], config["layers_per_block"], config["time_embedding_dim"]
        first, levels = config["conv_in_channels"], len(widths)

        self.conv_in = nn.Conv2d(config["in_channels"], first, 3, padding=1)
        self.time_embedding = Embedding(config["time_projection_dim"], emb_dim)
        self.noise_embedding = Embedding(config["time_projection_dim"], emb_dim)
        self.text_pool_norm = nn.LayerNorm(config["cross_attention_dim"], config["norm_eps"])
        self.text_pool_proj = nn.Linear(config["cross_attention_dim"], emb_dim)

        before = [first, *widths]  # before[i] is the width of h_i
        self.down_blocks = nn.ModuleList(
            DBlock(before[i], widths[i], layers[i], attention=i == levels - 1, config=config) for i in range(levels)
        )
        self.up_blocks = nn.ModuleList(
            UBlock(widths[i] if i == levels - 1 else 2 * widths[i], widths[i], before[i], layers[i], attention=i == levels - 1, config=config)
            for i in reversed(range(levels))
        )
        self.norm_out = nn.GroupNorm(config["norm_num_groups"], 2 * first, config["norm_eps"])
        self.conv_out = nn.Conv2d(2 * first, config["out_channels"], 3, padding=1)

    def embed(self, timestep, text, noise_level):
        """Timestep [B], text [B, L, D], noise level [B] → what every residual block is told, [B,
        E]."""
        dtype, dim = self.conv_in.weight.dtype, self.config["time_projection_dim"]
        emb = self.time_embedding(sinusoid(timestep, dim).to(dtype))
        emb = emb + self.noise_embedding(sinusoid(noise_level, dim).to(dtype))
        # The mean takes in padding, as nothing masks it.
        emb = emb + self.text_pool_proj(self.text_pool_norm(text.mean(1)))
        return F.silu(emb)

    def forward(self, sample, timestep, encoder_hidden_states, class_labels):
        """sample [B, 6, H, W], timestep [B], text [B, L, D], noise level [B] (0…999) → [B, 3, H,
        W]."""
        emb = self.embed(timestep, encoder_hidden_states, class_labels)
        h = self.conv_in(sample)
        skips = []
        for block in self.down_blocks:
            skips.append(h)
            h = block(h, emb, encoder_hidden_states)
        for i, block in enumerate(self.up_blocks):
            if i > 0:
                h = torch.cat([h, skips.pop() / 2**0.5], 1)
            h = block(h, emb, encoder_hidden_states)
        h = torch.cat([h, skips.pop() / 2**0.5], 1)
        return self.conv_out(F.silu(self.norm_out(h)))

    def save_pretrained(self, folder):
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(self.config, indent=2) + "\n")
        state = {name: tensor.contiguous() for name, tensor in self.state_dict().items()}
        save_file(state, str(folder / "diffusion_pytorch_model.safetensors"), metadata={"format": "pt"})

    @classmethod
    def from_pretrained(cls, folder):
        folder = Path(folder)
        model = cls(**json.loads((folder / "config.json").read_text()))
        state = load_file(str(folder / "diffusion_pytorch_model.safetensors"))
        model = model.to(next(iter(state.values())).dtype)
        model.load_state_dict(state)
        return model
