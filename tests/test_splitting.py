"""Batches whose samples take long, made by several workers at once."""

from __future__ import annotations

import copy
import os
import random
import time
from dataclasses import dataclass
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import Dataset, default_collate

import penstock
from penstock.transport.backing import GROWTH_STEP_BYTES

LENGTH = 144
BATCH_SIZE = 12
SLOW_S = 0.005
WORKERS = 2
SEED = 7

pytestmark = pytest.mark.usefixtures("no_leaks")


class Slow(Dataset[dict[str, Any]]):
    """Samples of all kinds that take their time, random numbers among them.

    Args:
        bad: those that cannot be made.
        size: numbers in the array of each.
    """

    def __init__(self, bad: tuple[int, ...] = (), size: int = 8_000) -> None:
        self.bad = bad
        self.size = size

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> dict[str, Any]:
        time.sleep(SLOW_S)
        if index in self.bad:
            raise ValueError(f"sample {index} is bad")
        noise = (torch.rand(3), np.random.rand(2), random.random())
        return {
            "index": index,
            "noise": noise,
            "name": f"näme {index}",
            "image": np.full(self.size, index, np.float32),
            "by": os.getpid(),
        }


def by_whom(batch: dict[str, Any]) -> set[int]:
    """The processes that have made a batch; the batch is the same for any."""
    return set(batch.pop("by").tolist())


def loader_of(dataset: Any, workers: int = WORKERS, **options: Any) -> penstock.DataLoader:
    options = {"batch_size": BATCH_SIZE, "shuffle": True, "seed": SEED, **options}
    return penstock.DataLoader(dataset, num_workers=workers, **options)


def epochs_of(loader: penstock.DataLoader, count: int = 2) -> tuple[list[Any], int]:
    """The batches of some epochs, and how many of them more than one process has made."""
    batches, shared = [], 0
    for _ in range(count):
        for batch in loader:
            shared += len(by_whom(batch)) > 1
            batches.append(batch)
    return batches, shared


def same(one: Any, other: Any) -> bool:
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return torch.equal(one, other) if isinstance(one, torch.Tensor) else bool(one == other)


@pytest.mark.parametrize("persistent", [False, True])
def test_batches_are_the_same_whoever_has_made_their_samples(start_method, persistent):
    expected, _ = epochs_of(loader_of(Slow(), 0))
    loader = loader_of(Slow(), multiprocessing_context=start_method, persistent_workers=persistent)
    batches, shared = epochs_of(loader)
    assert shared > 0
    assert same(batches, expected)


def test_out_of_order_each_sample_comes_once():
    loader = loader_of(Slow(), in_order=False)
    batches, shared = epochs_of(loader, 3)
    assert shared > 0
    indices = [index for batch in batches for index in batch["index"].tolist()]
    assert sorted(indices) == sorted([*range(LENGTH)] * 3)


def test_workers_that_die_amid_their_parts_are_not_noticed(start_method):
    expected, _ = epochs_of(loader_of(Slow(), 0), 3)
    loader = loader_of(Slow(), multiprocessing_context=start_method, persistent_workers=True)
    aim = random.Random(1)
    batches, shared, killed = [], 0, 0
    for _ in range(3):
        for number, batch in enumerate(loader):
            makers = by_whom(batch)
            shared += len(makers) > 1
            batches.append(batch)
            if number % 4 == 3:
                victim = aim.choice(sorted(makers))
                if psutil.pid_exists(victim):
                    psutil.Process(victim).kill()
                    killed += 1
    assert shared > 0
    assert killed > 2
    assert same(batches, expected)


@pytest.mark.parametrize("size", [10, 8_000])
def test_bad_samples_are_left_out_as_of_whole_batches(size):
    dataset = Slow((3, 40, 41), size)
    options: dict[str, Any] = {"on_error": "skip", "max_skipped": None}
    expected, _ = epochs_of(loader_of(dataset, 0, **options))
    loader = loader_of(dataset, **options)
    batches, shared = epochs_of(loader)
    assert shared > 0
    assert same(batches, expected)
    assert sorted(error.index for error in loader.skipped) == [3, 40, 41]


