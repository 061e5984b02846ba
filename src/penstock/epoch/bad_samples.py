"""What becomes of samples that cannot be made, in one epoch."""

from __future__ import annotations

from typing import Any

from penstock.checkpoint import Marks
from penstock.engines.failure import exception_for
from penstock.engines.protocol import Failures
from penstock.errors import SampleError, TooManySkippedError
from penstock.schedule import Fill, Ledger, Replacement, Scheduler


class BadSamples:
    """Asks the policy about bad samples, and enters those that are left out.

    Args:
        ledger: the policy, with the epoch's account of them.
        marks: where a batch's skips are noted.
        is_stream: whether leases are of streams.
    """

    def __init__(self, ledger: Ledger, marks: Marks, *, is_stream: bool) -> None:
        self._ledger = ledger
        self._marks = marks
        self._is_stream = is_stream
        self._answers: dict[tuple[int | None, object], Fill] = {}
        self._stopped = False

    def decide_all(self, scheduler: Scheduler[Any]) -> None:
        """Settles the batches that are to be decided on now, in delivery order."""
        while not self._stopped and (question := scheduler.open_batch()) is not None:
            batch, failures = question
            try:
                fills = self._decide_batch(failures, batch)
            except Exception as error:
                # Of the program's own function.
                fills = error
            if isinstance(fills, BaseException):
                self._stopped = isinstance(fills, TooManySkippedError)
                scheduler.fail(batch, fills)
            else:
                scheduler.resolve(batch, fills)

    def leave_out(self, batch: int, failures: Failures) -> None:
        """Enters the samples that a batch has come without.

        Raises:
            TooManySkippedError: these are more than is allowed.
        """
        for _, error in failures:
            self._marks.note_skip(batch)
            self._ledger.record(error)

    def _decide_batch(self, failures: Failures, batch: int) -> dict[int, Fill] | BaseException:
        """The decisions about the bad samples of a batch, or the error in its place.

        That is returned, since it waits for its turn: with the traceback of where it was raised it
        would keep the epoch, whose code that is, from being freed when its iterator is dropped.
        """
        fills: dict[int, Fill] = {}
        for place, failure in failures:
            decision = self._decide_once(failure, batch)
            if isinstance(decision, BaseException):
                return decision
            fills[place] = decision
        return fills

    def _decide_once(self, error: SampleError, batch: int) -> Fill | BaseException:
        """The decision about a bad sample.

        A stream's sample is met again when its worker dies behind the answer; then
        the answer is the same, and it is not counted twice.
        """
        if not self._is_stream:
            return self._decide(error, batch)
        key = (error.worker, error.index)
        answer = self._answers.get(key)
        if answer is not None:
            return answer
        decision = self._decide(error, batch)
        if isinstance(decision, Fill):
            self._answers[key] = decision
        return decision

    def _decide(self, error: SampleError, batch: int) -> Fill | BaseException:
        answer = self._ledger.decide(error)
        if isinstance(answer, Replacement):
            return Fill("value", answer.value)
        if answer == "raise":
            return exception_for(error)
        self._marks.note_skip(batch)
        try:
            self._ledger.record(error)
        except TooManySkippedError as stop:
            return stop.with_traceback(None)
        return Fill("drop")
