"""What an engine makes of an epoch: its batches as they come off the wheel, one after another.

    next() ──> turns the wheel until a delivery comes off ──> opens it ──> the batch, or an error

The wheel turns only in calls of these, in the caller's thread. Workers go on meanwhile, as far as
the window of leases reaches.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, MutableMapping

from penstock.checkpoint import Marks, Progress
from penstock.engines.protocol import NOTHING_LEFT, Engine, Guess, Opened, Result
from penstock.epoch import texts
from penstock.epoch.account import Account
from penstock.epoch.bad_samples import BadSamples
from penstock.epoch.restarts import Restarts
from penstock.epoch.settings import EpochSettings
from penstock.epoch.wheel import Wheel
from penstock.errors import BatchTimeoutError, TooManySkippedError, WorkerDiedError
from penstock.observe import StatisticsRecorder
from penstock.plan import EpochPlan
from penstock.schedule import (
    Bundling,
    Delivery,
    DonorPlan,
    Inquest,
    Ledger,
    Scheduler,
    Splitting,
    Window,
)

_log = logging.getLogger("penstock")


class Incoming:
    """The batches of one epoch, as an engine makes them.

    Args:
        engine: in which the epoch has begun.
        plan: where batches come from.
        settings: how to run it.
        workers: worker processes.
        begun: batches that workers have begun before the epoch was asked for.
        donors: the plan again, if it can fill skipped places.
        progress: how far the epoch has come before; the plan begins behind that.
        quarantine: see `EpochRun`.
        ledger: the samples that were read, and those left out.
        marks: where each batch is entered.
        recorder: counts and times.
        foresee: see `EpochRun`.

    Attributes:
        is_over: whether an error has ended the epoch: behind it nothing more can be had.
        abandon: each ends the epoch and returns what has arrived, to be given up. They hold neither
            this nor the engine, and with it what the program's own functions hold.
    """

    def __init__(
        self,
        engine: Engine,
        plan: EpochPlan,
        settings: EpochSettings,
        *,
        workers: int,
        begun: int,
        donors: DonorPlan | None,
        progress: Progress,
        quarantine: MutableMapping[object, object] | None,
        ledger: Ledger,
        marks: Marks,
        recorder: StatisticsRecorder,
        foresee: Callable[[], Guess | None] | None,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._settings = settings
        self._ledger = ledger
        self._marks = marks
        self._recorder = recorder
        self._foresee = foresee
        self.is_over = False
        tolerant = settings.policy.tolerant
        self._bad_samples = BadSamples(ledger, marks, is_stream=plan.is_stream)
        restarts = Restarts(
            engine.seats,
            engine.ready_seats(),
            most=settings.max_restarts,
            is_stream=plan.is_stream,
            tolerant=tolerant,
        )
        self._window = Window(
            settings.window,
            workers=workers if settings.widens else 0,
            fits=None if engine.arena is None else engine.arena.fits,
        )
        # Bad samples are decided on batch by batch.
        bundles = settings.bundles and settings.in_order and workers > 0 and not tolerant
        self._bundling = Bundling(self._window, workers) if bundles else None
        # Of several that came together, what is still to be handed over, with their numbers.
        self._pending: deque[tuple[int, Opened | Exception]] = deque()
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
            first=progress.passed,
            passed=progress.beyond,
            bundling=self._bundling,
        )
        self._splitting: Splitting[Result] = Splitting(
            self._scheduler.workers, settings.pace, whole=progress.passed + begun
        )
        self.abandon = self._scheduler.abandon, self._splitting.abandon
        self._account = Account(self._scheduler, plan, marks)
        self._wheel = Wheel(
            engine,
            plan,
            self._scheduler,
            restarts,
            splitting=self._splitting,
            pace=settings.pace,
            window=self._window,
            bundling=self._bundling,
            account=self._account,
            bad_samples=self._bad_samples if tolerant else None,
            progress=progress,
            recorder=recorder,
            hurried=not begun,
        )
        for seat in range(engine.seats):
            self._scheduler.add_worker(seat)
        # Without workers nothing is fetched ahead: a sampler is asked for a batch when the loop
        # asks for it, and sees what the loop has done until then.
        self._fetches_ahead = workers > 0
        if self._fetches_ahead:
            self._wheel.give_work()

    def take(self, began: float) -> Opened | None:
        """The next batch that has something in it; None at the end.

        Args:
            began: `time.perf_counter()` when the loop began to wait for it.

        Raises:
            Exception: what stands in its place, or why there can be no more: see `is_over`.
        """
        if self._pending:
            # Which refuses a process that was forked since.
            self._engine.flush()
            return self._hand_over()
        if self._bundling is not None and self._recorder.batches:
            self._bundling.note_step(began - self._recorder.last)
        while (delivery := self._next_delivery(began)) is not None:
            opened = self._take_off(delivery)
            if opened is not None:
                return opened
        self._account.close()
        return None

    def look(self) -> Opened | None:
        """The next batch, if it is there; None: it is not, or there is no more (`finished`).

        Raises:
            Exception: as `take`.
        """
        if self._pending:
            self._engine.flush()
            return self._hand_over()
        self._wheel.give_work()
        self._turn(0.0)
        # Only opening it tells whether anything is left in a batch.
        while (delivery := self._scheduler.pop()) is not None:
            opened = self._take_off(delivery)
            if opened is not None:
                return opened
        if not self._scheduler.finished:
            # Whoever waits does so on his own, for the handles.
            self._wheel.note_lack()
        return None

    def wait(self, began: float) -> None:
        """Waits until there is something new.

        Raises:
            BatchTimeoutError: it has lasted too long since `began`.
            Exception: the epoch cannot go on.
        """
        self._turn(time_left_s(self._settings.timeout_s, began))

    @property
    def finished(self) -> bool:
        """Whether all was handed over."""
        return self._scheduler.finished and not self._pending

    def close(self) -> None:
        """Lets go of what was opened."""
        self._pending.clear()

    # How a batch is come by.

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
            self.wait(began)
            delivery = scheduler.pop()
            if delivery is not None:
                return delivery
        return None

    def _turn(self, timeout_s: float | None, *, in_hand: bool = False) -> None:
        try:
            self._wheel.turn(timeout_s, in_hand=in_hand)
        except WorkerDiedError as death:
            if not (self._engine.anticipated and self._scheduler.all_made):
                self.is_over = True
                raise
            # All that is left to be handed over is there. The next epoch has workers of its own.
            told = str(death).partition("\n")[0]
            _log.warning("%s; it was at the next epoch, and this one goes on without it", told)
        except BaseException:
            # Something may have been heard and not been dealt with.
            self.is_over = True
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

    def _take_off(self, delivery: Delivery[Result]) -> Opened | None:
        """The batch of a delivery, or the first of several; None: there is nothing in it."""
        # Work for the workers first: they have it while the training loop computes.
        if self._fetches_ahead:
            self._wheel.give_work()
        opened: Opened | None
        if delivery.result is not None and delivery.result.count:
            batches = delivery.result.open_all()
            self._pending.extend(enumerate(batches, delivery.batch or 0))
            opened = self._hand_over()
        else:
            opened = self._open(delivery)
        if opened is not None:
            self._wheel.note_plenty()
        return opened

    def _hand_over(self) -> Opened:
        """The next of several that came together."""
        number, opened = self._pending.popleft()
        if isinstance(opened, Exception):
            self._account.hand_over(number, 0)
            raise opened
        self._ledger.read += opened.samples
        self._account.hand_over(number, opened.samples)
        return opened

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
                self.is_over = True
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
            self.is_over = True
            raise
        return None if opened.value is NOTHING_LEFT else opened


def time_left_s(timeout_s: float, began: float) -> float | None:
    """How much longer a wait for a batch may last.

    Args:
        timeout_s: how long it may last in all; 0: for ever.
        began: `time.perf_counter()` when it began.

    Returns:
        Seconds; None: for ever.

    Raises:
        BatchTimeoutError: it has lasted too long.
    """
    if not timeout_s:
        return None
    left_s = began + timeout_s - time.perf_counter()
    if left_s <= 0:
        raise BatchTimeoutError(texts.timed_out(timeout_s))
    return left_s
