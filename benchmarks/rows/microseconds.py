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
    NotMeasuredError,
    Part,
    Row,
    Setting,
    at_least,
)
from benchmarks.timing import warm_loader
from benchmarks.workloads.in_memory import Rows

# Two loaders that do the same inline differ by chance: what is within that is not slower.
AUTO = Case("", MS_A_BATCH, at_least(1), at_least(0.95))


def _seconds_a_batch(loader_class: Callable[..., Any], batches: int, num_workers: Any) -> Figures:
    loader, _ = warm_loader(
        loader_class, Rows(), batches, num_workers=num_workers, persistent_workers=False
    )
    began = time.perf_counter()
    for _ in loader:
        pass
    return {AUTO.name: (time.perf_counter() - began) / batches}


def _auto(batches: int) -> Figures:
    try:
        penstock.DataLoader(Rows(), num_workers="auto")  # type: ignore[arg-type]
    except (penstock.OptionError, TypeError, ValueError):
        raise NotMeasuredError('not there yet: num_workers="auto"') from None
    return _seconds_a_batch(penstock.DataLoader, batches, "auto")


def _prepare(setting: Setting) -> Contest:
    batches = setting.size(3000, 300)
    return contextlib.nullcontext(
        {
            TORCH: lambda: _seconds_a_batch(TorchDataLoader, batches, 0),
            PENSTOCK: lambda: _auto(batches),
            LIMIT: lambda: _seconds_a_batch(penstock.DataLoader, batches, 0),
        }
    )


ROW = Row(
    14,
    'samples of microseconds, num_workers="auto"',
    "Is a loader that chooses its workers itself ever slower than none?",
    "Rows of a table in memory. Penstock chooses; torch has num_workers=0, and the limit is "
    "Penstock with num_workers=0.",
    (Part((AUTO,), _prepare),),
)
