"""Counts and times of one epoch."""

from __future__ import annotations

import time
from dataclasses import dataclass

from penstock.certificate import DeathCertificate


@dataclass(frozen=True)
class Statistics:
    """One epoch so far.

    Attributes:
        batches: batches handed over.
        samples: samples in them, as far as their number is known.
        skipped: samples left out.
        workers: worker processes (0: none, the training process does the work).
        restarts: workers that died and were replaced.
        deaths: what is known of each worker that died, in that order.
        elapsed_s: seconds from `iter()` to now, or to the end of the epoch.
        first_batch_s: seconds from `iter()` to the first batch, or None before it.
        first_wait_s: seconds of those in which the loop waited for it, in its first `next()`.
        looped_s: seconds from that `next()` to the last batch that was handed over.
        waited_s: seconds that the training loop spent in `next()`. Where several loaders
            are waited for at once, that wait belongs to none of them.
        busy_s: seconds that all workers together worked on batches that arrived.
        choice: how many workers `num_workers="auto"` has come to, and why; empty where a number was
            given.
    """

    batches: int = 0
    samples: int = 0
    skipped: int = 0
    workers: int = 0
    restarts: int = 0
    elapsed_s: float = 0.0
    first_batch_s: float | None = None
    waited_s: float = 0.0
    busy_s: float = 0.0
    deaths: tuple[DeathCertificate, ...] = ()
    choice: str = ""
    first_wait_s: float = 0.0
    looped_s: float = 0.0

    @property
    def samples_per_s(self) -> float:
        """Samples handed over per second since `iter()`."""
        return self.samples / self.elapsed_s if self.elapsed_s else 0.0

    @property
    def wait_share(self) -> float:
        """The share of the time in which the training loop waited for data, from 0 to 1."""
        return min(1.0, self.waited_s / self.elapsed_s) if self.elapsed_s else 0.0

    @property
    def busy_share(self) -> float:
        """The share of the workers' time in which they worked, from 0 to 1."""
        total_s = self.elapsed_s * max(1, self.workers)
        return min(1.0, self.busy_s / total_s) if total_s else 0.0


class StatisticsRecorder:
    """Counts while an epoch runs; cheap enough for every batch.

    Args:
        workers: worker processes.
        began: `time.perf_counter()` when the epoch was asked for.

    Attributes:
        last: `time.perf_counter()` when a batch was last handed over.
    """

    def __init__(self, workers: int, began: float) -> None:
        self.workers = workers
        self.batches = 0
        self.samples = 0
        self.restarts = 0
        self.waited_s = 0.0
        self.busy_s = 0.0
        self.deaths: list[DeathCertificate] = []
        self._began = began
        self._first: float | None = None
        self._first_wait_s = 0.0
        self.last = began
        self._ended: float | None = None

    def delivered(self, samples: int, wait_began: float) -> None:
        """A batch is handed over.

        Args:
            samples: how many are in it.
            wait_began: `time.perf_counter()` when `next()` was called.
        """
        now = time.perf_counter()
        self.batches += 1
        self.samples += samples
        self.waited_s += now - wait_began
        self.last = now
        if self._first is None:
            self._first = now
            self._first_wait_s = now - wait_began

    def ended(self) -> None:
        """The epoch is over: its clock stops."""
        if self._ended is None:
            self._ended = time.perf_counter()

    def snapshot(self, skipped: int, choice: str = "") -> Statistics:
        """The figures so far, with two that the loader knows."""
        now = self._ended if self._ended is not None else time.perf_counter()
        return Statistics(
            batches=self.batches,
            samples=self.samples,
            skipped=skipped,
            workers=self.workers,
            restarts=self.restarts,
            elapsed_s=now - self._began,
            first_batch_s=None if self._first is None else self._first - self._began,
            waited_s=self.waited_s,
            busy_s=self.busy_s,
            deaths=tuple(self.deaths),
            choice=choice,
            first_wait_s=self._first_wait_s,
            looped_s=0.0 if self._first is None else self.last - self._first + self._first_wait_s,
        )
