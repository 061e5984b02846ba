"""Datasets and samplers whose epochs are compared, undisturbed and resumed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

SAMPLES = 40


class Dice(Dataset[torch.Tensor]):
    """Samples that hold their index and a number of each generator."""

    def __init__(self, length: int = SAMPLES, bad: tuple[int, ...] = ()) -> None:
        self.length = length
        self.bad = frozenset(bad)
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        self.read.append(index)
        if index in self.bad:
            raise ValueError(f"{index} is bad")
        drawn = random.random(), float(np.random.rand()), float(torch.rand(()))
        return torch.tensor([index, *drawn], dtype=torch.float64)


class Stream(IterableDataset[torch.Tensor]):
    """A stream that splits itself among workers, and draws random numbers in them."""

    def __init__(self, length: int = SAMPLES) -> None:
        self.length = length

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        for number in range(first, self.length, step):
            # In the training process a stream draws from the program's own generators.
            drawn = 0.0 if worker is None else random.random() + float(torch.rand(()))
            yield torch.tensor([number, drawn], dtype=torch.float64)


class StatefulStream(IterableDataset[torch.Tensor]):
    """A stream that can tell where it is, and counts what it was asked for."""

    def __init__(self, length: int = SAMPLES) -> None:
        self.length = length
        self.next: int | None = None
        self.pulled = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        worker = get_worker_info()
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        if self.next is None:
            self.next = first
        while self.next < self.length:
            number, self.next = self.next, self.next + step
            self.pulled += 1
            yield torch.tensor([number])
        self.next = None

    def state_dict(self) -> dict[str, Any]:
        return {"next": self.next, "pulled": self.pulled}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.next, self.pulled = state["next"], state["pulled"]


class CountingIterator:
    """An iterator with a state of its own."""

    def __init__(self, length: int) -> None:
        self.length = length
        self.at = 0

    def __iter__(self) -> CountingIterator:
        return self

    def __next__(self) -> int:
        if self.at >= self.length:
            raise StopIteration
        self.at += 1
        return self.at - 1

    def state_dict(self) -> dict[str, int]:
        return {"at": self.at}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.at = state["at"]


class IteratorStream(IterableDataset[int]):
    """A stream whose iterator, not itself, can tell where it is."""

    def __iter__(self) -> CountingIterator:
        return CountingIterator(SAMPLES)


class StatefulSampler(Sampler[int]):
    """A sampler that can tell where it is; each epoch has another order."""

    def __init__(self, length: int = SAMPLES) -> None:
        self.length = length
        self.given = 0
        self.round = 0
        self.yielded = 0

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        order = np.random.RandomState(self.round).permutation(self.length).tolist()
        while self.given < self.length:
            self.given += 1
            self.yielded += 1
            yield order[self.given - 1]
        self.given = 0
        self.round += 1

    def state_dict(self) -> dict[str, int]:
        return {"given": self.given, "round": self.round}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.given, self.round = state["given"], state["round"]


class PythonShuffle(Sampler[int]):
    """A sampler as many write it: it draws from Python's own generator."""

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        order = list(range(SAMPLES))
        random.shuffle(order)
        return iter(order)


class NumPyShuffle(Sampler[int]):
    """A sampler that draws from NumPy's generator."""

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        return iter(np.random.permutation(SAMPLES).tolist())


class CountedDataset(Dataset[int]):
    """A map-style dataset with a state: how many samples this copy has made."""

    def __init__(self) -> None:
        self.made = 0

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> int:
        self.made += 1
        return self.made

    def state_dict(self) -> dict[str, int]:
        return {"made": self.made}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.made = state["made"]


class Epochs(Dataset[int]):
    """Samples that say which epoch the dataset was told of."""

    epoch = -1

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return self.epoch

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class EpochStream(IterableDataset[int]):
    """A stream that says which epoch it was told of."""

    epoch = -1

    def __iter__(self) -> Iterator[int]:
        return iter([self.epoch] * 4)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class Numbered(Sampler[int]):
    """A sampler that can be told an epoch, and has the same order in each."""

    epoch = 0

    def __len__(self) -> int:
        return SAMPLES

    def __iter__(self) -> Iterator[int]:
        return iter(range(SAMPLES))

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


class SelfCounting(Numbered):
    """One that goes on to the next epoch by itself, at the end of each."""

    def __iter__(self) -> Iterator[int]:
        yield from range(SAMPLES)
        self.epoch += 1


class Secretive(Dataset[int]):
    """A dataset that can be told an epoch, and does not show which."""

    number = -1

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return self.number

    def set_epoch(self, epoch: int) -> None:
        self.number = epoch
