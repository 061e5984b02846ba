"""What is remembered of an epoch's batches, until the progress shows that they were handed over."""

from __future__ import annotations

from typing import Any

from penstock.checkpoint import Marks, StreamMark
from penstock.engines.protocol import Ended, Report
from penstock.plan import EpochPlan, stream_of
from penstock.schedule import Scheduler


class Account:
    """Enters batches into the marks.

    Args:
        scheduler: knows which reply counts, and what turned out to hold nothing.
        plan: where the batches come from.
        marks: what is kept for the progress.
    """

    def __init__(self, scheduler: Scheduler[Any], plan: EpochPlan, marks: Marks) -> None:
        self._scheduler = scheduler
        self._plan = plan
        self._marks = marks

    def note_stream(self, event: Report) -> None:
        """Keeps where a stream stands behind a batch, until the batch is handed over."""
        lease = self._scheduler.lease(event.batch)
        if lease is None or lease.attempt != event.attempt:
            return
        stream = stream_of(lease.indices)
        ended = isinstance(event, Ended)
        if ended:
            self._plan.end_stream(stream)
        self._marks.note_stream(event.batch, StreamMark(stream, event.pulled, ended))

    def hand_over(self, batch: int, read: int) -> None:
        """Enters a batch that is handed over, and those before it that hold nothing.

        Args:
            batch: its number.
            read: samples that it has, and has come without.
        """
        plan, marks = self._plan, self._marks
        if emptied := self._scheduler.take_emptied():
            marks.note_emptied(emptied)
        marks.pass_by(batch)
        marks.hand_over(batch, read, plan.donated(batch), plan.snapshot(batch))

    def close(self) -> None:
        """Enters what is left at the end of the epoch."""
        self._marks.note_emptied(self._scheduler.take_emptied())
        self._marks.pass_by(None)
