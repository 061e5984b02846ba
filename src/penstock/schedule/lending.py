"""Who works on what: to which worker a batch is lent, and when.

    lend ──> a worker
      │          │ gone: remove_worker; not wanted any more, or over: give_back
      └──> queue ──lend_queued──> a worker: in the order of batches, probes first

A batch whose worker was killed for want of memory, or that there was no room for beside others, is
*solitary*: it is made while no other is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Generic

from penstock.schedule.batch import Batch, State
from penstock.schedule.lease import Command, Issue, Lease, R
from penstock.schedule.window import Window


class Lending(Generic[R]):
    """Lends the batches of one epoch to the workers present.

    Args:
        batches: those that were taken from the plan and not delivered yet, by number; whoever
            holds them enters and removes them.
        commands: where to enter what is to be sent to a worker.
        window: how many batches may be lent out or waiting for delivery at once.

    Attributes:
        workers: the workers present; what each has been lent, by the batch's number, in order.
    """

    def __init__(
        self, batches: dict[int, Batch[R]], commands: list[Command[R]], window: Window
    ) -> None:
        self._batches = batches
        self._window = window
        self._commands = commands
        self.workers: dict[int, dict[int, Lease]] = {}
        self._queued: list[int] = []
        self._solitary: set[int] = set()

    def lend(self, batch: Batch[R]) -> None:
        """Lends a new batch to the worker with the least to do, or to the one it is pinned to."""
        seat = self._seat_for(batch.pinned)
        if seat is None:
            self._queued.append(batch.lease.batch)
        else:
            self._lend(batch, seat)

    def queue(self, batch: Batch[R]) -> None:
        """Has a batch, in its state of before, wait to be lent once more."""
        self._queued.append(batch.lease.batch)
        if batch.alone:
            self.set_apart(batch)

    def set_apart(self, batch: Batch[R]) -> None:
        """Has nothing be begun beside a batch, until it is over."""
        self._solitary.add(batch.lease.batch)

    def lend_queued(self) -> None:
        """Lends what waits for it, as far as the window and the workers allow."""
        if not self._queued:
            return
        # A probe goes to a worker that has made nothing yet, before it gets anything else to do.
        waiting, self._queued = sorted(self._queued, key=self._turn), []
        begun = (b.lease.count for b in self._batches.values() if b.state is not State.QUEUED)
        room = self._window.size - sum(begun)
        # Workers with one of theirs that waits on: a stream gives its batches in order.
        behind: set[int | None] = set()
        for number in waiting:
            batch = self._batches.get(number)
            if batch is None or batch.state is not State.QUEUED:
                continue
            # With a narrower window the first one always has its turn: others may wait for it.
            too_many = room < 1 and number != min(self._batches)
            if too_many or batch.pinned in behind or not self.may_begin(number):
                self._queued.append(number)
                if batch.pinned is not None:
                    behind.add(batch.pinned)
                continue
            seat = self._seat_for(batch.pinned)
            if batch.lease.probe and batch.fresh in self.workers:
                seat = batch.fresh
            if seat is None:
                self._queued.append(number)
            else:
                self._lend(batch, seat)
                room -= 1

    def may_begin(self, number: int | None = None) -> bool:
        """Whether a batch, or any new one, may be begun beside the solitary ones."""
        if not self._solitary:
            return True
        states = {n: batch.state for n, batch in self._batches.items()}
        if any(states[n] is State.LENT for n in self._solitary):
            return False
        queued = [n for n in self._solitary if states[n] is State.QUEUED]
        if not queued:
            return True
        # The first of all has its turn besides: in order, those that have arrived behind it fill
        # the window until it is delivered.
        return number in (min(queued), min(states)) and not any(
            batch.state is State.LENT and not self._waits(batch) for batch in self._batches.values()
        )

    def _waits(self, batch: Batch[R]) -> bool:
        """Whether a batch that was lent cannot be begun before another is decided on.

        So it is with the next one of a stream. The decision may wait for a solitary batch. Of other
        batches that are pinned one may be made beside that, which is no harm but for the memory.
        """
        return batch.pinned is not None and any(
            other.state is State.OPEN and other.lease.seat == batch.lease.seat
            for other in self._batches.values()
        )

    @property
    def idles(self) -> bool:
        """Whether a worker has nothing to do."""
        return not all(self.workers.values())

    def give_back(self, batch: Batch[R]) -> None:
        """The worker has this lease no more."""
        leases = self.workers.get(batch.lease.seat)
        if leases is not None:
            leases.pop(batch.lease.batch, None)

    def move(self, batch: Batch[R], seat: int) -> None:
        """Another worker has this lease."""
        self.give_back(batch)
        batch.lease = replace(batch.lease, seat=seat)
        if seat in self.workers:
            self.workers[seat][batch.lease.batch] = batch.lease

    def note_over(self, batch: Batch[R]) -> None:
        """The batch needs no worker any more."""
        self._solitary.discard(batch.lease.batch)

    def add_worker(self, seat: int) -> None:
        """A worker is there to be lent batches."""
        self.workers[seat] = {}

    def remove_worker(self, seat: int) -> dict[int, Lease]:
        """A worker is gone; returns what was lent to it, by the batch's number, in order."""
        return self.workers.pop(seat, {})

    def clear(self) -> None:
        """Ends it: nobody is lent anything any more."""
        self._queued.clear()
        self.workers.clear()
        self._solitary.clear()

    def _seat_for(self, pinned: int | None) -> int | None:
        """The worker with the least to do."""
        if pinned is not None:
            return pinned if pinned in self.workers else None
        best, least = None, 1 << 62
        for seat, leases in self.workers.items():
            if len(leases) < least:
                best, least = seat, len(leases)
        return best

    def _lend(self, batch: Batch[R], seat: int) -> None:
        batch.lease.seat = seat
        batch.state = State.LENT
        self.workers[seat][batch.lease.batch] = batch.lease
        self._commands.append(Issue(batch.lease))

    def _turn(self, number: int) -> tuple[bool, int]:
        batch = self._batches.get(number)
        return batch is None or not batch.lease.probe, number
