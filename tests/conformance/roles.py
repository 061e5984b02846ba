"""Datasets, samplers and comparisons that the tests of conformance share."""

from __future__ import annotations

import dataclasses
import os
import random
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset, IterableDataset, Sampler, get_worker_info

import penstock
from tests.support.split import own_part

# How long to look for something that comes soon unless it is broken.
SOON_S = 20.0


def is_torchs(loader_class: Any) -> bool:
    return not issubclass(loader_class, penstock.DataLoader)


class Numbers(Dataset[int]):
    """Sample i is i."""

    def __init__(self, length: int = 12) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> Any:
        return index


class Calls(Numbers):
    """Calls a function for each sample; one that is inherited or sent to the workers."""

    def __init__(self, function: Callable[[int], Any], length: int = 12) -> None:
        super().__init__(length)
        self.function = function

    def __getitem__(self, index: int) -> Any:
        return self.function(index)


class Given(Numbers):
    """Gives the samples that it was given."""

    def __init__(self, samples: list[Any]) -> None:
        super().__init__(len(samples))
        self.samples = samples

    def __getitem__(self, index: int) -> Any:
        return self.samples[index]


class Fails(Numbers):
    """Raises what it was given at one index."""

    def __init__(self, error: Callable[[], BaseException], at: int = 5, length: int = 12) -> None:
        super().__init__(length)
        self.error = error
        self.at = at

    def __getitem__(self, index: int) -> int:
        if index == self.at:
            raise self.error()
        return index


class Dice(Numbers):
    """Draws from all three global generators."""

    def __getitem__(self, index: int) -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))


class Stream(IterableDataset[int]):
    """0, 1, …, shared out over the workers: each takes every n-th."""

    def __init__(self, length: int = 17) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        return iter(own_part(self.length))


class SizedStream(Stream):
    """A stream that claims a length, which need not be true."""

    def __init__(self, length: int, claimed: int) -> None:
        super().__init__(length)
        self.claimed = claimed

    def __len__(self) -> int:
        return self.claimed


class Uneven(IterableDataset[int]):
    """Worker w yields w·100, w·100 + 1, …: as many as its place in `lengths` says."""

    def __init__(self, lengths: list[int]) -> None:
        self.lengths = lengths

    def __iter__(self) -> Iterator[int]:
        info = get_worker_info()
        seat = 0 if info is None else info.id
        return iter(range(seat * 100, seat * 100 + self.lengths[seat]))


class Zigzag(Sampler[int]):
    """A user's sampler: from both ends, drawing from the program's generator on the way."""

    def __init__(self, length: int) -> None:
        self.length = length

    def __iter__(self) -> Iterator[int]:
        low, high = 0, self.length - 1
        while low <= high:
            if low == high or torch.rand(()) < 0.5:
                yield low
                low += 1
            else:
                yield high
                high -= 1

    def __len__(self) -> int:
        return self.length


class Recorded(Sampler[int]):
    """Yields 0, 1, …, without an end if there is no length, and remembers what it was asked for."""

    def __init__(self, length: int | None) -> None:
        self.length = length
        self.asked: list[int] = []

    def __iter__(self) -> Iterator[int]:
        number = 0
        while self.length is None or number < self.length:
            self.asked.append(number)
            yield number
            number += 1


def flat(loader: Any) -> list[Any]:
    """All samples of an epoch whose batches are tensors of numbers, or lists."""
    return [sample for batch in loader for sample in as_list(batch)]


def as_list(batch: Any) -> list[Any]:
    return list(batch.tolist()) if isinstance(batch, torch.Tensor) else list(batch)


def lists(loader: Any) -> list[list[Any]]:
    """The batches of an epoch as lists."""
    return [as_list(batch) for batch in loader]


def as_it_is(samples: Any) -> Any:
    """A collate function that hands on what it gets."""
    return samples


def same(left: Any, right: Any) -> bool:
    """Whether two values are equal in type, dtype, layout, shape and content."""
    if type(left) is not type(right):
        return False
    if isinstance(left, torch.Tensor):
        if (left.dtype, left.layout) != (right.dtype, right.layout):
            return False
        if left.layout is not torch.strided:
            left, right = left.to_dense(), right.to_dense()
        return left.shape == right.shape and torch.equal(left, right)
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(left, right)
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, (list, tuple)):
        return len(left) == len(right) and all(map(same, left, right))
    if dataclasses.is_dataclass(left) or not hasattr(type(left), "__eq__"):
        return same(vars(left), vars(right))
    return bool(left == right)


def error_of(batches: Any) -> Exception:
    """What ends a loop over the batches, after which there are no more."""
    batches = iter(batches)
    try:
        for _ in batches:
            pass
    except Exception as error:
        return error.with_traceback(None)
    finally:
        end(batches)
    raise AssertionError("the loop ended by itself")


def end(batches: Any) -> None:
    """Ends the workers of torch's iterator, if it is one.

    What it has raised is in a cycle that holds it, and the garbage collector would finalize its
    queues before it, so that it waits five seconds for each worker.
    """
    shut_down = getattr(batches, "_shutdown_workers", None)
    if shut_down is not None:
        shut_down()


def draw_base_seed(generator: torch.Generator | None = None) -> int:
    """What a loader takes from the generator first, at each `iter()`."""
    return int(torch.empty((), dtype=torch.int64).random_(generator=generator).item())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about"
        os.sched_yield()
