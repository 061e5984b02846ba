"""The data of these tests: samples that know their number."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch.utils.data import Dataset, IterableDataset


class Numbers(Dataset[tuple[int, torch.Tensor]]):
    """Sample `i` is `i` and a row of features.

    Args:
        size: number of samples.
        noisy: whether the features are random; otherwise they follow from `i`.
        bad: samples that cannot be made.
    """

    def __init__(self, size: int = 48, *, noisy: bool = False, bad: tuple[int, ...] = ()) -> None:
        self.size = size
        self.noisy = noisy
        self.bad = bad

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> tuple[int, torch.Tensor]:
        if index in self.bad:
            raise ValueError(f"sample {index} is bad")
        if self.noisy:
            return index, torch.rand(3)
        return index, torch.tensor([index, index % 5, 1.0]) / self.size


class Stream(IterableDataset[int]):
    """The numbers from 0, each once with any number of workers, and no `__len__`."""

    def __init__(self, size: int = 48) -> None:
        self.size = size

    def __iter__(self) -> Iterator[int]:
        worker = torch.utils.data.get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        return iter(range(first, self.size, step))
