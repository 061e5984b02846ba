"""Epochs of torch's loaders, run by penstock: above all what does not change."""

from __future__ import annotations

import gc

import psutil
import pytest
import torch
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    SequentialSampler,
    SubsetRandomSampler,
)
from torch.utils.data.dataloader import _BaseDataLoaderIter

import penstock
from tests.takeover.roles import (
    Numbers,
    Pids,
    Stream,
    as_list,
    lists,
    only_place,
    samples,
)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "options",
    [
        {"batch_size": 3, "shuffle": True},
        {"batch_size": 3, "shuffle": True, "drop_last": True},
        {"batch_size": 3, "sampler": SubsetRandomSampler(range(5, 15))},
        {"batch_sampler": BatchSampler(SequentialSampler(range(20)), 6, drop_last=False)},
        {"batch_size": None, "shuffle": True},
        {"batch_size": 4, "collate_fn": as_list},
        {"batch_size": 4, "shuffle": True, "generator": torch.Generator()},
        {"batch_size": 4, "stream": True},
        {"batch_size": 4, "stream": True, "drop_last": True},
        {"batch_size": None, "stream": True},
    ],
)
def test_the_batches_and_the_random_numbers_used_are_those_of_torch(options, workers):
    options = dict(options)
    dataset = Stream() if options.pop("stream", False) else Numbers()

    def two_epochs():
        torch.manual_seed(7)
        if "generator" in options:
            options["generator"].manual_seed(8)
        loader = DataLoader(dataset, num_workers=workers, **options)
        return [lists(loader), lists(loader)], torch.get_rng_state().tolist()

    by_torch = two_epochs()
    with penstock.install() as taken:
        assert two_epochs() == by_torch
    assert only_place(taken).epochs == 2


@pytest.mark.usefixtures("no_leaks")
def test_every_start_method_is_taken_over(start_method):
    with penstock.install() as taken:
        loader = DataLoader(
            Numbers(), batch_size=4, num_workers=2, multiprocessing_context=start_method
        )
        assert samples(loader) == list(range(20))
        del loader
    place = only_place(taken)
    assert (place.epochs, place.workers, place.restarts, place.left) == (1, 2, 0, {})


def test_what_a_loader_is_given_between_two_epochs_holds_from_the_next():
    with penstock.install():
        loader = DataLoader(Numbers(4), batch_size=4, num_workers=1)
        assert lists(loader) == [[0, 1, 2, 3]]
        loader.collate_fn = as_list
        loader.num_workers = 0
        assert next(iter(loader)) == [0, 1, 2, 3]


@pytest.mark.usefixtures("no_leaks")
def test_persistent_workers_serve_every_epoch_and_leave_with_penstock():
    with penstock.install():
        loader = DataLoader(Pids(), batch_size=5, num_workers=1, persistent_workers=True)
        (first,), (second,) = (set(samples(loader)) for _ in range(2))
        assert first == second
        assert psutil.pid_exists(first)
    assert not psutil.pid_exists(first)
    # torch starts its own.
    assert first not in samples(loader)
    del loader


@pytest.mark.usefixtures("no_leaks")
def test_an_iterator_outlives_its_loader():
    with penstock.install():
        iterator = iter(DataLoader(Numbers(), batch_size=4, num_workers=2, persistent_workers=True))
        gc.collect()
        assert samples(iterator) == list(range(20))
        del iterator


@pytest.mark.usefixtures("no_leaks")
def test_an_epoch_that_has_begun_ends_as_it_began():
    loader = DataLoader(Numbers(), batch_size=4, num_workers=2, persistent_workers=True)
    with penstock.install():
        iterator = iter(loader)
        begun = next(iterator).tolist()
    assert begun + samples(iterator) == list(range(20))
    assert isinstance(iter(loader), _BaseDataLoaderIter)
    del loader, iterator


def test_persistent_workers_of_torch_s_stay_torch_s():
    loader = DataLoader(Pids(), batch_size=20, num_workers=1, persistent_workers=True)
    before = lists(loader)
    with penstock.install() as taken:
        assert lists(loader) == before
    assert [reason for reason in only_place(taken).left if "from before" in reason]
