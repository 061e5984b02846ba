"""Leases in worker processes, or in the training process where that is faster.

    submit ──> workers ──────────────────────┐
                  │ Chooser: it is faster without them
                  v                          v
               inline ── what is new ──> poll ──> Done | Withheld | …
               workers ─ what they have ─^      └── and back, where that was slower

What was lent to workers is finished by them, and what is lent from then on is made here. Who makes
a batch is the engine's business alone: the scheduler goes on as it was, so that nothing is lost
and nothing made twice, and batches come in their order. A sampler is asked as far ahead as before.

It is for jobs whose samples are the same whoever makes them; `penstock.automatic` knows the others.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from multiprocessing.context import BaseContext

from penstock.engines.chooser import EpochWatch
from penstock.engines.inline import InlineEngine
from penstock.engines.job import Job
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import (
    Cramped,
    Died,
    Done,
    EpochStart,
    Event,
    Guess,
    Report,
    Withheld,
)
from penstock.engines.shared_lists import FoundList
from penstock.engines.shared_result import SharedResult
from penstock.schedule import Fill, Lease
from penstock.transport.arena import Arena

_Key = tuple[int, int]  # batch, attempt


class ChoosingEngine:
    """An `Engine` with worker processes as long as they pay.

    Args:
        job: what is to be done with a map-style dataset.
        workers: with how many it begins, at least 1.
        context: see `ProcessEngine`.
        seed: see `ProcessEngine`.
        memory_budget: see `ProcessEngine`.
        share_dataset: see `ProcessEngine`.

    Attributes:
        workers: worker processes that new leases go to; 0: they are made here.
        watch: says when it is to go on without; None: never.
    """

    def __init__(
        self,
        job: Job,
        workers: int,
        *,
        context: BaseContext | None = None,
        seed: int = 0,
        memory_budget: int | None = None,
        share_dataset: bool = False,
    ) -> None:
        self._job = job
        self.workers = workers
        self.watch: EpochWatch | None = None
        self._seats = max(1, self.workers)
        self._crewed: ProcessEngine | None = None
        self._inline: InlineEngine | None = None
        self._epoch = EpochStart(0)
        # Lent to workers, without a last word yet, with the worker.
        self._theirs: dict[_Key, int] = {}
        # Their batches that may not have been opened.
        self._arrived: deque[SharedResult] = deque()
        if self.workers:
            self._crewed = ProcessEngine(
                replace(job, seats=self.workers),
                context=context,
                seed=seed,
                memory_budget=memory_budget,
                share_dataset=share_dataset,
            )
        # Whoever ends the workers must not hold the dataset; see `crew.py`.
        self.release: Callable[[], None] = (
            _nothing if self._crewed is None else self._crewed.crew.close
        )
        self._arena = None if self._crewed is None else self._crewed.arena

    @property
    def seats(self) -> int:
        """See `Engine.seats`; they stay as many when the workers go."""
        return self._seats

    @property
    def arena(self) -> Arena | None:
        """See `Engine.arena`."""
        return self._arena

    @property
    def is_ours(self) -> bool:
        """Whether this process made it; one that was forked since must leave its workers alone."""
        return self._crewed is None or self._crewed.is_ours

    def start(self) -> None:
        """See `Engine.start`."""
        if self._crewed is not None:
            self._crewed.start()

    @property
    def shared_lists(self) -> list[FoundList]:
        """See `ProcessEngine.shared_lists`."""
        return [] if self._crewed is None else self._crewed.shared_lists

    def begin_epoch(self, start: EpochStart, first: Sequence[Sequence[object]] = ()) -> int:
        """See `Engine.begin_epoch`."""
        self._epoch = start
        self.watch = None
        self._theirs.clear()
        self._arrived.clear()
        self._inline = None
        if self.workers and self._crewed is not None:
            return self._crewed.begin_epoch(start, first)
        self._end_workers()
        self._inline = self._begin_here()
        return 0

    def _begin_here(self) -> InlineEngine:
        inline = InlineEngine(self._job, keeps_frames=False)
        inline.begin_epoch(self._epoch)
        return inline

    def anticipate(self, guess: Guess) -> None:
        """See `Engine.anticipate`."""
        if self.workers and self._crewed is not None:
            self._crewed.anticipate(guess)

    @property
    def anticipated(self) -> int:
        """See `Engine.anticipated`."""
        return self._crewed.anticipated if self.workers and self._crewed is not None else 0

    def ready_seats(self) -> list[int]:
        """See `Engine.ready_seats`."""
        return [] if self._crewed is None else self._crewed.ready_seats()

    # What is ordered.

    def submit(self, lease: Lease) -> None:
        """See `Engine.submit`."""
        if self.workers and self._crewed is not None:
            self._theirs[lease.batch, lease.attempt] = lease.seat
            self._crewed.submit(lease)
        elif self._inline is not None:
            self._inline.submit(lease)

    def amend(self, lease: Lease, fills: Mapping[int, Fill]) -> None:
        """See `Engine.amend`."""
        self._holder(lease).amend(lease, fills)

    def recall(self, lease: Lease) -> None:
        """See `Engine.recall`."""
        holder = self._holder(lease)
        self._theirs.pop((lease.batch, lease.attempt), None)
        holder.recall(lease)

    def rewind(self, seat: int) -> None:
        """See `Engine.rewind`: no job here has streams."""

    def refuse_room(self, lease: Lease) -> None:
        """See `Engine.refuse_room`."""
        self._holder(lease).refuse_room(lease)

    def _holder(self, lease: Lease) -> ProcessEngine | InlineEngine:
        """Who has been lent it."""
        theirs = self._inline is None or (lease.batch, lease.attempt) in self._theirs
        holder = self._crewed if theirs else self._inline
        if holder is None:
            raise RuntimeError(f"batch {lease.batch} was lent to nobody")
        return holder

    def flush(self) -> None:
        """See `Engine.flush`."""
        if self._crewed is not None:
            self._crewed.flush()

    def restart(self, seat: int) -> None:
        """See `Engine.restart`."""
        if self._crewed is not None:
            self._crewed.restart(seat)

    # What is reported.

    def poll(self, timeout_s: float | None) -> list[Event]:
        """See `Engine.poll`; without workers the work is done here."""
        watch = self.watch
        if watch is not None and watch.tries_alone():
            self._go_alone()
        inline, crewed = self._inline, self._crewed
        if crewed is None:
            return [] if inline is None else inline.poll(timeout_s)
        if inline is None:
            events = crewed.poll(timeout_s)
            self._note(events)
            return events
        return self._poll_both(crewed, inline, timeout_s)

    def _poll_both(
        self, crewed: ProcessEngine, inline: InlineEngine, timeout_s: float | None
    ) -> list[Event]:
        """Workers finish what they have, while what is new is made here."""
        events: list[Event] = []
        if self.workers or self._theirs:
            # What is to be done here is not kept waiting: a worker may itself wait for it.
            events = crewed.poll(0.0 if inline.has_orders else timeout_s)
            self._note(events)
            if not self.workers and any(isinstance(event, Died) for event in events):
                # One of the last batches of the workers has ended its worker: it is not to be made
                # here, nor is any other, for there is no telling which.
                self._go_back(crewed, inline)
        else:
            verdict = None if self.watch is None else self.watch.verdict()
            if verdict:
                self._part(crewed)
            elif verdict is not None:
                self._go_back(crewed, inline)
        return events or inline.poll(timeout_s)

    def _note(self, events: Sequence[Event]) -> None:
        watch = self.watch
        for event in events:
            if isinstance(event, Done) and isinstance(event.result, SharedResult):
                if watch is not None:
                    watch.note_made(event.busy_s)
                self._arrived.append(event.result)
                while len(self._arrived) > 1 and self._arrived[0].settled:
                    self._arrived.popleft()
            if isinstance(event, Report) and not isinstance(event, Withheld):
                self._theirs.pop((event.batch, event.attempt), None)
            elif isinstance(event, Cramped) and watch is not None:
                watch.note_room(event.fits)
            elif isinstance(event, Died):
                if watch is not None:
                    watch.note_death()
                lost = [key for key, seat in self._theirs.items() if seat == event.seat]
                for key in lost:
                    del self._theirs[key]

    def wait_handles(self) -> list[int]:
        """See `Engine.wait_handles`; none while there is work to do here."""
        if self._crewed is None or (self._inline is not None and self._inline.has_orders):
            return []
        return self._crewed.wait_handles() if self.workers or self._theirs else []

    # Workers come to their end.

    def _go_alone(self) -> None:
        """Has all new leases made here."""
        if self._inline is None:
            # Behind a trial it may still have half a batch.
            self._inline = self._begin_here()
        self.workers = 0

    def _go_back(self, crewed: ProcessEngine, inline: InlineEngine) -> None:
        """Has new leases, and those that were not begun, made by workers again."""
        self.workers = self._seats
        for lease in inline.give_back():
            self.submit(lease)
        crewed.flush()

    def _part(self, crewed: ProcessEngine) -> None:
        """Ends the workers, who have nothing to do, once their batches are in use or given up."""
        if crewed.crew.seats[0].channel is not None:
            # They leave while these are waited for.
            for seat in crewed.crew.seats:
                crewed.crew.hang_up(seat)
        self._forget_opened()
        if not self._arrived:
            began = time.perf_counter()
            self._end_workers()
            if self.watch is not None:
                self.watch.note_parting(time.perf_counter() - began)

    def _forget_opened(self) -> None:
        self._arrived = deque(result for result in self._arrived if not result.settled)

    def _end_workers(self) -> None:
        crewed, self._crewed = self._crewed, None
        if crewed is not None:
            crewed.close()

    def close(self) -> None:
        """See `Engine.close`."""
        self._theirs.clear()
        self._arrived.clear()
        if self._inline is not None:
            self._inline.close()
        if self._crewed is not None:
            self._crewed.close()


def _nothing() -> None:
    """There are no workers to end."""
