"""Streams within a budget: what they have given takes room, and cannot be given again."""

import mmap

import pytest
import torch

from penstock.errors import MemoryBudgetError
from tests.faults.deliveries import ids, loader_of, wait_until, watched
from tests.faults.roles import Stream

pytestmark = [pytest.mark.timeout(120), pytest.mark.usefixtures("no_leaks")]

LENGTH = 40
MIB = 1 << 20


class UnlikeStreams(Stream):
    """The first worker's samples are large, and begin when another worker has given a small one.

    Args:
        length: see `Stream`.
        path: a file that tells of that.
    """

    def __init__(self, length, path):
        super().__init__(length)
        self.path = path

    def __iter__(self):
        first = torch.utils.data.get_worker_info().id == 0
        for number, sample in enumerate(super().__iter__()):
            if first:
                wait_until(self.path.exists)
            elif number == 1:
                self.path.touch()
            yield sample[:1].expand(1, (54 if first else 8) * MIB // 4).contiguous()


class StreamOfThrees(Stream):
    """Each sample is three tensors, for which there is a slot's memory one after another."""

    def __iter__(self):
        for sample in super().__iter__():
            yield [sample[:1].repeat(12 * MIB // 4) for _ in range(3)]


def run_again(loader, expected, caplog, *, budget, in_order):
    """Reads all of it, in the course of which a stream has to be run again."""
    arrived, most = watched(loader)
    assert sorted(arrived) == sorted(expected)
    assert arrived == expected or not in_order
    assert most <= budget + mmap.PAGESIZE
    assert 1 <= caplog.text.count("begins its stream again") <= 4, "the window is narrowed"
    statistics = loader.statistics()
    assert (statistics.deaths, statistics.restarts) == ((), 0)


def test_row_21_a_stream_is_run_again_where_what_it_gave_takes_the_room(
    start_method, tmp_path, caplog
):
    expected = ids(loader_of(Stream(LENGTH), start_method, batch_size=1))
    options = {"batch_size": None, "prefetch_factor": 8, "memory_budget": 60 * MIB}
    loader = loader_of(UnlikeStreams(LENGTH, tmp_path / "given"), start_method, **options)
    run_again(loader, expected, caplog, budget=60 * MIB, in_order=True)


@pytest.mark.parametrize("in_order", [True, False])
def test_row_21_a_stream_is_run_again_where_another_is_half_made(start_method, in_order, caplog):
    expected = ids(loader_of(Stream(LENGTH), start_method, batch_size=1))
    options = {"batch_size": 1, "memory_budget": 44 * MIB, "in_order": in_order}
    loader = loader_of(StreamOfThrees(LENGTH), start_method, **options)
    run_again(loader, expected, caplog, budget=44 * MIB, in_order=in_order)


def test_row_21_no_stream_is_run_again_where_no_worker_may_be_replaced(start_method, tmp_path):
    options = {"batch_size": None, "prefetch_factor": 8, "memory_budget": 60 * MIB}
    dataset = UnlikeStreams(LENGTH, tmp_path / "given")
    loader = loader_of(dataset, start_method, max_restarts=0, **options)
    with pytest.raises(MemoryBudgetError, match="bytes of shared memory"):
        ids(loader)
