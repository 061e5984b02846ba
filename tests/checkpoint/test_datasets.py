"""Datasets that can tell where they are, streams, and the copies of them in workers."""

from __future__ import annotations

import collections
from collections.abc import Iterator
from typing import Any

import pytest
import torch

import penstock
from tests.checkpoint.roles import (
    SAMPLES,
    CountedDataset,
    Loader,
    StatefulStream,
    Stream,
    course_of,
    loader_of,
    note_worker,
    plain,
    resumed,
    saved,
    state_at,
    stateful_stream,
    undisturbed,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


def test_a_stateful_stream_is_not_read_again():
    state = state_at(stateful_stream, 0, 15)
    loader = stateful_stream(0)
    loader.load_state_dict(state)
    list(loader)
    # It counts on from what was counted then, in both epochs.
    assert loader.dataset.pulled == 2 * SAMPLES  # type: ignore[attr-defined]


def test_copies_of_a_map_style_dataset_get_their_state_back():
    # With a `worker_init_fn` batches go to the workers in turn, so each copy makes half of them.
    loader = loader_of(CountedDataset(), 2, persistent_workers=True, worker_init_fn=note_worker)
    first = plain(loader)
    iterator = iter(loader)
    for _ in range(10):
        next(iterator)
    state = saved(loader)
    made = [kept["dataset"]["made"] for kept in state["position"]["progress"]["copies"]]
    assert made == [30, 30]
    assert sorted(number for batch in first for number in batch) == sorted([*range(1, 21)] * 2)
    del iterator, loader
    other = loader_of(CountedDataset(), 2, worker_init_fn=note_worker)
    other.load_state_dict(state)
    numbers = [number for batch in plain(other) for number in batch]
    # Both copies count on from where they were, which is behind the whole first epoch.
    assert sorted(numbers) == sorted([*range(31, 41)] * 2)


def test_a_map_style_dataset_has_its_last_state_however_few_snapshots_are_kept():
    def make(workers: int) -> Loader:
        return loader_of(CountedDataset(), workers, snapshot_every_n_steps=5)

    _, epoch, _ = undisturbed(make, 0)
    assert resumed(make, 0, state_at(make, 0, 4))[0] == epoch[4:]


class CountingStream(StatefulStream):
    """Its state holds a `Counter`, which is a dict and yet not made like one."""

    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "seen": collections.Counter("aab")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        assert state["seen"] == collections.Counter("aab")
        super().load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 2])
def test_objects_in_a_datasets_state_stay_what_they_are(workers):
    loader = loader_of(CountingStream(), workers)
    whole = plain(loader)
    iterator = iter(loader)
    before = plain(next(iterator) for _ in range(4))
    state = loader.state_dict()
    del iterator
    other = loader_of(CountingStream(), workers)
    other.load_state_dict(state)
    assert before + plain(other) == whole


class BadStream(Stream):
    """A stream whose iterator goes on behind a bad sample."""

    def __iter__(self) -> Any:
        return BadIterator(super().__iter__())


class BadIterator:
    def __init__(self, samples: Iterator[torch.Tensor]) -> None:
        self.samples = samples

    def __iter__(self) -> Any:
        return self

    def __next__(self) -> torch.Tensor:
        sample = next(self.samples)
        if sample[0] == 7:
            raise ValueError("7 is bad")
        return sample


@pytest.mark.parametrize("workers", [0, 1])
def test_behind_a_bad_sample_of_a_stream_that_was_raised_it_goes_on(workers):
    def make() -> Loader:
        return loader_of(BadStream(), workers, on_error=lambda error: "raise", max_skipped=None)

    iterator = iter(loader := make())
    while True:
        try:
            next(iterator)
        except ValueError:
            break
    state = loader.state_dict()
    expected = [row[0] for batch in plain(iterator) for row in batch]
    other = make()
    other.load_state_dict(state)
    assert [row[0] for batch in plain(other) for row in batch] == expected


def test_a_stream_without_workers_goes_on_in_one_that_is_told_of_none():
    def make(workers: int) -> Loader:
        return loader_of(Stream(), workers, worker_init_fn=note_worker)

    course = course_of(make, 0)
    assert resumed(make, 2, course.states[5]) == [course.epoch[5:], course.after]


def test_a_stream_that_cannot_be_copied_says_how_it_can_be_resumed():
    class Locked(Stream):
        def __init__(self) -> None:
            super().__init__()
            self.lines = (line for line in "abc")

    state = state_at(lambda workers: loader_of(Locked(), workers), 3, 2)
    other = loader_of(Locked(), 2)
    other.load_state_dict(state)
    with pytest.raises(penstock.errors.SerializationError, match=r"lines.*num_workers=3"):
        list(other)
