"""What the three diffusion stages share: the noise schedule, the loop over steps, and workers that
each use one core.

On a small or busy machine one thread a process wins: threads of one process wait for each other at
every operator, processes only once a step. So a batch is divided among `workers` processes; each
leaves its gradients in shared memory, waits for the others, and takes the same optimiser step on
the same sum, which keeps their weights equal to the bit.
"""

import functools
import math
import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.multiprocessing as mp

import fast_norm
from checkpoints import Checkpoint
from muon import Exchange, optimisers

STEPS = 1000


def alpha_sigma(t):
    """α and σ [B] of a signal noised to timestep `t` [B] (0…999), betas "squaredcos_cap_v2" as
    diffusers computes them."""
    alphas, sigmas = noise_schedule(t.device)
    return alphas[t], sigmas[t]


@functools.cache
def noise_schedule(device):
    """α and σ of all timesteps, [1000] each."""
    bar = torch.tensor([math.cos((i / STEPS + 0.008) / 1.008 * math.pi / 2) ** 2 for i in range(STEPS + 1)], dtype=torch.float64)
    betas = (1 - bar[1:] / bar[:-1]).clamp(max=0.999)
    product = (1 - betas).cumprod(0)
    return product.sqrt().float().to(device), (1 - product).sqrt().float().to(device)


def random_timesteps(count, generator, mean, spread):
    """Logit-normal timesteps: `mean` above 0 draws them towards high noise, where layout and shape
    are decided."""
    normal = torch.randn(count, generator=generator, device=generator.device)
    return (STEPS * torch.sigmoid(mean + spread * normal)).long().clamp(0, STEPS - 1)


@dataclass
class Plan:
    """How long and how fast one stage learns. `batch` is divided among the workers. Training by the
    clock (`timed.py`) has no use for `steps`."""

    name: str
    steps: int
    batch: int
    rate: float  # of AdamW
    matrix_rate: float = 2.0  # of Muon, relative to that
    # The share of the steps after which the rate falls linearly, to a twentieth.
    decay_from: float = 0.6
    warm_up: int = 100
    average: float = 0.998  # decay of the moving average that becomes the released weights

    def rate_at(self, step, progress):
        falling = max(0.0, (progress - self.decay_from) / (1 - self.decay_from))
        return self.rate * min(1.0, (step + 1) / self.warm_up) * (1 - 0.95 * min(1.0, falling))


def run(plan: Plan, workers: int, state_folder: Path, setup, log_every=20):
    """Train to `plan.steps`, going on from the last checkpoint. `setup()` is called once in every
    worker and returns (network, loss_of), where `loss_of(network, generator, count, progress)` is
    the mean loss of `count` fresh examples, when `progress` (0…1) of the plan is done."""
    network, _ = setup()
    size = sum(p.numel() for p in network.parameters())
    # Two sets, used in turn: one may still be read while the other is written.
    gradients = torch.zeros(2, workers, size).share_memory_()
    updates = torch.zeros(size).share_memory_()
    barrier = mp.get_context("spawn").Barrier(workers)
    mp.spawn(work, (plan, workers, state_folder, setup, gradients, updates, barrier, log_every), nprocs=workers)


def work(rank, plan, workers, state_folder, setup, gradients, updates, barrier, log_every):
    threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    torch.manual_seed(1)
    network, loss_of = setup()
    network = network.to(memory_format=torch.channels_last).train()
    average = torch.optim.swa_utils.AveragedModel(network) if rank == 0 else None
    fast_norm.install(network)
    parameters = list(network.parameters())
    matrix_optimiser, vector_optimiser = optimisers(network, Exchange(rank, workers, updates, barrier.wait))
    parts = {"model": network, "matrices": matrix_optimiser, "vectors": vector_optimiser} | ({"average": average} if rank == 0 else {})
    checkpoint = Checkpoint(state_folder / f"{plan.name}.pt", **parts)
    start = checkpoint.restore()
    if start > 0 and rank == 0:
        print(f"{plan.name}: goes on from step {start} of {plan.steps}", flush=True)
    barrier.wait()  # nobody may write a new checkpoint before everybody has read the old one
    recent, since = [], time.monotonic()
    for step in range(start, plan.steps):
        generator = torch.Generator().manual_seed(step * 64 + rank)
        with torch.autocast("cpu", torch.bfloat16):
            loss = loss_of(network, generator, plan.batch // workers, step / plan.steps)
        network.zero_grad(set_to_none=True)
        loss.backward()
        mine = gradients[step % 2, rank]
        torch.cat([p.grad.flatten() for p in parameters], out=mine)
        barrier.wait()
        total = gradients[step % 2].sum(0) / workers
        total *= min(1.0, 1.0 / (total.norm().item() + 1e-6))
        at = 0
        for p in parameters:
            p.grad.copy_(total[at : at + p.numel()].view_as(p))
            at += p.numel()
        for optimiser, relative in ((matrix_optimiser, plan.matrix_rate), (vector_optimiser, 1.0)):
            for group in optimiser.param_groups:
                group["lr"] = plan.rate_at(step, step / plan.steps) * relative
            optimiser.step()
        if rank == 0:
            decay = min(plan.average, (1 + step) / (10 + step))
            with torch.no_grad():
                torch._foreach_lerp_(list(average.module.parameters()), parameters, 1 - decay)
            recent.append(loss.item())
            if (step + 1) % log_every == 0:
                seconds = (time.monotonic() - since) / len(recent)
                print(f"{time.strftime('%H:%M:%S')} {plan.name} {step + 1}/{plan.steps} loss {sum(recent) / len(recent):.4f} {seconds:.2f} s/step {plan.batch / seconds:.1f} images/s", flush=True)
                recent, since = [], time.monotonic()
            checkpoint.tick(step + 1)
    if rank == 0 and start < plan.steps:
        checkpoint.save(plan.steps)


def leave_with_parent(parent):
    """A worker whose parent was killed must not train on unseen."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


def averaged_weights(state_folder: Path, name):
    """The moving average in a stage's checkpoint, as a state dict, and the step it was taken at."""
    state = torch.load(state_folder / f"{name}.pt", weights_only=True, mmap=True, map_location="cpu")
    prefix = "module."
    return {k.removeprefix(prefix): v for k, v in state["average"].items() if k.startswith(prefix)}, state["step"]


def default_workers():
    return max(1, min(8, os.cpu_count() or 1))
