"""Batches copied to page-locked memory by a thread."""

import functools
import gc
import threading
from typing import Any

import pytest
import torch

import penstock
import penstock.loader
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


# States.


@pytest.fixture
def pins_by_copying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has loaders pin as with an accelerator, by an ordinary copy."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: True)
    monkeypatch.setattr(penstock.loader, "PinnedRun", functools.partial(PinnedRun, pin=clone))


def loader_of(workers: int = 2, *, bad: int | None = None, **settings: Any) -> Any:
    images: Any = Images(bad=bad)
    settings = {"batch_size": 4, "shuffle": True, "seed": 5, "pin_memory": True, **settings}
    return penstock.DataLoader(images, num_workers=workers, **settings)


@pytest.mark.usefixtures("pins_by_copying")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_is_of_what_was_handed_over_whatever_was_copied_ahead(workers: int) -> None:
    epoch, after = (firsts(loader) for loader in [loader_of(0)] * 2)
    loader = loader_of(workers, prefetch_factor=4 if workers else None)
    run = iter(loader)
    assert isinstance(run, PinnedRun)
    states = [loader.state_dict()]
    ahead = 0
    for batch in run:
        del batch
        ahead = max(ahead, run._in_flight)
        states.append(loader.state_dict())
    # Otherwise nothing was there that could have been counted too early.
    assert ahead > 0 or not workers
    assert len(states) == 11
    between = loader_of(workers)
    between.load_state_dict(loader.state_dict())
    assert firsts(between) == after
    for step, state in enumerate(states):
        other = loader_of(0)
        other.load_state_dict(state)
        assert firsts(other) == epoch[step:]
    assert firsts(other) == after


@pytest.mark.usefixtures("pins_by_copying")
def test_a_state_may_go_from_a_loader_that_pins_to_one_that_does_not_and_back() -> None:
    epoch = firsts(loader_of(0))
    for pins, others in ((True, False), (False, True)):
        loader = loader_of(pin_memory=pins)
        run = iter(loader)
        assert firsts(next(run) for _ in range(3)) == epoch[:3]
        state = loader.state_dict()
        run.close()
        other = loader_of(pin_memory=others)
        other.load_state_dict(state)
        assert firsts(other) == epoch[3:]


@pytest.mark.usefixtures("pins_by_copying")
def test_a_state_behind_an_error_goes_on_behind_it() -> None:
    loader = loader_of(bad=9, shuffle=False)
    run = iter(loader)
    assert firsts(next(run) for _ in range(2)) == [0, 4]
    before = loader.state_dict()
    with pytest.raises(ValueError, match="sample 9"):
        next(run)
    behind = loader.state_dict()
    run.close()
    for state, expected in ((behind, []), (before, [8])):
        other = loader_of(bad=None, shuffle=False)
        other.load_state_dict(state)
        assert firsts(other) == [*expected, *range(12, 40, 4)]


@pytest.mark.usefixtures("pins_by_copying")
def test_persistent_workers_and_pinned_memory_have_one_state() -> None:
    epochs = [firsts(loader) for loader in [loader_of(0)] * 3]
    loader = loader_of(persistent_workers=True)
    list(loader)
    run = iter(loader)
    assert firsts(next(run) for _ in range(4)) == epochs[1][:4]
    other = loader_of(persistent_workers=True)
    other.load_state_dict(loader.state_dict())
    assert [firsts(other), firsts(other)] == [epochs[1][4:], epochs[2]]
    run.close()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("workers", [0, 2])
def test_a_state_of_page_locked_batches_is_of_what_was_handed_over(workers: int) -> None:
    epoch = firsts(loader_of(0, pin_memory=False))
    loader = loader_of(workers)
    run = iter(loader)
    assert firsts(next(run) for _ in range(3)) == epoch[:3]
    state = loader.state_dict()
    run.close()
    other = loader_of(workers)
    other.load_state_dict(state)
    rest = list(other)
    assert all(batch.is_pinned() for batch in rest)
    assert firsts(rest) == epoch[3:]
