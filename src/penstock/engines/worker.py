"""A worker process: takes leases from one pipe and answers each of them through another.

    pipe ──frames──> inbox ──> leases, amendments ──> Fetcher ──> slot + reply ──> pipe

Each lease gets exactly one last word (done, failed, ended or dropped), unless the process dies. It
ends when its pipe does: when the loader closes it, or when the training process is gone.
"""

from __future__ import annotations

import contextlib
import gc
import multiprocessing
import os
import pickle
import signal
import sys
import time
from collections import deque
from dataclasses import replace
from multiprocessing.connection import Connection
from typing import Any, cast

import torch
from torch.utils.data._utils import worker as torch_worker

from penstock.engines.bundles import join
from penstock.engines.failure import describe
from penstock.engines.fetch import Fetcher
from penstock.engines.heap import keep_freed_memory
from penstock.engines.hosting import StreamHost
from penstock.engines.job import Job
from penstock.engines.last_words import record as record_last_words
from penstock.engines.outcome import (
    Bundle,
    Held,
    Made,
    Outcome,
    Part,
    StreamEnded,
    Tried,
)
from penstock.engines.randomness import seed_process
from penstock.engines.seat import LEAVE_S
from penstock.errors import MemoryBudgetError
from penstock.plan import stream_of
from penstock.schedule import Fill, Lease
from penstock.transport.backing import GROWTH_STEP_BYTES, SMALL_STEP_BYTES
from penstock.transport.channel import SPIN_BELOW_S, Channel, ChannelClosed
from penstock.transport.codec import INLINE_BYTES, decode, encode
from penstock.transport.frames import Frame, Kind, pack
from penstock.transport.journal import NO_PLACE, Journal
from penstock.transport.writer import SlotWriter

# After a lease that took this long, the inbox is looked at before the next: an order to
# drop that one may have come. Looking takes 1 µs.
_LOOK_AFTER_S = 0.0005
# Several batches that were lent together are answered after as long, though not all are made: their
# samples have become slow.
MOST_BUNDLE_S = 0.04
# Of a part no more than this goes through the pipe, where many wait while the loop makes its step.
PART_INLINE_BYTES = 1 << 10
# How long processes that the dataset has started may take to leave; half of what this one has.
_CHILDREN_S = LEAVE_S / 2
# Replies that come with memory of the slot.
_WITH_MEMORY = frozenset({Kind.DONE, Kind.PART_DONE, Kind.BUNDLE_DONE})


def worker_main(
    seat: int,
    seed: int,
    incoming: Connection[Any, Any],
    outgoing: Connection[Any, Any],
    stderr: Any,
    arena: Any,
    stride: int,
    job: Any,
    seats: int,
) -> None:
    """Runs a worker to its end.

    Args:
        seat: its number.
        seed: what torch would call its base seed.
        incoming: read end of the pipe of leases.
        outgoing: write end of the pipe of replies.
        stderr: the descriptor of what to write errors to, or what makes one when `detach` is
            called; negative: this process's own.
        arena: the arena's descriptor, or what makes one when `detach` is called.
        stride: the distance between the arena's slots in bytes.
        job: the `Job`, or what brings it when `arrive` is called.
        seats: how many workers there are.
    """
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    record_last_words(stderr if isinstance(stderr, int) else stderr.detach())
    _allow_children()
    channel = Channel(incoming, outgoing, blocking=True)
    with contextlib.suppress(ChannelClosed):
        descriptor = arena if isinstance(arena, int) else arena.detach()
        journal = Journal(descriptor, seats, seat)
        worker = _get_ready(seat, seed, channel, SlotWriter(descriptor, stride), journal, job)
        if worker is not None:
            worker.run()
    with contextlib.suppress(Exception):
        sys.stdout.flush()
        sys.stderr.flush()
    _end_children()
    # The parent may be gone, with nobody to wait for threads that the dataset has started.
    os._exit(0)


def _allow_children() -> None:
    """Lets the dataset start processes: a loader of its own, or others.

    The training process has marked this one as a daemon, so as to end it with itself, and
    multiprocessing lets no daemon have children, since it could not end them in its turn. A
    worker does that when it leaves, which it does when its pipe ends.
    """
    config: dict[str, Any] = getattr(multiprocessing.current_process(), "_config", {})
    config["daemon"] = False


