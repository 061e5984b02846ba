"""A seeded order of the epoch's samples."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import torch
from torch.utils.data import RandomSampler

from penstock.plan.seeds import mix_seeds

# Keeps the shuffle's random numbers apart from the samples' own.
_SHUFFLE = 0x5348


class SeededShuffle(RandomSampler):
    """A random order that depends on (seed, epoch, length) alone.

    A `torch.utils.data.RandomSampler` draws from a generator whose state depends on all
    that was drawn before; this one can be asked for the order of any epoch at any time.

    Args:
        data_source: anything with a length; at least one sample.
        seed: any int.

    Attributes:
        epoch: the epoch that the next `iter()` orders. The loader, which counts epochs, sets it.
        told: the epoch that `set_epoch` was called with, until the loader has gone there; None if
            it was not. The same number twice is an epoch that is repeated.
    """

    def __init__(self, data_source: Sized, seed: int) -> None:
        super().__init__(data_source)
        self.seed = seed
        self.epoch = 0
        self.told: int | None = None

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next `iter()` orders, and that the loader begins next."""
        self.epoch = self.told = epoch

    def __iter__(self) -> Iterator[int]:
        yield from self.behind(0)

    def behind(self, count: int) -> Iterator[int]:
        """The order without its first `count` samples, of which no ints are made; drawn now."""
        generator = torch.Generator()
        # torch takes seeds up to 2**63 - 1 on every platform.
        generator.manual_seed(mix_seeds(self.seed, self.epoch, _SHUFFLE) >> 1)
        order = torch.randperm(len(self.data_source), generator=generator)
        return iter(order[count:].tolist())
