"""One line of text that says how far it is."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from penstock.observe.statistics import Statistics

# How often the line is written anew on a terminal, and a new one is added elsewhere.
TERMINAL_PERIOD_S = 0.2
LOG_PERIOD_S = 5.0


class ProgressLine:
    """Shows progress on a terminal by rewriting a line, and elsewhere by a line now and then.

    Args:
        total: samples in all.
        stream: where to write; stderr unless given.
    """

    def __init__(self, total: int, stream: TextIO | None = None) -> None:
        self._total = total
        self._stream = stream if stream is not None else sys.stderr
        self._terminal = self._stream.isatty()
        self._period_s = TERMINAL_PERIOD_S if self._terminal else LOG_PERIOD_S
        self._next_s = time.monotonic() + self._period_s

    def due(self) -> bool:
        """Whether it is time for `update`."""
        return time.monotonic() >= self._next_s

    def update(self, statistics: Statistics) -> None:
        """Shows how far it is."""
        self._next_s = time.monotonic() + self._period_s
        self._write(statistics, "" if self._terminal else "\n")

    def finish(self, statistics: Statistics) -> None:
        """Shows the end."""
        self._write(statistics, "\n")

    def _write(self, statistics: Statistics, end: str) -> None:
        done = statistics.samples + statistics.skipped
        text = f"{done}/{self._total} samples, {statistics.samples_per_s:.0f}/s"
        if statistics.skipped:
            text += f", {statistics.skipped} skipped"
        # A terminal's line is taken back to its start and cleared first.
        self._stream.write(("\r\x1b[K" if self._terminal else "") + text + end)
        self._stream.flush()
