"""What is lent to a worker, and what may be ordered about it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, Literal, TypeAlias, TypeVar

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Fill:
    """What goes into one place of a batch in the stead of a bad sample.

    Attributes:
        kind: `"index"`: fetch another sample; `"value"`: use `value` as the sample;
            `"drop"`: leave the place out; `"bad"`: do not touch the sample, and report
            `value` as if it had raised that.
        value: the index, the sample, or the description of an error.
    """

    kind: Literal["index", "value", "drop", "bad"]
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
        probe: places whose samples are to be made and given up, to see whether they do harm;
            none: the batch itself is wanted.
        part: the places whose samples alone are wanted, to be put together with others' (see
            `splitting`); None: the batch is. A worker is told the indices of those alone.
        pieces: the parts that the batch is to be put together of; none: it is made.
        sizes: how many of the indices are each batch's, where several are lent together (see
            `bundling`); they are numbered from `batch` on. None: it is one batch.
    """

    batch: int
    attempt: int
    seat: int
    indices: Sequence[object]
    fills: dict[int, Fill] = field(default_factory=dict)
    probe: tuple[int, ...] = ()
    part: range | None = None
    pieces: tuple[object, ...] = ()
    sizes: tuple[int, ...] = ()

    @property
    def count(self) -> int:
        """How many batches it is for."""
        return len(self.sizes) or 1

    def singles(self) -> Iterator[Lease]:
        """Its batches, each as a lease of its own, of the same attempt and worker."""
        start = 0
        for number, size in enumerate(self.sizes, self.batch):
            stop = start + size
            fills = {place - start: it for place, it in self.fills.items() if start <= place < stop}
            yield Lease(number, self.attempt, self.seat, self.indices[start:stop], fills)
            start = stop

    def index_at(self, place: int) -> object:
        """What is to be fetched for a place."""
        fill = self.fills.get(place)
        return fill.value if fill is not None and fill.kind == "index" else self.indices[place]


@dataclass(frozen=True, slots=True)
class Death:
    """What is known of how a worker died; by default nothing.

    Attributes:
        lease: (batch, attempt) of the lease that it was working on; None: not known.
        place: the place in that batch whose sample it was making; None: not known, or none.
        idle: whether it was known to work on nothing.
        by_itself: whether nobody else can have ended it: it crashed, or left.
        overdue: whether it was ended since that sample took longer than it may.
        of_memory: whether it was ended since memory was short.
    """

    lease: tuple[int, int] | None = None
    place: int | None = None
    idle: bool = False
    by_itself: bool = False
    overdue: bool = False
    of_memory: bool = False


@dataclass(slots=True)
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


@dataclass(frozen=True, slots=True)
class Rewind:
    """Have a worker begin its streams again, behind what was handed over.

    It has nothing any more that it was lent.
    """

    seat: int


Command: TypeAlias = Issue | Amend | Recall | Discard[R] | Rewind