def _end_children() -> None:
    """Has the processes leave that the dataset has started with multiprocessing.

    Behind this one's end they are killed, by the lifeline, whatever they still have to put away.
    """
    children = multiprocessing.active_children()
    for child in children:
        child.terminate()
    deadline = time.monotonic() + _CHILDREN_S
    for child in children:
        child.join(max(0.0, deadline - time.monotonic()))


def _get_ready(
    seat: int, seed: int, channel: Channel, writer: SlotWriter, journal: Journal, job: Any
) -> _Worker | None:
    """Makes the dataset ready as torch's workers do, or tells the parent why it cannot be."""
    step = "the dataset, as it was unpickled"
    try:
        torch.set_num_threads(1)
        keep_freed_memory()
        if not isinstance(job, Job):
            job = job.arrive()
        seed_process(seed, seat)
        if job.stream_count:
            torch_worker._worker_info = torch_worker.WorkerInfo(
                id=seat, num_workers=job.stream_count, seed=seed + seat, dataset=job.dataset
            )
        step = "worker_init_fn"
        if job.worker_init_fn is not None and (not job.stream or job.owns_stream(seat)):
            job.worker_init_fn(seat)
        worker = _Worker(job, seat, seed, channel, writer, journal)
        # What is here now stays. The garbage collector would visit all of it again and again, and
        # write to each object's page, which after a fork copies that page.
        gc.freeze()
    except Exception as error:
        failure = describe(error, seat=seat)
        told = f"{failure.message} (raised by {step})"
        channel.send_all(pack(Kind.STARTLESS, encode(replace(failure, message=told), None)))
        return None
    channel.send_all(pack(Kind.READY))
    return worker


