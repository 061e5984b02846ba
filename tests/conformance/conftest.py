"""Each behaviour is asserted of torch's loader and of ours, side by side."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Iterator
from multiprocessing import resource_sharer
from typing import Any

import pytest
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data.dataloader import _MultiProcessingDataLoaderIter

import penstock


@pytest.fixture(params=["torch", "penstock"])
def loader_class(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The loader that a program uses.

    A test that takes it states one outcome, for both. Where they differ on purpose it states both,
    told apart by `roles.is_torchs`, and `docs/differences.md` tells users.
    """
    if request.param != "torch":
        yield penstock.DataLoader
        return
    with monkeypatch.context() as patch:
        iterators = _watched(patch)
        yield TorchDataLoader
    # Threads of its own stay for a while, and ours would fork no more beside them: those that feed
    # its workers' queues, and one that sends tensors of indices.
    for iterator in list(iterators):
        iterator._shutdown_workers()
    resource_sharer.stop(timeout=10)
    for thread in threading.enumerate():
        if thread.name == "QueueFeederThread":
            thread.join(timeout=10)


def _watched(patch: pytest.MonkeyPatch) -> weakref.WeakSet[Any]:
    """The iterators with workers that torch's loader makes from now on, while there are any."""
    made: weakref.WeakSet[Any] = weakref.WeakSet()
    original = _MultiProcessingDataLoaderIter.__init__

    def noting(self: Any, loader: Any) -> None:
        made.add(self)
        original(self, loader)

    patch.setattr(_MultiProcessingDataLoaderIter, "__init__", noting)
    return made


@pytest.fixture(params=[0, 2], ids=["inline", "workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many workers: none, and more than one."""
    count: int = request.param
    return count
