"""How far workers go ahead, who waits for whom, and for how long."""

from __future__ import annotations

import contextlib
import itertools
import multiprocessing
from collections.abc import Iterator
from typing import Any

import pytest
from torch.utils.data import IterableDataset

from tests.conformance.roles import (
    SOON_S,
    Calls,
    Numbers,
    Recorded,
    end,
    flat,
    is_torchs,
    wait_until,
)


@pytest.mark.parametrize(("count", "prefetch_factor"), [(1, 1), (1, 3), (2, 1), (2, 2)])
def test_what_is_asked_for_ahead_is_what_was_promised(
    loader_class: Any, count: int, prefetch_factor: int
) -> None:
    sampler = Recorded(None)
    loader = loader_class(
        Calls(abs), sampler=sampler, num_workers=count, prefetch_factor=prefetch_factor
    )
    assert sampler.asked == []
    batches = iter(loader)
    for taken in range(6):
        assert len(sampler.asked) == taken + count * prefetch_factor
        assert next(batches).tolist() == [taken]


def test_each_worker_has_two_batches_ahead_by_default(loader_class: Any) -> None:
    sampler = Recorded(None)
    batches = iter(loader_class(Numbers(), batch_size=3, sampler=sampler, num_workers=2))
    assert len(sampler.asked) == 3 * 4
    next(batches)
    # Penstock asks for more where workers would be idle otherwise, as they may be by now.
    asked = len(sampler.asked)
    assert asked == 3 * 5 or (asked > 3 * 5 and not is_torchs(loader_class))


def test_without_workers_a_batch_is_made_when_it_is_asked_for(loader_class: Any) -> None:
    made: list[int] = []
    batches = iter(loader_class(Calls(lambda index: made.append(index) or index), batch_size=2))
    assert made == []
    next(batches)
    assert made == [0, 1]
    next(batches)
    assert made == [0, 1, 2, 3]


class Counted(IterableDataset[int]):
    """Counts what is taken from it, in all processes."""

    def __init__(self) -> None:
        self.pulled = multiprocessing.Value("i", 0)

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            with self.pulled.get_lock():
                self.pulled.value += 1
            yield number


def test_a_stream_is_read_as_far_ahead_as_was_promised(loader_class: Any) -> None:
    dataset = Counted()
    batches = iter(loader_class(dataset, batch_size=3, num_workers=2, prefetch_factor=2))
    for taken in range(4):
        wait_until(lambda taken=taken: dataset.pulled.value == 3 * (taken + 4))
        next(batches)
    wait_until(lambda: dataset.pulled.value == 3 * 8)


def test_workers_begin_with_iter(loader_class: Any) -> None:
    begun = multiprocessing.Event()
    loader = loader_class(Calls(lambda index: begun.set() or index), num_workers=1)
    assert not begun.is_set()
    batches = iter(loader)
    assert begun.wait(SOON_S)
    assert flat(batches) == list(range(12))


class FirstWaits(Numbers):
    """The first sample waits until the program lets it go on."""

    def __init__(self) -> None:
        super().__init__(8)
        self.goes_on = multiprocessing.Event()

    def __getitem__(self, index: int) -> int:
        if index == 0:
            self.goes_on.wait(SOON_S)
        return index


def test_batches_come_as_they_are_completed_where_that_is_asked_for(loader_class: Any) -> None:
    dataset = FirstWaits()
    batches = iter(loader_class(dataset, num_workers=2, in_order=False))
    arrived = [int(next(batches)) for _ in range(2)]
    assert 0 not in arrived
    dataset.goes_on.set()
    arrived += [int(batch) for batch in batches]
    assert sorted(arrived) == list(range(8))


def test_in_order_a_batch_waits_for_those_before_it(loader_class: Any) -> None:
    dataset = FirstWaits()
    loader = loader_class(dataset, num_workers=2, timeout=0.2)
    batches = iter(loader)
    with pytest.raises(RuntimeError, match="timed out"):
        next(batches)
    dataset.goes_on.set()
    arrived: list[int] = []
    while len(arrived) < 8:
        # A busy machine may take longer than that for the others, too.
        with contextlib.suppress(RuntimeError):
            arrived += next(batches).tolist()
    end(batches)
    assert arrived == list(range(8))


@pytest.mark.parametrize(("timeout", "words"), [(1, "1 seconds"), (0.2, "0.2 seconds")])
def test_a_wait_that_is_too_long_ends_with_an_error(
    loader_class: Any, timeout: float, words: str
) -> None:
    dataset = FirstWaits()
    batches = iter(loader_class(dataset, num_workers=1, timeout=timeout))
    with pytest.raises(RuntimeError, match=f"^DataLoader timed out after {words}"):
        next(batches)
    dataset.goes_on.set()
    end(batches)


def test_a_timeout_needs_workers(loader_class: Any) -> None:
    """torch says so when the loader is iterated, by an assertion; ours when it is made."""
    if is_torchs(loader_class):
        with pytest.raises(AssertionError, match="timeout"):
            iter(loader_class(Numbers(), timeout=1))
    else:
        with pytest.raises(ValueError, match="timeout=1 bounds the wait for workers"):
            loader_class(Numbers(), timeout=1)
