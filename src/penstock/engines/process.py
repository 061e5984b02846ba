"""Leases in worker processes: the parent's side.

    submit ──frame──> pipe ──> worker ──> pipe ──frame──> poll ──> Done | Withheld | Failed | …
       └─ slot from the arena, which comes back with the lease's last word or the worker's death

No thread watches the workers: whoever waits for a batch waits for their replies and their deaths.
"""

from __future__ import annotations

import contextlib
import math
import pickle
import time
from collections.abc import Mapping
from dataclasses import replace
from multiprocessing.context import BaseContext

from penstock.engines.crew import Crew, LeasedSeat
from penstock.engines.death import certify
from penstock.engines.failure import end_or_raise, placed, to_raise
from penstock.engines.job import Job
from penstock.engines.protocol import (
    Done,
    Ended,
    EpochStart,
    Event,
    Failed,
    Started,
    StartFailed,
    StreamStart,
    Withheld,
)
from penstock.engines.seat import LEAVE_S
from penstock.engines.shared_result import SharedResult
from penstock.engines.starter import Starter
from penstock.errors import ClosedError, SerializationError, WireError
from penstock.schedule import Fill, Lease
from penstock.transport.arena import Arena
from penstock.transport.channel import SPIN_BELOW_S, SPIN_S, ChannelClosed, look_out
from penstock.transport.codec import decode, dump_by_value, encode
from penstock.transport.frames import Frame, Kind, pack

# How long to wait for the exit code of a worker whose pipe has ended by itself.
EXIT_CODE_S = 5.0
# Batches that the user may hold in shared memory; for more, private copies are made.
HELD_SLOTS = 4


