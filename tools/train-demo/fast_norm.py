"""GroupNorm for training in bf16 with channels last, several times faster on CPUs than PyTorch's,
whose backward took a fifth of a step.

The same mathematics in few passes over memory: per-channel sums, folded into groups, then one
multiply-add per element. Statistics are f32.
"""

import types

import torch
from torch import nn
from torch.nn import functional as F


class ChannelsLastGroupNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, weight, bias, groups, eps):
        batch, channels, height, width = x.shape
        # A view where x is channels last.
        flat = x.permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        wide = flat.float()
        per_group = lambda sums: sums.view(batch, groups, -1).sum(-1)
        count = height * width * channels // groups
        mean = per_group(wide.sum(1)) / count
        variance = per_group((wide * wide).sum(1)) / count - mean * mean
        rstd = (variance.clamp(min=0) + eps).rsqrt()
        spread = lambda value: value.repeat_interleave(channels // groups, 1)
        scale = spread(rstd) * weight
        shift = bias - spread(mean) * scale
        out = torch.addcmul(shift[:, None], wide, scale[:, None]).to(x.dtype)
        ctx.save_for_backward(flat, weight, spread(mean), spread(rstd))
        ctx.groups, ctx.count, ctx.shape = groups, count, x.shape
        return out.view(batch, height, width, channels).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx, grad):
        flat, weight, mean, rstd = ctx.saved_tensors
        batch, channels, height, width = ctx.shape
        grad = grad.permute(0, 2, 3, 1).reshape(batch, height * width, channels).float()
        wide = flat.float()
        grad_sum = grad.sum(1)  # [B, C]
        grad_x_sum = (grad * wide).sum(1)
        grad_hat_sum = (grad_x_sum - mean * grad_sum) * rstd  # Σ grad · x̂
        over_group = lambda value: (value * weight).view(batch, ctx.groups, -1).sum(-1).repeat_interleave(channels // ctx.groups, 1) / ctx.count
        # Mean of grad·w and of grad·w·x̂ over the group.
        a, b = over_group(grad_sum), over_group(grad_hat_sum)
        # dx = rstd (grad·w − a − x̂ b), with x̂ = (x − mean) rstd
        scale, slope = rstd * weight, -rstd * rstd * b
        shift = -rstd * a - slope * mean
        dx = torch.addcmul(shift[:, None], wide, slope[:, None]).addcmul_(grad, scale[:, None]).to(flat.dtype)
        return dx.view(batch, height, width, channels).permute(0, 3, 1, 2), grad_hat_sum.sum(0), grad_sum.sum(0), None, None


def forward(norm, x):
    if x.ndim == 4:
        with torch.autocast("cpu", enabled=False):
            return ChannelsLastGroupNorm.apply(x, norm.weight, norm.bias, norm.num_groups, norm.eps)
    return F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)


def install(network):
    """Every GroupNorm of `network` from now on computes as above."""
    for module in network.modules():
        if isinstance(module, nn.GroupNorm):
            module.forward = types.MethodType(forward, module)
