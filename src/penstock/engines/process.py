"""Leases in worker processes: the parent's side.

    submit ──frame──> pipe ──> worker ──> pipe ──frame──> poll ──> Done | Withheld | Failed | …
       └─ slot from the arena, which comes back with the lease's last word or the worker's death

No thread watches the workers: whoever waits for a batch waits for their replies and their deaths.
"""

from __future__ import annotations

import contextlib
import pickle
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext
from typing import cast

from penstock.engines.crew import Crew, LeasedSeat
from penstock.engines.death import Coroner
from penstock.engines.early import EarlyEpoch, first_leases
from penstock.engines.hearing import Hearing, fault_of
from penstock.engines.job import Job
from penstock.engines.launch import start_errors
from penstock.engines.outbox import Outbox
from penstock.engines.oversight import Oversight
from penstock.engines.protocol import (
    EpochStart,
    Event,
    Failed,
    Guess,
    StreamStart,
)
from penstock.engines.replies import order_of
from penstock.engines.room import Room
from penstock.engines.seat import LEAVE_S
from penstock.engines.shared_lists import SharedLists
from penstock.engines.shared_result import SharedResult
from penstock.engines.starter import Starter
from penstock.errors import ClosedError, SerializationError, WireError
from penstock.schedule import Fill, Lease
from penstock.transport.arena import Arena
from penstock.transport.budget import Budget
from penstock.transport.channel import SPIN_BELOW_S, SPIN_S, ChannelClosed, look_out
from penstock.transport.codec import dump_by_value, encode
from penstock.transport.frames import Kind, pack
from penstock.transport.journal import Entry, Journal, journal_bytes
from penstock.transport.memory import RecentKills

# Batches that the user may hold in shared memory; for more, private copies are made.
HELD_SLOTS = 4


