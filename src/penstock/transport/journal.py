"""What each worker is at, told to the parent without a message.

A worker that is killed has no last word, and one that hangs has none either. So each writes what it
is about to do into its line of a page that the parent has mapped too::

    line of seat 0: epoch  batch  attempt  place  since │ line of seat 1: …
                           └─ -1: nothing  └─ -1: none of its samples

It is evidence, and carries no promise: nothing is handed over by it, since plain Python cannot say
in which order another process sees what is written. What a dead worker wrote is all there. Of a
living one, a line may be read half old and half new: look twice before anything follows from it.
"""

from __future__ import annotations

import mmap
import time
from typing import NamedTuple

_FIELDS = 8
_LINE_BYTES = _FIELDS * 8
_EPOCH, _BATCH, _ATTEMPT, _PLACE, _SINCE_NS = range(5)
_NONE = -1
NO_PLACE = _NONE
# All samples of the lease at once, by one call of the dataset.
AT_ONCE = -2


class Entry(NamedTuple):
    """What a worker is at.

    Attributes:
        epoch: serial number of the epoch, within the life of the workers.
        batch: the lease's batch.
        attempt: the lease's attempt.
        place: the place in the batch whose sample it makes, or `AT_ONCE`; None: none, or it does
            not say.
        since_s: when it began with that, or with the first of several samples that take no time, on
            the clock of `time.monotonic`.
    """

    epoch: int
    batch: int
    attempt: int
    place: int | None
    since_s: float

    @property
    def key(self) -> tuple[int, int, int]:
        """Which lease."""
        return self.epoch, self.batch, self.attempt

    @property
    def one_place(self) -> int | None:
        """The place of the one sample that it makes; None: of more than one, or none."""
        return None if self.place == AT_ONCE else self.place


def journal_bytes(seats: int) -> int:
    """The size of a journal: whole pages."""
    return -(-seats * _LINE_BYTES // mmap.PAGESIZE) * mmap.PAGESIZE


class Journal:
    """All lines, or one of them to write to.

    Args:
        descriptor: the file at whose beginning it lies.
        seats: how many lines it has.
        seat: whose line to write; None: only to read.

    Attributes:
        place: the place alone of that line, at 0: what to set instead of calling `at` where the
            call would be felt. The time stays that of the call before.
    """

    def __init__(self, descriptor: int, seats: int, seat: int | None = None) -> None:
        self._lines = memoryview(mmap.mmap(descriptor, journal_bytes(seats))).cast("q")
        first = (seat or 0) * _FIELDS
        self._own = self._lines[first : first + _FIELDS]
        self.place = self._own[_PLACE : _PLACE + 1]

    # The worker's side.

    def begin(self, epoch: int, batch: int, attempt: int) -> None:
        """A lease is begun."""
        own = self._own
        own[_PLACE] = _NONE
        own[_SINCE_NS] = time.monotonic_ns()
        own[_EPOCH] = epoch
        own[_ATTEMPT] = attempt
        own[_BATCH] = batch

    def at(self, place: int) -> None:
        """The sample of this place is begun, `AT_ONCE`: all; `NO_PLACE`: what follows is none's."""
        own = self._own
        own[_SINCE_NS] = time.monotonic_ns()
        own[_PLACE] = place

    def end(self) -> None:
        """Nothing is begun."""
        self._own[_BATCH] = _NONE

    # The parent's.

    def clear(self, seat: int) -> None:
        """A new worker begins with nothing."""
        self._lines[seat * _FIELDS + _BATCH] = _NONE

    def read(self, seat: int) -> Entry | None:
        """What the worker of a seat is at; None: nothing."""
        first = seat * _FIELDS
        epoch, batch, attempt, place, since_ns = self._lines[first : first + 5].tolist()
        if batch == _NONE:
            return None
        return Entry(epoch, batch, attempt, None if place == _NONE else place, since_ns / 1e9)
