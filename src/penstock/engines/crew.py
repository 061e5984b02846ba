"""The workers of one engine, with all that they hold of the machine.

Whatever ends them holds this and not the engine: a finalizer does when a loader, or an iterator, is
dropped, and through its job an engine holds the dataset and the functions of the program, which
may hold the loader themselves. It would then never be dropped.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Sequence

from penstock.engines.job import Job
from penstock.engines.payload import Payload
from penstock.engines.resumption import Key, Resumption
from penstock.engines.seat import LEAVE_S, Seat
from penstock.engines.shared_result import SharedResult
from penstock.engines.vitals import Vitals
from penstock.schedule import Lease
from penstock.transport.arena import Arena


class LeasedSeat(Seat):
    """A seat, and what is lent to the worker in it.

    Attributes:
        lent: each lease, and the slot where its batch goes.
        recalled: those of them that are not wanted any more.
        withheld: those whose worker waits for a decision about bad samples.
        heard: the last epoch in which its worker has answered.
        pieces: slots that the worker reads for a lease, of the parts that it puts together.
        vitals: what was seen of the worker when it was last looked at.
        resumption: where a worker in its place would begin.
    """

    def __init__(self, job: Job, number: int) -> None:
        super().__init__(number)
        self.lent: dict[Key, tuple[int, Lease]] = {}
        self.recalled: set[Key] = set()
        self.withheld: set[Key] = set()
        self.pieces: dict[Key, list[int]] = {}
        self.heard = 0
        self.vitals: Vitals | None = None
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
        # Slots of workers that even SIGKILL has not ended: they may be written to at any time.
        self._beyond_reach: set[int] = set()
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
        """Ends a worker for sure and takes back all that it had; see `Seat.end`."""
        there = seat.process is not None
        code = seat.end(patience_s=patience_s)
        if there and code is None:
            self._beyond_reach.update(slot for slot, _ in seat.lent.values())
            seat.lent.clear()
        # Only now can nobody write to its slots any more.
        while seat.lent:
            _, (slot, _) = seat.lent.popitem()
            self.arena.release_lost(slot)
        while seat.pieces:
            for slot in seat.pieces.popitem()[1]:
                self.arena.release(slot)
        seat.recalled.clear()
        seat.withheld.clear()
        return code

    def recover(self, kept: Sequence[SharedResult] = ()) -> None:
        """Takes back the slots that Ctrl-C has left with nobody, between two epochs.

        Args:
            kept: batches of the epoch that begins.
        """
        lent = self._beyond_reach | {result.slot for result in kept if result.slot is not None}
        for seat in self.seats:
            # A worker that answers in an epoch has answered all that it had of those before: what
            # is still noted of them has been read, and was not dealt with.
            for key in [key for key in seat.lent if key[0] < seat.heard]:
                del seat.lent[key]
                seat.pieces.pop(key, None)
                seat.recalled.discard(key)
                seat.withheld.discard(key)
            lent.update(slot for slot, _ in seat.lent.values())
            lent.update(slot for slots in seat.pieces.values() for slot in slots)
        self.arena.recover(lent)
        for result in kept:
            result.carry_over()

    def close(self) -> None:
        """Ends all workers and gives everything back. Twice does no harm."""
        if self._closed or not self.is_ours:
            return
        self._closed = True
        try:
            self._part()
        except BaseException:
            # Ctrl-C once more, by somebody who does not want to wait for that.
            for seat in self.seats:
                if seat.process is not None:
                    seat.process.kill()
            for seat in self.seats:
                self.hang_up(seat)
                self.end(seat, patience_s=0.0)
            raise
        finally:
            for seat in self.seats:
                seat.words.close()
            if self.payload is not None:
                self.payload.close()
            self.arena.close()

    def _part(self) -> None:
        """Has all workers leave, side by side, and ends those that do not."""
        for seat in self.seats:
            self.hang_up(seat)
        deadline = time.monotonic() + LEAVE_S
        for seat in self.seats:
            self.end(seat, patience_s=max(0.0, deadline - time.monotonic()))
