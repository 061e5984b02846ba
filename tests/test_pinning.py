"""Batches copied to page-locked memory by a thread."""

import gc
import threading
from typing import Any

import pytest
import torch

import penstock
from penstock.epoch import EpochRun
from penstock.errors import ClosedError
from penstock.pinning import COPIES_AHEAD, PinnedRun

pytestmark = pytest.mark.usefixtures("no_leaks")


class Images:
    def __init__(self, length: int = 40, bad: int | None = None) -> None:
        self.length = length
        self.bad = bad

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        if index == self.bad:
            raise ValueError("bad")
        return torch.full((3, 64, 64), index)


def clone(batch: Any, device: Any) -> Any:
    """Stands for the copy where there is no device to pin for."""
    return batch.clone()


def run_of(pin: Any = clone, **options: Any) -> PinnedRun:
    images = Images(bad=options.pop("bad", None))
    run = iter(penstock.DataLoader(images, batch_size=4, num_workers=2, **options))  # type: ignore[arg-type]
    assert isinstance(run, EpochRun)
    return PinnedRun(run, pin=pin)


def firsts(batches: Any) -> list[int]:
    return [int(batch[0, 0, 0, 0]) for batch in batches]


def test_every_batch_is_copied_by_the_thread_in_order():
    threads = set()

    def pin(batch: Any, device: Any) -> Any:
        threads.add(threading.current_thread().name)
        return batch.clone()

    assert firsts(run_of(pin)) == list(range(0, 40, 4))
    assert threads == {"penstock-pin-memory"}


def test_an_error_comes_in_its_turn_and_the_rest_behind_it():
    run = run_of(bad=9)
    assert firsts([next(run), next(run)]) == [0, 4]
    with pytest.raises(ValueError, match="sample 9"):
        next(run)
    assert firsts(run) == list(range(12, 40, 4))


def test_an_error_of_the_copy_is_raised_where_the_batch_was():
    def pin(batch: Any, device: Any) -> Any:
        if batch[0, 0, 0, 0] == 8:
            raise MemoryError("no page-locked memory")
        return batch.clone()

    run = run_of(pin)
    assert firsts([next(run), next(run)]) == [0, 4]
    with pytest.raises(MemoryError, match="no page-locked memory"):
        next(run)
    assert firsts(run) == list(range(12, 40, 4))


def test_no_more_is_copied_ahead_than_promised():
    ahead = threading.Semaphore(0)
    copies = []

    def pin(batch: Any, device: Any) -> Any:
        copies.append(int(batch[0, 0, 0, 0]))
        ahead.release()
        return batch.clone()

    run = run_of(pin, prefetch_factor=5)
    next(run)
    while run._run.ready() and run._in_flight < COPIES_AHEAD:
        run._send_ready()
    for _ in range(1 + run._in_flight):
        assert ahead.acquire(timeout=10)
    assert len(copies) <= 1 + COPIES_AHEAD


def test_a_dropped_iterator_ends_its_thread_and_its_workers():
    run = run_of()
    next(run)
    thread = run._thread
    del run
    gc.collect()
    thread.join(10)
    assert not thread.is_alive()


def test_close_ends_the_thread_and_says_so_afterwards():
    run = run_of()
    next(run)
    run.close()
    assert not run._thread.is_alive()
    with pytest.raises(ClosedError):
        next(run)


def test_without_an_accelerator_it_is_warned_of_as_torch_does(monkeypatch):
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
    loader = penstock.DataLoader(Images(), batch_size=4, pin_memory=True)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="no accelerator is found"):
        assert firsts(loader) == list(range(0, 40, 4))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_batches_are_page_locked():
    loader = penstock.DataLoader(Images(), batch_size=4, num_workers=2, pin_memory=True)  # type: ignore[arg-type]
    assert all(batch.is_pinned() for batch in loader)
