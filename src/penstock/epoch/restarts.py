"""Whether a worker that died is replaced, or its death is the program's business."""

from __future__ import annotations

from collections.abc import Iterable

from penstock.engines.protocol import Died
from penstock.epoch import texts
from penstock.errors import WorkerDiedError, WorkerStartError
from penstock.schedule import Lease

# So many deaths of workers in one epoch are a crash loop, whatever their cause.
MAX_RESTARTS = 1000
# So many workers in a row that die before they have their dataset, besides one for each seat, which
# something else may have killed together, mean that none will come up.
MAX_FAILED_STARTS = 3


class Restarts:
    """Keeps the account of one epoch's deaths.

    Args:
        seats: how many workers there are.
        ready: those that have their dataset already.
        is_stream: whether leases are of streams, for messages.
    """

    def __init__(self, seats: int, ready: Iterable[int], *, is_stream: bool) -> None:
        self._seats = seats
        self._ready = set(ready)
        self._is_stream = is_stream
        self._deaths: list[Died] = []
        self._failed_starts = 0

    def note_start(self, seat: int) -> None:
        """A worker has its dataset."""
        self._ready.add(seat)
        self._failed_starts = 0

    def note_death(self, death: Died) -> None:
        """A worker is gone."""
        self._deaths.append(death)
        if death.seat in self._ready:
            self._ready.discard(death.seat)
        else:
            self._failed_starts += 1

    def check(self) -> None:
        """Makes sure that another may take the place of the worker that died last.

        Raises:
            WorkerStartError: none comes up.
            WorkerDiedError: too many have died.
        """
        death = self._deaths[-1]
        if self._failed_starts >= MAX_FAILED_STARTS + self._seats:
            raise WorkerStartError(texts.never_ready(death, self._failed_starts))
        if len(self._deaths) > MAX_RESTARTS:
            raise WorkerDiedError(texts.crash_loop(death, len(self._deaths), MAX_RESTARTS))

    def given_up(self, lease: Lease) -> WorkerDiedError:
        """The error in the place of a batch that too many workers have died at."""
        return WorkerDiedError(
            texts.died_too_often(self._deaths[-1], lease, is_stream=self._is_stream)
        )
