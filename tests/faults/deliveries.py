"""What a loader delivers: which samples, and whether each of them is whole."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Callable, Iterable
from typing import Any

import pytest
import torch

import penstock

WORKERS = 2
# What a machine under load may take for what is otherwise done at once.
PATIENCE_S = 30.0


def loader_of(dataset: Any, start_method: str, **options: Any) -> penstock.DataLoader[Any]:
    """A loader with two workers, and of four samples a batch, unless told otherwise."""
    settings = {"batch_size": 4, "num_workers": WORKERS, **options}
    context = start_method if settings["num_workers"] else None
    return penstock.DataLoader(dataset, multiprocessing_context=context, **settings)


def ids_of(batch: torch.Tensor) -> list[int]:
    """The samples of a batch; each of them has to be one number all over."""
    # In NumPy, since a forked child must not use torch's threads, which it does not have.
    numbers = batch.numpy()
    assert (numbers == numbers[:, :1]).all(), "a sample is torn"
    return [int(number) for number in numbers[:, 0]]


def ids(batches: Iterable[torch.Tensor]) -> list[int]:
    """The samples of several batches, in order."""
    return [index for batch in batches for index in ids_of(batch)]


def watched(loader: penstock.DataLoader[Any]) -> tuple[list[int], int]:
    """Its samples, and the most memory that its slots have had, in bytes.

    Each batch is a tensor, or several of the same samples.
    """
    arrived: list[int] = []
    most = 0
    for batch in loader:
        arrived += ids_of(batch if isinstance(batch, torch.Tensor) else batch[0])
        descriptor = loader._workers.run._engine.arena.descriptor
        most = max(most, os.fstat(descriptor).st_blocks * 512)
        del batch
    return arrived, most


def worker_pids() -> list[int]:
    """The workers that this process has now."""
    children = multiprocessing.active_children()
    return [child.pid for child in children if child.pid and "penstock" in child.name]


def variant(start_method: str, *, main: bool) -> None:
    """Skips what varies a test, other than its main case, where only starting workers differs."""
    if start_method != "fork" and not main:
        pytest.skip("a variant, which only the price of an import tells from that under fork")


def wait_until(what: Callable[[], Any], patience_s: float = PATIENCE_S) -> Any:
    """What `what` returns, as soon as that is true."""
    deadline = time.monotonic() + patience_s
    while not (result := what()):
        assert time.monotonic() < deadline, "it never happened"
        time.sleep(0.01)
    return result
