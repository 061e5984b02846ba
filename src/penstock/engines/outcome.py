"""What became of a lease, before it is put into a message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from penstock.checkpoint import pack
from penstock.engines.failure import Failure
from penstock.engines.randomness import ProcessRandomness


@dataclass(slots=True)
class Made:
    """A batch, how many samples are in it, and those that were left out of it.

    `snapshot` is the dataset's own state behind it, packed, if that is kept; `random` are then the
    states of the process's generators, packed, where samples draw from them in sequence.
    """

    value: Any
    samples: int
    failures: Sequence[Failure] = ()
    snapshot: bytes | None = None
    random: bytes | None = None


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


@dataclass(frozen=True)
class Tried:
    """The samples of a probe were made, without harm, and given up."""


@dataclass(frozen=True)
class Part:
    """Some samples of a batch, in order."""

    samples: Sequence[Any]


@dataclass(frozen=True)
class Bundle:
    """Several batches, each in its message."""

    bodies: Sequence[bytes]


Outcome: TypeAlias = Made | Held | Broken | StreamEnded | Tried | Part | Bundle


def with_snapshot(
    outcome: Outcome, snapshot: bytes | None, generators: ProcessRandomness | None
) -> Outcome:
    """The outcome with the dataset's state behind it, where there are both a batch and a state.

    Args:
        outcome: of a lease.
        snapshot: the state, packed, or None.
        generators: those whose states belong to it, or None.
    """
    if snapshot is None or not isinstance(outcome, Made):
        return outcome
    random = None if generators is None else pack(generators.save())
    return replace(outcome, snapshot=snapshot, random=random)
