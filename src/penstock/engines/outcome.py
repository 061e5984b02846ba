"""What became of a lease, before it is put into a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from penstock.engines.failure import Failure


@dataclass(frozen=True)
class Made:
    """A batch, how many samples are in it, and those that were left out of it.

    `snapshot` is the dataset's own state behind it, packed, if that is kept.
    """

    value: Any
    samples: int
    failures: Sequence[Failure] = ()
    snapshot: bytes | None = None


@dataclass(frozen=True)
class Held:
    """A batch but for the samples in `failures`, which waits to be amended."""

    failures: Sequence[Failure]


@dataclass(frozen=True)
class Broken:
    """No batch, and why."""

    failure: Failure


@dataclass(frozen=True)
class StreamEnded:
    """No batch: the stream has no more."""


Outcome: TypeAlias = Made | Held | Broken | StreamEnded


def with_snapshot(outcome: Outcome, snapshot: bytes | None) -> Outcome:
    """The outcome with the dataset's state behind it, where there are both a batch and a state."""
    if snapshot is not None and isinstance(outcome, Made):
        return replace(outcome, snapshot=snapshot)
    return outcome
