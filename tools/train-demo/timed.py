"""Training by the clock, on a card: each stage in one process, all stages side by side, until the
time is over.

The networks are small, so that one alone would leave the card waiting for the next operation; three
together fill it. How fast each goes is not known beforehand, so the schedule follows the clock:
rates, timesteps and the moving average depend on the share of the time that has passed, and every
stage ends on time with its rate fully decayed, having taken as many steps as it could.
"""

import os
import threading
import time
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

import text
from checkpoints import Checkpoint
from feed import feed
from muon import optimisers
from training import Plan, leave_with_parent

AVERAGE_OVER = 0.04  # the moving average's memory, as a share of the time
LOG_SECONDS = 10.0
CHECKPOINT_MINUTES = 0.5
# How often a stage may diverge, each time going on from its last checkpoint at half the rate.
SETBACKS = 3


@dataclass
class Run:
    """What all stages have in common."""

    state_folder: Path
    seconds: float
    device: str
    loaders: int  # caption processes of each stage
    batch_scale: float = 1.0
    rate_scale: float = 1.0
    start_from: Path | None = None  # a cascade folder whose weights to begin with


class Clock:
    """The seconds a stage has trained for, over all its runs, and what it saw."""

    def __init__(self, seconds):
        self.seconds, self.before, self.since = seconds, 0.0, time.monotonic()
        self.pictures, self.slowed = 0, 1.0

    def elapsed(self):
        return self.before + time.monotonic() - self.since

    def progress(self):
        return self.elapsed() / self.seconds

    def state_dict(self):
        return {"elapsed": self.elapsed(), "pictures": self.pictures, "slowed": self.slowed}

    def load_state_dict(self, state):
        self.before, self.since = state["elapsed"], time.monotonic()
        self.pictures, self.slowed = state["pictures"], state["slowed"]


def train_all(stages, run: Run):
    """Train every stage of `stages`, a list of (plan, setup), side by side. One that fails ends
    them all."""
    try:
        mp.spawn(work, (stages, run), nprocs=len(stages))
    except (mp.ProcessRaisedException, mp.ProcessExitedException) as failure:
        raise SystemExit(f"error: {stages[failure.error_index][0].name} failed, the others were stopped: {failure}") from None


def work(index, stages, run):
    """One stage from its checkpoint, or from the start, to the end of the time."""
    plan, setup = stages[index]
    plan = replace(plan, batch=max(1, round(plan.batch * run.batch_scale)), rate=plan.rate * run.rate_scale)
    path = run.state_folder / f"{plan.name}.pt"
    # Before anything touches the card.
    captions = feed(plan.name, setup.captions, plan.batch, Checkpoint(path).step(), run.loaders)
    threading.Thread(target=leave_with_parent, args=(os.getppid(),), daemon=True).start()
    torch.set_num_threads(1)
    torch.set_float32_matmul_precision("high")
    # The other kernels of attention suffice, and refuse no shape.
    torch.backends.cuda.enable_cudnn_sdp(False)
    torch.manual_seed(1)
    learner = Learner(plan, setup, run, path)
    learner.train(captions)


