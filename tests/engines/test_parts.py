"""Parts of batches: made, carried to who puts them together, and given back."""

from __future__ import annotations

import multiprocessing
import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import torch

from penstock.engines.parts import is_plain, may_split
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Died, Done, EpochStart, Failed, PartDone, Started
from penstock.schedule import Lease
from tests.engines.driving import job_of, lease, poll_for


class Arrays:
    """Arrays of a size that goes through a slot, or of one that needs none."""

    def __init__(self, size: int = 500) -> None:
        self.size = size

    def __getitem__(self, index):
        if index == 13:
            raise ValueError("thirteen")
        return np.full(self.size, index, np.int32)


@pytest.fixture
def make(no_leaks, start_method):
    engines = []

    def make(dataset, seats=2):
        engine = ProcessEngine(
            job_of(dataset, seats=seats), context=multiprocessing.get_context(start_method)
        )
        engines.append(engine)
        engine.start()
        engine.begin_epoch(EpochStart(1))
        poll_for(engine, Started, seats)
        return engine

    yield make
    for engine in engines:
        engine.close()
    engines.clear()


def part_of(whole: Lease, part: range, seat: int, attempt: int) -> Lease:
    return replace(whole, part=part, seat=seat, attempt=attempt)


def make_parts(engine: ProcessEngine, whole: Lease) -> tuple[object, ...]:
    """The results of two parts, in order, that two workers have made."""
    middle = len(whole.indices) // 2
    engine.submit(part_of(whole, range(middle), 0, 100))
    engine.submit(part_of(whole, range(middle, len(whole.indices)), 1, 101))
    done = poll_for(engine, PartDone, 2)
    return tuple(event.result for event in sorted(done, key=lambda event: event.seat))


def slots_out(engine: ProcessEngine) -> int:
    return len(engine.arena._slots) - len(engine.arena._free)


@pytest.mark.parametrize("size", [3, 500, 50_000])
def test_a_batch_is_put_together_of_its_parts_and_their_slots_come_back(make, size):
    engine = make(Arrays(size))
    whole = lease(0, [5, 3, 8, 1, 9])
    pieces = make_parts(engine, whole)
    assert all(bool(piece.size) == (size > 3) for piece in pieces)
    engine.submit(replace(whole, attempt=102, pieces=pieces))
    assert slots_out(engine) == 1 + 2 * (size > 3)
    (done,) = poll_for(engine, Done)
    assert slots_out(engine) == bool(done.result.size)
    batch = done.result.open().value
    assert torch.equal(batch, torch.tensor([5, 3, 8, 1, 9]).int()[:, None].expand(5, size))


def test_a_part_that_cannot_be_made_says_so(make):
    engine = make(Arrays())
    engine.submit(part_of(lease(0, [1, 13]), range(1, 2), 0, 100))
    (failed,) = poll_for(engine, Failed)
    assert isinstance(failed.error, ValueError)
    assert slots_out(engine) == 0


def test_what_is_taken_back_gives_its_slots_back_when_its_worker_has_left_off(make):
    engine = make(Arrays())
    whole = lease(0, [1, 2, 3, 4])
    gathering = replace(whole, attempt=102, pieces=make_parts(engine, whole))
    engine.submit(gathering)
    engine.recall(gathering)
    engine.submit(lease(1, [7]))
    (done,) = poll_for(engine, Done)
    assert done.batch == 1
    done.result.discard()
    assert slots_out(engine) == 0


def test_with_the_worker_that_puts_them_together_their_slots_come_back(make):
    engine = make(Arrays())
    whole = lease(0, [1, 2, 3, 4])
    pieces = make_parts(engine, whole)
    os.kill(engine.pids()[0], signal.SIGSTOP)
    engine.submit(replace(whole, attempt=102, pieces=pieces))
    engine.flush()
    assert slots_out(engine) == 3
    os.kill(engine.pids()[0], signal.SIGKILL)
    poll_for(engine, Died)
    assert slots_out(engine) == 0


def test_a_worker_that_is_gone_is_lent_nothing(make):
    """What another has answered may be heard together with its death, and before it."""
    engine = make(Arrays())
    whole = lease(0, [1, 2, 3, 4])
    pieces = make_parts(engine, whole)
    os.kill(engine.pids()[0], signal.SIGKILL)
    poll_for(engine, Died)
    engine.submit(replace(whole, attempt=102, pieces=pieces))
    engine.submit(lease(1, [7]))
    assert slots_out(engine) == 0
    engine.restart(0)
    engine.submit(lease(2, [7]))
    assert [event.batch for event in poll_for(engine, Done)] == [2]


def test_the_slots_of_parts_are_not_given_to_others_while_an_old_epoch_reads_them(make):
    engine = make(Arrays())
    whole = lease(0, [1, 2, 3, 4])
    pieces = make_parts(engine, whole)
    os.kill(engine.pids()[0], signal.SIGSTOP)
    engine.submit(replace(whole, attempt=102, pieces=pieces))
    engine.flush()
    engine.begin_epoch(EpochStart(2))
    assert slots_out(engine) == 3
    os.kill(engine.pids()[0], signal.SIGCONT)
    engine.submit(lease(0, [7]))
    (done,) = poll_for(engine, Done)
    done.result.discard()
    assert slots_out(engine) == 0


@pytest.mark.parametrize(
    "sample",
    [
        1,
        None,
        "text",
        b"bytes",
        np.float32(1),
        np.zeros(3),
        torch.zeros(3),
        [1, (2, {"a": torch.zeros(1)})],
    ],
    ids=repr,
)
def test_what_is_the_same_in_every_process_is_plain(sample):
    assert is_plain(sample)


def hung_on() -> torch.Tensor:
    tensor = torch.zeros(1)
    tensor.meta = "of the program's"  # type: ignore[attr-defined]
    return tensor


class Own(list):
    """A program's own class."""


@pytest.mark.parametrize(
    "sample",
    [
        Own(),
        {"a": object()},
        {(1, 2): 3},
        np.array([None]),
        torch.zeros(1, requires_grad=True),
        torch.zeros(2).to_sparse(),
        torch.nn.Parameter(torch.zeros(1)),
        hung_on(),
        [[[[[[[[[[1]]]]]]]]]],
    ],
    ids=lambda sample: type(sample).__name__,
)
def test_anything_else_is_not(sample):
    assert not is_plain(sample)


@pytest.mark.parametrize(
    "settings", [{"seats": 1}, {"batched": False}, {"own_randomness": False}, {"stream": True}]
)
def test_some_jobs_are_done_by_one_worker_for_each_batch(settings):
    assert may_split(job_of(Arrays(), seats=2))
    assert not may_split(job_of(Arrays(), **{"seats": 2, **settings}))
