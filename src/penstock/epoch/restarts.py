"""Whether, and when, a worker that died is replaced, or its death is the program's business."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterable

from penstock.certificate import DeathCertificate
from penstock.engines.failure import Failure, describe_made
from penstock.engines.protocol import Died
from penstock.epoch import texts
from penstock.errors import SampleKilledWorker, SampleTimeout, WorkerDiedError, WorkerStartError
from penstock.schedule import Lease

_log = logging.getLogger("penstock")

# So many workers in a row that die before they have their dataset, besides one for each seat, which
# something else may have killed together, mean that none will come up.
MAX_FAILED_STARTS = 3
# Deaths in a row, besides one for each seat, that are answered at once. Then a new worker is given
# time, twice as much after each further death, for what ends them to pass: a full disk, a machine
# short of memory.
PROMPT_RESTARTS = 4
FIRST_DELAY_S = 0.05
LONGEST_DELAY_S = 5.0


class Restarts:
    """Keeps the account of one epoch's deaths.

    Args:
        seats: how many workers there are.
        ready: those that have their dataset already.
        most: how many are replaced.
        is_stream: whether leases are of streams, for messages.
        tolerant: whether the program has said what becomes of bad samples, likewise.
    """

    def __init__(
        self,
        seats: int,
        ready: Iterable[int],
        *,
        most: int,
        is_stream: bool,
        tolerant: bool,
    ) -> None:
        self._seats = seats
        self._ready = set(ready)
        self._most = most
        self._is_stream = is_stream
        self._tolerant = tolerant
        self._history: list[DeathCertificate] = []
        self._failed_starts = 0
        self._in_a_row = 0
        # With the time at which the new worker is started.
        self._vacant: dict[int, float] = {}

    def note_start(self, seat: int) -> None:
        """A worker has its dataset."""
        self._ready.add(seat)
        self._failed_starts = 0

    def note_progress(self) -> None:
        """A worker has made something."""
        self._in_a_row = 0

    def note_death(self, death: Died) -> None:
        """A worker is gone."""
        self._history.append(death.certificate)
        self._in_a_row += 1
        if death.seat in self._ready:
            self._ready.discard(death.seat)
        else:
            self._failed_starts += 1

    def note_rewind(self, seat: int) -> None:
        """Another worker comes to a seat, for the memory that the one there has taken."""
        self._ready.discard(seat)
        _log.warning(
            "worker %d begins its stream again behind what was handed over, so that a batch before "
            "that has memory; lower prefetch_factor or num_workers, or raise memory_budget",
            seat,
        )

    @property
    def allowed(self) -> bool:
        """Whether any worker may be replaced."""
        return self._most > 0

    def check(self) -> None:
        """Makes sure that another may take the place of the worker that died last.

        Raises:
            WorkerStartError: none comes up.
            WorkerDiedError: too many have died.
        """
        last = self._history[-1]
        if self._failed_starts >= MAX_FAILED_STARTS + self._seats:
            raise WorkerStartError(texts.never_ready(last, self._failed_starts))
        if len(self._history) > self._most:
            raise WorkerDiedError(
                texts.too_many_deaths(self._history, self._most), last, self._history
            )

    def vacate(self, seat: int) -> float:
        """Has a new worker come to a seat, and says in how many seconds."""
        further = self._in_a_row - self._seats - PROMPT_RESTARTS
        delay_s = 0.0
        if further > 0:
            delay_s = min(LONGEST_DELAY_S, FIRST_DELAY_S * 2.0 ** min(further - 1, 32))
        self._vacant[seat] = time.monotonic() + delay_s
        return delay_s

    def due(self) -> list[int]:
        """The seats to which a new worker is to come now."""
        if not self._vacant:
            return []
        now = time.monotonic()
        due = [seat for seat, when in self._vacant.items() if when <= now]
        for seat in due:
            del self._vacant[seat]
        return due

    def bound(self, timeout_s: float | None) -> float | None:
        """The time to wait for something else, no longer than until the next one is due."""
        if not self._vacant:
            return timeout_s
        next_s = max(0.0, min(self._vacant.values()) - time.monotonic())
        return next_s if timeout_s is None else min(timeout_s, next_s)

    def killed(self, index: object) -> Failure:
        """The error of a sample that ends whoever makes it, which the log is told of.

        The worker that `note_death` was called for last has died of it, and its certificate says
        what that sample is.
        """
        last = self._history[-1]
        error: WorkerDiedError
        if last.overdue:
            error = SampleTimeout(texts.overdue(last), last)
        else:
            error = SampleKilledWorker(texts.killed_by(last, tolerant=self._tolerant), last)
        _log.warning("sample %r (%s) is set aside: %s", index, last.source, last.what)
        return describe_made(error, index=index, source=last.source, seat=last.worker)

    def given_up(self, lease: Lease) -> WorkerDiedError:
        """The error in the place of a batch that too many workers have died at, the last too."""
        last = self._history[-1]
        kind = SampleTimeout if last.overdue else WorkerDiedError
        return kind(texts.died_too_often(last, lease, is_stream=self._is_stream), last)