class Learner:
    """A stage's network with all that changes while it learns."""

    def __init__(self, plan: Plan, setup, run: Run, path: Path):
        self.plan, self.setup, self.device = plan, setup, torch.device(run.device)
        self.embed = text.Embeddings(setup.encoder_folder, self.device)
        network = setup.network()
        if run.start_from:
            network.load_state_dict(load_file(run.start_from / plan.name / "unet" / "diffusion_pytorch_model.safetensors"))
        self.network = network.to(self.device, memory_format=torch.channels_last).train()
        self.parameters = list(self.network.parameters())
        self.average = torch.optim.swa_utils.AveragedModel(self.network)
        self.averages = list(self.average.module.parameters())
        self.matrix_optimiser, self.vector_optimiser = optimisers(self.network, stacked=True)
        self.generator = torch.Generator(self.device)
        self.clock = Clock(run.seconds)
        self.learnt = {"model": self.network, "average": self.average, "matrices": self.matrix_optimiser, "vectors": self.vector_optimiser}
        self.checkpoint = Checkpoint(path, CHECKPOINT_MINUTES, clock=self.clock, **self.learnt)
        self.last_progress = 0.0

    def train(self, captions):
        clock, name, step = self.clock, self.plan.name, self.checkpoint.restore()
        if step > 0:
            print(f"{name}: goes on from step {step}, {clock.elapsed():.0f} of {clock.seconds:.0f} seconds", flush=True)
        else:
            self.checkpoint.save(0)  # so that there is something to fall back on
            clock.load_state_dict(clock.state_dict() | {"elapsed": 0.0})
        began, first, seen = clock.elapsed(), step, clock.pictures
        losses, counted, logged = torch.zeros((), device=self.device), 0, time.monotonic()
        self.last_progress = clock.progress()
        while (progress := clock.progress()) < 1:
            batch = next(captions)
            losses += self.step(step, progress, batch)
            step, counted, clock.pictures = step + 1, counted + 1, clock.pictures + len(batch["rows"])
            if time.monotonic() - logged > LOG_SECONDS:
                loss = losses.item() / counted
                print(f"{time.strftime('%H:%M:%S')} {name} {100 * progress:.0f} % step {step} loss {loss:.4f} {counted / (time.monotonic() - logged):.1f} steps/s", flush=True)
                if not self.sound():
                    self.fall_back()
                elif self.checkpoint.due():
                    self.checkpoint.save(step)
                losses.zero_()
                counted, logged = 0, time.monotonic()
        if not self.sound():
            self.fall_back()
        if step > first:
            self.checkpoint.save(step)
        seconds = max(1e-9, clock.elapsed() - began)
        print(f"{name}: {step} steps, {clock.pictures} pictures; {(step - first) / seconds:.1f} steps and {(clock.pictures - seen) / seconds:.0f} pictures a second", flush=True)

    def step(self, step, progress, captions):
        """One step, whose loss is returned on the device. Nothing here waits for the card."""
        self.generator.manual_seed(step)
        with torch.no_grad():
            examples = self.setup.examples(self.embed, captions, self.generator, progress)
        with torch.autocast(self.device.type, torch.bfloat16):
            loss = self.setup.loss(self.network, examples)
        self.network.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0, foreach=True)
        rate = self.plan.rate_at(step, progress) * self.clock.slowed
        for optimiser, relative in ((self.matrix_optimiser, self.plan.matrix_rate), (self.vector_optimiser, 1.0)):
            for group in optimiser.param_groups:
                group["lr"] = rate * relative
            optimiser.step()
        forgotten = max((progress - self.last_progress) / AVERAGE_OVER, 9 / (10 + step))
        self.last_progress = progress
        with torch.no_grad():
            torch._foreach_lerp_(self.averages, self.parameters, min(1.0, forgotten))
        return loss.detach()

    def sound(self):
        """Whether every weight, and its average, is a number."""
        norms = torch._foreach_norm([p.detach() for p in self.parameters + self.averages])
        return torch.stack(norms).isfinite().all().item()

    def fall_back(self):
        """Go on from the last checkpoint, more slowly."""
        slowed, elapsed, pictures = self.clock.slowed / 2, self.clock.elapsed(), self.clock.pictures
        if slowed < 0.5**SETBACKS:
            raise RuntimeError(f"{self.plan.name} diverged {SETBACKS + 1} times, at last with {slowed * 2:g} of its rate")
        print(f"{self.plan.name}: diverged; goes on from its last checkpoint at half the rate", flush=True)
        self.checkpoint.restore()
        self.clock.load_state_dict({"elapsed": elapsed, "pictures": pictures, "slowed": slowed})