class ProcessEngine:
    """An `Engine` of worker processes.

    Args:
        job: what is to be done.
        context: the start method, or None to choose one.
        seed: torch's base seed, from which workers seed their generators.
        portable: whether to do without Linux's memfd.

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
        portable: bool = False,
    ) -> None:
        self.arena = Arena(most_lent=HELD_SLOTS, portable=portable)
        self._seats = [LeasedSeat(job, number) for number in range(job.seats)]
        self.crew = Crew(self._seats, self.arena)
        self._starter = Starter(job, context, seed, self.crew)
        self._serial = 0
        self._epoch = EpochStart(0)
        self._unsent: set[int] = set()
        # Leases that could not be sent, to be reported in their turn.
        self._refused: list[Event] = []
        # How long the last batch took: before small ones it does not pay to sleep.
        self._busy_s = math.inf

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
            self._starter.prepare()
            for seat in self._seats:
                self._launch(seat)
        except BaseException:
            self.close()
            raise

    def _launch(self, seat: LeasedSeat) -> None:
        seat.take(*self._starter.start(seat.number))
        self.crew.watch(seat)
        if self._serial:
            self._send_begin(seat, seat.resumption.starts())
            self.flush()

    def begin_epoch(self, start: EpochStart) -> None:
        """See `Engine.begin_epoch`."""
        self._check_owner()
        self._serial += 1
        self._epoch = start
        self._refused.clear()
        for seat in self._seats:
            stale = seat.resumption.took_up
            told = seat.resumption.begin_epoch(start.starts)
            if seat.channel is None or stale:
                # The epoch before ended with the death of its worker, or was the only one that the
                # worker's copy is good for.
                self.crew.hang_up(seat)
                self.crew.end(seat, patience_s=LEAVE_S if stale else 0.0)
                self._launch(seat)
            else:
                self._send_begin(seat, told)
        self.flush()

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
        self._send(seat, pack(Kind.BEGIN, body, epoch=self._serial))

    def submit(self, lease: Lease) -> None:
        """See `Engine.submit`."""
        seat = self._seats[lease.seat]
        try:
            body = self._serialised((lease.indices, lease.fills or None))
        except Exception as error:
            refusal = SerializationError(
                f"the indices {list(lease.indices)!r:.200} of batch {lease.batch} cannot be sent "
                f"to a worker: {error}"
            )
            self._refused.append(Failed(lease.seat, lease.batch, lease.attempt, 0.0, 0, refusal))
            return
        slot, capacity = self.arena.acquire(lease.seat)
        key = (self._serial, lease.batch, lease.attempt)
        seat.slots[key] = slot
        seat.resumption.lent(key, lease.indices)
        self._send(
            seat,
            pack(
                Kind.LEASE,
                body,
                epoch=self._serial,
                batch=lease.batch,
                attempt=lease.attempt,
                slot=slot,
                capacity=capacity,
            ),
        )

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
        self._order(Kind.AMEND, lease, encode(dict(fills), None))

    def recall(self, lease: Lease) -> None:
        """See `Engine.recall`."""
        self._order(Kind.RECALL, lease, b"")

    def _order(self, kind: Kind, lease: Lease, body: bytes) -> None:
        frame = pack(kind, body, epoch=self._serial, batch=lease.batch, attempt=lease.attempt)
        self._send(self._seats[lease.seat], frame)

    def _send(self, seat: LeasedSeat, frame: bytes) -> None:
        channel = seat.channel
        if channel is None:
            return
        channel.queue(frame)
        self._unsent.add(seat.number)

    def flush(self) -> None:
        """See `Engine.flush`."""
        for number in self._unsent:
            seat = self._seats[number]
            channel = seat.channel
            if channel is None:
                continue
            try:
                done = channel.flush()
            except ChannelClosed:
                # Its death is noticed, and reported, where replies are read.
                continue
            if not done:
                self.crew.watch_for_room(seat, channel.write_fd)
        self._unsent.clear()

    def poll(self, timeout_s: float | None) -> list[Event]:
        """See `Engine.poll`."""
        self._check_owner()
        if self._refused:
            refused, self._refused = self._refused, []
            return refused
        if timeout_s != 0:
            self.flush()
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        if timeout_s != 0 and self._busy_s < SPIN_BELOW_S:
            look_out(self.crew.poll, SPIN_S if timeout_s is None else min(SPIN_S, timeout_s))
        while True:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            ready = self.crew.poll.poll(None if left_s is None else left_s * 1000)
            events: list[Event] = []
            for fd, _ in ready:
                seat = self.crew.watched.get(fd)
                if seat is not None:
                    self._attend(seat, fd, events)
            if events or (deadline is not None and time.monotonic() >= deadline):
                return events

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
                self._read(seat, frame, events)
            if fd == process.sentinel:
                # What it sent before it died counts, all of it; then comes the end of the file.
                for frame in seat.last_words():
                    self._read(seat, frame, events)
                self._bury(seat, events)
        except ChannelClosed:
            self._bury(seat, events)
        except WireError as error:
            self._bury(seat, events, str(error))

    def _read(self, seat: LeasedSeat, frame: Frame, events: list[Event]) -> None:
        kind = frame.kind
        if kind == Kind.READY:
            seat.ready = True
            events.append(Started(seat.number))
            return
        if kind == Kind.STARTLESS and frame.epoch not in (0, self._serial):
            return
        if kind == Kind.STARTLESS:
            events.append(StartFailed(seat.number, to_raise(decode(frame.body, None))))
            return
        key = (frame.epoch, frame.batch, frame.attempt)
        if kind == Kind.WITHHELD:
            if frame.epoch == self._serial:
                failures = placed(decode(frame.body, None))
                events.append(
                    Withheld(
                        seat.number,
                        frame.batch,
                        frame.attempt,
                        frame.busy_s,
                        frame.position,
                        failures,
                    )
                )
            return
        slot = seat.slots.pop(key, None)
        if slot is None:
            raise WireError(f"worker {seat.number} answers a lease {key} that it does not have")
        self.arena.note_capacity(slot, frame.capacity)
        current = frame.epoch == self._serial
        if not (kind == Kind.DONE and current and frame.used):
            self.arena.release(slot)
        if not current:
            return
        result = None
        if kind == Kind.DONE:
            result = SharedResult(self.arena, frame.body, slot, frame.used)
        seat.resumption.answered(key, frame.position, result)
        if kind == Kind.DROPPED:
            return
        where = (seat.number, frame.batch, frame.attempt, frame.busy_s, frame.position)
        self._busy_s = frame.busy_s
        if result is not None:
            events.append(Done(*where, result))
        elif kind == Kind.FAILED:
            events.append(Failed(*where, end_or_raise(decode(frame.body, None))))
        elif kind == Kind.ENDED:
            events.append(Ended(*where))

    def _bury(self, seat: LeasedSeat, events: list[Event], fault: str = "") -> None:
        """A worker is gone, or has to go."""
        if seat.process is None:
            return
        pid = seat.pid
        self.crew.hang_up(seat)
        code = self.crew.end(seat, patience_s=0.0 if fault else EXIT_CODE_S)
        events.append(certify(seat.number, pid, code, fault))

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
