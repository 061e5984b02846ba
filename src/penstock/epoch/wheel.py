"""What turns inside `next()`: the scheduler decides, an engine does it.

plan ──> Scheduler ──commands──> Splitting ──> Engine
             ^                       ^           │
             └────────events─────────┴───────────┘
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from penstock.checkpoint import Progress
from penstock.engines.protocol import (
    Cramped,
    Died,
    Done,
    Ended,
    Engine,
    Event,
    Failed,
    PartDone,
    Probed,
    Report,
    Result,
    Started,
    StartFailed,
    Withheld,
)
from penstock.epoch.account import Account
from penstock.epoch.bad_samples import BadSamples
from penstock.epoch.restarts import Restarts
from penstock.observe import StatisticsRecorder
from penstock.plan import EpochPlan
from penstock.schedule import (
    FIRST_PART,
    Amend,
    Bundling,
    Command,
    Discard,
    Issue,
    Pace,
    Recall,
    Rewind,
    Scheduler,
    Splitting,
    Window,
)

_log = logging.getLogger("penstock")

# A wait that is felt: those below are the time that a reply is on its way.
FELT_S = 0.001
# Batches that take less never pay to be split, and would feel it.
NOTED_FROM_S = 0.001


class Wheel:
    """Carries commands to the engine, and events back.

    Args:
        engine: in which the epoch has begun.
        plan: where batches come from.
        scheduler: of that plan.
        restarts: says when a worker that died is replaced.
        splitting: of that scheduler's leases.
        pace: is told what batches cost; None: nobody asks.
        window: of that scheduler; is told how fast batches come.
        bundling: of that scheduler, told the same; None: each batch is lent by itself.
        account: is told of what streams have given.
        bad_samples: decides on them; None: nobody is asked, each is an error.
        progress: is told that the epoch has started.
        recorder: counts and times.
        hurried: whether the loop will wait for its first batch.
    """

    def __init__(
        self,
        engine: Engine,
        plan: EpochPlan,
        scheduler: Scheduler[Result],
        restarts: Restarts,
        *,
        splitting: Splitting[Result],
        pace: Pace | None,
        window: Window,
        bundling: Bundling | None = None,
        account: Account,
        bad_samples: BadSamples | None,
        progress: Progress,
        recorder: StatisticsRecorder,
        hurried: bool = True,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._scheduler = scheduler
        self._restarts = restarts
        self._splitting = splitting
        self._pace = pace
        self._window = window
        self._bundling = bundling
        self._account = account
        self._bad_samples = bad_samples
        self._progress = progress
        self._recorder = recorder
        self._in_hand = False
        # For so many batches more the loop counts as one that waits.
        self._hurried = engine.seats if hurried else 0
        # When the loop began to wait beside workers that have nothing to do, and how long it has.
        self._starving_since = 0.0
        self._starved_s = 0.0

    def turn(self, timeout_s: float | None, *, in_hand: bool = False) -> None:
        """Hears what the workers have to say and gives them more to do.

        Args:
            timeout_s: how long to wait for them, in seconds; None: until there is something.
            in_hand: whether a batch was taken off that is handed over behind this.

        Raises:
            Exception: the epoch cannot go on.
        """
        events: deque[Event] = deque()
        self._in_hand = in_hand
        try:
            self._fill_seats()
            began = time.perf_counter()
            events.extend(self._engine.poll(self._restarts.bound(timeout_s)))
            now = time.perf_counter()
            if now - began > FELT_S:
                self.note_lack()
            if self._starving_since:
                self._starved_s += now - self._starving_since
                self._starving_since = 0.0
            while events:
                self._handle(events.popleft())
            if self._bad_samples is not None:
                self._bad_samples.decide_all(self._scheduler)
            self.give_work()
        except BaseException:
            # What was heard and not dealt with has slots.
            for event in events:
                if isinstance(event, (Done, PartDone)):
                    event.result.discard()
            raise

    def note_wait(self) -> None:
        """The training loop waits, and nothing can be handed over."""
        if not self._scheduler.starves:
            return
        before = self._window.size
        self._window.note_starved(self._starved_s)
        self._starved_s = 0.0
        if self._window.size > before:
            self.give_work()
        else:
            self._starving_since = time.perf_counter()

    def note_lack(self) -> None:
        """The training loop has waited for a batch, or would have to."""
        self._hurried = self._engine.seats

    def note_plenty(self) -> None:
        """What the training loop asks for was there."""
        if self._hurried:
            self._hurried -= 1

    def give_work(self) -> None:
        """Has the engine do what there is to do."""
        self._progress.started = True
        self._scheduler.fill()
        self._carry_out()
        self._engine.flush()

    def _carry_out(self) -> None:
        scheduler = self._scheduler
        # A loop that does not wait has no use for parts, and is slow to have them put together: it
        # looks at its workers once a step. Slow samples would have it wait.
        is_uneven = self._pace is not None and self._pace.uneven
        ready = scheduler.ready if self._hurried or is_uneven else len(scheduler.workers)
        self._order(self._splitting.carry(scheduler.commands(), ready))

    def _order(self, commands: Sequence[Command[Result]]) -> None:
        for command in commands:
            if isinstance(command, Issue):
                self._engine.submit(command.lease)
            elif isinstance(command, Amend):
                self._engine.amend(command.lease, command.fills)
            elif isinstance(command, Recall):
                self._engine.recall(command.lease)
            elif isinstance(command, Discard):
                command.result.discard()
            elif isinstance(command, Rewind):
                self._restarts.note_rewind(command.seat)
                self._engine.rewind(command.seat)

    def _handle(self, event: Event) -> None:
        scheduler = self._scheduler
        if self._plan.is_stream and isinstance(event, Report):
            self._account.note_stream(event)
        if isinstance(event, Done):
            self._recorder.busy_s += event.busy_s
            self._restarts.note_progress()
            self._complete(event)
        elif isinstance(event, PartDone):
            self._recorder.busy_s += event.busy_s
            self._restarts.note_progress()
            where = event.seat, event.batch, event.attempt
            cost = event.busy_s, event.result.size
            self._order(self._splitting.add_part(*where, event.result, *cost))
        elif isinstance(event, Report) and event.attempt >= FIRST_PART:
            self._order(self._splitting.failed(event.seat, event.batch, event.attempt))
        elif isinstance(event, Withheld):
            scheduler.withheld(event.seat, event.batch, event.attempt, event.failures)
        elif isinstance(event, Failed):
            scheduler.failed(event.seat, event.batch, event.attempt, event.error)
        elif isinstance(event, Ended):
            scheduler.emptied(event.seat, event.batch, event.attempt)
        elif isinstance(event, Probed):
            scheduler.probed(event.seat, event.batch, event.attempt)
        elif isinstance(event, Cramped):
            self._find_room(event)
        elif isinstance(event, Started):
            self._restarts.note_start(event.seat)
        elif isinstance(event, StartFailed):
            raise event.error
        else:
            self._replace(event)

    def _complete(self, event: Done) -> None:
        """A batch is there."""
        scheduler, busy_s = self._scheduler, event.busy_s
        seat, batch, attempt = event.seat, event.batch, event.attempt
        size = carried = event.result.size
        if attempt >= FIRST_PART:
            gathered = self._splitting.gathered(seat, batch, attempt)
            if gathered is None:
                event.result.discard()
                return
            whole, parts_s, parts_bytes = gathered
            seat, attempt, busy_s = whole.seat, whole.attempt, busy_s + parts_s
            carried = max(size, parts_bytes)
        lease = scheduler.lease(batch)
        count = event.result.count or 1
        self._window.note_done(busy_s / count, size // count)
        if self._bundling is not None:
            self._bundling.note_done(busy_s / count, size // count)
        if self._pace is not None and (busy_s > NOTED_FROM_S * count or self._pace.pays):
            self._pace.note(busy_s, 0 if lease is None else len(lease.indices), carried)
            if self._pace.pays and self._pace.uneven:
                self._window.note_uneven()
        if not scheduler.completed(seat, batch, attempt, event.result, event.result.count or None):
            event.result.discard()

    def _replace(self, died: Died) -> None:
        """Puts a new worker in the place of one that died, and has its leases done again."""
        certificate, death = died.certificate, died.death
        self._restarts.note_death(died)
        self._recorder.deaths.append(certificate)
        moved, commands = self._splitting.remove_worker(died.seat, death)
        for lease, seat in moved:
            self._scheduler.move(lease, seat)
            if death.lease is not None and death.lease[0] == lease.batch:
                # What it did for a batch counts as all of it.
                death = replace(death, lease=(lease.batch, lease.attempt))
        self._scheduler.remove_worker(died.seat, death)
        self._order(commands)
        self._restarts.check()
        delay_s = self._restarts.vacate(died.seat)
        when = f" in {delay_s:.2g} s" if delay_s else ""
        _log.warning("%s; another takes its place%s", str(certificate).partition("\n")[0], when)
        _log.debug("%s", certificate)
        self._fill_seats()

    def _fill_seats(self) -> None:
        """Starts the new workers that are due."""
        for seat in self._restarts.due():
            self._engine.restart(seat)
            self._scheduler.add_worker(seat)
            self._recorder.restarts += 1

    def _find_room(self, event: Cramped) -> None:
        """All workers wait for memory, the first of them for that of the batch."""
        scheduler = self._scheduler
        whole = self._splitting.make_whole(event.lease.batch)
        if whole:
            self._order(whole)
            return
        scheduler.narrow(event.fits)
        if self._in_hand or scheduler.deliverable or scheduler.open_batch() is not None:
            # What is handed over and dropped makes some, and so may who is told how to go on.
            return
        are_streams = self._plan.is_stream
        # Who wants no worker replaced has a stream that is not to be run again.
        if are_streams and not self._restarts.allowed:
            self._engine.refuse_room(event.lease)
        elif scheduler.make_room(event.lease.batch, are_streams=are_streams):
            # At once: what is known of workers changes with the next event.
            self._carry_out()
        else:
            self._engine.refuse_room(event.lease)
