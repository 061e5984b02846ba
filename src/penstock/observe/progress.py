"""How far an epoch is, in words, for whoever shows it: no terminal is needed here."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass

# A rate over less than this is noise, over more it hides that a disk has become slow.
RECENT_S = 5.0
# In a log file, more lines than this tell nobody more.
LINE_INTERVAL_S = 2.0


@dataclass(frozen=True)
class Progress:
    """One moment of an epoch.

    Attributes:
        done: samples handed over or left out.
        total: samples in the epoch.
        errors: samples left out.
        samples_per_s: how fast it goes at present.
        busy_share: the share of the workers' time in which they worked, from 0 to 1.
        workers: worker processes.
        over: whether there is no more to come.
    """

    done: int
    total: int
    errors: int = 0
    samples_per_s: float = 0.0
    busy_share: float = 0.0
    workers: int = 0
    over: bool = False

    def __str__(self) -> str:
        """`31/52  412/s  1 error  workers 87 % busy`."""
        return "  ".join((f"{self.done:,}/{self.total:,}", *self.figures()))

    def figures(self) -> tuple[str, ...]:
        """What there is to say besides how much is done."""
        errors = f"{self.errors:,} error{'' if self.errors == 1 else 's'}"
        if not self.done:
            return (errors,) if self.over else (errors, "waiting for the first batch")
        rate = f"{rounded(self.samples_per_s)}/s"
        if not self.workers:
            return rate, errors
        return rate, errors, f"workers {self.busy_share:.0%} busy"


class RecentRate:
    """How many samples a second there were lately.

    Args:
        clock: tells the time in seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._marks: deque[tuple[float, int]] = deque([(clock(), 0)])

    def at(self, done: int) -> float:
        """The rate, now that `done` samples are there; call it whenever there are more."""
        now = self._clock()
        marks = self._marks
        marks.append((now, done))
        # The oldest mark is the last one outside of the window, so that the window is covered.
        while len(marks) > 2 and marks[1][0] <= now - RECENT_S:
            marks.popleft()
        began, before = marks[0]
        return (done - before) / (now - began) if now > began else 0.0


class ProgressLines:
    """Writes a line of progress now and then, and one at the end.

    Args:
        write: gets each line, without a line break.
        clock: tells the time in seconds.
    """

    def __init__(
        self, write: Callable[[str], object], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._write = write
        self._clock = clock
        self._due = clock() + LINE_INTERVAL_S
        self._written = ""

    def show(self, progress: Progress) -> None:
        """Call it as often as you like."""
        now = self._clock()
        if now >= self._due:
            self._due = now + LINE_INTERVAL_S
            self._put(progress)

    def end(self, progress: Progress) -> None:
        """Writes the last line, unless it is there already."""
        self._put(progress)

    def _put(self, progress: Progress) -> None:
        line = str(progress)
        if line != self._written:
            self._written = line
            self._write(line)


def rounded(rate: float) -> str:
    """A rate with the digits that mean something: `0.42`, `8.3`, `412`, `12,400`."""
    if rate >= 100:
        return f"{rate:,.0f}"
    return f"{rate:.1f}" if rate >= 1 else f"{rate:.2g}"
