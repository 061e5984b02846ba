"""Each behaviour is asserted of torch's loader and of ours, side by side."""

from __future__ import annotations

from collections.abc import Iterator
from multiprocessing import resource_sharer
from typing import Any

import pytest
from torch.utils.data import DataLoader as TorchDataLoader

import penstock


@pytest.fixture(params=["torch", "penstock"])
def loader_class(request: pytest.FixtureRequest) -> Iterator[Any]:
    """The loader that a program uses.

    A test that takes it states one outcome, for both. Where they differ on purpose it states both,
    told apart by `roles.is_torchs`, and `docs/differences.md` tells users.
    """
    yield TorchDataLoader if request.param == "torch" else penstock.DataLoader
    if request.param == "torch":
        # A thread that it starts to send tensors of indices. Ours would fork no more beside it.
        resource_sharer.stop(timeout=10)


@pytest.fixture(params=[0, 2], ids=["inline", "workers"])
def workers(request: pytest.FixtureRequest) -> int:
    """How many workers: none, and more than one."""
    count: int = request.param
    return count
