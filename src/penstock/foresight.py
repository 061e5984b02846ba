"""What a loader's next epoch will begin with, as far as it can be told before the program asks.

The order is drawn as it will be drawn then, and everything that it was drawn from is put back. That
is possible where all of this is known: samplers of torch's, or Penstock's own, and samples that
depend on nothing but their index and the epoch's seed. What the program itself draws in between
from the same numbers is not known; then the guess is wrong, and not used. What it tells workers in
between, by memory that they share, cannot be looked at: where it could, nothing is guessed.
"""

from __future__ import annotations

import itertools
from typing import Any

from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)
from torch.utils.data import DataLoader as TorchDataLoader

from penstock.checkpoint import LoaderMemory, has_state
from penstock.collate import programs_functions
from penstock.engines.protocol import EpochStart, Guess
from penstock.engines.sharing import is_reachable
from penstock.plan import SeededShuffle, mix_seeds

# What iterating one of these does is known: it draws from its generator, and changes nothing else.
_KNOWN = frozenset(
    {
        BatchSampler,
        DistributedSampler,
        RandomSampler,
        SeededShuffle,
        SequentialSampler,
        SubsetRandomSampler,
        WeightedRandomSampler,
    }
)


def following_seed(seed: int | None, memory: LoaderMemory) -> int | None:
    """The seed of the epoch that begins next; None where it is still to be drawn.

    Args:
        seed: the loader's own.
        memory: the loader's.
    """
    if seed is not None:
        return mix_seeds(seed, memory.epoch) >> 1
    if memory.drawn is None or memory.redraws:
        return None
    drawn, epochs = memory.drawn
    return mix_seeds(drawn, epochs + 1) >> 1


def foresee(
    loader: TorchDataLoader[Any], seed: int | None, memory: LoaderMemory, count: int
) -> Guess | None:
    """The next epoch of a loader whose workers live on; None if nobody can tell.

    Args:
        loader: it, within an epoch.
        seed: its own.
        memory: its.
        count: how many batches to say.
    """
    if not _is_foreseeable(loader, memory):
        return None
    next_seed = following_seed(seed, memory)
    if next_seed is None:
        return None
    with memory.rehearsal():
        grouped = loader.batch_sampler is not None
        order: Any = loader.batch_sampler if grouped else loader.sampler
        first = list(itertools.islice(order, count))
    batches = [list(each) if grouped else [each] for each in first]
    return Guess(EpochStart(next_seed, number=memory.told), batches) if batches else None


def _is_foreseeable(loader: TorchDataLoader[Any], memory: LoaderMemory) -> bool:
    """Whether all that the next epoch depends on is known, or looked at when it begins."""
    dataset = loader.dataset
    return not (
        isinstance(dataset, IterableDataset)
        or loader.worker_init_fn is not None
        or has_state(dataset)
        or memory.has_loaded
        or not all(map(is_known, memory.samplers))
        # The loader tells it what the program says, which may be any epoch; told by the program
        # itself, it tells its copies in workers in a way of its own.
        or callable(getattr(dataset, "set_epoch", None))
        or is_reachable(dataset, loader.collate_fn, programs_functions())
    )


def draws_to_its_end(memory: LoaderMemory) -> bool:
    """Whether the order moves a generator that was given not only where it begins.

    A loop that breaks off then finds it, for the next order, as far on as the sampler was asked
    ahead, which is to be the same each time, and in torch's loader.
    """
    return any(
        isinstance(part, RandomSampler) and part.generator is not None for part in memory.samplers
    )


def is_known(sampler: object) -> bool:
    """Whether a sampler is one of torch's, or Penstock's, which do not look at the loop."""
    if isinstance(sampler, WeightedRandomSampler) and sampler.weights.device.type != "cpu":
        # Drawn where its weights are, from a generator that is not put back.
        return False
    return type(sampler) in _KNOWN
