"""How many workers a loader has, from epoch to epoch.

Chooser ──how many──> engine ──> EpochWatch: what waiting and making take
   ^                                │ amid the epoch: it is faster without
   └── behind it: fewer would do, or more are needed

"""

from __future__ import annotations

import logging
import math

from penstock.engines.looks import (
    LOOK_BATCHES,
    MOST_TRIALS,
    TRIAL_BATCHES,
    WARM_UP_BATCHES,
    Looks,
    Tally,
)
from penstock.observe import Choice, StatisticsRecorder

_log = logging.getLogger("penstock")

# The share of its time that a loop waits at most whose workers keep up with it.
KEEPS_UP = 0.02
# The share from which on more workers are tried.
FALLS_BEHIND = 0.1
# Workers are for so much more than there was to do: samples take unlike times.
HEADROOM = 1.5
# By so much the loop has to wait longer without workers than with them, to have them again.
CLEARLY = 1.25


class Chooser:
    """Chooses for one loader, over all its epochs.

    Args:
        most: workers at most.
        reason: why as many.
        first: with how many it begins; None: as many.
        is_bound: whether it stays at that, whatever is measured.
        stays: whether workers live on between epochs, so that they have to start only once.

    Attributes:
        choice: what the next epoch begins with.
        most: as given.
        is_bound: whether it stays at that.
    """

    def __init__(
        self,
        most: int,
        reason: str,
        *,
        first: int | None = None,
        is_bound: bool = False,
        stays: bool = False,
    ) -> None:
        self.most = most
        self.is_bound = is_bound
        self.choice = Choice(most if first is None else first, reason)
        self._room = most
        self._stays = stays
        self._trials = 0
        self._told: Choice | None = None
        self._last: EpochWatch | None = None
        # Of epochs that were too short to say anything alone.
        self._kept = Tally()
        # What the loop waited for a batch when there were workers last, and how many there were.
        self._with_workers = math.inf, self.choice.workers

    @property
    def workers(self) -> int:
        """How many there are to be."""
        return self.choice.workers

    def begin_epoch(self) -> int:
        """Another epoch is about to begin; returns how many workers it is to have."""
        last, self._last = self._last, None
        if last is not None and not self.is_bound:
            self._judge(last)
        self._tell()
        return self.workers

    def watch(self, recorder: StatisticsRecorder) -> EpochWatch:
        """The epoch has begun that this keeps the figures of."""
        self._last = EpochWatch(self, recorder)
        return self._last

    def bind(self, reason: str, workers: int | None = None) -> None:
        """Has it stay as it is from now on, with workers.

        Args:
            reason: why.
            workers: how many; None: as many as there are, or were last.
        """
        if self.is_bound:
            return
        self.is_bound = True
        if workers is None:
            workers = self.workers or self._with_workers[1]
        self.choice = Choice(workers, reason, self.choice.waited_s, self.choice.busy_s)

    def note_room(self, fits: int) -> None:
        """Memory is short, and there is room for so many batches."""
        self._room = max(1, min(self._room, fits))

    @property
    def tries(self) -> bool:
        """Whether it may be tried, amid an epoch, how that goes on without workers."""
        return not self.is_bound and self._trials < MOST_TRIALS

    def tried(self, seen: Tally) -> None:
        """It was tried, and took longer than with workers, with whom it was as `seen`."""
        self._trials += 1
        why = "without any, the loop waited longer"
        self.choice = Choice(self.workers, why, seen.wait_s, seen.cost_s)

    def go_alone(self, seen: Tally, workers: int, cost_s: float) -> None:
        """The training process is to make the batches itself.

        Args:
            seen: what it was like with workers.
            workers: how many those were.
            cost_s: seconds that a batch takes it.
        """
        self._with_workers = seen.wait_s, workers
        waited = f"the loop waited {_ms(seen.wait_s)} for each batch of {workers} worker"
        plural = "" if workers == 1 else "s"
        why = f"{waited}{plural}, and to make one takes {_ms(cost_s)}"
        self.choice = Choice(0, why, seen.wait_s, cost_s)
        self._tell()

    def _judge(self, watch: EpochWatch) -> None:
        """Goes by what the last epoch was like."""
        seen, first_wait_s = watch.seen, watch.recorder.first_wait_s
        if self._stays and self.workers and first_wait_s is not None:
            # Not again: the workers are there.
            seen = seen.since(Tally(1, first_wait_s))
        seen = self._kept.plus(seen)
        if seen.batches < LOOK_BATCHES:
            self._kept = seen
            return
        self._kept = Tally()
        if not self.workers:
            self._judge_alone(seen)
        elif seen.is_slower:
            self.go_alone(seen, self.workers, seen.cost_s)
        else:
            self._adjust(watch.recorder, seen)

    def _judge_alone(self, seen: Tally) -> None:
        wait_s, workers = self._with_workers
        if seen.wait_s > CLEARLY * wait_s:
            waits = f"{_ms(seen.wait_s)} for each batch without, and {_ms(wait_s)} with them"
            why = f"the loop waited {waits}"
            self.choice = Choice(workers, why, seen.wait_s, self.choice.busy_s)

    def _adjust(self, recorder: StatisticsRecorder, seen: Tally) -> None:
        """Fewer workers, if these have little to do; more, if the loop waits for them."""
        count, figures = self.workers, recorder.snapshot(0)
        share, why = figures.wait_share, self.choice.reason
        needed = max(1, math.ceil(HEADROOM * figures.busy_s / max(figures.elapsed_s, 1e-9)))
        if share <= KEEPS_UP and needed <= count // 2:
            why = f"{count} were busy for {figures.busy_share:.0%} of their time"
            count = needed
        elif share > FALLS_BEHIND and count < self._room:
            why = f"the loop waited for {count} for {share:.0%} of its time"
            count = 2 * count
        if count > self._room:
            count = self._room
            if self._room < self.most:
                why = f"there is memory for {count} batches at once"
        self.choice = Choice(count, why, seen.wait_s, seen.cost_s)

    def _tell(self) -> None:
        told, self._told = self._told, self.choice
        if told is None or told.workers != self.workers:
            _log.info('"auto" has come to %s', self.choice)


