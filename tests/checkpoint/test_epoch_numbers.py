"""The number of the epoch: told to the loader, to its samplers, or counted."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import BatchSampler, DistributedSampler

import penstock
from penstock.engines import starter
from penstock.errors import WorkerStartError
from tests.checkpoint.roles import (
    Dice,
    Epochs,
    Numbered,
    Secretive,
    SelfCounting,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]

Loader = penstock.DataLoader[Any]


def loader_of(workers: int, dataset: Any = None, **settings: Any) -> Loader:
    context = "fork" if workers else None
    settings = {"batch_size": 4, "multiprocessing_context": context, "seed": 3, **settings}
    dataset = Dice() if dataset is None else dataset
    return penstock.DataLoader(dataset, num_workers=workers, **settings)


def plain(batches: Any) -> list[Any]:
    return [batch.tolist() for batch in batches]


def begun(loader: Loader, batches: int = 3) -> Iterator[Any]:
    """An epoch of which so many batches have been taken."""
    iterator = iter(loader)
    for _ in range(batches):
        next(iterator)
    return iterator


def distributed() -> DistributedSampler[Any]:
    return DistributedSampler(Dice(), num_replicas=2, rank=1, seed=4)


def sampled(kind: str) -> dict[str, Any]:
    """The settings of a loader, of which every sampler can be told the epoch."""
    if kind == "shuffle":
        return {"shuffle": True}
    if kind == "sampler":
        return {"sampler": distributed()}
    batches = BatchSampler(distributed(), 4, drop_last=False)
    if kind == "wrapped":
        batches = Every(batches)
    return {"batch_size": 1, "batch_sampler": batches}


class Every(BatchSampler):
    """Wraps a batch sampler, as frameworks do to divide batches, and has a number of its own."""

    epoch = 0

    def __init__(self, batch_sampler: Any) -> None:
        self.batch_sampler = batch_sampler

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batch_sampler)

    def __len__(self) -> int:
        return len(self.batch_sampler)

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch


KINDS = ["shuffle", "sampler", "batch sampler", "wrapped"]


def sampler_of(loader: Loader) -> Any:
    """The innermost sampler, which gives the order."""
    part: Any = loader.batch_sampler
    while not hasattr(part, "set_epoch") or isinstance(part, Every):
        part = getattr(part, "batch_sampler", None) or part.sampler
    return part


def epochs_by_the_loader(numbers: list[int], kind: str, **settings: Any) -> list[Any]:
    """What a loader gives that is told the numbers itself."""
    loader = loader_of(0, **sampled(kind), **settings)
    told = []
    for number in numbers:
        loader.set_epoch(number)
        told.append(plain(loader))
    return told


@pytest.mark.parametrize("keeps", [False, True], ids=["fleeting", "persistent"])
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("kind", KINDS)
def test_a_loader_goes_to_the_epoch_that_a_sampler_was_told(kind, workers, keeps):
    numbers = [4, 5, 9]
    loader = loader_of(workers, **sampled(kind), persistent_workers=keeps and workers > 0)
    told = []
    for number in numbers:
        sampler_of(loader).set_epoch(number)
        told.append(plain(loader))
    assert told == epochs_by_the_loader(numbers, kind)
    assert told[0] != told[1]


def test_with_an_error_policy_too():
    loader = loader_of(0, Dice(bad=(3,)), shuffle=True, on_error="skip", max_skipped=1)
    other = loader_of(0, Dice(bad=(3,)), shuffle=True, on_error="skip", max_skipped=1)
    loader.sampler.set_epoch(6)
    other.set_epoch(6)
    assert plain(loader) == plain(other)


def test_an_epoch_that_the_loaders_own_sampler_is_told_twice_is_repeated():
    loader = loader_of(0, shuffle=True)
    told = []
    for number in (0, 0, 1, 1):
        loader.sampler.set_epoch(number)
        told.append(plain(loader))
    assert told == epochs_by_the_loader([0, 0, 1, 1], "shuffle")
    # Not told any more, it counts on.
    assert [plain(loader)] == epochs_by_the_loader([2], "shuffle")


@pytest.mark.parametrize("kind", ["shuffle", "sampler"])
def test_what_a_sampler_was_told_is_not_lost_where_an_epoch_could_not_be_begun(kind, monkeypatch):
    loader = loader_of(1, **sampled(kind))
    loader.sampler.set_epoch(3)

    def fail(*_: object, **__: object) -> None:
        raise WorkerStartError("no more processes")

    with monkeypatch.context() as patch:
        patch.setattr(starter, "start_process", fail)
        with pytest.raises(WorkerStartError, match="no more processes"):
            iter(loader)
    assert [plain(loader)] == epochs_by_the_loader([3], kind)


def test_a_sampler_that_was_told_before_its_loader_was_made_counts():
    sampler = distributed()
    sampler.set_epoch(5)
    assert [plain(loader_of(0, sampler=sampler))] == epochs_by_the_loader([5], "sampler")


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("sampler_class", [Numbered, SelfCounting])
def test_a_loader_whose_sampler_was_not_told_counts_by_itself(sampler_class, workers):
    counted = loader_of(workers)
    loader = loader_of(workers, sampler=sampler_class())
    # The second epoch is left in its middle, where the sampler does not go on.
    for batches in (10, 3, 10, 10):
        expected = plain(next(it) for it in [iter(counted)] for _ in range(batches))
        iterator = iter(loader)
        assert plain(next(iterator) for _ in range(batches)) == expected
        if batches == 10:
            # Its end, where the sampler goes on.
            assert next(iterator, None) is None


def test_a_sampler_that_counts_itself_can_be_told_as_well():
    numbers = [2, 7, 7]
    sampler = SelfCounting()
    loader = loader_of(0, sampler=sampler)
    told = []
    for number in numbers:
        sampler.set_epoch(number)
        told.append(plain(loader))
    expected = loader_of(0)
    for number, epoch in zip(numbers, told, strict=True):
        expected.set_epoch(number)
        assert plain(expected) == epoch


@pytest.mark.parametrize("kind", KINDS)
def test_an_epoch_told_while_another_is_under_way_is_the_next(kind):
    # With workers the sampler has given the order by then.
    loader = loader_of(2, **sampled(kind))
    iterator = begun(loader)
    sampler_of(loader).set_epoch(6)
    rest = plain(iterator)
    (first, told) = epochs_by_the_loader([0, 6], kind)
    assert rest == first[3:]
    assert plain(loader) == told


def test_a_sampler_that_is_told_the_epoch_under_way_changes_nothing():
    whole = epochs_by_the_loader([0, 1], "shuffle")
    loader = loader_of(0, shuffle=True)
    iterator = begun(loader, 0)
    # As Lightning does, and once more before the next epoch.
    loader.sampler.set_epoch(0)
    for _ in range(3):
        next(iterator)
    other = loader_of(2, shuffle=True)
    other.load_state_dict(loader.state_dict())
    assert [plain(other), plain(other)] == [whole[0][3:], whole[1]]


@pytest.mark.parametrize("kind", KINDS)
def test_what_a_sampler_was_told_is_in_the_state_before_the_epoch_begins(kind):
    loader = loader_of(0, **sampled(kind))
    list(loader)
    sampler_of(loader).set_epoch(6)
    other = loader_of(2, **sampled(kind))
    other.load_state_dict(json.loads(json.dumps(loader.state_dict())))
    assert [plain(other)] == [plain(loader)] == epochs_by_the_loader([6], kind)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_process_that_counts_epochs_anew_goes_on_with_the_loaded_one(kind, workers):
    whole = epochs_by_the_loader([5, 6, 7], kind)
    loader = loader_of(workers, **sampled(kind))
    sampler_of(loader).set_epoch(5)
    iterator = begun(loader)
    state = json.loads(json.dumps(loader.state_dict()))
    del iterator
    other = loader_of(2 - workers, **sampled(kind))
    other.load_state_dict(state)
    sampler_of(other).set_epoch(0)
    assert plain(other) == whole[0][3:]
    # The loader's own sampler has the loader's number; another's has what it is told.
    first = 1 if kind == "shuffle" else 6
    told = []
    for number in (first, first + 1):
        sampler_of(other).set_epoch(number)
        told.append(plain(other))
    assert told == whole[1:]


def test_behind_a_state_of_between_epochs_a_loader_counts_on():
    loader = loader_of(0, shuffle=True)
    for _ in range(3):
        list(loader)
    other = loader_of(0, shuffle=True)
    other.load_state_dict(loader.state_dict())
    for _ in range(2):
        other.sampler.set_epoch(0)
        assert plain(other) == plain(loader)
    # Until it is told an epoch itself.
    other.set_epoch(1)
    other.sampler.set_epoch(8)
    assert [plain(other)] == epochs_by_the_loader([8], "shuffle")


def test_an_epoch_that_could_not_be_begun_is_still_the_one_that_was_told():
    class Hesitant(DistributedSampler[Any]):
        fails = True

        def __iter__(self) -> Iterator[Any]:
            if self.fails:
                raise ValueError("not yet")
            return super().__iter__()

    sampler = Hesitant(Dice(), num_replicas=2, rank=1, seed=4)
    loader = loader_of(0, sampler=sampler, on_error="skip", max_skipped=1)
    sampler.set_epoch(6)
    with pytest.raises(ValueError, match="not yet"):
        iter(loader)
    sampler.fails = False
    assert [plain(loader)] == epochs_by_the_loader([6], "sampler")


@pytest.mark.parametrize("how", ["deepcopy", "pickle"])
@pytest.mark.parametrize("kind", ["shuffle", "sampler"])
def test_a_copy_of_a_loader_knows_what_its_sampler_was_told(kind, how):
    def duplicate(loader: Loader) -> Loader:
        return copy.deepcopy(loader) if how == "deepcopy" else pickle.loads(pickle.dumps(loader))

    loader = loader_of(0, **sampled(kind))
    sampler_of(loader).set_epoch(6)
    list(loader)
    counts_on = duplicate(loader)
    sampler_of(loader).set_epoch(9)
    assert [plain(duplicate(loader))] == [plain(loader)] == epochs_by_the_loader([9], kind)
    expected = loader_of(0, **sampled(kind))
    expected.set_epoch(6)
    list(expected)
    assert plain(counts_on) == plain(expected)


# The loader is told while an epoch is under way.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_behind_set_epoch_within_an_epoch_is_of_that_epoch(kind, workers):
    def make(workers: int) -> Loader:
        loader = loader_of(workers, **sampled(kind))
        list(loader)
        return loader

    loader = make(workers)
    iterator = begun(loader)
    loader.set_epoch(7)
    state = json.loads(json.dumps(loader.state_dict()))
    undisturbed = [plain(iterator), plain(loader), plain(loader)]
    first, seventh = epochs_by_the_loader([1, 7], kind)
    if kind == "shuffle":
        assert undisturbed[0] == first[3:]
    assert undisturbed[1] == seventh
    other = loader_of(2 - workers, **sampled(kind))
    other.load_state_dict(state)
    assert [plain(other), plain(other), plain(other)] == undisturbed


@pytest.mark.parametrize("workers", [0, 2])
def test_a_dataset_is_told_when_the_epoch_begins_and_not_within_another(workers):
    def make(workers: int) -> Loader:
        return loader_of(workers, Epochs(), batch_size=2, seed=None)

    loader = make(workers)
    loader.set_epoch(4)
    iterator = begun(loader, 1)
    loader.set_epoch(9)
    state = loader.state_dict()
    assert [plain(iterator), plain(loader)] == [[[4, 4]] * 3, [[9, 9]] * 4]
    other = make(2 - workers)
    other.load_state_dict(state)
    assert plain(other) == [[4, 4]] * 3
    # A state of in between has it too.
    third = make(workers)
    third.load_state_dict(other.state_dict())
    assert plain(third) == plain(other) == [[9, 9]] * 4


def test_a_copy_made_in_between_tells_the_epoch_as_well():
    loader = loader_of(0, Epochs(), batch_size=2)
    loader.set_epoch(4)
    iterator = begun(loader, 1)
    loader.set_epoch(9)
    assert plain(copy.deepcopy(loader)) == [[9, 9]] * 4
    assert plain(iterator) == [[4, 4]] * 3


def test_the_epoch_of_a_loaded_state_may_be_set_again_and_is_then_told():
    loader = loader_of(0, Epochs(), batch_size=2)
    iterator = begun(loader, 1)
    state = loader.state_dict()
    assert plain(iterator) == [[-1, -1]] * 3
    other = loader_of(2, Epochs(), batch_size=2)
    other.load_state_dict(state)
    other.set_epoch(0)
    assert plain(other) == [[0, 0]] * 3
    assert other.state_dict()["told"] == 0
    assert other.state_dict()["epoch"] == 1


# A state of a program that told nothing.


@pytest.mark.parametrize("within", [False, True], ids=["between", "within"])
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_that_was_told_nothing_takes_back_what_was_told_here(workers, within):
    def make() -> Loader:
        return loader_of(workers, Epochs(), batch_size=2, sampler=Numbered8())

    loader = make()
    iterator = begun(loader, 1) if within else None
    state = loader.state_dict()
    other = make()
    other.set_epoch(5)
    assert plain(other) == [[5, 5]] * 4
    other.load_state_dict(state)
    assert plain(other) == [[-1, -1]] * (3 if within else 4)
    assert other.dataset.epoch == -1  # type: ignore[attr-defined]
    assert other.sampler.epoch == 0  # type: ignore[attr-defined]
    assert other.state_dict()["told"] is None
    # And so the next epoch.
    assert plain(other) == [[-1, -1]] * 4
    del iterator


class Numbered8(Numbered):
    def __len__(self) -> int:
        return 8

    def __iter__(self) -> Iterator[int]:
        return iter(range(8))


def test_a_dataset_that_does_not_show_its_epoch_keeps_it_and_a_warning_says_so():
    state = loader_of(0, Secretive(), batch_size=2).state_dict()
    loader = loader_of(0, Secretive(), batch_size=2)
    # Nothing was told yet.
    loader.load_state_dict(state)
    loader.set_epoch(5)
    with pytest.warns(UserWarning, match=r"Secretive was told one by set_epoch\(\); it keeps that"):
        loader.load_state_dict(state)
    assert plain(loader) == [[5, 5]] * 4


@pytest.mark.parametrize(("told", "last"), [(("sampler", "loader"), 5), (("loader", "sampler"), 9)])
@pytest.mark.parametrize("kind", ["shuffle", "sampler"])
def test_of_a_loader_and_a_sampler_told_within_an_epoch_the_last_counts(told, last, kind):
    loader = loader_of(0, **sampled(kind))
    iterator = begun(loader)
    for who in told:
        if who == "loader":
            loader.set_epoch(5)
        else:
            loader.sampler.set_epoch(9)
    for _ in iterator:
        pass
    assert [plain(loader)] == epochs_by_the_loader([last], kind)
    assert loader.sampler.epoch == last
