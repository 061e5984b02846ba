"""Drives an engine by hand, as an epoch would."""

from __future__ import annotations

import time
from collections.abc import Callable

from torch.utils.data import default_collate

from penstock.engines.job import Job
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Event
from penstock.schedule import Lease

TIMEOUT_S = 30.0


def job_of(dataset, *, seats=1, **settings) -> Job:
    """A job with torch's collation, unless told otherwise."""
    settings = {"collate": default_collate, "default_collate": True, **settings}
    return Job(dataset, seats, **settings)


def lease(batch, indices, *, seat=0, attempt=0) -> Lease:
    return Lease(batch, attempt, seat, list(indices))


def poll_until(engine: ProcessEngine, enough: Callable[[list[Event]], bool]) -> list[Event]:
    """All events up to those that are enough."""
    events: list[Event] = []
    deadline = time.monotonic() + TIMEOUT_S
    while not enough(events):
        left_s = deadline - time.monotonic()
        assert left_s > 0, f"only this was reported: {events}"
        events += engine.poll(left_s)
    return events


def poll_for(engine: ProcessEngine, kind: type, count: int = 1) -> list:
    """The next `count` events of a kind; others are dropped."""

    def enough(events):
        return sum(isinstance(event, kind) for event in events) >= count

    return [event for event in poll_until(engine, enough) if isinstance(event, kind)]