def test_an_error_is_that_of_the_first_bad_sample_of_its_batch():
    loader = loader_of(Slow((30, 27)), shuffle=False)
    for _ in range(2):
        batches, errors = [], []
        iterator = iter(loader)
        while True:
            try:
                batches.append(next(iterator))
            except StopIteration:
                break
            except ValueError as error:
                errors.append(str(error))
        assert len(batches) == LENGTH // BATCH_SIZE - 1
        assert len(errors) == 1
        assert "sample 27 is bad" in errors[0]


def noisy(samples: list[Any]) -> Any:
    """A function that draws, changes its samples, and keeps one."""
    noisy.kept = samples[0]["image"]  # type: ignore[attr-defined]
    for sample in samples:
        sample["image"] += np.float32(torch.rand(()).item())
    return default_collate(samples)


def test_a_collate_function_is_given_what_it_would_be_given(start_method):
    expected, _ = epochs_of(loader_of(Slow(), 0, collate_fn=noisy))
    batches, shared = epochs_of(
        loader_of(Slow(), collate_fn=noisy, multiprocessing_context=start_method)
    )
    assert shared > 0
    assert same(batches, expected)


@dataclass
class Special:
    """What a program has made up itself may not be the same behind a pipe."""

    index: int
    by: int


class SpecialSamples(Slow):
    def __getitem__(self, index: int) -> Any:
        time.sleep(SLOW_S)
        return Special(index, os.getpid())


def listed(samples: list[Special]) -> dict[str, torch.Tensor]:
    return {
        "index": torch.tensor([sample.index for sample in samples]),
        "by": torch.tensor([sample.by for sample in samples]),
    }


def test_samples_of_the_programs_own_classes_stay_where_they_are_made():
    expected, _ = epochs_of(loader_of(SpecialSamples(), 0, collate_fn=listed))
    batches, shared = epochs_of(loader_of(SpecialSamples(), collate_fn=listed))
    assert shared == 0
    assert same(batches, expected)


class WithState(Slow):
    def state_dict(self) -> dict[str, int]:
        return {}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


class AtOnce(Slow):
    def __getitems__(self, indices: list[int]) -> list[Any]:
        return [self[index] for index in indices]


def nothing(_worker: int) -> None:
    pass


@pytest.mark.parametrize(
    ("dataset", "options"),
    [(WithState(), {}), (AtOnce(), {}), (Slow(), {"worker_init_fn": nothing})],
    ids=["a state", "many at once", "worker_init_fn"],
)
def test_what_depends_on_who_makes_a_batch_is_made_by_one(dataset, options):
    batches, shared = epochs_of(loader_of(dataset, **options))
    assert len(batches) == 2 * LENGTH // BATCH_SIZE
    assert shared == 0


def test_with_little_memory_batches_come_all_the_same():
    expected, _ = epochs_of(loader_of(Slow(), 0))
    # Slots have whole mebibytes: with one in the loop, three are left for batches and parts.
    loader = loader_of(Slow(), memory_budget=4 << 20)
    batches = []
    for _ in range(2):
        for batch in loader:
            by_whom(batch)
            batches.append(copy.deepcopy(batch))
            del batch
    assert same(batches, expected)


@pytest.mark.parametrize("persistent", [False, True])
def test_an_epoch_that_is_broken_off_leaves_nothing_behind(persistent):
    loader = loader_of(Slow(), persistent_workers=persistent)
    expected, _ = epochs_of(loader_of(Slow(), 0), 7)
    epochs_of(loader, 1)
    for stop in range(1, 6):
        for number, _ in enumerate(loader, 1):
            if number == stop:
                break
    whole, shared = epochs_of(loader, 1)
    assert shared > 0
    assert same(whole, expected[-len(whole) :])


def test_an_epoch_is_resumed_amid_its_parts():
    expected, _ = epochs_of(loader_of(Slow(), 0), 2)
    loader = loader_of(Slow())
    epochs_of(loader, 1)
    states = []
    for batch in loader:
        by_whom(batch)
        states.append(loader.state_dict())
    for done, state in enumerate(states, 1):
        resumed = loader_of(Slow())
        resumed.load_state_dict(state)
        rest, _ = epochs_of(resumed, 1)
        assert same(rest, expected[LENGTH // BATCH_SIZE + done :])


def test_parts_take_little_memory():
    loader = loader_of(Slow(), persistent_workers=True)
    _, shared = epochs_of(loader)
    assert shared > 0
    arena = loader._workers._engine.arena
    assert any(0 < slot.capacity < GROWTH_STEP_BYTES for slot in arena._slots)