class EpochWatch:
    """What one epoch is like; see `Chooser.watch`.

    Args:
        chooser: the loader's.
        recorder: counts and times of the epoch.

    Attributes:
        recorder: as given.
    """

    def __init__(self, chooser: Chooser, recorder: StatisticsRecorder) -> None:
        self.recorder = recorder
        self._chooser = chooser
        self._workers = chooser.workers
        # What comes first has waited for workers to start.
        self._looks = Looks(2 * self._workers)
        self._made = 0
        self._busy_s = 0.0
        self._parting_s = 0.0
        # What it was like with workers, while it is tried without; how far it was when that began.
        self._with_workers: Tally | None = None
        self._alone_at: int | None = None
        self._alone_from: Tally | None = None
        self._enter(chooser.choice)

    def _enter(self, choice: Choice) -> None:
        self.recorder.workers = choice.workers
        self.recorder.chosen = choice

    @property
    def _may_try(self) -> bool:
        return self._workers > 0 and self._with_workers is None and self._chooser.tries

    @property
    def seen(self) -> Tally:
        """What it was like; of one that went on alone, from there."""
        seen = self._now().since(self._alone_from or Tally())
        return seen.since(Tally(waited_s=self._parting_s))

    def note_parting(self, seconds: float) -> None:
        """The loop has waited so long for workers to leave, once."""
        self._parting_s += seconds

    def _now(self) -> Tally:
        recorder = self.recorder
        return Tally(recorder.batches, recorder.waited_s, self._made, self._busy_s)

    def note_made(self, busy_s: float) -> None:
        """A worker has made a batch."""
        self._made += 1
        self._busy_s += busy_s

    def note_room(self, fits: int) -> None:
        """See `Chooser.note_room`."""
        self._chooser.note_room(fits)

    def note_death(self) -> None:
        """A worker has died: whatever ended it is not to end the training process."""
        why = "a worker has died, and what ended it is not to end the training process"
        self._chooser.bind(why, self._workers)
        self._with_workers = self._alone_at = self._alone_from = None
        self._enter(self._chooser.choice)

    def tries_alone(self) -> bool:
        """Whether the training process is to go on without workers now, to see how that is."""
        if self.recorder.batches < self._looks.due or not self._may_try:
            return False
        now = self._now()
        self._with_workers = self._looks.look(now)
        return self._with_workers is not None

    def verdict(self) -> bool | None:
        """Whether it is to stay without workers; None: that does not show yet.

        Ask it from when the workers have nothing to do any more.
        """
        now, before = self._now(), self._with_workers
        if before is None:
            return not self._workers
        if self._alone_at is None:
            self._alone_at = now.batches + WARM_UP_BATCHES
        if now.batches < self._alone_at:
            return None
        if self._alone_from is None:
            self._alone_from = now
        seen = now.since(self._alone_from)
        if seen.batches < TRIAL_BATCHES:
            return None
        self._with_workers = self._alone_at = None
        if seen.wait_s > before.wait_s:
            self._alone_from = None
            self._looks.resume(now)
            self._chooser.tried(before)
            return False
        self._chooser.go_alone(before, self._workers, seen.wait_s)
        self._workers = 0
        self._enter(self._chooser.choice)
        return True


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g} ms"
