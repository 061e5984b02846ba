"""How many batches a loader fetches ahead, where the program has not said."""

from __future__ import annotations

import copy
import time
from pathlib import Path

import pytest
import torch
from torch.utils.data import Dataset

import penstock
from penstock.takeover.stand_in import StandIn

WORKERS = 2
# Far behind what two batches for each worker reach.
FAR = 40
LENGTH = 60
PATIENCE_S = 20.0

pytestmark = pytest.mark.usefixtures("no_leaks")


class WaitsForALaterOne(Dataset[int]):
    """Sample 0 cannot be made before one that comes far behind it.

    Args:
        mark: a file that says that the later one was made.
        patience_s: how long sample 0 waits for that; it is -1 if it has waited in vain.
    """

    def __init__(self, mark: Path, patience_s: float) -> None:
        self.mark = mark
        self.patience_s = patience_s

    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        if index == FAR:
            self.mark.touch()
        if index:
            time.sleep(0.002)
            return index
        deadline = time.monotonic() + self.patience_s
        while not self.mark.exists():
            if time.monotonic() > deadline:
                return -1
            time.sleep(0.001)
        return 0


def arrived(loader: penstock.DataLoader) -> list[int]:
    return [int(sample) for batch in loader for sample in batch]


@pytest.mark.parametrize("persistent", [False, True])
def test_a_slow_sample_does_not_hold_up_those_behind_it(tmp_path, start_method, persistent):
    mark = tmp_path / "made"
    loader = penstock.DataLoader(
        WaitsForALaterOne(mark, PATIENCE_S),
        num_workers=WORKERS,
        multiprocessing_context=start_method,
        persistent_workers=persistent,
    )
    for _ in range(2):
        assert arrived(loader) == list(range(LENGTH))
        mark.unlink()


@pytest.mark.parametrize("way", ["given", "set"])
def test_no_more_are_fetched_ahead_than_the_program_says(tmp_path, way):
    loader = penstock.DataLoader(
        WaitsForALaterOne(tmp_path / "made", 0.5),
        num_workers=WORKERS,
        prefetch_factor=2 if way == "given" else None,
    )
    if way == "set":
        loader.prefetch_factor = 3
    assert arrived(loader) == [-1, *range(1, LENGTH)]


def test_a_copy_chooses_as_its_original_does(tmp_path):
    dataset = WaitsForALaterOne(tmp_path / "made", PATIENCE_S)
    loader = penstock.DataLoader(dataset, num_workers=WORKERS)
    assert arrived(copy.deepcopy(loader)) == list(range(LENGTH))
    dataset.mark.unlink()
    dataset.patience_s = 0.5
    given = penstock.DataLoader(dataset, num_workers=WORKERS, prefetch_factor=2)
    assert arrived(copy.deepcopy(given)) == [-1, *range(1, LENGTH)]


@pytest.mark.parametrize(("factor", "first"), [(None, 0), (3, -1)])
def test_a_loader_that_is_taken_over_chooses_where_the_program_has_not(tmp_path, factor, first):
    dataset = WaitsForALaterOne(tmp_path / "made", PATIENCE_S if factor is None else 0.5)
    theirs = torch.utils.data.DataLoader(dataset, num_workers=WORKERS, prefetch_factor=factor)
    iterator, _ = StandIn(theirs).begin()
    assert [int(sample) for batch in iterator for sample in batch] == [first, *range(1, LENGTH)]


class Indices(Dataset[int]):
    def __len__(self) -> int:
        return LENGTH

    def __getitem__(self, index: int) -> int:
        return index


def order_behind_a_break(kind: type) -> list[int]:
    loader = kind(
        Indices(), num_workers=WORKERS, shuffle=True, generator=torch.Generator().manual_seed(5)
    )
    for number, _ in enumerate(loader):
        if number == LENGTH * 2 // 3:
            break
    return [int(sample) for batch in loader for sample in batch]


def test_behind_a_break_the_order_is_that_of_torch():
    """A sampler that was asked to its end has moved its generator once more."""
    expected = order_behind_a_break(torch.utils.data.DataLoader)
    assert order_behind_a_break(penstock.DataLoader) == expected
