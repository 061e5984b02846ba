"""The epoch that datasets and samplers are told of."""

from __future__ import annotations

import pytest
from torch.utils.data import (
    DistributedSampler,
    get_worker_info,
)

from tests.checkpoint.roles import (
    Dice,
    Epochs,
    EpochStream,
    Loader,
    loader_of,
    plain,
    seeded,
    state_at,
    undisturbed,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


@pytest.mark.parametrize("dataset", [Epochs(), EpochStream()], ids=["map-style", "iterable"])
@pytest.mark.parametrize("keeps", [False, True], ids=["fleeting", "persistent"])
def test_the_dataset_is_told_the_epoch_wherever_its_copies_are(dataset, keeps):
    loader = loader_of(dataset, 2, persistent_workers=keeps)
    for epoch in (3, 4):
        loader.set_epoch(epoch)
        assert {number for batch in plain(loader) for number in batch} == {epoch}


@pytest.mark.parametrize("dataset", [Epochs(), EpochStream()], ids=["map-style", "iterable"])
def test_copies_are_told_under_every_start_method(dataset, start_method):
    settings = {"persistent_workers": True, "multiprocessing_context": start_method}
    loader = loader_of(dataset, 1, **settings)
    # A copy made with the first epoch may have been told before it was made; the second tells it.
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
