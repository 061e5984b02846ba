"""Loaders whose epochs are compared, undisturbed and resumed, and what they are made of."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

import penstock
from tests.support.split import own_part

SAMPLES = 40

Loader = penstock.DataLoader[Any]
# Makes a loader with so many workers.
Make = Callable[[int], Loader]


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
        for number in own_part(self.length):
            # In the training process a stream draws from the program's own generators.
            in_worker = get_worker_info() is not None
            drawn = random.random() + float(torch.rand(())) if in_worker else 0.0
            yield torch.tensor([number, drawn], dtype=torch.float64)


class StatefulStream(IterableDataset[torch.Tensor]):
    """A stream that can tell where it is, and counts what it was asked for."""

    def __init__(self, length: int = SAMPLES) -> None:
        self.length = length
        self.next: int | None = None
        self.pulled = 0

    def __iter__(self) -> Iterator[torch.Tensor]:
        part = own_part(self.length)
        if self.next is None:
            self.next = part.start
        while self.next < self.length:
            number, self.next = self.next, self.next + part.step
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


# Loaders.


def loader_of(dataset: Any, workers: int, **settings: Any) -> Loader:
    context = "fork" if workers else None
    settings = {"batch_size": 2, "multiprocessing_context": context, **settings}
    return penstock.DataLoader(dataset, num_workers=workers, **settings)


def shuffled(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True)


def persistent(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True, persistent_workers=workers > 0)


def with_generator(workers: int) -> Loader:
    generator = torch.Generator().manual_seed(3)
    return loader_of(Dice(), workers, shuffle=True, generator=generator)


def seeded(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True, seed=9)


def with_a_stateful_sampler(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=StatefulSampler())


def skipping(workers: int) -> Loader:
    dataset = Dice(bad=(3, 9, 17, 31))
    return loader_of(dataset, workers, shuffle=True, on_error="skip", max_skipped=4)


def streamed(workers: int) -> Loader:
    return loader_of(Stream(), workers)


def persistent_stream(workers: int) -> Loader:
    return loader_of(Stream(), workers, persistent_workers=workers > 0)


def stateful_stream(workers: int) -> Loader:
    return loader_of(StatefulStream(), workers)


def note_worker(number: int) -> None:
    """As programs split a stream: through what the worker is told."""
    get_worker_info().dataset.noted = number  # type: ignore[union-attr]


# Their epochs.


def seed_everything(seed: int) -> None:
    torch.manual_seed(seed)
    random.seed(seed)
    np.random.seed(seed)


def plain(batches: Any) -> list[Any]:
    return [batch.tolist() if isinstance(batch, torch.Tensor) else batch for batch in batches]


def undisturbed(make: Make, workers: int, epochs: int = 3) -> list[list[Any]]:
    seed_everything(5)
    loader = make(workers)
    return [plain(loader) for _ in range(epochs)]


def saved(loader: Loader) -> dict[str, Any]:
    """A loader's state, as JSON brings it to another program."""
    state: dict[str, Any] = json.loads(json.dumps(loader.state_dict()))
    return state


def state_at(make: Make, workers: int, step: int) -> dict[str, Any]:
    """The state in the middle of the second epoch."""
    seed_everything(5)
    loader = make(workers)
    list(loader)
    iterator = iter(loader)
    for _ in range(step):
        next(iterator)
    return saved(loader)


@dataclass(frozen=True)
class Course:
    """The second and third epoch of a loader, and every state of the second.

    Attributes:
        epoch: the batches of the second epoch.
        after: those of the third.
        states: as they are when so many batches were handed over.
        end: the state between the two.
    """

    epoch: list[Any]
    after: list[Any]
    states: list[dict[str, Any]]
    end: dict[str, Any]


def course_of(make: Make, workers: int) -> Course:
    """Runs three epochs undisturbed, and two again with a look at the state behind each batch."""
    _, epoch, after = undisturbed(make, workers)
    seed_everything(5)
    loader = make(workers)
    list(loader)
    iterator = iter(loader)
    states, batches = [saved(loader)], []
    for batch in iterator:
        batches += plain([batch])
        states.append(saved(loader))
    # Who is asked for his state goes on as if nobody had asked.
    assert batches == epoch
    return Course(epoch, after, states, saved(loader))


def resumed(make: Make, workers: int, state: dict[str, Any]) -> list[list[Any]]:
    """The rest of the epoch, and the next one, in a program that has drawn other numbers."""
    seed_everything(77)
    loader = make(workers)
    loader.load_state_dict(state)
    return [plain(loader), plain(loader)]


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
