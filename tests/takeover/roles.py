"""Loaders as programs write them, and what is asked of them."""

from __future__ import annotations

import os

import torch
from torch.utils.data import (
    DataLoader,
    IterableDataset,
)
from torch.utils.data.dataloader import _SingleProcessDataLoaderIter

from penstock.epoch import EpochRun
from penstock.takeover import PlaceReport
from tests.support.split import own_part

# As they were imported: long before anything is installed.
ORIGINALS = {name: vars(DataLoader)[name] for name in ("__init__", "__iter__")}


class Numbers:
    def __init__(self, size: int = 20) -> None:
        self.size = size

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> torch.Tensor:
        return torch.tensor(index)


class Pids(Numbers):
    def __getitem__(self, index):
        return os.getpid()


class Stream(IterableDataset):
    def __iter__(self):
        return iter(own_part(20))


class Mine(DataLoader):
    """As people write them: with attributes that mean something else to penstock."""

    def __init__(self, dataset, seed, **options):
        self.seed = seed
        super().__init__(dataset, **options)
        self._engine = "steam"

    def __len__(self):
        return 7

    def __iter__(self):
        for batch in super().__iter__():
            yield batch + 100


class OwnIterator(DataLoader):
    def _get_iterator(self):
        return _SingleProcessDataLoaderIter(self)


def make_by_default_argument(make=DataLoader, **options):
    return make(Numbers(), **options)


def as_list(samples):
    return [int(sample) for sample in samples]


def is_by_penstock(loader) -> bool:
    return isinstance(DataLoader.__iter__(loader), EpochRun)


def only_place(taken) -> PlaceReport:
    (place,) = taken.report().places
    return place


def lists(loader) -> list:
    return [batch.tolist() if isinstance(batch, torch.Tensor) else batch for batch in loader]


def samples(loader) -> list:
    return [sample for batch in lists(loader) for sample in batch]
