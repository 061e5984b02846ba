"""The workers of one engine, with all that they hold of the machine.

Whatever ends them holds this and not the engine: a finalizer does when a loader, or an iterator, is
dropped, and through its job an engine holds the dataset and the functions of the program, which
may hold the loader themselves. It would then never be dropped.
"""

from __future__ import annotations

import os
import select
import time

from penstock.engines.job import Job
from penstock.engines.payload import Payload
from penstock.engines.resumption import Key, Resumption
from penstock.engines.seat import LEAVE_S, Seat
from penstock.transport.arena import Arena


class LeasedSeat(Seat):
    """A seat, and what is lent to the worker in it.

    Attributes:
        slots: where each lease's batch goes.
        resumption: where a worker in its place would begin.
    """

    def __init__(self, job: Job, number: int) -> None:
        super().__init__(number)
        self.slots: dict[Key, int] = {}
        self.resumption = Resumption(job, number)


class Crew:
    """All seats.

    Args:
        seats: theirs.
        arena: where the workers put their batches.

    Attributes:
        seats: as given.
        arena: as given.
        payload: the job on its way to the workers, if it does not travel otherwise.
        poll: reports which of the watched descriptors is ready.
        watched: whose each of them is.
    """

    def __init__(self, seats: list[LeasedSeat], arena: Arena) -> None:
        self.seats = seats
        self.arena = arena
        self.payload: Payload | None = None
        self.poll = select.poll()
        self.watched: dict[int, LeasedSeat] = {}
        self._owner = os.getpid()
        self._closed = False

    @property
    def is_ours(self) -> bool:
        """Whether this process made it; one that was forked since must leave it alone."""
        return os.getpid() == self._owner

    def watch(self, seat: LeasedSeat) -> None:
        """Looks for replies of a worker that was started, and for its death."""
        for fd in seat.handles:
            self.watched[fd] = seat
            self.poll.register(fd, select.POLLIN)

    def watch_for_room(self, seat: LeasedSeat, fd: int) -> None:
        """Looks for room in the pipe to a worker."""
        if fd not in self.watched:
            self.watched[fd] = seat
            self.poll.register(fd, select.POLLOUT)

    def unwatch(self, fd: int) -> None:
        """Looks no more at a descriptor, if it did."""
        if self.watched.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def hang_up(self, seat: LeasedSeat) -> None:
        """Closes the pipes to a worker, which makes it leave."""
        if seat.channel is not None:
            for fd in (*seat.handles, seat.channel.write_fd):
                self.unwatch(fd)
        seat.hang_up()

    def end(self, seat: LeasedSeat, *, patience_s: float) -> int | None:
        """Ends a worker for sure, takes back all that it had, and returns its exit code."""
        code = seat.end(patience_s=patience_s)
        # Only now can nobody write to its slots any more.
        for slot in seat.slots.values():
            self.arena.release(slot)
        seat.slots.clear()
        return code

    def close(self) -> None:
        """Ends all workers and gives everything back. Twice does no harm."""
        if self._closed or not self.is_ours:
            return
        self._closed = True
        # All pipes first, so that the workers leave side by side.
        for seat in self.seats:
            self.hang_up(seat)
        deadline = time.monotonic() + LEAVE_S
        for seat in self.seats:
            self.end(seat, patience_s=max(0.0, deadline - time.monotonic()))
        if self.payload is not None:
            self.payload.close()
        self.arena.close()
