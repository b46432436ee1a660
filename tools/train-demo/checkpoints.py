"""Training state on disk: written to a neighbour and renamed, so that a kill at any moment leaves a
whole file."""

import os
import time
from pathlib import Path

import torch


class Checkpoint:
    """Keeps the `state_dict` of each named part, and the step reached, in one file; writes at most
    every `minutes`."""

    def __init__(self, path: Path, minutes=4.0, **parts):
        self.path, self.seconds, self.parts, self.written = path, minutes * 60, parts, time.monotonic()

    def restore(self):
        """The step to go on from: 0 where there is no file yet."""
        if not self.path.exists():
            return 0
        state = torch.load(self.path, weights_only=True, map_location="cpu")
        if missing := self.parts.keys() - state.keys():
            raise SystemExit(f"{self.path} has no {', '.join(sorted(missing))}: it was written in another way of training; give another --state")
        for name, part in self.parts.items():
            part.load_state_dict(state[name])
        return state["step"]

    def step(self):
        """The step that `restore` would go on from, without reading the rest."""
        return torch.load(self.path, weights_only=True, mmap=True, map_location="cpu")["step"] if self.path.exists() else 0

    def due(self):
        return time.monotonic() - self.written > self.seconds

    def tick(self, step):
        if self.due():
            self.save(step)

    def save(self, step):
        self.path.parent.mkdir(parents=True, exist_ok=True)
        neighbour = self.path.with_suffix(".new")
        torch.save({"step": step} | {name: part.state_dict() for name, part in self.parts.items()}, neighbour)
        os.replace(neighbour, self.path)
        self.written = time.monotonic()
