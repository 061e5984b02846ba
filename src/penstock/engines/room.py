"""Workers that wait for more memory for their batch.

    worker: CRAMPED ──> note ──> serve: those in the order of their batches that there is room for
                                  └── nobody can go on ──> stuck: the first of those left

Memory comes back when batches are handed over and dropped. Where no worker can go on and none of
that is to be expected, it is for the epoch to decide what is given up.
"""

from __future__ import annotations

from dataclasses import dataclass

from penstock.engines.crew import Crew, LeasedSeat
from penstock.engines.outbox import Outbox
from penstock.engines.protocol import Cramped, Event
from penstock.engines.resumption import Key
from penstock.schedule import Lease
from penstock.transport.frames import Kind, pack


@dataclass(frozen=True, slots=True)
class _Request:
    """A worker needs so much memory for a slot, at least."""

    seat: LeasedSeat
    lease: Lease
    slot: int
    needed: int


class Room:
    """Who waits for memory, of one engine's workers.

    Args:
        crew: they, and their arena.
        outbox: where to put what is granted.
        is_stream: whether leases are of streams.
    """

    def __init__(self, crew: Crew, outbox: Outbox, *, is_stream: bool) -> None:
        self._crew = crew
        self._outbox = outbox
        self._is_stream = is_stream
        self._requests: dict[Key, _Request] = {}

    def __bool__(self) -> bool:
        return bool(self._requests)

    def note(self, seat: LeasedSeat, key: Key, needed: int) -> None:
        """A worker waits for memory for the batch of a lease that it has."""
        slot, lease = seat.lent[key]
        self._requests[key] = _Request(seat, lease, slot, needed)

    def withdraw(self, key: Key) -> None:
        """A lease is over, or its worker is, whether or not it has waited."""
        self._requests.pop(key, None)

    def clear(self) -> None:
        """Another epoch begins: workers notice themselves that nobody waits for their batches."""
        self._requests.clear()

    def give(self, events: list[Event]) -> None:
        """Has those go on that there is memory for.

        Args:
            events: it is added to them, once, that nobody can go on.
        """
        self.serve()
        self._outbox.flush()
        stuck = self.stuck()
        # Once is enough: by the next time, what follows from it has been ordered.
        if stuck is not None and not any(isinstance(event, Cramped) for event in events):
            events.append(stuck)

    def serve(self) -> None:
        """Has workers go on, as many as there is memory for.

        One batch after another in their order, and what those before it may still take, who have
        not come so far, is spared: a batch that is handed over later must not keep one from being
        made that is handed over before.
        """
        for key in sorted(self._requests, key=lambda key: key[1]):
            request = self._requests[key]
            limit = self._crew.arena.grant(
                request.slot, request.needed, spare=self._wanted_before(request)
            )
            if not limit:
                return
            self._answer(key, limit)

    def _wanted_before(self, request: _Request) -> int:
        """Bytes that batches before one may take still, if they are as large as that is."""
        arena = self._crew.arena
        return sum(
            max(0, request.needed - arena.limit_of(slot))
            for seat in self._crew.seats
            for slot, lease in seat.lent.values()
            if lease.batch < request.lease.batch
        )

    def stuck(self) -> Cramped | None:
        """The first of those who wait, if every worker that has something to do does.

        Or waits for a decision about bad samples, which may not come before that batch does. What
        was taken back gives its memory back once its worker has said so.
        """
        if any(seat.recalled for seat in self._crew.seats):
            return None
        waiting = {request.seat.number for request in self._requests.values()}
        if not waiting or any(
            seat.number not in waiting and self._has_work(seat) for seat in self._crew.seats
        ):
            return None
        first = min(self._requests.values(), key=lambda request: request.lease.batch)
        return Cramped(first.lease, self._crew.arena.fits(first.needed))

    def _has_work(self, seat: LeasedSeat) -> bool:
        # A stream's next batch begins where the one that waits for a decision ends.
        blocked = self._is_stream and seat.withheld
        return not blocked and bool(seat.lent.keys() - seat.withheld)

    def refuse(self, key: Key) -> None:
        """Ends a wait without success, if there is one: the worker is told why."""
        request = self._requests.get(key)
        if request is not None:
            self._answer(key, 0, self._crew.arena.refusal(request.slot, request.needed))

    def _answer(self, key: Key, limit: int, why: str = "") -> None:
        request = self._requests.pop(key)
        epoch, batch, attempt = key
        body = why.encode()
        frame = pack(Kind.GRANT, body, epoch=epoch, batch=batch, attempt=attempt, used=limit)
        self._outbox.put(request.seat, frame)
