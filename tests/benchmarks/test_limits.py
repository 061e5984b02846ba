from __future__ import annotations

import pytest

from benchmarks.limits import copy_s, independent_processes_s, one_by_one_s
from benchmarks.timing import BATCH_SIZE


def test_whoever_has_nothing_to_do_takes_the_next_job() -> None:
    assert one_by_one_s([4.0] + [1.0] * 40, workers=4) == pytest.approx(11.0)


def test_a_long_job_at_the_end_is_waited_for() -> None:
    assert one_by_one_s([1.0] * 40 + [4.0], workers=4) == pytest.approx(14.0)


def test_no_schedule_is_shorter_than_its_longest_job() -> None:
    assert one_by_one_s([1.0, 100.0, 1.0], workers=8) == 100.0


def test_a_copy_takes_time() -> None:
    assert copy_s(1 << 20, batches=3) > 0


class Counted:
    def __init__(self) -> None:
        import multiprocessing

        self.read = multiprocessing.get_context("fork").Array("i", 4 * BATCH_SIZE)

    def __getitem__(self, index: int) -> int:
        self.read[index] += 1
        return index


def test_independent_processes_share_the_samples_between_them() -> None:
    dataset = Counted()
    assert independent_processes_s(dataset, batches=4) > 0
    # Each process makes the first sample once before it begins.
    assert dataset.read[:] == [3] + [1] * (4 * BATCH_SIZE - 1)


def test_a_process_that_fails_fails_the_limit() -> None:
    class Broken:
        def __getitem__(self, index: int) -> int:
            raise SystemExit(3)

    with pytest.raises(RuntimeError, match="a process of the limit failed"):
        independent_processes_s(Broken(), batches=2)
