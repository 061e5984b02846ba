"""Where a worker of a stream would begin that takes another's place."""

from __future__ import annotations

from typing import Any

import pytest

from penstock.engines.protocol import StreamStart
from penstock.engines.resumption import Resumption
from tests.engines.driving import job_of

EPOCH = 1


class Batch:
    """A batch that has arrived; `state` is that of the stream behind it."""

    random = None

    def __init__(self, state: bytes | None = None) -> None:
        self.settled = False
        self._state = state

    def snapshot(self) -> bytes | None:
        return self._state


class Place:
    """One worker's, who is lent the batches of one stream, or of several."""

    def __init__(self, *, seats: int = 1, streams: int = 1, snapshot_every: int = 0) -> None:
        job = job_of([], seats=seats, stream=True, streams=streams, snapshot_every=snapshot_every)
        self.resumption = Resumption(job, 0)
        self.resumption.begin_epoch({})

    def lend(self, batch: int, stream: int = 0) -> None:
        self.resumption.lent((EPOCH, batch, 0), [stream, batch])

    def answer(self, batch: int, position: int, result: Any = None) -> None:
        self.resumption.answered((EPOCH, batch, 0), position, 10 * position, result)

    def make(self, batch: int, position: int, *, stream: int = 0, state: Any = None) -> Batch:
        self.lend(batch, stream)
        made = Batch(state)
        self.answer(batch, position, made)
        return made

    def start(self, stream: int = 0) -> StreamStart:
        return self.resumption.starts()[stream]


@pytest.fixture
def place():
    return Place()


def test_it_begins_behind_all_that_has_arrived(place):
    place.make(0, 4)
    place.make(1, 8)
    assert place.start() == StreamStart(8, seen=80)


def test_a_batch_that_was_taken_back_amid_the_one_before_says_nothing_of_where_the_stream_is(place):
    place.make(0, 4)
    place.lend(1)
    place.lend(2)
    place.answer(2, 6)
    assert place.start() == StreamStart(4, seen=40)


def test_what_was_taken_for_a_batch_that_was_given_up_is_gone(place):
    place.make(0, 4)
    place.lend(1)
    place.answer(1, 7)
    assert place.start() == StreamStart(7, seen=70)


def test_it_is_run_again_behind_what_was_handed_over(place):
    place.make(0, 4).settled = True
    place.make(1, 8)
    place.lend(2)
    place.answer(2, 9)
    place.make(3, 12)
    place.resumption.rewind()
    assert place.start() == StreamStart(4, seen=40)
    place.make(1, 8)
    assert place.start() == StreamStart(8, seen=80)


def test_with_everything_handed_over_it_is_run_again_from_there(place):
    place.make(0, 4).settled = True
    place.resumption.rewind()
    assert place.start() == StreamStart(4, seen=40)


def test_it_is_run_again_where_another_has_taken_a_place_meanwhile(place):
    place.make(0, 4).settled = True
    place.make(1, 8)
    assert place.start() == StreamStart(8, seen=80)
    place.resumption.rewind()
    assert place.start() == StreamStart(4, seen=40)


def test_each_of_several_streams_is_run_again_to_its_own_place():
    place = Place(seats=1, streams=2)
    place.make(0, 4, stream=0).settled = True
    place.make(1, 3, stream=1)
    place.make(2, 8, stream=0)
    place.resumption.rewind()
    assert place.start(0) == StreamStart(4, seen=40)
    assert place.start(1) == StreamStart(0)


def test_the_last_state_that_was_handed_over_is_begun_with():
    place = Place(snapshot_every=1)
    handed_over = place.make(0, 4, state=b"at 4")
    place.make(1, 8, state=b"at 8")
    handed_over.settled = True
    place.resumption.rewind()
    assert place.start() == StreamStart(4, b"at 4", 4, seen=40)


def test_a_new_epoch_begins_anew(place):
    place.make(0, 4).settled = True
    place.make(1, 8)
    place.resumption.begin_epoch({})
    place.resumption.rewind()
    assert place.start() == StreamStart()
