"""Leases in the training process itself, one at a time, when their batch is asked for."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

from penstock.engines.failure import end_or_raise, placed
from penstock.engines.fetch import Fetcher
from penstock.engines.hosting import StreamHost
from penstock.engines.job import Job
from penstock.engines.outcome import Broken, Held, Made, Outcome
from penstock.engines.protocol import (
    Done,
    Ended,
    EpochStart,
    Event,
    Failed,
    Guess,
    Opened,
    Withheld,
)
from penstock.plan import stream_of
from penstock.schedule import Fill, Lease


@dataclass
class _LocalResult:
    """A batch that is there as it is."""

    made: Made
    size = 0
    count = 0

    def open_all(self) -> list[Opened | Exception]:
        """See `Result.open_all`: here nothing is lent together."""
        return [self.open()]

    def open(self) -> Opened:
        """See `penstock.engines.protocol.Result`."""
        return _opened(self.made)

    def discard(self) -> None:
        """See `penstock.engines.protocol.Result`."""


def _opened(made: Made) -> Opened:
    failures = placed(made.failures) if made.failures else ()
    return Opened(made.value, made.samples, failures, made.snapshot)


class InlineEngine:
    """An `Engine` without workers.

    Args:
        job: what is to be done.
        seed: torch's base seed, for streams that were a worker's.
    """

    seats = 1

    def __init__(self, job: Job, *, seed: int = 0) -> None:
        self._streams = StreamHost(job, None, seed) if job.stream else None
        self._fetcher: Fetcher | StreamHost = self._streams or Fetcher(job, None)
        self._orders: deque[tuple[Lease, Mapping[int, Fill] | None]] = deque()

    @property
    def arena(self) -> None:
        """See `Engine.arena`: batches are handed over as they are made."""
        return None

    def start(self) -> None:
        """See `Engine.start`."""

    def begin_epoch(self, start: EpochStart, first: Sequence[Sequence[object]] = ()) -> int:
        """See `Engine.begin_epoch`."""
        self._orders.clear()
        self._fetcher.begin_epoch(start)
        return 0

    def anticipate(self, guess: Guess) -> None:
        """See `Engine.anticipate`: nobody here has nothing to do."""

    @property
    def anticipated(self) -> int:
        """See `Engine.anticipated`."""
        return 0

    def submit(self, lease: Lease) -> None:
        """See `Engine.submit`."""
        self._orders.append((lease, None))

    def amend(self, lease: Lease, fills: Mapping[int, Fill]) -> None:
        """See `Engine.amend`."""
        # Before any other lease: it waits with half a batch.
        self._orders.appendleft((lease, fills))

    def recall(self, lease: Lease) -> None:
        """See `Engine.recall`."""
        key = (lease.batch, lease.attempt)
        kept = [order for order in self._orders if (order[0].batch, order[0].attempt) != key]
        self._orders = deque(kept)
        self._fetcher.forget(lease.batch)

    def poll(self, timeout_s: float | None) -> list[Event]:
        """See `Engine.poll`; the work is done here."""
        return [self._carry_out(*self._orders.popleft())] if self._orders else []

    def make(self, lease: Lease) -> tuple[Opened, float]:
        """Makes a batch of a map-style dataset now.

        Returns:
            The batch, and the seconds that it has taken.

        Raises:
            Exception: why it cannot be made.
        """
        began = time.perf_counter()
        outcome = self._fetcher.fetch(lease)
        if isinstance(outcome, Made):
            return _opened(outcome), time.perf_counter() - began
        raise end_or_raise(cast(Broken, outcome).failure)

    def _carry_out(self, lease: Lease, fills: Mapping[int, Fill] | None) -> Event:
        began = time.perf_counter()
        outcome: Outcome
        if fills is None:
            outcome = self._fetcher.fetch(lease)
        else:
            outcome = self._fetcher.amend(lease.batch, fills)
        busy_s = time.perf_counter() - began
        pulled = 0 if self._streams is None else self._streams.pulled(stream_of(lease.indices))
        where = (lease.seat, lease.batch, lease.attempt, busy_s, pulled)
        if isinstance(outcome, Made):
            return Done(*where, _LocalResult(outcome))
        if isinstance(outcome, Held):
            return Withheld(*where, placed(outcome.failures))
        if isinstance(outcome, Broken):
            return Failed(*where, end_or_raise(outcome.failure))
        return Ended(*where)

    def ready_seats(self) -> list[int]:
        """See `Engine.ready_seats`: nobody has to get ready."""
        return []

    def rewind(self, seat: int) -> None:
        """See `Engine.rewind`: nothing is read ahead."""

    def refuse_room(self, lease: Lease) -> None:
        """See `Engine.refuse_room`: nobody asks for any."""

    def flush(self) -> None:
        """See `Engine.flush`: nothing is kept back."""

    def wait_handles(self) -> list[int]:
        """See `Engine.wait_handles`: there is nothing to wait for."""
        return []

    def restart(self, seat: int) -> None:
        """See `Engine.restart`: nobody died."""

    def close(self) -> None:
        """See `Engine.close`."""
        self._orders.clear()
