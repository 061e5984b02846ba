"""What is lent to a worker, and what may be ordered about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Fill:
    """What goes into one place of a batch in the stead of a bad sample.

    Attributes:
        kind: `"index"`: fetch another sample; `"value"`: use `value` as the sample;
            `"drop"`: leave the place out.
        value: the index, or the sample.
    """

    kind: Literal["index", "value", "drop"]
    value: object = None


@dataclass(slots=True)
class Lease:
    """One batch lent to one worker, for one attempt.

    A reply counts only if its (batch, attempt) is the live one, so a worker that was
    given up, and answers all the same, changes nothing.

    Attributes:
        batch: the batch's number in the epoch's plan.
        attempt: how often the batch was lent before.
        seat: the worker's number.
        indices: what to fetch, a place each. For a stream: its number, and how many batches of it
            come before this one.
        fills: places of `indices` that were settled otherwise in an earlier attempt.
    """

    batch: int
    attempt: int
    seat: int
    indices: Sequence[object]
    fills: dict[int, Fill] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Issue:
    """Send the lease to its worker."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Amend:
    """Tell the worker, which waits with the rest of the batch, what goes in the open places."""

    lease: Lease
    fills: dict[int, Fill]


@dataclass(frozen=True, slots=True)
class Recall:
    """Tell the worker that the lease is not wanted any more, begun or not."""

    lease: Lease


@dataclass(frozen=True, slots=True)
class Discard(Generic[R]):
    """Give up a result that came and is not wanted any more."""

    result: R


Command: TypeAlias = Issue | Amend | Recall | Discard[R]
