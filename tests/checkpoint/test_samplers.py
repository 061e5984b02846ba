"""What samplers are asked, told and given back: states of their own, generators, epochs."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
)

from tests.checkpoint.roles import (
    SAMPLES,
    Dice,
    Loader,
    StatefulSampler,
    course_of,
    loader_of,
    plain,
    resumed,
    saved,
    seed_everything,
    state_at,
    undisturbed,
    with_a_stateful_sampler,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


def test_a_stateful_sampler_is_not_asked_again():
    state = state_at(with_a_stateful_sampler, 0, 15)
    loader = with_a_stateful_sampler(0)
    loader.load_state_dict(state)
    list(loader)
    assert loader.sampler.yielded == 10  # type: ignore[attr-defined]


def test_a_sampler_of_ranks_is_put_back_to_its_epoch():
    def make(workers: int) -> Loader:
        dataset = Dice()
        sampler = DistributedSampler(dataset, num_replicas=2, rank=1, seed=4)
        return loader_of(dataset, workers, sampler=sampler, seed=3)

    loader = make(0)
    loader.set_epoch(7)
    iterator = iter(loader)
    before = plain(next(iterator) for _ in range(4))
    state = loader.state_dict()
    whole = before + plain(iterator)
    other = make(2)
    other.load_state_dict(state)
    assert plain(other) == whole[4:]
    assert other.sampler.epoch == 7  # type: ignore[attr-defined]


class ReadingAhead(BatchSampler):
    """A batch sampler that fills a pool of its sampler's indices and sorts it."""

    def __iter__(self) -> Iterator[list[int]]:
        pool: list[int] = []
        for index in self.sampler:
            pool.append(index)
            if len(pool) == 8:
                pool.sort()
                yield from (pool[at : at + 2] for at in range(0, 8, 2))
                pool = []


def test_a_batch_sampler_that_reads_ahead_of_a_stateful_sampler_loses_nothing():
    def make(workers: int) -> Loader:
        sampler = ReadingAhead(StatefulSampler(), 2, drop_last=False)
        return loader_of(Dice(), workers, batch_size=1, batch_sampler=sampler)

    seed_everything(5)
    loader = make(0)
    whole = plain(loader)
    for workers in (0, 2):
        iterator = iter(loader := make(workers))
        before = plain(next(iterator) for _ in range(3))
        state = saved(loader)
        del iterator
        other = make(workers)
        other.load_state_dict(state)
        ids = [int(row[0]) for batch in before + plain(other) for row in batch]
        assert ids == [int(row[0]) for batch in whole for row in batch]


class LiveSampler(StatefulSampler):
    """Its state is its own object, not a copy."""

    def __init__(self, length: int = SAMPLES) -> None:
        super().__init__(length)
        self.state = {"given": 0, "round": 0}

    def __iter__(self) -> Iterator[int]:
        state = self.state
        order = np.random.RandomState(state["round"]).permutation(self.length).tolist()
        while state["given"] < self.length:
            state["given"] += 1
            yield order[state["given"] - 1]
        state.update(given=0, round=state["round"] + 1)

    def state_dict(self) -> dict[str, int]:
        return self.state

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.state.update(state)


def test_a_state_that_its_owner_goes_on_changing_is_kept_as_it_was():
    def make(workers: int) -> Loader:
        return loader_of(Dice(), workers, sampler=LiveSampler())

    for workers in (0, 2):
        course = course_of(make, workers)
        for step in (0, 5):
            state = course.states[step]
            assert resumed(make, workers, state) == [course.epoch[step:], course.after]


def test_two_loaders_that_share_a_generator_are_put_back_together():
    def make(workers: int) -> tuple[Loader, Loader]:
        generator = torch.Generator().manual_seed(3)
        settings = {"shuffle": True, "generator": generator}
        return loader_of(Dice(), workers, **settings), loader_of(Dice(9), workers, **settings)

    training, validation = make(0)
    list(training)
    list(validation)
    iterator = iter(training)
    for _ in range(5):
        next(iterator)
    states = training.state_dict(), validation.state_dict()
    expected = [plain(iterator), plain(validation), plain(training)]
    training, validation = make(2)
    training.generator.seed()  # type: ignore[union-attr]
    training.load_state_dict(states[0])
    validation.load_state_dict(states[1])
    assert [plain(training), plain(validation), plain(training)] == expected


def test_a_generator_that_is_replaced_after_construction_is_the_one_that_counts():
    def make(workers: int) -> Loader:
        loader = loader_of(Dice(), workers, shuffle=True)
        loader.sampler.generator = torch.Generator().manual_seed(8)  # type: ignore[attr-defined]
        return loader

    course = course_of(make, 0)
    assert resumed(make, 2, course.states[5]) == [course.epoch[5:], course.after]


def test_an_epoch_that_could_not_be_begun_can_be_begun_again():
    class Failing(StatefulSampler):
        broken = False

        def __iter__(self) -> Iterator[int]:
            if self.broken:
                raise OSError("the list of samples is away")
            return super().__iter__()

    def make(workers: int) -> Loader:
        return loader_of(Dice(), workers, sampler=Failing())

    _, epoch, _ = undisturbed(make, 0)
    state = state_at(make, 0, 5)
    loader = make(0)
    loader.load_state_dict(state)
    loader.sampler.broken = True  # type: ignore[attr-defined]
    with pytest.raises(OSError, match="away"):
        iter(loader)
    loader.sampler.broken = False  # type: ignore[attr-defined]
    assert plain(loader) == epoch[5:]
