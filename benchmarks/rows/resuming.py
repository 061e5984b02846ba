"""Row 12: how long a loader takes to go on in the middle of an epoch."""

from __future__ import annotations

import contextlib
import mmap
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

import penstock
from benchmarks.row import (
    MS,
    PENSTOCK,
    TORCH,
    Case,
    Contestant,
    NotMeasuredError,
    Part,
    Row,
    Setting,
    at_most,
)
from benchmarks.timing import BATCH_SIZE, WORKERS

RESUME = Case("", MS, at_most(1 / 10))
SHARE = 0.9


class NotedReads(Dataset[int]):
    """Samples that are their own numbers; which ones were read is noted for all processes."""

    def __init__(self, length: int) -> None:
        # Forked workers share the mapping.
        self.read = np.frombuffer(mmap.mmap(-1, length), np.uint8)

    def __len__(self) -> int:
        return len(self.read)

    def __getitem__(self, index: int) -> int:
        self.read[index] = 1
        return index


class Resuming:
    """A loader class that is stopped at 90 % of an epoch once, and resumed there each turn.

    Args:
        loader_class: torchdata's, or Penstock's.
        length: samples.
        order: returns what the order is drawn from, as further arguments.
    """

    def __init__(
        self, loader_class: Callable[..., Any], length: int, order: Callable[[], dict[str, Any]]
    ) -> None:
        self._loader_class = loader_class
        self._order = order
        self._dataset = NotedReads(length)
        loader = self._loader()
        batches = iter(loader)
        self._handed_over = np.zeros(length, np.uint8)
        for _ in range(int(len(loader) * SHARE)):
            self._handed_over[next(batches)] = 1
        self._state = loader.state_dict()
        self._expected = next(batches)

    def seconds(self) -> float:
        """From the making of a new loader to the batch behind the state.

        Raises:
            NotMeasuredError: the batch is another, or a sample was read that had been handed over.
        """
        self._dataset.read[:] = 0
        began = time.perf_counter()
        loader = self._loader()
        loader.load_state_dict(self._state)
        batches = iter(loader)
        batch = next(batches)
        took_s = time.perf_counter() - began
        if not torch.equal(batch, self._expected):
            raise NotMeasuredError("it went on with another batch")
        skipped_reads = int((self._dataset.read & self._handed_over).sum())
        if skipped_reads:
            raise NotMeasuredError(f"it read {skipped_reads:,} samples of the part that is done")
        return took_s

    def _loader(self) -> Any:
        return self._loader_class(
            self._dataset,
            batch_size=BATCH_SIZE,
            shuffle=True,
            num_workers=WORKERS,
            multiprocessing_context="fork",
            **self._order(),
        )


@contextlib.contextmanager
def _prepare(setting: Setting) -> Iterator[Mapping[str, Contestant]]:
    length = setting.size(1_000_000, 100_000)
    ours = Resuming(penstock.DataLoader, length, lambda: {"seed": 0})
    yield {
        TORCH: _stateful(length),
        PENSTOCK: lambda: {RESUME.name: ours.seconds()},
    }


def _stateful(length: int) -> Contestant:
    try:
        from torchdata.stateful_dataloader import (  # type: ignore[import-untyped]
            StatefulDataLoader,
        )
    except ImportError:
        return _not_installed
    theirs = Resuming(
        StatefulDataLoader, length, lambda: {"generator": torch.Generator().manual_seed(0)}
    )
    return lambda: {RESUME.name: theirs.seconds()}


def _not_installed() -> dict[str, float]:
    raise NotMeasuredError(
        "torchdata is not installed: pip install -c constraints.txt -e '.[bench]'"
    )


ROW = Row(
    12,
    "resume at 90 % of an epoch",
    "How long does a training run wait for its data after it was stopped?",
    "A million samples, shuffled, against torchdata's "
    "StatefulDataLoader: a new loader, load_state_dict(), the first batch. It must be the batch "
    "that was next, and no sample that was handed over before may be read. Penstock with seed=. "
    "Quick mode has a hundred thousand, beside which the start of two processes weighs too much to "
    "be judged.",
    (Part((RESUME,), _prepare, judged_in_quick=False),),
)
