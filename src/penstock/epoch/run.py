"""One epoch, as the training loop iterates it.

    next() ──> turns the wheel until a delivery comes off ──> opens it ──> the batch, or an error

The wheel turns only inside `next()` and `ready()`, in the caller's thread. Workers go on meanwhile,
as far as the window of leases reaches.
"""

from __future__ import annotations

import logging
import time
import warnings
import weakref
from collections.abc import Callable, Iterator, MutableMapping
from typing import Any

from penstock.checkpoint import Mark, Marks, Progress
from penstock.engines.inline import InlineEngine
from penstock.engines.protocol import (
    NOTHING_LEFT,
    Engine,
    EpochStart,
    Guess,
    Opened,
    Result,
)
from penstock.epoch import texts
from penstock.epoch.account import Account
from penstock.epoch.bad_samples import BadSamples
from penstock.epoch.here import Here
from penstock.epoch.restarts import Restarts
from penstock.epoch.settings import EpochSettings
from penstock.epoch.starts import starts_of
from penstock.epoch.wheel import Wheel
from penstock.errors import (
    BatchTimeoutError,
    ClosedError,
    SampleError,
    TooManySkippedError,
    WorkerDiedError,
)
from penstock.observe import StatisticsRecorder
from penstock.plan import EpochPlan
from penstock.schedule import (
    Delivery,
    DonorPlan,
    Inquest,
    Ledger,
    Scheduler,
    Splitting,
    Window,
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
        quarantine: samples that end whoever makes them, by index, with their descriptions; those
            that are found are added.
        sized: what has as many elements as the epoch has batches, if that is known.
        foresee: says what the epoch behind this one will begin with; None: nobody can.

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
        quarantine: MutableMapping[object, object] | None = None,
        sized: Any = None,
        foresee: Callable[[], Guess | None] | None = None,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._settings = settings
        self._sized = sized
        self._foresee = foresee
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
        self._claim_broken = False
        # With fewer at once, other workers may be lent a batch than those that have begun it.
        apart = quarantine or settings.window < engine.anticipated
        begun = engine.begin_epoch(
            EpochStart(settings.seed, starts_of(self.progress, engine.seats), settings.number),
            () if apart else plan.peek(engine.anticipated),
        )
        # Only now: an epoch may begin with new workers.
        restarts = Restarts(
            engine.seats,
            engine.ready_seats(),
            most=settings.max_restarts,
            is_stream=plan.is_stream,
            tolerant=settings.policy.tolerant,
        )
        self._closed = False
        self._exhausted = False
        # What `ready` has found, for `next()` to hand over.
        self._ahead: Opened | None = None
        self._error_ahead: Exception | None = None
        self._window = Window(
            settings.window,
            workers=workers if settings.widens else 0,
            fits=None if engine.arena is None else engine.arena.fits,
        )
        self._scheduler: Scheduler[Result] = Scheduler(
            plan,
            window=self._window,
            in_order=settings.in_order,
            donors=donors,
            inquest=Inquest(
                given_up=restarts.given_up,
                killed=None if plan.is_stream else restarts.killed,
                quarantine=quarantine,
            ),
            first=self.progress.passed,
            passed=self.progress.beyond,
        )
        self._splitting: Splitting[Result] = Splitting(
            self._scheduler.workers, settings.pace, whole=self.progress.passed + begun
        )
        self._account = Account(self._scheduler, plan, self._marks)
        self._wheel = Wheel(
            engine,
            plan,
            self._scheduler,
            restarts,
            splitting=self._splitting,
            pace=settings.pace,
            window=self._window,
            account=self._account,
            bad_samples=self._bad_samples if settings.policy.tolerant else None,
            progress=self.progress,
            recorder=self.recorder,
            hurried=not begun,
        )
        # A dropped iterator frees what it has, as `close` does.
        self._release = weakref.finalize(
            self, _end, self._scheduler, self._splitting, self.recorder, release
        )
        for seat in range(engine.seats):
            self._scheduler.add_worker(seat)
        simple = donors is None and not (plan.is_stream or settings.policy.tolerant or quarantine)
        self._here: Here | None = None
        if isinstance(engine, InlineEngine) and simple:
            self._here = Here(engine, plan, self.progress, self._marks, self.recorder)
        # Without workers nothing is fetched ahead: a sampler is asked for a batch when the loop
        # asks for it, and sees what the loop has done until then.
        self._fetches_ahead = workers > 0
        if self._fetches_ahead:
            self._wheel.give_work()

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
        if opened is not None:
            # Which refuses a process that was forked since.
            self._engine.flush()
        elif self._here is not None:
            opened = self._here.make()
        else:
            opened = self._next_opened(began)
        if opened is None:
            self._account.close()
            self._exhausted = True
            self.close()
            raise StopIteration
        self.recorder.delivered(opened.samples, began)
        self._check_claim()
        return opened.value

    def ready(self) -> bool:
        """Whether `next()` would return, or raise, without waiting; never waits itself."""
        if self._closed or self._ahead is not None or self._error_ahead is not None:
            return True
        try:
            if self._here is not None:
                self._ahead = self._here.make()
                return True
            self._wheel.give_work()
            self._turn(0.0)
            # Only opening it tells whether anything is left in a batch.
            while self._ahead is None and (delivery := self._scheduler.pop()) is not None:
                if self._fetches_ahead:
                    self._wheel.give_work()
                self._ahead = self._open(delivery)
        except Exception as error:
            self._error_ahead = error
            return True
        except BaseException:
            self.close()
            raise
        if self._ahead is not None:
            self._wheel.note_plenty()
        elif not self._scheduler.finished:
            # Whoever waits does so on his own, for the handles.
            self._wheel.note_lack()
            return False
        return True

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
    def is_over(self) -> bool:
        """Whether nothing more is made for it."""
        return self._closed

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

    # How a batch is come by.

    def _next_opened(self, began: float) -> Opened | None:
        """The next batch that has something in it; waits for it. None at the end."""
        while (delivery := self._next_delivery(began)) is not None:
            # Work for the workers first: they have it while the training loop computes.
            if self._fetches_ahead:
                self._wheel.give_work()
            opened = self._open(delivery)
            if opened is not None:
                self._wheel.note_plenty()
                return opened
        return None

    def _next_delivery(self, began: float) -> Delivery[Result] | None:
        """The next delivery; waits for it. None at the end."""
        scheduler = self._scheduler
        delivery = scheduler.pop()
        if delivery is not None:
            if scheduler.ready < self._window.size // 2:
                # Deaths and questions are dealt with while there is something to go on with.
                self._turn(0.0, in_hand=True)
            return delivery
        if not self._fetches_ahead:
            self._wheel.give_work()
        while not scheduler.finished:
            self._wheel.note_wait()
            self._turn(self.left_s(began))
            delivery = scheduler.pop()
            if delivery is not None:
                return delivery
        return None

    def _turn(self, timeout_s: float | None, *, in_hand: bool = False) -> None:
        try:
            self._wheel.turn(timeout_s, in_hand=in_hand)
        except WorkerDiedError as death:
            if not (self._engine.anticipated and self._scheduler.all_made):
                self.close()
                raise
            # All that is left to be handed over is there. The next epoch has workers of its own.
            told = str(death).partition("\n")[0]
            _log.warning("%s; it was at the next epoch, and this one goes on without it", told)
        except BaseException:
            # Something may have been heard and not been dealt with.
            self.close()
            raise
        if self._foresee is not None and self._scheduler.all_made:
            self._look_beyond(self._foresee)

    def _look_beyond(self, foresee: Callable[[], Guess | None]) -> None:
        """The workers have nothing to do: they begin the next epoch."""
        self._foresee = None
        try:
            guess = foresee()
        except Exception:
            # The next epoch's business, if it is still so then: a program may only be about to
            # write down what the order is drawn from.
            _log.debug("what the next epoch begins with cannot be told yet", exc_info=True)
            return
        if guess is not None:
            self._engine.anticipate(guess)

    def _open(self, delivery: Delivery[Result]) -> Opened | None:
        """The batch of a delivery, if there is anything in it; the error in its place is raised."""
        read = self._ledger.read
        try:
            return self._unpack(delivery)
        finally:
            if delivery.batch is not None:
                self._account.hand_over(delivery.batch, self._ledger.read - read)

    def _unpack(self, delivery: Delivery[Result]) -> Opened | None:
        if delivery.error is not None:
            lost = self._plan.is_stream and isinstance(delivery.error, WorkerDiedError)
            if lost or isinstance(delivery.error, TooManySkippedError):
                # A worker in its place would come to the same sample again.
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

    # What is remembered, and told.

    def _check_claim(self) -> None:
        length, samples = self._settings.claimed_samples, self.recorder.samples
        if length is not None and samples > length and not self._claim_broken:
            self._claim_broken = True
            warnings.warn(texts.longer_than_claimed(length, samples), stacklevel=3)


def _end(
    scheduler: Scheduler[Result],
    splitting: Splitting[Result],
    recorder: StatisticsRecorder,
    release: Callable[[], None],
) -> None:
    recorder.ended()
    for result in [*scheduler.abandon(), *splitting.abandon()]:
        result.discard()
    release()
