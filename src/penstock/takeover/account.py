"""What becomes of the loaders of a program, counted while it runs."""

from __future__ import annotations

import functools
import threading
from dataclasses import dataclass, field, replace
from typing import Protocol

from penstock.observe import Statistics
from penstock.takeover.place import Place
from penstock.takeover.report import PlaceReport, Report


class Epoch(Protocol):
    """One epoch that penstock runs, or ran."""

    def statistics(self) -> Statistics:
        """Counts and times so far."""

    def shared_bytes(self) -> int:
        """Shared memory that its batches took."""

    def is_over(self) -> bool:
        """Whether its figures cannot change any more."""


@dataclass
class _Tally:
    """The account of one place: the sum of what is over, and what is not."""

    settled: PlaceReport
    running: list[Epoch] = field(default_factory=list)


class Account:
    """Filled in while a program runs, from any thread, and told at any moment."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._tallies: dict[Place, _Tally] = {}

    def add_loader(self, place: Place) -> None:
        """A loader was made, or was met for the first time."""
        with self._lock:
            tally = self._tally(place)
            tally.settled = replace(tally.settled, loaders=tally.settled.loaders + 1)

    def add_epoch(self, place: Place, epoch: Epoch) -> None:
        """Penstock begins an epoch of a loader."""
        with self._lock:
            tally = self._tally(place)
            # A thousand epochs that are over take no more room than one.
            over = [each for each in tally.running if each.is_over()]
            tally.settled = functools.reduce(_add, over, tally.settled)
            tally.running = [each for each in tally.running if each not in over] + [epoch]

    def add_left(self, place: Place, reason: str) -> bool:
        """An epoch is left to torch; returns whether that is the place's first for this reason."""
        with self._lock:
            left = self._tally(place).settled.left
            left[reason] = left.get(reason, 0) + 1
            return left[reason] == 1

    def report(self) -> Report:
        """All of it, as it is now."""
        with self._lock:
            places = [
                functools.reduce(_add, tally.running, tally.settled)
                for tally in self._tallies.values()
            ]
            return Report(tuple(replace(each, left=dict(each.left)) for each in places))

    def _tally(self, place: Place) -> _Tally:
        return self._tallies.setdefault(place, _Tally(PlaceReport(place)))


def _add(total: PlaceReport, epoch: Epoch) -> PlaceReport:
    numbers = epoch.statistics()
    return replace(
        total,
        epochs=total.epochs + 1,
        batches=total.batches + numbers.batches,
        samples=total.samples + numbers.samples,
        skipped=total.skipped + numbers.skipped,
        restarts=total.restarts + numbers.restarts,
        workers=max(total.workers, numbers.workers),
        elapsed_s=total.elapsed_s + numbers.elapsed_s,
        waited_s=total.waited_s + numbers.waited_s,
        worker_s=total.worker_s + numbers.elapsed_s * numbers.workers,
        busy_s=total.busy_s + (numbers.busy_s if numbers.workers else 0.0),
        shared_bytes=max(total.shared_bytes, epoch.shared_bytes()),
    )
