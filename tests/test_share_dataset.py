"""Large lists of a dataset in all of a loader, under every start method."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch
from torch.utils.data import ConcatDataset, IterableDataset, Subset, TensorDataset, get_worker_info

import penstock
from penstock import DataLoader, OptionError
from penstock.engines.shared_lists import LEAST_BYTES

COUNT = 40_000


def many(count=COUNT):
    return [f"/data/photographs/train/{n:012d}.jpg" for n in range(count)]


class Paths:
    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return 64

    def __getitem__(self, index):
        return self.paths[index * 601], type(self.paths).__name__


@pytest.fixture(autouse=True)
def _small_lists_under_fork_too(monkeypatch):
    monkeypatch.setattr("penstock.engines.shared_lists.LEAST_FORKED_BYTES", LEAST_BYTES)


def loader_of(dataset, start_method, **options: Any):
    options = {"batch_size": 8, "num_workers": 2} | options
    return DataLoader(dataset, multiprocessing_context=start_method, **options)


def samples(loader):
    return [pair for texts, types in loader for pair in zip(texts, types, strict=True)]


def expected(kind, paths=None):
    paths = paths or many()
    return [(paths[index * 601], kind) for index in range(64)]


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("persistent", [False, True])
def test_samples_are_the_same_with_and_without(start_method, persistent):
    for share, kind in ((True, "SharedList"), (False, "list")):
        loader = loader_of(
            Paths(many()),
            start_method,
            num_workers=2 if persistent else 1,
            share_dataset=share,
            persistent_workers=persistent,
        )
        for _ in range(2):
            assert samples(loader) == expected(kind)


@pytest.mark.usefixtures("no_leaks")
def test_a_pool_shares_too(start_method):
    for share, kind in ((True, "SharedList"), (False, "list")):
        got = penstock.iterate(
            Paths(many()), 2, multiprocessing_context=start_method, share_dataset=share
        )
        assert [value for _, value in got] == expected(kind)


@pytest.mark.parametrize("value", [None, 1, "yes"])
def test_what_is_no_switch_is_refused(value):
    for make in (DataLoader, penstock.iterate):
        with pytest.raises(OptionError, match=r"share_dataset=.*: give True or False"):
            make(Paths(many()), share_dataset=value)


@pytest.mark.usefixtures("no_leaks")
def test_a_list_that_was_changed_between_epochs_is_never_an_old_one(start_method):
    dataset = Paths(many())
    loader = loader_of(dataset, start_method, num_workers=1)
    other = loader_of(dataset, start_method, num_workers=1)
    assert samples(loader) == expected("SharedList")
    dataset.paths[601] = "another"
    paths = list(dataset.paths)
    assert samples(loader) == samples(other) == expected("SharedList", paths)
    dataset.paths = many(50_000)[::-1]
    assert samples(loader) == expected("SharedList", many(50_000)[::-1])


class Writes:
    """Changes all that it has, in a worker."""

    def __init__(self):
        self.paths = many()
        self.array = np.zeros(300_000)
        self.tensor = torch.zeros(300_000)

    def __len__(self):
        return 16

    def __getitem__(self, index):
        before = (self.paths[5], float(self.array[5]), float(self.tensor[5]))
        self.paths[5] = "mine"
        self.paths.append("more")
        self.array += 1
        self.tensor += 1
        return *before, get_worker_info().id  # type: ignore[union-attr]


@pytest.mark.usefixtures("no_leaks")
def test_what_a_worker_writes_is_its_own(start_method):
    dataset = Writes()
    seen: dict[int, int] = {}
    got = penstock.iterate(dataset, 2, multiprocessing_context=start_method)
    for _, (path, array, tensor, worker) in got:
        times = seen.get(worker, 0)
        seen[worker] = times + 1
        assert path == ("mine" if times else many()[5])
        assert array == tensor == times
    assert dataset.paths == many()
    assert not dataset.array.any()
    assert not dataset.tensor.any()


class Numbers:
    def __init__(self, start):
        self.numbers = list(range(start, start + 150_000))

    def __len__(self):
        return len(self.numbers)

    def __getitem__(self, index):
        return self.numbers[index], isinstance(self.numbers, list)


@pytest.mark.usefixtures("no_leaks")
def test_datasets_made_of_datasets(start_method):
    whole = ConcatDataset([Numbers(0), Numbers(10**6)])
    some = Subset(whole, list(range(0, 300_000, 3)))
    picked = Subset(some, range(0, len(some), 2_000))
    plain = TensorDataset(torch.arange(50), torch.arange(50) * 2)
    numbers, are_lists = zip(*loader_of(picked, start_method), strict=True)
    assert torch.cat(numbers).tolist() == [picked[at][0] for at in range(len(picked))]
    assert torch.cat(are_lists).all()
    assert sum(int(doubled.sum()) for _, doubled in loader_of(plain, start_method)) == 2450


class Holding(Paths):
    """Cannot be pickled."""

    def __init__(self, paths):
        super().__init__(paths)
        self.lock = threading.Lock()


def test_what_can_only_be_inherited_is_and_shares_its_lists():
    assert samples(loader_of(Holding(many()), "fork")) == expected("SharedList")


class Dies(Paths):
    def __init__(self, paths, folder):
        super().__init__(paths)
        self.mark = Path(folder) / "died"

    def __getitem__(self, index):
        if index == 20 and not self.mark.exists():
            self.mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__getitem__(index)


@pytest.mark.usefixtures("no_leaks")
def test_a_worker_in_the_place_of_one_that_died_has_them_too(start_method, tmp_path):
    assert samples(loader_of(Dies(many(), tmp_path), start_method)) == expected("SharedList")
    assert (tmp_path / "died").exists()


@pytest.mark.usefixtures("no_leaks")
def test_a_resumed_loader_has_them_too(start_method):
    first = loader_of(Paths(many()), start_method, shuffle=True, seed=3)
    batches = iter(first)
    for _ in range(3):
        next(batches)
    state = first.state_dict()
    rest = list(batches)
    second = loader_of(Paths(many()), start_method, shuffle=True, seed=3, num_workers=1)
    second.load_state_dict(state)
    assert [list(map(list, batch)) for batch in second] == [list(map(list, b)) for b in rest]


class Lines(IterableDataset[Any]):
    def __init__(self):
        self.lines = many()

    def __iter__(self):
        info: Any = get_worker_info()
        for line in self.lines[info.id : 200 : info.num_workers]:
            yield line, type(self.lines).__name__


@pytest.mark.usefixtures("no_leaks")
def test_streams_share_and_so_do_their_copies(start_method):
    loader = loader_of(Lines(), start_method)
    batches = iter(loader)
    first = [next(batches)]
    state = loader.state_dict()
    del batches
    # One process has the streams of both, each with a copy of the dataset.
    resumed = loader_of(Lines(), start_method, num_workers=1)
    resumed.load_state_dict(state)
    assert sorted(samples([*first, *resumed])) == [(line, "SharedList") for line in many()[:200]]


def proportional_bytes():
    me = psutil.Process()
    return sum(each.memory_full_info().pss for each in [me, *me.children(recursive=True)])


class Touches:
    """Reads a page of each item's."""

    def __init__(self, paths):
        self.paths = paths

    def __len__(self):
        return 8

    def __getitem__(self, index):
        info: Any = get_worker_info()
        total = sum(len(self.paths[at]) for at in range(0, len(self.paths), 20))
        return total, info.id, psutil.Process().memory_full_info().uss


@pytest.mark.skipif(not hasattr(os, "memfd_create"), reason="reads /proc")
def test_a_worker_that_reads_a_list_takes_no_memory_for_it(start_method):
    paths = many(1_000_000)
    # As objects they take about this much, and so they do in each worker that has its own.
    objects_bytes = len(paths) * 90
    taken = {}
    for share in (False, True):
        got = penstock.iterate(
            Touches(paths), 1, multiprocessing_context=start_method, share_dataset=share
        )
        taken[share] = max(value[2] for _, value in got)
    assert taken[False] - taken[True] > objects_bytes / 3
