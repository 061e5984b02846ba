"""Iterators of a loader: several at once, one after another, given up, or exhausted."""

from __future__ import annotations

import itertools
import os
from typing import Any

import pytest
import torch
from torch.utils.data import RandomSampler

from tests.conformance.roles import Calls, Numbers, draw_base_seed, flat, lists


def test_each_iter_begins_a_new_epoch(loader_class: Any, workers: int) -> None:
    loader = loader_class(Numbers(4), batch_size=2, num_workers=workers)
    first, second = iter(loader), iter(loader)
    assert first is not second
    assert [next(first).tolist(), next(second).tolist(), next(first).tolist()] == [
        [0, 1], [0, 1], [2, 3]
    ]  # fmt: skip
    assert lists(second) == [[2, 3]]


def test_with_persistent_workers_there_is_one_iterator_that_each_iter_begins_anew(
    loader_class: Any,
) -> None:
    loader = loader_class(Numbers(4), batch_size=2, num_workers=1, persistent_workers=True)
    first = iter(loader)
    assert next(first).tolist() == [0, 1]
    assert iter(loader) is first
    assert lists(first) == [[0, 1], [2, 3]]
    assert iter(loader) is first
    assert next(first).tolist() == [0, 1]


def test_an_iterator_is_its_own_iterator(loader_class: Any, workers: int) -> None:
    batches = iter(loader_class(Numbers(4), batch_size=2, num_workers=workers))
    assert iter(batches) is batches
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3]]


def test_an_iterator_has_the_length_of_its_loader(loader_class: Any, workers: int) -> None:
    assert len(iter(loader_class(Numbers(5), batch_size=2, num_workers=workers))) == 3


def test_an_exhausted_iterator_stays_exhausted(loader_class: Any, workers: int) -> None:
    batches = iter(loader_class(Numbers(4), batch_size=2, num_workers=workers))
    assert len(list(batches)) == 2
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(batches)


def test_loops_over_one_loader_may_be_nested(loader_class: Any, workers: int) -> None:
    loader = loader_class(Numbers(4), batch_size=2, num_workers=workers)
    pairs = [(a[0].item(), b[0].item()) for a in loader for b in loader]
    assert pairs == [(0, 0), (0, 2), (2, 0), (2, 2)]


def test_a_loader_may_be_zipped_with_itself(loader_class: Any, workers: int) -> None:
    torch.manual_seed(3)
    draw_base_seed()
    if workers:
        # The order is drawn as the workers are given their first batches.
        orders = [list(RandomSampler(range(8)))]
        draw_base_seed()
    else:
        draw_base_seed()
        orders = [list(RandomSampler(range(8)))]
    orders.append(list(RandomSampler(range(8))))
    torch.manual_seed(3)
    loader = loader_class(Numbers(8), batch_size=2, shuffle=True, num_workers=workers)
    pairs = [torch.stack(pair) for pair in zip(loader, loader, strict=True)]
    assert torch.cat(pairs, dim=1).tolist() == orders


@pytest.mark.parametrize("persistent", [False, True])
def test_a_loop_that_was_left_does_not_disturb_the_next(
    loader_class: Any, persistent: bool
) -> None:
    loader = loader_class(Numbers(), batch_size=2, num_workers=2, persistent_workers=persistent)
    assert [batch.tolist() for batch in itertools.islice(loader, 2)] == [[0, 1], [2, 3]]
    assert [flat(loader) for _ in range(2)] == [list(range(12))] * 2


def test_persistent_workers_stay_and_others_are_new(loader_class: Any) -> None:
    def pids(persistent: bool) -> list[set[int]]:
        loader = loader_class(
            Calls(lambda index: os.getpid()), num_workers=2, persistent_workers=persistent
        )
        return [set(flat(loader)) for _ in range(2)]

    first, second = pids(True)
    assert first == second
    first, second = pids(False)
    assert not first & second


def test_without_workers_everything_happens_in_the_training_process(loader_class: Any) -> None:
    assert set(flat(loader_class(Calls(lambda index: os.getpid())))) == {os.getpid()}


def test_a_training_loop_may_go_round_by_itself(loader_class: Any, workers: int) -> None:
    loader = loader_class(
        Numbers(4), batch_size=2, num_workers=workers, persistent_workers=workers > 0
    )
    batches, seen = iter(loader), []
    for _ in range(5):
        try:
            batch = next(batches)
        except StopIteration:
            batches = iter(loader)
            batch = next(batches)
        seen.append(batch.tolist())
    assert seen == [[0, 1], [2, 3], [0, 1], [2, 3], [0, 1]]


def test_cycle_and_islice_and_enumerate_take_a_loader(loader_class: Any, workers: int) -> None:
    loader = loader_class(Numbers(4), batch_size=2, num_workers=workers)
    cycled = [batch.tolist() for batch in itertools.islice(itertools.cycle(loader), 3)]
    assert cycled == [[0, 1], [2, 3], [0, 1]]
    assert [(at, len(batch)) for at, batch in enumerate(loader, 1)] == [(1, 2), (2, 2)]
