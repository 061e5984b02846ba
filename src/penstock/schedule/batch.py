"""What is known of a batch between the plan and its delivery.

Its life::

                      ┌───────────── worker died, or the plan took samples back ────┐
                      v                                                             │
    plan ──take──> QUEUED ──Issue──> LENT ──completed──────────────────> READY ─────┤
                                      │ ^                                  │        │
                             withheld │ │ resolve: Amend                   │ pop    │
                                      v │ (in delivery order)              v        │
                                    OPEN ──fail──────────┐           delivered      │
                                      │                  v                 ^        │
                                      │    LENT ─failed─> FAILED ──────────┘        │
                                      └─────────────────────────────────────────────┘

A batch with nothing in it is EMPTY: it is passed over, not delivered. While one of its samples is
searched for that ends workers, its leases are probes, and it is QUEUED behind each of them.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic

from penstock.errors import SampleError
from penstock.schedule.hunt import Hunt
from penstock.schedule.lease import Lease, R


class State(enum.IntEnum):
    """Where a batch is in the picture above."""

    QUEUED = enum.auto()
    LENT = enum.auto()
    OPEN = enum.auto()
    READY = enum.auto()
    FAILED = enum.auto()
    EMPTY = enum.auto()


# Nothing can change about these any more, unless the plan takes samples back.
OVER = frozenset({State.READY, State.FAILED, State.EMPTY})


@dataclass(slots=True)
class Batch(Generic[R]):
    """A batch that was taken from the plan and not delivered yet.

    Attributes:
        lease: the live attempt, or the next one while it is queued.
        pinned: the only worker that will do, or None.
        state: where it is in its life.
        result: what the worker replied, once it is ready.
        error: what is delivered in its place, if it has failed.
        failures: the places to be decided on, while it is open.
        deaths: workers that died while they worked on it.
        hunt: the search for the sample that they died of, while it goes on.
        fresh: the worker that came in the place of the last of them.
        alone: whether nothing else is to be made meanwhile: a worker was killed for memory.
    """

    lease: Lease
    pinned: int | None
    state: State = State.QUEUED
    result: R | None = None
    error: BaseException | None = None
    failures: Sequence[tuple[int, SampleError]] = ()
    deaths: int = 0
    hunt: Hunt | None = None
    fresh: int | None = None
    alone: bool = False
