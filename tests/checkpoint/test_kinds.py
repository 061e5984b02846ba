"""Every kind of loader is resumed."""

from __future__ import annotations

import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
)

from tests.checkpoint.roles import (
    SAMPLES,
    Dice,
    IteratorStream,
    Loader,
    Make,
    NumPyShuffle,
    PythonShuffle,
    StatefulSampler,
    StatefulStream,
    course_of,
    loader_of,
    persistent,
    plain,
    saved,
    seed_everything,
    seeded,
    shuffled,
    skipping,
    stateful_stream,
    streamed,
    with_a_stateful_sampler,
    with_generator,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


def with_replacement(workers: int) -> Loader:
    sampler = RandomSampler(range(SAMPLES), replacement=True, num_samples=70)
    return loader_of(Dice(), workers, sampler=sampler)


def weighted(workers: int) -> Loader:
    generator = torch.Generator().manual_seed(4)
    sampler = WeightedRandomSampler([0.1, 0.9] * 20, SAMPLES, generator=generator)
    return loader_of(Dice(), workers, sampler=sampler)


def of_a_subset(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=SubsetRandomSampler(range(3, 30)), drop_last=True)


def with_batch_sampler(workers: int) -> Loader:
    sampler = BatchSampler(RandomSampler(range(SAMPLES)), 3, drop_last=False)
    return loader_of(Dice(), workers, batch_size=1, batch_sampler=sampler)


def one_by_one(workers: int) -> Loader:
    return loader_of(Dice(), workers, batch_size=None)


def drawn_by_python(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=PythonShuffle())


def drawn_by_numpy(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=NumPyShuffle())


def with_few_snapshots(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=StatefulSampler(), snapshot_every_n_steps=4)


def of_a_stateful_stream_with_few_snapshots(workers: int) -> Loader:
    return loader_of(StatefulStream(), workers, snapshot_every_n_steps=3)


def of_a_stateful_iterator(workers: int) -> Loader:
    return loader_of(IteratorStream(), workers)


def skipping_with_drop_last(workers: int) -> Loader:
    dataset = Dice(SAMPLES + 1, bad=(3, 9, 17, 31))
    return loader_of(
        dataset, workers, batch_size=4, shuffle=True, drop_last=True, on_error="skip", max_skipped=4
    )


def with_more_ahead(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True, prefetch_factor=4 if workers else None)


KINDS: list[Make] = [
    shuffled,
    with_generator,
    with_replacement,
    weighted,
    of_a_subset,
    with_batch_sampler,
    one_by_one,
    seeded,
    drawn_by_python,
    drawn_by_numpy,
    with_a_stateful_sampler,
    with_few_snapshots,
    streamed,
    stateful_stream,
    of_a_stateful_stream_with_few_snapshots,
    of_a_stateful_iterator,
    skipping,
    skipping_with_drop_last,
    persistent,
    with_more_ahead,
]


@pytest.mark.parametrize("make", KINDS)
def test_every_kind_of_loader_is_resumed(make):
    for workers, loading in ((0, [2]), (2, [0, 3])):
        course = course_of(make, workers)
        for others in loading:
            for step in (0, 1, 5, len(course.epoch)):
                where = workers, others, step
                seed_everything(77)
                loader = make(others)
                loader.load_state_dict(course.states[step])
                assert plain(loader) == course.epoch[step:], where
                # As if it had never been stopped: what comes next follows from the state alone. But
                # the loader's own dataset has given nothing where workers have copies of it.
                assert {**saved(loader), "dataset": None} == {**course.end, "dataset": None}, where
            assert plain(loader) == course.after, (workers, others)
