"""One epoch: the scheduler decides, an engine does it, the training loop gets the batches.

    plan ──> Scheduler ──commands──> Engine
                 ^                     │
                 └──────events─────────┘      next() turns this wheel until a batch comes off

It turns only inside `next()` and `ready()`, in the caller's thread. Workers go on meanwhile, as far
as the window of leases reaches.
"""

from __future__ import annotations

import logging
import time
import warnings
import weakref
from collections.abc import Callable, Iterator
from typing import Any

from penstock.checkpoint import Mark, Marks, Progress, StreamMark
from penstock.engines.protocol import (
    NOTHING_LEFT,
    Died,
    Done,
    Ended,
    Engine,
    EpochStart,
    Event,
    Failed,
    Opened,
    Report,
    Result,
    Started,
    StartFailed,
    Withheld,
)
from penstock.epoch import texts
from penstock.epoch.bad_samples import BadSamples
from penstock.epoch.restarts import Restarts
from penstock.epoch.settings import EpochSettings
from penstock.epoch.starts import starts_of
from penstock.errors import BatchTimeoutError, ClosedError, SampleError, TooManySkippedError
from penstock.observe import StatisticsRecorder
from penstock.plan import EpochPlan, stream_of
from penstock.schedule import (
    Amend,
    Delivery,
    Discard,
    DonorPlan,
    Issue,
    Ledger,
    Recall,
    Scheduler,
)
from penstock.transport.arena import Arena

_log = logging.getLogger("penstock")


