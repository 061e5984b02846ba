"""A loader's state, taken up by another loader: the rest of the epoch, and the epochs after it."""

from __future__ import annotations

import collections
import copy
import json
import multiprocessing
import random
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DistributedSampler,
    RandomSampler,
    SubsetRandomSampler,
    WeightedRandomSampler,
    get_worker_info,
)

import penstock
from penstock.errors import StateError
from tests.checkpoint.roles import (
    SAMPLES,
    CountedDataset,
    Dice,
    Epochs,
    EpochStream,
    IteratorStream,
    NumPyShuffle,
    PythonShuffle,
    StatefulSampler,
    StatefulStream,
    Stream,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

Loader = penstock.DataLoader[Any]
Make = Callable[[int], Loader]


def loader_of(dataset: Any, workers: int, **settings: Any) -> Loader:
    context = "fork" if workers else None
    settings = {"batch_size": 2, "multiprocessing_context": context, **settings}
    return penstock.DataLoader(dataset, num_workers=workers, **settings)


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


def state_at(make: Make, workers: int, step: int) -> dict[str, Any]:
    """The state in the middle of the second epoch, as JSON brings it to another program."""
    seed_everything(5)
    loader = make(workers)
    list(loader)
    iterator: Iterator[Any] = iter(loader)
    for _ in range(step):
        next(iterator)
    state: dict[str, Any] = json.loads(json.dumps(loader.state_dict()))
    return state


def resumed(make: Make, workers: int, state: dict[str, Any]) -> list[list[Any]]:
    """The rest of the epoch, and the next one, in a program that has drawn other numbers."""
    seed_everything(77)
    loader = make(workers)
    loader.load_state_dict(state)
    return [plain(loader), plain(loader)]


def shuffled(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True)


def streamed(workers: int) -> Loader:
    return loader_of(Stream(), workers)


def stateful_stream(workers: int) -> Loader:
    return loader_of(StatefulStream(), workers)


@pytest.mark.parametrize("make", [shuffled, streamed], ids=["map-style", "iterable"])
@pytest.mark.parametrize("workers", [0, 1, 3])
@pytest.mark.timeout(180)
def test_each_step_of_an_epoch_is_resumed_bit_for_bit_with_any_number_of_workers(make, workers):
    _, epoch, after = undisturbed(make, workers)
    assert len(epoch) >= 20
    for step in range(len(epoch) + 1):
        state = state_at(make, workers, step)
        for others in (0, 2, 4):
            assert resumed(make, others, state) == [epoch[step:], after], (step, others)


def with_generator(workers: int) -> Loader:
    generator = torch.Generator().manual_seed(3)
    return loader_of(Dice(), workers, shuffle=True, generator=generator)


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


def seeded(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True, seed=9)


def drawn_by_python(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=PythonShuffle())


def drawn_by_numpy(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=NumPyShuffle())


def with_a_stateful_sampler(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=StatefulSampler())


def with_few_snapshots(workers: int) -> Loader:
    return loader_of(Dice(), workers, sampler=StatefulSampler(), snapshot_every_n_steps=4)


def of_a_stateful_stream_with_few_snapshots(workers: int) -> Loader:
    return loader_of(StatefulStream(), workers, snapshot_every_n_steps=3)


def of_a_stateful_iterator(workers: int) -> Loader:
    return loader_of(IteratorStream(), workers)


def skipping(workers: int) -> Loader:
    dataset = Dice(bad=(3, 9, 17, 31))
    return loader_of(dataset, workers, shuffle=True, on_error="skip", max_skipped=4)


def skipping_with_drop_last(workers: int) -> Loader:
    dataset = Dice(SAMPLES + 1, bad=(3, 9, 17, 31))
    return loader_of(
        dataset, workers, batch_size=4, shuffle=True, drop_last=True, on_error="skip", max_skipped=4
    )


def persistent(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True, persistent_workers=workers > 0)


def with_more_ahead(workers: int) -> Loader:
    return loader_of(Dice(), workers, shuffle=True, prefetch_factor=4 if workers else None)


KINDS: list[Make] = [
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
    for workers, others in ((0, 2), (2, 0), (2, 3)):
        _, epoch, after = undisturbed(make, workers)
        for step in (0, 1, 5, len(epoch)):
            state = state_at(make, workers, step)
            assert resumed(make, others, state) == [epoch[step:], after], (workers, others, step)


def test_a_stream_resumes_under_every_start_method(start_method):
    def make(workers: int) -> Loader:
        context = start_method if workers else None
        return loader_of(StatefulStream(), workers, multiprocessing_context=context)

    _, epoch, after = undisturbed(make, 2)
    for others in (2, 1, 0):
        state = state_at(make, 2, 7)
        assert resumed(make, others, state) == [epoch[7:], after]


def test_persistent_workers_either_way():
    def fleeting(workers: int) -> Loader:
        return loader_of(Dice(), workers, shuffle=True)

    for made, resumes in ((persistent, fleeting), (fleeting, persistent)):
        _, epoch, after = undisturbed(made, 2)
        assert resumed(resumes, 2, state_at(made, 2, 4)) == [epoch[4:], after]


def test_a_state_is_resumed_and_saved_and_resumed_again():
    for make in (shuffled, streamed, skipping):
        _, epoch, after = undisturbed(make, 2)
        state = state_at(make, 2, 4)
        seed_everything(8)
        loader = make(3)
        loader.load_state_dict(state)
        assert loader.state_dict() == state
        iterator = iter(loader)
        some = plain(next(iterator) for _ in range(5))
        assert some == epoch[4:9]
        again = json.loads(json.dumps(loader.state_dict()))
        del iterator
        assert resumed(make, 1, again) == [epoch[9:], after]


@pytest.mark.parametrize("make", [shuffled, with_generator, streamed, persistent])
def test_a_state_before_the_first_batch_and_between_epochs(make):
    epochs = undisturbed(make, 2, epochs=4)
    seed_everything(5)
    loader = make(2)
    fresh = loader.state_dict()
    list(loader)
    list(loader)
    between = loader.state_dict()
    assert resumed(make, 3, fresh) == epochs[:2]
    assert resumed(make, 0, between) == epochs[2:]


def test_a_state_from_inside_the_break_goes_on_behind_the_last_batch():
    _, epoch, after = undisturbed(shuffled, 2)
    seed_everything(5)
    loader = shuffled(2)
    list(loader)
    for number, _ in enumerate(loader):
        if number == 6:
            break
    assert resumed(shuffled, 2, loader.state_dict()) == [epoch[7:], after]


def test_a_program_that_puts_its_generator_back_is_followed():
    """Then what the training loop draws itself decides about the next epochs, as it did."""

    def train(state: Any = None, generator: Any = None, stop: Any = None) -> Any:
        seed_everything(5 if state is None else 77)
        loader = shuffled(2)
        if state is not None:
            torch.set_rng_state(generator)
            loader.load_state_dict(state)
        steps = []
        for epoch in range(3 if state is None else 2):
            for number, batch in enumerate(loader):
                steps.append((batch.tolist(), torch.rand(1).item()))
                if stop == (epoch, number):
                    return steps, loader.state_dict(), torch.get_rng_state()
        return steps

    before, state, generator = train(stop=(1, 4))
    assert before + train(state, generator) == train()


def test_the_programs_generator_is_left_alone():
    state = state_at(shuffled, 0, 3)
    seed_everything(6)
    expected = torch.rand(3).tolist()
    seed_everything(6)
    loader = shuffled(0)
    loader.load_state_dict(state)
    list(loader)
    assert torch.rand(3).tolist() == expected


def test_nothing_that_was_passed_is_read_again():
    state = state_at(shuffled, 0, 15)
    loader = shuffled(0)
    loader.load_state_dict(state)
    rest = plain(loader)
    assert len(loader.dataset.read) == 10  # type: ignore[attr-defined]
    assert sorted(loader.dataset.read) == sorted(int(row[0]) for batch in rest for row in batch)  # type: ignore[attr-defined]


def test_a_stateful_stream_is_not_read_again():
    state = state_at(stateful_stream, 0, 15)
    loader = stateful_stream(0)
    loader.load_state_dict(state)
    list(loader)
    # It counts on from what was counted then, in both epochs.
    assert loader.dataset.pulled == 2 * SAMPLES  # type: ignore[attr-defined]


def test_a_stateful_sampler_is_not_asked_again():
    state = state_at(with_a_stateful_sampler, 0, 15)
    loader = with_a_stateful_sampler(0)
    loader.load_state_dict(state)
    list(loader)
    assert loader.sampler.yielded == 10  # type: ignore[attr-defined]


def test_out_of_order_every_sample_still_comes_once():
    def make(workers: int) -> Loader:
        return loader_of(Dice(), workers, shuffle=True, in_order=False)

    for step in (0, 3, 11, 20):
        seed_everything(5)
        loader = make(3)
        iterator = iter(loader)
        before = plain(next(iterator) for _ in range(step))
        state = json.loads(json.dumps(loader.state_dict()))
        del iterator
        other = make(2)
        other.load_state_dict(state)
        rows = [row for batch in before + plain(other) for row in batch]
        assert sorted(int(row[0]) for row in rows) == list(range(SAMPLES))


def test_skips_before_the_state_count_towards_the_limit():
    def make(most: int) -> Loader:
        dataset = Dice(bad=(0, 1, 20))
        return loader_of(dataset, 2, on_error="skip", max_skipped=most)

    loader = make(2)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    state = loader.state_dict()
    del iterator
    strict, lenient = make(2), make(3)
    strict.load_state_dict(state)
    with pytest.raises(penstock.TooManySkippedError, match="3 of 40"):
        list(strict)
    lenient.load_state_dict(state)
    list(lenient)
    assert [error.index for error in lenient.skipped] == [20]


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


def test_copies_of_a_map_style_dataset_get_their_state_back():
    # With a `worker_init_fn` batches go to the workers in turn, so each copy makes half of them.
    loader = loader_of(CountedDataset(), 2, persistent_workers=True, worker_init_fn=note_worker)
    first = plain(loader)
    iterator = iter(loader)
    for _ in range(10):
        next(iterator)
    state = json.loads(json.dumps(loader.state_dict()))
    made = [kept["dataset"]["made"] for kept in state["position"]["progress"]["copies"]]
    assert made == [30, 30]
    assert sorted(number for batch in first for number in batch) == sorted([*range(1, 21)] * 2)
    del iterator, loader
    other = loader_of(CountedDataset(), 2, worker_init_fn=note_worker)
    other.load_state_dict(state)
    numbers = [number for batch in plain(other) for number in batch]
    # Both copies count on from where they were, which is behind the whole first epoch.
    assert sorted(numbers) == sorted([*range(31, 41)] * 2)


def test_out_of_order_with_skips_every_sample_still_comes_once():
    """Batches that were handed over out of turn give none of their samples away again."""

    def make(workers: int) -> Loader:
        dataset = Dice(24, bad=(0, 1, 2))
        settings = {"in_order": False, "on_error": "skip", "max_skipped": 3}
        return loader_of(dataset, workers, batch_size=4, **settings)

    state = make(0).state_dict()
    iterator = iter(loader := make(0))
    next(iterator)
    state = loader.state_dict()
    del iterator
    # The first batch is still to come, and the last ones have been handed over.
    state["position"]["progress"].update(passed=0, beyond=[1, 4, 5], skipped=0, read=0, donated=[])
    for workers in (0, 2):
        other = make(workers)
        other.load_state_dict(state)
        rows = [row for batch in plain(other) for row in batch]
        handed = [int(row[0]) for row in rows] + [*range(4, 8), *range(16, 24)]
        assert sorted(handed) == list(range(3, 24))


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
        state = json.loads(json.dumps(loader.state_dict()))
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
        _, epoch, after = undisturbed(make, workers)
        for step in (0, 5):
            state = state_at(make, workers, step)
            assert resumed(make, workers, state) == [epoch[step:], after]


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


def test_a_generator_that_is_replaced_after_construction_is_the_one_that_counts():
    def make(workers: int) -> Loader:
        loader = loader_of(Dice(), workers, shuffle=True)
        loader.sampler.generator = torch.Generator().manual_seed(8)  # type: ignore[attr-defined]
        return loader

    _, epoch, after = undisturbed(make, 0)
    assert resumed(make, 2, state_at(make, 0, 5)) == [epoch[5:], after]


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


def test_a_copy_of_a_loader_begins_at_the_same_epoch():
    epochs = undisturbed(seeded, 0)
    loader = seeded(0)
    list(loader)
    assert plain(copy.deepcopy(loader)) == epochs[1]


def test_a_copy_of_a_loader_that_a_state_was_loaded_into_takes_it_up_too():
    _, epoch, _ = undisturbed(seeded, 0)
    loader = seeded(0)
    loader.load_state_dict(state_at(seeded, 0, 5))
    assert plain(copy.deepcopy(loader)) == plain(loader) == epoch[5:]


def test_workers_that_cannot_be_started_leave_the_epoch_to_be_begun():
    dataset = Dice()
    dataset.lines = (line for line in "abc")  # type: ignore[attr-defined]
    settings = {"shuffle": True, "seed": 1, "multiprocessing_context": "spawn"}
    loader = loader_of(dataset, 1, **settings)
    with pytest.raises(penstock.errors.SerializationError):
        iter(loader)
    state = loader.state_dict()
    assert (state["epoch"], state["position"]) == (0, None)
    del dataset.lines  # type: ignore[attr-defined]
    assert plain(loader) == plain(loader_of(Dice(), 0, shuffle=True, seed=1))


def note_worker(number: int) -> None:
    """As programs split a stream: through what the worker is told."""
    get_worker_info().dataset.noted = number  # type: ignore[union-attr]


def test_a_stream_without_workers_goes_on_in_one_that_is_told_of_none():
    def make(workers: int) -> Loader:
        return loader_of(Stream(), workers, worker_init_fn=note_worker)

    _, epoch, after = undisturbed(make, 0)
    assert resumed(make, 2, state_at(make, 0, 5)) == [epoch[5:], after]


def test_a_map_style_dataset_has_its_last_state_however_few_snapshots_are_kept():
    def make(workers: int) -> Loader:
        return loader_of(CountedDataset(), workers, snapshot_every_n_steps=5)

    _, epoch, _ = undisturbed(make, 0)
    assert resumed(make, 0, state_at(make, 0, 4))[0] == epoch[4:]


# The epoch that datasets and samplers are told of.


@pytest.mark.parametrize("dataset", [Epochs(), EpochStream()], ids=["map-style", "iterable"])
@pytest.mark.parametrize("keeps", [False, True], ids=["fleeting", "persistent"])
def test_the_dataset_is_told_the_epoch_wherever_its_copies_are(dataset, keeps, start_method):
    settings = {"persistent_workers": keeps, "multiprocessing_context": start_method}
    loader = loader_of(dataset, 2, **settings)
    for epoch in (3, 4):
        loader.set_epoch(epoch)
        assert {number for batch in plain(loader) for number in batch} == {epoch}


def test_a_loaded_state_tells_the_epoch_as_well():
    loader = loader_of(Epochs(), 0)
    loader.set_epoch(6)
    iterator = iter(loader)
    next(iterator)
    other = loader_of(Epochs(), 2)
    other.load_state_dict(loader.state_dict())
    assert plain(other) == [[6, 6]] * 3


def test_another_epoch_than_that_of_the_state_begins_at_its_beginning():
    state = state_at(seeded, 0, 5)
    loader = seeded(0)
    loader.load_state_dict(state)
    with pytest.warns(UserWarning, match=r"set_epoch\(4\) leaves the loaded state.*epoch 1"):
        loader.set_epoch(4)
    fresh = seeded(0)
    fresh.set_epoch(4)
    assert plain(loader) == plain(fresh)


def test_an_epoch_that_is_chosen_after_loading_is_in_the_next_state():
    def make() -> Loader:
        dataset = Dice()
        sampler = DistributedSampler(dataset, num_replicas=2, rank=1, seed=4)
        return loader_of(dataset, 0, sampler=sampler, seed=3)

    first = make()
    first.set_epoch(2)
    list(first)
    second, third, fresh = make(), make(), make()
    second.load_state_dict(first.state_dict())
    second.set_epoch(5)
    third.load_state_dict(second.state_dict())
    fresh.set_epoch(5)
    assert plain(third) == plain(second) == plain(fresh)


def test_the_epoch_of_the_state_may_be_set_again():
    _, epoch, _ = undisturbed(seeded, 0)
    loader = seeded(0)
    loader.load_state_dict(state_at(seeded, 0, 5))
    loader.set_epoch(1)
    assert plain(loader) == epoch[5:]


# What is refused.


def test_a_state_of_another_loader_is_refused_with_both_values():
    state = shuffled(0).state_dict()
    others = [
        (loader_of(Dice(39), 0, shuffle=True), "dataset length 40.*39"),
        (loader_of(Dice(), 0, shuffle=True, batch_size=3), "batch_size 2.*3"),
        (loader_of(Dice(), 0), "sampler .* 'RandomSampler'.*'SequentialSampler'"),
        (loader_of(Dice(), 0, shuffle=True, drop_last=True), "drop_last False.*True"),
        (loader_of(Dice(), 0, sampler=RandomSampler(Dice(), num_samples=9)), "in an epoch 40.*9"),
        (loader_of(Stream(), 0), "kind of dataset 'map'.*'iterable'"),
        (with_generator(0), "states of 0 generators.*from 1"),
    ]
    for loader, message in others:
        with pytest.raises(StateError, match=message):
            loader.load_state_dict(state)
    with pytest.raises(StateError, match=r"seed 9.*8"):
        loader_of(Dice(), 0, shuffle=True, seed=8).load_state_dict(seeded(0).state_dict())


def test_what_is_no_state_is_refused():
    loader = shuffled(0)
    with pytest.raises(StateError, match="list was given"):
        loader.load_state_dict([])  # type: ignore[arg-type]
    with pytest.raises(StateError, match="'weight'"):
        loader.load_state_dict({"weight": 1})
    with pytest.raises(StateError, match="version 99"):
        loader.load_state_dict({**loader.state_dict(), "penstock": 99})
    with pytest.raises(StateError, match="StatefulDataLoader"):
        loader.load_state_dict({"_iterator_finished": False, "_num_yielded": 3})
    # A framework that knows that loader may write its key into the states of others.
    loader.load_state_dict({**loader.state_dict(), "_iterator_finished": False})


@pytest.mark.parametrize("make", [shuffled, streamed])
def test_a_damaged_state_is_refused_whatever_is_missing(make):
    state = state_at(make, 0, 3)
    places: list[tuple[str, ...]] = [(key,) for key in state if key != "penstock"]
    places += [("position", key) for key in state["position"]]
    places += [("position", "origin", key) for key in state["position"]["origin"]]
    places += [("random", key) for key in state["random"]]
    for *path, key in places:
        damaged = copy.deepcopy(state)
        inner = damaged
        for step in path:
            inner = inner[step]
        del inner[key]
        with pytest.raises(StateError, match=f"damaged: '{key}' is missing"):
            make(0).load_state_dict(damaged)
    state["position"]["progress"]["nonsense"] = 1
    with pytest.raises(StateError, match="damaged, in its progress"):
        make(0).load_state_dict(state)
    with pytest.raises(StateError, match="'random' is of type NoneType"):
        make(0).load_state_dict({**state, "random": None})


def test_a_refused_state_changes_nothing():
    _, epoch, _ = undisturbed(seeded, 0)
    loader = seeded(0)
    list(loader)
    with pytest.raises(StateError):
        loader.load_state_dict(shuffled(0).state_dict())
    assert plain(loader) == epoch


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


@pytest.mark.parametrize("every", [0, -1, 1.5, "x"])
def test_a_count_of_steps_that_is_none_is_refused(every):
    with pytest.raises(penstock.OptionError, match="snapshot_every_n_steps"):
        loader_of(Dice(), 0, snapshot_every_n_steps=every)


class Deaf(Epochs):
    def set_epoch(self, epoch: int) -> None:
        if get_worker_info() is not None:
            raise ValueError(f"epoch {epoch} is not to be had")


@pytest.mark.parametrize("keeps", [False, True], ids=["fleeting", "persistent"])
def test_a_dataset_that_refuses_its_epoch_in_a_worker_says_so_at_once(keeps):
    loader = loader_of(Deaf(), 1, persistent_workers=keeps)
    assert len(plain(loader)) == 4
    loader.set_epoch(3)
    with pytest.raises(ValueError, match=r"epoch 3 is not to be had.*where an epoch"):
        list(loader)
    assert loader.statistics().restarts == 0


class Counted(Dice):
    """Samples that say how many this copy of the dataset has made."""

    def __getitem__(self, index: int) -> torch.Tensor:
        super().__getitem__(index)
        return torch.tensor([index, len(self.read)])


def test_persistent_workers_that_went_on_meanwhile_take_up_a_loaded_state_anew():
    def make() -> Loader:
        return loader_of(Counted(12), 1, persistent_workers=True)

    loader = make()
    state = loader.state_dict()
    first = plain(loader)
    assert plain(loader) != first
    pids = {child.pid for child in multiprocessing.active_children()}
    iterator = iter(loader)
    next(iterator)
    loader.load_state_dict(state)
    assert plain(loader) == first
    assert pids.isdisjoint(child.pid for child in multiprocessing.active_children())
