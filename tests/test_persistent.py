"""The one iterator of a loader whose workers live on."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from typing import Any

import psutil
import pytest

import penstock
from penstock.combine import source
from penstock.epoch import EpochRun
from penstock.persistent import RenewedRun
from penstock.pinning import PinnedRun
from penstock.pool import SampleIterator


class Run:
    """Stands for an epoch's run, and notes what it is asked."""

    def __init__(self, *batches: Any) -> None:
        self.batches = iter(batches)
        self.length = len(batches)
        self.asked: list[Any] = []

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return next(self.batches)

    def __len__(self) -> int:
        return self.length

    def ready(self) -> bool:
        self.asked.append("ready")
        return True

    def look_ahead(self) -> bool:
        self.asked.append("look_ahead")
        return True

    def wait_handles(self) -> list[int]:
        self.asked.append("wait_handles")
        return [3, 5]

    def left_s(self, began: float) -> float | None:
        self.asked.append(("left_s", began))
        return 1.5

    def close(self) -> None:
        self.asked.append("close")


class Loader:
    """Stands for the loader that has the workers."""


def renewed(*runs: Any) -> RenewedRun:
    first, *others = runs
    iterator = RenewedRun(first, Loader())
    for run in others:
        iterator.renew(run)
    return iterator


def test_it_iterates_the_epoch_that_was_begun_last():
    iterator = renewed(Run("a0", "a1", "a2"))
    assert next(iterator) == "a0"
    iterator.renew(Run("b0", "b1"))  # type: ignore[arg-type]
    assert iter(iterator) is iterator
    assert list(iterator) == ["b0", "b1"]


def test_it_goes_on_behind_the_end_of_an_epoch():
    iterator = renewed(Run("a0"))
    assert list(iterator) == ["a0"]
    assert list(iterator) == []
    iterator.renew(Run("b0"))  # type: ignore[arg-type]
    assert list(iterator) == ["b0"]


def test_all_else_is_asked_of_the_epoch_that_was_begun_last():
    before, now = Run("a0"), Run("b0", "b1")
    iterator = renewed(before, now)
    assert len(iterator) == 2
    assert iterator.ready() is True
    assert iterator.look_ahead()
    assert iterator.wait_handles() == [3, 5]
    assert iterator.left_s(7.0) == 1.5
    iterator.close()
    assert now.asked == ["ready", "look_ahead", "wait_handles", ("left_s", 7.0), "close"]
    assert before.asked == []


@pytest.mark.parametrize("kind", [EpochRun, PinnedRun, RenewedRun, SampleIterator])
def test_whatever_waits_for_workers_can_be_asked_whether_it_would(kind):
    """Who combines loaders asks any of them, and cannot tell them apart."""
    assert issubclass(kind, source.Run)


def test_it_keeps_its_loader_and_not_the_epochs_before():
    before, loader = Run("a0"), Loader()
    iterator = RenewedRun(before, loader)  # type: ignore[arg-type]
    references = weakref.ref(before), weakref.ref(loader)
    iterator.renew(Run("b0"))  # type: ignore[arg-type]
    del before, loader
    gc.collect()
    assert [reference() is None for reference in references] == [True, False]
    del iterator
    gc.collect()
    assert references[1]() is None


class Module:
    """What a loader's functions belong to, and holds the loader: as in Lightning."""

    def __init__(self, *, keeps: bool) -> None:
        self.loader: Any = penstock.DataLoader(
            range(8),  # type: ignore[arg-type]
            num_workers=2,
            persistent_workers=keeps,
            collate_fn=self.collate,
            multiprocessing_context="fork",
        )
        self.iterator = iter(self.loader)

    def collate(self, samples: list[Any]) -> list[Any]:
        return samples


@pytest.mark.usefixtures("no_leaks")
@pytest.mark.parametrize("keeps", [False, True], ids=["fleeting", "persistent"])
def test_workers_end_with_a_loader_whose_own_functions_hold_it(keeps):
    module = Module(keeps=keeps)
    next(module.iterator)
    pids = module.loader._workers.run._engine.pids()
    assert all(psutil.pid_exists(pid) for pid in pids)
    del module
    gc.collect()
    assert not any(psutil.pid_exists(pid) for pid in pids)


@pytest.mark.usefixtures("no_leaks")
def test_a_state_is_of_the_epoch_that_was_begun_last():
    def make() -> Any:
        return penstock.DataLoader(
            range(12), 2, True, num_workers=1, seed=3, persistent_workers=True
        )  # type: ignore[arg-type]

    loader = make()
    iterator = iter(loader)
    next(iterator)
    assert iter(loader) is iterator
    begun = [next(iterator).tolist() for _ in range(2)]
    state = loader.state_dict()
    rest = [batch.tolist() for batch in iterator]
    other = make()
    other.load_state_dict(state)
    assert [batch.tolist() for batch in other] == rest
    fresh = make()
    fresh.set_epoch(1)
    assert [batch.tolist() for batch in fresh] == begun + rest
