"""Batches per second of two loaders that take turns, and of no loader at all."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing import get_context
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

import penstock

WORKERS = 2
BATCH_SIZE = 64


@dataclass(frozen=True)
class Workload:
    """A row of the table.

    Attributes:
        name: what is loaded.
        make: makes the dataset.
        required: the ratio to torch's rate that has to be reached.
        required_of_limit: likewise, to what the machine can do at all; None if it is not asked.
    """

    name: str
    make: Callable[[], Dataset[Any]]
    required: float
    required_of_limit: float | None = None


@dataclass(frozen=True)
class Row:
    """What was measured for a workload: seconds for one epoch, a figure a round."""

    workload: Workload
    torch_s: list[float]
    penstock_s: list[float]
    limit_s: list[float]

    @property
    def ratio(self) -> float:
        """Penstock's rate over torch's, of the medians."""
        return statistics.median(self.torch_s) / statistics.median(self.penstock_s)

    @property
    def of_limit(self) -> float | None:
        """Penstock's rate over the machine's, of the medians."""
        if not self.limit_s:
            return None
        return statistics.median(self.limit_s) / statistics.median(self.penstock_s)

    @property
    def passed(self) -> bool:
        """Whether both required ratios are reached."""
        needed, reached = self.workload.required_of_limit, self.of_limit
        return self.ratio >= self.workload.required and (
            needed is None or (reached is not None and reached >= needed)
        )


def measure(workload: Workload, rounds: int) -> Row:
    """Measures a workload: the loaders take turns, after a round that does not count."""
    dataset = workload.make()
    row = Row(workload, [], [], [])
    for number in range(rounds + 1):
        results = (
            (row.torch_s, _epoch_s(TorchDataLoader, dataset)),
            (row.penstock_s, _epoch_s(penstock.DataLoader, dataset)),
            (row.limit_s, _limit_s(dataset) if workload.required_of_limit else None),
        )
        for figures, figure in results:
            if number and figure is not None:
                figures.append(figure)
    return row


def _epoch_s(loader_class: type, dataset: Dataset[Any]) -> float:
    """Seconds for the epoch from its first batch on: without the start of the workers."""
    loader = loader_class(dataset, batch_size=BATCH_SIZE, num_workers=WORKERS)
    iterator = iter(loader)
    next(iterator)
    began = time.perf_counter()
    batches = 1 + sum(1 for _ in iterator)
    took_s = time.perf_counter() - began
    # The batches that were ready when the clock started are few beside those that were not.
    return took_s * batches / (batches - 1)


def _limit_s(dataset: Dataset[Any]) -> float:
    """Seconds for the same work in as many independent processes, with no loader at all."""
    context = get_context("fork")
    start = context.Barrier(WORKERS + 1)
    processes = [
        context.Process(target=_read_part, args=(dataset, part, start)) for part in range(WORKERS)
    ]
    for process in processes:
        process.start()
    start.wait()
    began = time.perf_counter()
    for process in processes:
        process.join()
    return time.perf_counter() - began


def _read_part(dataset: Any, part: int, start: Any) -> None:
    torch.set_num_threads(1)
    length = len(dataset)
    start.wait()
    for index in range(part * length // WORKERS, (part + 1) * length // WORKERS):
        dataset[index]