class ProcessEngine:
    """An `Engine` of worker processes.

    Args:
        job: what is to be done.
        context: the start method, or None to choose one.
        seed: torch's base seed, from which workers seed their generators.
        memory_budget: bytes that batches may take; None: what the machine has left.
        lists: lists in the dataset that workers share; None: each has its own.
        portable: whether to do without Linux's memfd.

    Raises:
        WorkerStartError: there is no memory or no descriptor for what workers share.

    Attributes:
        arena: where workers put their batches.
        crew: what ends them without this engine.
    """

    def __init__(
        self,
        job: Job,
        *,
        context: BaseContext | None = None,
        seed: int = 0,
        memory_budget: int | None = None,
        lists: SharedLists | None = None,
        portable: bool = False,
    ) -> None:
        self._job = job
        with start_errors("the workers"):
            self.arena = Arena(
                most_lent=HELD_SLOTS,
                head_bytes=journal_bytes(job.seats),
                budget=Budget(memory_budget),
                portable=portable,
            )
            try:
                self._journal = Journal(self.arena.descriptor, job.seats)
            except BaseException:
                self.arena.close()
                raise
        self._seats = [LeasedSeat(job, number) for number in range(job.seats)]
        self.crew = Crew(self._seats, self.arena)
        self._starter = Starter(job, context, seed, self.crew, lists)
        kills = RecentKills()
        self._coroner = Coroner(job, self.crew, self._journal, kills)
        self._oversight = Oversight(self.crew, self._journal, kills, job.sample_timeout_s)
        self._serial = 0
        self._epoch = EpochStart(0)
        # What is to be reported next.
        self._events: list[Event] = []
        self._outbox = Outbox(self.crew)
        self._room = Room(self.crew, self._outbox, is_stream=job.stream)
        self._early = EarlyEpoch(self.arena)
        self._hearing = Hearing(self.arena, self._early, self._room, is_stream=job.stream)

    @property
    def seats(self) -> int:
        """How many workers."""
        return len(self._seats)

    def start(self) -> None:
        """Starts the workers, and waits for none of them.

        Raises:
            SerializationError: the dataset cannot travel to them.
            WorkerStartError: the system would not start one.
        """
        try:
            with start_errors("the workers"):
                self._starter.prepare()
            for seat in self._seats:
                self._launch(seat)
        except BaseException:
            self.close()
            raise

    def _launch(self, seat: LeasedSeat) -> None:
        self._journal.clear(seat.number)
        seat.take(*self._starter.start(seat.number))
        self.crew.watch(seat)
        if self._serial:
            self._send_begin(seat, seat.resumption.starts())
            self.flush()

    def anticipate(self, guess: Guess) -> None:
        """See `Engine.anticipate`."""
        self._check_owner()
        idle = all(seat.ready and not seat.lent for seat in self._seats)
        if self._early.refuses or not idle or not self.arena.can_spare(len(guess.batches)):
            return
        serial = self._serial + 1
        self._early.begin(serial, guess, frozenset(seat.pid for seat in self._seats))
        body = self._serialised(guess.start)
        for seat in self._seats:
            self._outbox.put(seat, pack(Kind.BEGIN, body, epoch=serial))
        for lease in first_leases(guess, self.seats):
            self._lend(lease, serial)
        self.flush()

    @property
    def anticipated(self) -> int:
        """See `Engine.anticipated`."""
        return self._early.batches

    def begin_epoch(self, start: EpochStart, first: Sequence[Sequence[object]] = ()) -> int:
        """See `Engine.begin_epoch`."""
        self._check_owner()
        self._serial, begun = self._early.open(self._serial, start, first)
        self._hearing.serial = self._serial
        self._epoch = start
        self._events.clear()
        self._room.clear()
        # With the slots of what was just dropped.
        self.crew.recover(self._early.results)
        for seat in self._seats:
            stale = seat.resumption.took_up
            told = seat.resumption.begin_epoch(start.starts)
            if seat.channel is None or stale:
                # The epoch before ended with the death of its worker, or was the only one that the
                # worker's copy is good for.
                self.crew.hang_up(seat)
                self.crew.end(seat, patience_s=LEAVE_S if stale else 0.0)
                self._launch(seat)
            elif seat.pid not in begun:
                self._send_begin(seat, told)
        self.flush()
        return self._early.begun

    @property
    def is_ours(self) -> bool:
        """Whether this process made it; one that was forked since must leave it alone."""
        return self.crew.is_ours

    def _check_owner(self) -> None:
        if not self.is_ours:
            raise ClosedError(
                "these workers belong to the process that this one was forked from; iterate the "
                "loader again here"
            )

    def ready_seats(self) -> list[int]:
        """See `Engine.ready_seats`."""
        return [seat.number for seat in self._seats if seat.ready]

    def _send_begin(self, seat: LeasedSeat, starts: Mapping[int, StreamStart]) -> None:
        body = self._serialised(replace(self._epoch, starts=starts))
        self._outbox.put(seat, pack(Kind.BEGIN, body, epoch=self._serial))

    def submit(self, lease: Lease) -> None:
        """See `Engine.submit`."""
        made = self._early.take(lease.seat, lease.batch)
        if made is not None:
            self._events.append(made)
            return
        seat, key = self._seats[lease.seat], (self._serial, lease.batch, lease.attempt)
        if key in seat.lent:
            # Since before the epoch began here.
            needed = self._early.waits_for(lease.batch)
            if needed is not None:
                self._room.note(seat, key, needed)
            return
        self._lend(lease, self._serial)

    def _lend(self, lease: Lease, serial: int) -> None:
        seat = self._seats[lease.seat]
        if seat.channel is None:
            # Its worker is gone, which is told behind what it had answered before.
            for piece in cast(Sequence[SharedResult], lease.pieces):
                piece.discard()
            return
        slots: list[int] = []
        try:
            body = self._serialised(self._terms(lease, slots))
        except Exception as error:
            for slot in slots:
                self.arena.release(slot)
            refusal = SerializationError(
                f"the indices {list(lease.indices)!r:.200} of batch {lease.batch} cannot be sent "
                f"to a worker: {error}"
            )
            self._events.append(Failed(lease.seat, lease.batch, lease.attempt, 0.0, 0, refusal))
            return
        slot, capacity, limit = self.arena.acquire(lease.seat)
        key = (serial, lease.batch, lease.attempt)
        seat.lent[key] = slot, lease
        if slots:
            seat.pieces[key] = slots
        seat.resumption.lent(key, lease.indices)
        self._outbox.put(
            seat,
            pack(
                order_of(lease),
                body,
                epoch=serial,
                batch=lease.batch,
                attempt=lease.attempt,
                slot=slot,
                used=limit,
                capacity=capacity,
            ),
        )

    def _terms(self, lease: Lease, slots: list[int]) -> object:
        """What a worker is told of a lease; the slots that it reads for that are added to some."""
        if lease.part is not None:
            return lease.indices[lease.part.start : lease.part.stop], lease.part
        if lease.sizes:
            return lease.indices, lease.fills, lease.sizes
        if not lease.pieces:
            return lease.indices, lease.fills or None, lease.probe
        pieces = []
        for piece in cast(Sequence[SharedResult], lease.pieces):
            slot, used, body = piece.hand_on()
            if used:
                slots.append(slot)
            pieces.append((slot, used, body))
        return pieces

    def _serialised(self, content: object) -> bytes:
        try:
            body = pickle.dumps(content, 5)
        except (pickle.PicklingError, AttributeError, TypeError):
            return dump_by_value(content, [])
        # A worker may not have the program's main module to find a class in.
        if b"__main__" in body and not self._starter.inherits:
            return dump_by_value(content, [])
        return body

    def amend(self, lease: Lease, fills: Mapping[int, Fill]) -> None:
        """See `Engine.amend`."""
        self._seats[lease.seat].withheld.discard((self._serial, lease.batch, lease.attempt))
        self._order(Kind.AMEND, lease, encode(dict(fills), None))

    def recall(self, lease: Lease) -> None:
        """See `Engine.recall`."""
        seat, key = self._seats[lease.seat], (self._serial, lease.batch, lease.attempt)
        if key not in seat.lent:
            # Its worker has died, or has answered, which is still to be reported.
            return
        seat.recalled.add(key)
        # Its worker has to say that it has dropped it.
        seat.withheld.discard(key)
        self._room.withdraw(key)
        self._order(Kind.RECALL, lease, b"")

    def _order(self, kind: Kind, lease: Lease, body: bytes) -> None:
        frame = pack(kind, body, epoch=self._serial, batch=lease.batch, attempt=lease.attempt)
        self._outbox.put(self._seats[lease.seat], frame)

    def flush(self) -> None:
        """See `Engine.flush`."""
        # Here, since a batch that has arrived is handed over without a look at the workers.
        self._check_owner()
        self._outbox.flush()

    def poll(self, timeout_s: float | None) -> list[Event]:
        """See `Engine.poll`."""
        self._check_owner()
        if self._events:
            return self._tell()
        if timeout_s != 0:
            self.flush()
        now = time.monotonic()
        deadline = None if timeout_s is None else now + timeout_s
        if timeout_s != 0 and self._hearing.busy_s < SPIN_BELOW_S:
            look_out(self.crew.poll, SPIN_S if timeout_s is None else min(SPIN_S, timeout_s))
        while True:
            events = self._events
            if now >= self._oversight.due:
                self._look_after(now, events)
            if self._room:
                self._room.give(events)
            until = self._oversight.due if deadline is None else min(deadline, self._oversight.due)
            wait_s = 0.0 if events else max(0.0, until - now)
            ready = self.crew.poll.poll(wait_s * 1000)
            for fd, _ in ready:
                seat = self.crew.watched.get(fd)
                if seat is not None:
                    self._attend(seat, fd, events)
            now = time.monotonic()
            if events or timeout_s == 0 or (deadline is not None and now >= deadline):
                return self._tell()

    def _tell(self) -> list[Event]:
        events, self._events = self._events, []
        return events

    def _look_after(self, now: float, events: list[Event]) -> None:
        """What is due several times a second, whether or not workers have anything to say."""
        for seat, entry in self._oversight.look(now, self._serial):
            if entry is None:
                # The dataset's own children hold the pipe that would tell of its end.
                self._bury(seat, events, self._hearing.hear_out(seat, events))
            else:
                self._end_overdue(seat, entry, events)

    def _attend(self, seat: LeasedSeat, fd: int, events: list[Event]) -> None:
        """One descriptor of a worker is ready."""
        channel, process = seat.channel, seat.process
        if channel is None or process is None:
            return
        if fd == channel.write_fd:
            with contextlib.suppress(ChannelClosed):
                if not channel.flush():
                    return
            self.crew.unwatch(fd)
            return
        try:
            for frame in channel.receive():
                self._hearing.read(seat, frame, events)
            if fd == process.sentinel:
                self._bury(seat, events, self._hearing.hear_out(seat, events))
        except ChannelClosed:
            self._bury(seat, events)
        except WireError as error:
            self._bury(seat, events, fault_of(error))

    def rewind(self, seat: int) -> None:
        """See `Engine.rewind`: another worker does that, with a copy that has read nothing."""
        place = self._seats[seat]
        place.resumption.rewind()
        if place.process is None:
            # It is gone, and will be replaced.
            return
        for key in place.lent:
            self._room.withdraw(key)
        self.crew.hang_up(place)
        self.crew.end(place, patience_s=0.0)
        self._launch(place)

    def refuse_room(self, lease: Lease) -> None:
        """See `Engine.refuse_room`."""
        self._room.refuse((self._serial, lease.batch, lease.attempt))

    def _end_overdue(self, seat: LeasedSeat, entry: Entry, events: list[Event]) -> None:
        """A sample takes longer than it may: its worker is ended."""
        # Stopped, so that it cannot get done between the last look and the end.
        seat.signal(signal.SIGSTOP)
        if self._journal.read(seat.number) != entry:
            seat.signal(signal.SIGCONT)
            return
        fault = self._hearing.hear_out(seat, events)
        # To be asked for a stack may interrupt a call of the system, and have the sample fail or
        # stop short: nothing that comes of the worker from here on is heard.
        self._oversight.take_stacks(seat)
        seat.kill()
        allowed_s = self._job.sample_timeout_s or 0.0
        late = f"was ended for a sample that took longer than {allowed_s:g} s (sample_timeout)"
        self._bury(seat, events, fault or late, None if fault else entry)

    def _bury(
        self, seat: LeasedSeat, events: list[Event], fault: str = "", overdue: Entry | None = None
    ) -> None:
        """A worker is gone, or has to go."""
        if seat.process is None:
            return
        for key in seat.lent:
            self._room.withdraw(key)
        events.append(self._coroner.bury(seat, self._serial, fault, overdue))

    def wait_handles(self) -> list[int]:
        """See `Engine.wait_handles`."""
        return list(self.crew.watched)

    def restart(self, seat: int) -> None:
        """See `Engine.restart`."""
        self._launch(self._seats[seat])

    def pids(self) -> list[int]:
        """The process ids of the workers, by seat."""
        return [seat.pid for seat in self._seats if seat.process is not None]

    def close(self) -> None:
        """See `Engine.close`."""
        self.crew.close()
