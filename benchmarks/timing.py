"""How long a loader takes for an epoch."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

from torch.utils.data import Sampler

WORKERS = 2
BATCH_SIZE = 64
# The short epoch that wakes everything: batches for each worker.
WARM_UP_BATCHES = 2

LoaderClass = Callable[..., Any]


class FirstSamples(Sampler[int]):
    """The first samples of a dataset in their order; how many may change between epochs."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        return iter(range(self.length))


def warm_loader(
    loader_class: LoaderClass,
    dataset: Any,
    batches: int,
    *,
    warm_up: int | None = None,
    **settings: Any,
) -> tuple[Any, int]:
    """A loader whose workers are there, and have made batches already.

    Its first epoch is short, so that what is measured next is a whole epoch from its first sample
    to its last: no batch is ready when the clock starts, and none is left out.

    Args:
        loader_class: see `seconds_a_batch`.
        dataset: see `seconds_a_batch`.
        batches: of the epoch that is measured.
        warm_up: batches of the first epoch; None: two for each worker.
        settings: see `seconds_a_batch`.

    Returns:
        The loader, whose next epoch has `batches` batches; and the size of one.
    """
    workers = settings.setdefault("num_workers", WORKERS)
    batch_size = settings.setdefault("batch_size", BATCH_SIZE)
    settings.setdefault("persistent_workers", workers != 0)
    if warm_up is None:
        warm_up = min(batches, WARM_UP_BATCHES * (workers or 1))
    sampler = FirstSamples(warm_up * batch_size)
    loader = loader_class(dataset, sampler=sampler, **settings)
    for _ in loader:
        pass
    sampler.length = batches * batch_size
    return loader, batch_size


def seconds_a_batch(
    loader_class: LoaderClass, dataset: Any, batches: int, **settings: Any
) -> float:
    """Seconds for a whole epoch by workers that are there, over the number of its batches.

    Args:
        loader_class: torch's, or another that takes its arguments.
        dataset: with `batches` × batch size samples at least.
        batches: the length of the epoch.
        settings: further arguments of the loader.
    """
    loader, _ = warm_loader(loader_class, dataset, batches, **settings)
    began = time.perf_counter()
    count = sum(1 for _ in loader)
    took_s = time.perf_counter() - began
    if count != batches:
        raise RuntimeError(f"{count} batches came instead of {batches}")
    return took_s / batches
