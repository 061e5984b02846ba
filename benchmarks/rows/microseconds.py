"""Row 14: samples that cost so little that workers only cost time."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from benchmarks.row import (
    LIMIT,
    MS_A_BATCH,
    PENSTOCK,
    TORCH,
    Case,
    Contest,
    Figures,
    Part,
    Row,
    Setting,
    at_least,
)
from benchmarks.timing import BATCH_SIZE
from benchmarks.workloads.in_memory import Rows

# Two loaders that do the same inline differ by chance: what is within that is not slower.
AUTO = Case("", MS_A_BATCH, at_least(1), at_least(0.95))


# The first epoch, in which the choice is made, and one more: behind a fork the first write to each
# page of memory takes longer. For all of them, so that all are equally warm.
WARM_UPS, WARM_UP_BATCHES = 2, 300


class _FirstRows(Rows):
    """Some of them; how many may change between epochs."""

    length = 0

    def __len__(self) -> int:
        return self.length


def _seconds_a_batch(loader_class: Callable[..., Any], batches: int, num_workers: Any) -> Figures:
    dataset = _FirstRows()
    dataset.length = WARM_UP_BATCHES * BATCH_SIZE
    loader = loader_class(dataset, batch_size=BATCH_SIZE, num_workers=num_workers)
    for length in (*[dataset.length] * WARM_UPS, batches * BATCH_SIZE):
        dataset.length = length
        began = time.perf_counter()
        for _ in loader:
            pass
        took_s = time.perf_counter() - began
    return {AUTO.name: took_s / batches}


def _prepare(setting: Setting) -> Contest:
    batches = setting.size(3000, 300)
    return contextlib.nullcontext(
        {
            TORCH: lambda: _seconds_a_batch(TorchDataLoader, batches, 0),
            PENSTOCK: lambda: _seconds_a_batch(penstock.DataLoader, batches, "auto"),
            LIMIT: lambda: _seconds_a_batch(penstock.DataLoader, batches, 0),
        }
    )


ROW = Row(
    14,
    'samples of microseconds, num_workers="auto"',
    "Is a loader that chooses its workers itself ever slower than none?",
    "Rows of a table in memory. Penstock chooses; torch has num_workers=0, and the limit is "
    "Penstock with num_workers=0. The choice is made behind an "
    "epoch of 300 batches, and the one that counts is the second behind that.",
    (Part((AUTO,), _prepare),),
)