class _Worker:
    """The loop of a worker that has its dataset."""

    def __init__(
        self,
        job: Job,
        seat: int,
        seed: int,
        channel: Channel,
        writer: SlotWriter,
        journal: Journal,
    ) -> None:
        self._seat = seat
        self._channel = channel
        self._writer = writer
        self._journal = journal
        allocate = writer.allocate
        self._streams = StreamHost(job, seat, seed, allocate, journal) if job.stream else None
        self._fetcher: Fetcher | StreamHost = self._streams or Fetcher(job, seat, allocate, journal)
        self._leases: deque[Frame] = deque()
        self._amendments: deque[Frame] = deque()
        self._held: dict[tuple[int, int], Frame] = {}
        self._busy: dict[tuple[int, int], float] = {}
        # What takes back the batch that an answer was waited for, and what came behind that.
        self._put_by: list[Frame] = []
        self._current: Frame | None = None
        # How long the lease that is carried out has waited for memory, which is no work.
        self._waited_s = 0.0
        writer.ask = self._ask_for_room

    def run(self) -> None:
        """Works until the pipe ends."""
        took_s = 0.0
        while True:
            frame = self._next()
            if frame is None:
                if 0.0 < took_s < SPIN_BELOW_S:
                    self._channel.look_out()
                    took_s = 0.0
                self._receive()
            else:
                began = time.perf_counter()
                self._work(frame, began)
                took_s = time.perf_counter() - began
                if self._put_by or (took_s > _LOOK_AFTER_S and self._channel.has_data()):
                    self._receive()

    def _next(self) -> Frame | None:
        if self._amendments:
            return self._amendments.popleft()
        # A stream's next batch begins where the one that is held ends.
        if self._leases and not (self._streams is not None and self._held):
            return self._leases.popleft()
        return None

    def _receive(self) -> None:
        frames, self._put_by = self._put_by or self._channel.receive(), []
        for frame in frames:
            self._take(frame)

    def _take(self, frame: Frame) -> None:
        if frame.kind in (Kind.LEASE, Kind.PROBE, Kind.BUNDLE):
            self._leases.append(frame)
        elif frame.kind == Kind.PART:
            self._leases.append(frame)
            if len(self._leases) > 1 and frame.batch < self._leases[-2].batch:
                # Taken over from a worker that is held up.
                self._leases = deque(sorted(self._leases, key=_turn))
        elif frame.kind == Kind.GATHER:
            # All the others have done their share, and the loop may wait for it.
            self._leases.appendleft(frame)
        elif frame.kind == Kind.AMEND:
            self._amendments.append(frame)
        elif frame.kind == Kind.RECALL:
            self._recall(frame)
        elif frame.kind == Kind.BEGIN:
            self._begin_epoch(frame)

    def _begin_epoch(self, frame: Frame) -> None:
        for waiting in [*self._leases, *self._held.values()]:
            self._drop(waiting)
        self._leases.clear()
        self._amendments.clear()
        self._held.clear()
        self._busy.clear()
        try:
            self._fetcher.begin_epoch(pickle.loads(frame.body))
        except Exception as error:
            # The dataset's own `set_epoch` or `load_state_dict`, most likely; the worker that came
            # in this one's place would meet it again.
            failure = describe(error, seat=self._seat)
            told = f"{failure.message} (raised where an epoch of the dataset begins)"
            body = encode(replace(failure, message=told), None)
            self._channel.send_all(pack(Kind.STARTLESS, body, epoch=frame.epoch))
            raise ChannelClosed from error

    def _recall(self, frame: Frame) -> None:
        key = (frame.batch, frame.attempt)
        for waiting in self._leases:
            if (waiting.batch, waiting.attempt) == key:
                self._leases.remove(waiting)
                self._drop(waiting)
                return
        held = self._held.pop(key, None)
        if held is not None:
            self._fetcher.forget(frame.batch)
            self._busy.pop(key, None)
            self._drop(held)

    def _drop(self, lease: Frame) -> None:
        self._reply(Kind.DROPPED, lease, b"", 0.0)

    def _work(self, frame: Frame, began: float) -> None:
        key = (frame.batch, frame.attempt)
        self._waited_s = 0.0
        self._journal.begin(frame.epoch, frame.batch, frame.attempt)
        if frame.kind == Kind.AMEND:
            lease = self._held.pop(key, None)
            if lease is None:
                return
            self._begin_slot(lease)
            outcome = self._fetcher.amend(frame.batch, decode(frame.body, None))
            began -= self._busy.pop(key, 0.0)
        else:
            lease = frame
            self._begin_slot(lease)
            outcome = self._carry_out(lease, pickle.loads(lease.body))
        self._answer(lease, outcome, began)

    def _carry_out(self, lease: Frame, terms: Any) -> Outcome:
        if lease.kind == Kind.GATHER:
            return cast(Fetcher, self._fetcher).gather(lease.batch, lambda: self._read(terms))
        if lease.kind == Kind.BUNDLE:
            return self._make_several(lease, *terms)
        where = lease.batch, lease.attempt, self._seat
        if lease.kind == Kind.PART:
            indices, part = terms
            return self._fetcher.fetch(Lease(*where, indices, part=part))
        indices, fills, probe = terms
        return self._fetcher.fetch(Lease(*where, indices, fills or {}, probe))

    def _make_several(
        self, lease: Frame, indices: list[Any], fills: dict[int, Fill], sizes: tuple[int, ...]
    ) -> Outcome:
        """Batches that were lent together."""
        inline_bytes = INLINE_BYTES // len(sizes)

        def begin(single: Lease) -> None:
            self._journal.begin(lease.epoch, single.batch, single.attempt)

        def finish(made: Made) -> bytes:
            return encode(_told_of(made), self._writer, inline_bytes)

        began = time.perf_counter()
        key = _key_of(lease)

        def enough() -> bool:
            took_s = time.perf_counter() - began
            if took_s > _LOOK_AFTER_S and self._channel.has_data():
                for frame in self._channel.receive():
                    self._hear_amid(frame, key)
            # Those that are made are held up by those that are not.
            return took_s > MOST_BUNDLE_S or bool(self._put_by)

        whole = Lease(lease.batch, lease.attempt, self._seat, indices, fills, sizes=sizes)
        fetcher = cast(Fetcher, self._fetcher)
        return fetcher.fetch_several(list(whole.singles()), begin, finish, enough)

    def _read(self, pieces: list[tuple[int, int, bytes]]) -> list[Any]:
        """The samples of parts, in memory of their own: the batch may be made of them as they are.

        And a collate function may keep them.
        """
        samples: list[Any] = []
        for slot, used, body in pieces:
            room = self._writer.copy_of(slot, used) if used else None
            samples += decode(memoryview(body), room)
        return samples

    def _begin_slot(self, lease: Frame) -> None:
        self._current = lease
        step = SMALL_STEP_BYTES if lease.kind == Kind.PART else GROWTH_STEP_BYTES
        self._writer.begin(lease.slot, lease.capacity, lease.used, step)

    def _ask_for_room(self, needed: int) -> int:
        """Asks the parent for more memory for the slot, and waits for the answer.

        Raises:
            MemoryBudgetError: there is none, or the batch is not wanted any more.
        """
        lease = self._current
        if lease is None:
            raise RuntimeError("there is no batch to need memory")
        began = time.perf_counter()
        # What is waited for is no sample's.
        self._journal.at(NO_PLACE)
        key = _key_of(lease)
        self._channel.send_all(
            pack(
                Kind.CRAMPED,
                epoch=lease.epoch,
                batch=lease.batch,
                attempt=lease.attempt,
                slot=lease.slot,
                used=needed,
                capacity=self._writer.capacity,
            )
        )
        answer: Frame | None = None
        while answer is None and not self._put_by:
            for frame in self._channel.receive():
                if frame.kind == Kind.GRANT and _key_of(frame) == key:
                    answer = frame
                else:
                    # What is taken back gives its room to this batch.
                    self._hear_amid(frame, key)
        self._waited_s += time.perf_counter() - began
        if answer is not None and answer.used:
            return answer.used
        why = "the batch is not wanted any more" if answer is None else bytes(answer.body).decode()
        raise MemoryBudgetError(why)

    def _hear_amid(self, frame: Frame, key: tuple[int, int, int]) -> None:
        """Hears a message amid a lease; what takes that back is put by, with all behind it."""
        if self._put_by or _takes_back(frame, key):
            self._put_by.append(frame)
        else:
            self._take(frame)

    def _answer(self, lease: Frame, outcome: Outcome, began: float) -> None:
        kind, body = self._encode(outcome)
        busy_s = time.perf_counter() - began - self._waited_s
        # Whatever came of it, the slot may have grown meanwhile.
        lease = lease._replace(capacity=self._writer.capacity)
        if kind == Kind.WITHHELD:
            key = (lease.batch, lease.attempt)
            self._held[key] = lease
            self._busy[key] = busy_s
        self._reply(kind, lease, body, busy_s)
        self._journal.end()

    def _encode(self, outcome: Outcome) -> tuple[Kind, bytes]:
        try:
            if isinstance(outcome, Made):
                return Kind.DONE, encode(_told_of(outcome), self._writer)
            if isinstance(outcome, Bundle):
                return Kind.BUNDLE_DONE, join(outcome.bodies)
            if isinstance(outcome, Part):
                return Kind.PART_DONE, encode(outcome.samples, self._writer, PART_INLINE_BYTES)
            if isinstance(outcome, Held):
                return Kind.WITHHELD, encode(outcome.failures, None)
            if isinstance(outcome, Tried):
                return Kind.PROBED, b""
            if isinstance(outcome, StreamEnded):
                return Kind.ENDED, b""
            return Kind.FAILED, encode(outcome.failure, None)
        except Exception as error:
            return Kind.FAILED, encode(describe(error, seat=self._seat), None)

    def _reply(self, kind: Kind, lease: Frame, body: bytes, busy_s: float) -> None:
        position, seen = self._pulled(lease)
        self._channel.send_all(
            pack(
                kind,
                body,
                epoch=lease.epoch,
                batch=lease.batch,
                attempt=lease.attempt,
                slot=lease.slot,
                used=self._writer.used if kind in _WITH_MEMORY else 0,
                capacity=lease.capacity,
                position=position,
                seen=seen,
                busy_s=busy_s,
            )
        )

    def _pulled(self, lease: Frame) -> tuple[int, int]:
        """Samples taken from the stream that a lease is about, and what the last looks like."""
        if self._streams is None:
            return 0, 0
        indices, _, _ = pickle.loads(lease.body)
        stream = stream_of(indices)
        return self._streams.pulled(stream), self._streams.seen(stream)


def _told_of(made: Made) -> tuple[Any, ...]:
    """What a batch's message says; see `SharedResult`."""
    return made.value, made.samples, made.failures, made.snapshot, made.random


def _turn(frame: Frame) -> tuple[bool, int]:
    """In which order leases are carried out."""
    return frame.kind != Kind.GATHER, frame.batch


def _key_of(frame: Frame) -> tuple[int, int, int]:
    return frame.epoch, frame.batch, frame.attempt


def _takes_back(frame: Frame, key: tuple[int, int, int]) -> bool:
    """Whether a message says that a lease is not wanted any more."""
    return frame.kind == Kind.BEGIN or (frame.kind == Kind.RECALL and _key_of(frame) == key)
