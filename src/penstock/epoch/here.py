"""Batches of the training process itself: each is made when it is asked for, and nobody is asked.

    plan ──> InlineEngine ──> batch, and its mark

What a scheduler decides, and a wheel carries out, is decided already where there is one worker,
which is never ahead, does not die, and has no bad samples to ask about.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import ClassVar

from penstock.checkpoint import Marks, Progress
from penstock.engines.inline import InlineEngine
from penstock.engines.protocol import Opened
from penstock.observe import StatisticsRecorder
from penstock.plan import EpochPlan
from penstock.schedule import Lease


class Here:
    """Makes the batches of an epoch of a map-style dataset.

    Args:
        engine: in which the epoch has begun.
        plan: where batches come from, behind those that the progress has passed.
        progress: how far the epoch has come before.
        marks: where each batch is entered.
        recorder: counts and times.

    Attributes:
        is_over: see `Incoming`; no error ends it before the sampler does.
        finished: whether there is no more, where `look` has found nothing.
        abandon: see `Incoming`; nothing is left.
    """

    is_over: ClassVar[bool] = False
    finished: ClassVar[bool] = True
    abandon: ClassVar[tuple[()]] = ()

    def __init__(
        self,
        engine: InlineEngine,
        plan: EpochPlan,
        progress: Progress,
        marks: Marks,
        recorder: StatisticsRecorder,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._progress = progress
        self._marks = marks
        self._recorder = recorder
        self._leases = _leases(plan, progress)

    def take(self, began: float = 0.0) -> Opened | None:
        """Makes the next batch; None at the end.

        Raises:
            Exception: what a sample or the collate function raised; the next call goes on behind
                that batch. Or what the sampler raised, behind which there is no more.
        """
        self._progress.started = True
        lease = next(self._leases, None)
        if lease is None:
            return None
        number, read = lease.batch, 0
        try:
            opened, busy_s = self._engine.make(lease)
            self._recorder.busy_s += busy_s
            read = opened.samples
            if opened.snapshot is not None:
                self._marks.note_snapshot(number, lease.seat, opened.snapshot)
            return opened
        finally:
            self._marks.hand_over(number, read, (), self._plan.snapshot(number))

    look = take

    def wait(self, began: float) -> None:
        """There is nothing to wait for."""

    def close(self) -> None:
        """Nothing is made that is not handed over."""


def _leases(plan: EpochPlan, progress: Progress) -> Iterator[Lease]:
    """What is to be made; behind an error of the plan there is no more."""
    beyond = frozenset(progress.beyond)
    for number in itertools.count(progress.passed):
        given = plan.take()
        if given is None:
            return
        if number not in beyond:
            yield Lease(number, 0, 0, given[0])
