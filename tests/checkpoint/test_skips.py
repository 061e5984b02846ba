"""Samples that were skipped, and batches that were handed over out of turn."""

from __future__ import annotations

import pytest

import penstock
from tests.checkpoint.roles import (
    SAMPLES,
    Dice,
    Loader,
    loader_of,
    plain,
    saved,
    seed_everything,
)

pytestmark = [
    pytest.mark.usefixtures("no_leaks"),
    pytest.mark.filterwarnings("ignore:This DataLoader will create:UserWarning"),
]


def test_out_of_order_every_sample_still_comes_once():
    def make(workers: int) -> Loader:
        return loader_of(Dice(), workers, shuffle=True, in_order=False)

    for step in (0, 3, 11, 20):
        seed_everything(5)
        loader = make(3)
        iterator = iter(loader)
        before = plain(next(iterator) for _ in range(step))
        state = saved(loader)
        del iterator
        other = make(2)
        other.load_state_dict(state)
        rows = [row for batch in before + plain(other) for row in batch]
        assert sorted(int(row[0]) for row in rows) == list(range(SAMPLES))


def test_out_of_order_with_skips_every_sample_still_comes_once():
    """Batches that were handed over out of turn give none of their samples away again."""

    def make(workers: int) -> Loader:
        dataset = Dice(24, bad=(0, 1, 2))
        settings = {"in_order": False, "on_error": "skip", "max_skipped": 3}
        return loader_of(dataset, workers, batch_size=4, **settings)

    state = make(0).state_dict()
    iterator = iter(loader := make(0))
    next(iterator)
    state = loader.state_dict()
    del iterator
    # The first batch is still to come, and the last ones have been handed over.
    state["position"]["progress"].update(passed=0, beyond=[1, 4, 5], skipped=0, read=0, donated=[])
    for workers in (0, 2):
        other = make(workers)
        other.load_state_dict(state)
        rows = [row for batch in plain(other) for row in batch]
        handed = [int(row[0]) for row in rows] + [*range(4, 8), *range(16, 24)]
        assert sorted(handed) == list(range(3, 24))


def test_skips_before_the_state_count_towards_the_limit():
    def make(most: int) -> Loader:
        dataset = Dice(bad=(0, 1, 20))
        return loader_of(dataset, 2, on_error="skip", max_skipped=most)

    loader = make(2)
    iterator = iter(loader)
    for _ in range(3):
        next(iterator)
    state = loader.state_dict()
    del iterator
    strict, lenient = make(2), make(3)
    strict.load_state_dict(state)
    with pytest.raises(penstock.TooManySkippedError, match="3 of 40"):
        list(strict)
    lenient.load_state_dict(state)
    list(lenient)
    assert [error.index for error in lenient.skipped] == [20]
