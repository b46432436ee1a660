"""Captions made ahead of the card, in processes of their own: Python's loops must not stand between
two steps.

One core makes about 25,000 captions a second. Each step's captions are drawn from a seed of the
step's own, so a stage sees the same captions in the same order whatever the number of loaders.
"""

import itertools
import random

from torch.utils.data import DataLoader, Dataset

AHEAD = 16  # batches that each loader makes ahead


class Captions(Dataset):
    """`captions(rng, count)` of a stage, by step."""

    def __init__(self, name, captions, count):
        self.name, self.captions, self.count = name, captions, count

    def __getitem__(self, step):
        return self.captions(random.Random(f"{self.name} {step}"), self.count)


class StepsFrom:
    """A sampler without end."""

    def __init__(self, first):
        self.first = first

    def __iter__(self):
        return itertools.count(self.first)


def unchanged(item):
    return item


def feed(name, captions, count, first_step, loaders):
    """An endless iterator over the captions of each step from `first_step` on. Loaders are forked
    at once, so the caller must not have used a card before."""
    more = {"num_workers": loaders, "prefetch_factor": AHEAD, "multiprocessing_context": "fork"} if loaders else {}
    return iter(DataLoader(Captions(name, captions, count), batch_size=None, sampler=StepsFrom(first_step), collate_fn=unchanged, **more))