class EpochRun(Iterator[Any]):
    """Iterates the batches of one epoch.

    Args:
        engine: started.
        plan: where batches come from.
        settings: how to run it.
        workers: worker processes, for the statistics.
        donors: the plan again, if it can fill skipped places.
        release: called once when the epoch is over or given up.
        began: `time.perf_counter()` when the epoch was asked for, before its workers started.
        progress: how far the epoch has come before; the plan begins behind that.
        sized: what has as many elements as the epoch has batches, if that is known.

    Attributes:
        recorder: counts and times of the epoch.
        progress: what of the epoch was handed over.
    """

    def __init__(
        self,
        engine: Engine,
        plan: EpochPlan,
        settings: EpochSettings,
        *,
        workers: int,
        donors: DonorPlan | None = None,
        release: Callable[[], None],
        began: float,
        progress: Progress | None = None,
        sized: Any = None,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._settings = settings
        self._sized = sized
        self.progress = Progress() if progress is None else progress
        self._ledger = Ledger(
            settings.policy,
            settings.planned,
            read=self.progress.read,
            skipped_before=self.progress.skipped,
        )
        self._marks = Marks(in_order=settings.in_order)
        self.recorder = StatisticsRecorder(workers, began)
        self._bad_samples = BadSamples(self._ledger, self._marks, is_stream=plan.is_stream)
        self._asks = settings.policy.tolerant
        self._claim_broken = False
        engine.begin_epoch(
            EpochStart(settings.seed, starts_of(self.progress, engine.seats), settings.number)
        )
        # Only now: an epoch may begin with new workers.
        self._restarts = Restarts(engine.seats, engine.ready_seats(), is_stream=plan.is_stream)
        self._closed = False
        self._exhausted = False
        # What `ready` has found, for `next()` to hand over.
        self._ahead: Opened | None = None
        self._error_ahead: Exception | None = None
        self._scheduler: Scheduler[Result] = Scheduler(
            plan,
            window=settings.window,
            in_order=settings.in_order,
            donors=donors,
            death_error=self._restarts.given_up,
            first=self.progress.passed,
            passed=self.progress.beyond,
        )
        # A dropped iterator frees what it has, as `close` does.
        self._release = weakref.finalize(self, _end, self._scheduler, self.recorder, release)
        for seat in range(engine.seats):
            self._scheduler.add_worker(seat)
        # Without workers nothing is fetched ahead: a sampler is asked for a batch when the loop
        # asks for it, and sees what the loop has done until then.
        self._fetches_ahead = workers > 0
        if self._fetches_ahead:
            self._give_work()

    def __iter__(self) -> EpochRun:
        return self

    def __len__(self) -> int:
        """Batches in the whole epoch, as of torch's iterators; a `TypeError` if that is unknown."""
        return len(self._sized)

    def __next__(self) -> Any:
        """The next batch; see `take`. The progress shows it."""
        try:
            batch = self.take()
        except StopIteration:
            self.progress.add(self._marks.collect())
            self.progress.finished = True
            raise
        except Exception:
            self.progress.add(self._marks.collect())
            raise
        # Not behind Ctrl-C, with which the loop has not been given the batch.
        self.progress.add(self._marks.collect())
        return batch

    def collect_marks(self) -> list[Mark]:
        """What `take` has handed over, and passed by, since the last call."""
        return self._marks.collect()

    def take(self) -> Any:
        """The next batch, for somebody who hands it on later and keeps the progress himself.

        Raises:
            StopIteration: the epoch is over.
            ClosedError: `close` was called, or Ctrl-C has ended a call before.
            Exception: what a sample, the collate function or the sampler raised; the
                epoch may be continued behind it.
        """
        if self._error_ahead is not None:
            error, self._error_ahead = self._error_ahead, None
            raise error
        if self._exhausted:
            raise StopIteration
        if self._closed:
            raise ClosedError("this iterator was closed; iterate the loader again")
        try:
            return self._advance(time.perf_counter())
        except Exception:
            raise
        except BaseException:
            # Ctrl-C, at any point of what follows: what was half done is given up.
            self.close()
            raise

    def _advance(self, began: float) -> Any:
        """Hands over the next batch, waiting for it since `began`."""
        opened, self._ahead = self._ahead, None
        while opened is None:
            delivery = self._next_delivery(began)
            if delivery is None:
                self._marks.note_emptied(self._scheduler.take_emptied())
                self._marks.pass_by(None)
                self._exhausted = True
                self.close()
                raise StopIteration
            # Work for the workers first: they have it while the training loop computes.
            if self._fetches_ahead:
                self._give_work()
            opened = self._open(delivery)
        self.recorder.delivered(opened.samples, began)
        self._check_claim()
        return opened.value

    def ready(self) -> bool:
        """Whether `next()` would return, or raise, without waiting; never waits itself."""
        if self._closed or self._ahead is not None or self._error_ahead is not None:
            return True
        try:
            self._give_work()
            self._turn(0.0)
            # Only opening it tells whether anything is left in a batch.
            while self._ahead is None and (delivery := self._scheduler.pop()) is not None:
                if self._fetches_ahead:
                    self._give_work()
                self._ahead = self._open(delivery)
        except Exception as error:
            self._error_ahead = error
            return True
        except BaseException:
            self.close()
            raise
        return self._ahead is not None or self._scheduler.finished

    def look_ahead(self) -> bool:
        """Whether `next()` would return, or raise, something else than the end.

        Waits until that is known. What is found is not handed over yet: a state does not count it.

        Raises:
            BatchTimeoutError: as `take` does.
        """
        began = time.perf_counter()
        while not self.ready():
            self._turn(self.left_s(began))
        return self._ahead is not None or self._error_ahead is not None

    def wait_handles(self) -> list[int]:
        """Descriptors of which one can be read, or written, when `ready()` may have changed.

        Each is an end of a pipe. One to write to is among them while an order for a worker
        waits for room in its pipe.
        """
        return [] if self._closed else self._engine.wait_handles()

    def left_s(self, began: float) -> float | None:
        """How much longer a wait may last.

        Args:
            began: `time.perf_counter()` when it began.

        Returns:
            Seconds; None: for ever.

        Raises:
            BatchTimeoutError: it has lasted too long.
        """
        timeout_s = self._settings.timeout_s
        if not timeout_s:
            return None
        left_s = began + timeout_s - time.perf_counter()
        if left_s <= 0:
            raise BatchTimeoutError(texts.timed_out(timeout_s))
        return left_s

    @property
    def arena(self) -> Arena | None:
        """The shared memory that its batches come in, if it has any."""
        return self._engine.arena

    @property
    def skipped(self) -> list[SampleError]:
        """The samples that were left out so far, in delivery order."""
        return self._ledger.skipped

    def close(self) -> None:
        """Gives up what is left of the epoch and frees what it used. Twice does no harm."""
        self._closed = True
        self._ahead = None
        self._release()

    # How the wheel turns.

    def _next_delivery(self, began: float) -> Delivery[Result] | None:
        """The next delivery; waits for it. None at the end."""
        scheduler = self._scheduler
        delivery = scheduler.pop()
        if delivery is not None:
            if scheduler.ready < self._settings.window // 2:
                # Deaths and questions are dealt with while there is something to go on with.
                self._turn(0.0)
            return delivery
        while not scheduler.finished:
            self._turn(self.left_s(began))
            delivery = scheduler.pop()
            if delivery is not None:
                return delivery
        return None

    def _turn(self, timeout_s: float | None) -> None:
        """Hears what the workers have to say and gives them more to do."""
        try:
            for event in self._engine.poll(timeout_s):
                self._handle(event)
            if self._asks:
                self._bad_samples.decide_all(self._scheduler)
            self._give_work()
        except BaseException:
            # Something may have been heard and not been dealt with.
            self.close()
            raise

    def _give_work(self) -> None:
        self.progress.started = True
        self._scheduler.fill()
        self._carry_out()
        self._engine.flush()

    def _carry_out(self) -> None:
        for command in self._scheduler.commands():
            if isinstance(command, Issue):
                self._engine.submit(command.lease)
            elif isinstance(command, Amend):
                self._engine.amend(command.lease, command.fills)
            elif isinstance(command, Recall):
                self._engine.recall(command.lease)
            elif isinstance(command, Discard):
                command.result.discard()

    def _handle(self, event: Event) -> None:
        scheduler = self._scheduler
        if self._plan.is_stream and isinstance(event, Report):
            self._note_stream(event)
        if isinstance(event, Done):
            self.recorder.busy_s += event.busy_s
            if not scheduler.completed(event.seat, event.batch, event.attempt, event.result):
                event.result.discard()
        elif isinstance(event, Withheld):
            scheduler.withheld(event.seat, event.batch, event.attempt, event.failures)
        elif isinstance(event, Failed):
            scheduler.failed(event.seat, event.batch, event.attempt, event.error)
        elif isinstance(event, Ended):
            scheduler.emptied(event.seat, event.batch, event.attempt)
        elif isinstance(event, Started):
            self._restarts.note_start(event.seat)
        elif isinstance(event, StartFailed):
            self.close()
            raise event.error
        else:
            self._replace(event)

    def _replace(self, death: Died) -> None:
        """Puts a new worker in the place of one that died, and has its leases done again."""
        self._restarts.note_death(death)
        self._scheduler.remove_worker(death.seat)
        self.recorder.restarts += 1
        self._restarts.check()
        _log.warning("%s; another takes its place", death.cause)
        self._engine.restart(death.seat)
        self._scheduler.add_worker(death.seat)

    def _open(self, delivery: Delivery[Result]) -> Opened | None:
        """The batch of a delivery, if there is anything in it; the error in its place is raised."""
        read = self._ledger.read
        try:
            return self._unpack(delivery)
        finally:
            if delivery.batch is not None:
                self._hand_over(delivery.batch, self._ledger.read - read)

    def _unpack(self, delivery: Delivery[Result]) -> Opened | None:
        if delivery.error is not None:
            if isinstance(delivery.error, TooManySkippedError):
                self.close()
            raise delivery.error
        if delivery.result is None:
            return None
        opened = delivery.result.open()
        batch = delivery.batch or 0
        if opened.snapshot is not None:
            self._marks.note_snapshot(batch, delivery.seat, opened.snapshot)
        self._ledger.read += opened.samples + len(opened.failures)
        try:
            self._bad_samples.leave_out(batch, opened.failures)
        except TooManySkippedError:
            self.close()
            raise
        return None if opened.value is NOTHING_LEFT else opened

    # What is remembered of what was handed over.

    def _note_stream(self, event: Report) -> None:
        """Keeps where a stream stands behind a batch, until the batch is handed over."""
        lease = self._scheduler.lease(event.batch)
        if lease is None or lease.attempt != event.attempt:
            return
        stream = stream_of(lease.indices)
        ended = isinstance(event, Ended)
        if ended:
            self._plan.end_stream(stream)
        self._marks.note_stream(event.batch, StreamMark(stream, event.pulled, ended))

    def _hand_over(self, batch: int, read: int) -> None:
        """Enters a batch that is handed over, and those before it that hold nothing."""
        plan, marks = self._plan, self._marks
        if emptied := self._scheduler.take_emptied():
            marks.note_emptied(emptied)
        marks.pass_by(batch)
        marks.hand_over(batch, read, plan.donated(batch), plan.snapshot(batch))

    def _check_claim(self) -> None:
        length, samples = self._settings.claimed_samples, self.recorder.samples
        if length is not None and samples > length and not self._claim_broken:
            self._claim_broken = True
            warnings.warn(texts.longer_than_claimed(length, samples), stacklevel=3)


def _end(
    scheduler: Scheduler[Result], recorder: StatisticsRecorder, release: Callable[[], None]
) -> None:
    recorder.ended()
    for result in scheduler.abandon():
        result.discard()
    release()
