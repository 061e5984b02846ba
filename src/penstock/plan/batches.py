"""The order of an epoch cut into batches, and who takes a skipped sample's place."""

from __future__ import annotations

import itertools
from array import array
from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from penstock.errors import OptionError
from penstock.plan.base import EpochPlan
from penstock.plan.skipping import begin_behind


class GivenBatches(EpochPlan):
    """Batches as somebody else's sampler gives them, each asked for when it is needed.

    A skipped sample leaves its batch shorter: how the samples were grouped is the
    sampler's business, so nobody else's sample is put in.

    Args:
        batches: yields what one lease fetches: a list of indices, or a single index
            where the dataset makes whole batches itself.
        batched: whether it yields lists.
        skip: batches to pass over at the beginning, without a look at them.
        first: the number of the batch behind those.
        snapshot: returns a copy of the sampler's own state, if it has one to tell.
        every: of how many batches one has the sampler's state kept behind it.
        seats: with how many workers each batch goes to the one whose turn it is; 0: to any.
    """

    def __init__(
        self,
        batches: Iterable[object],
        *,
        batched: bool,
        skip: int = 0,
        first: int = 0,
        snapshot: Callable[[], Any] | None = None,
        every: int = 1,
        seats: int = 0,
    ) -> None:
        self._batches = begin_behind(batches, skip)
        self._batched = batched
        self._snapshot = snapshot
        self._every = every
        self._snapshots: dict[int, Any] = {}
        self._seats = seats
        self._taken = first
        self._ahead: deque[object] = deque()
        self._raised: Exception | None = None

    def look_ahead(self) -> None:
        """Has the sampler give its first batch now, and with it draw what it draws to begin."""
        self._read_ahead(1)

    def _read_ahead(self, count: int) -> None:
        self._ahead.extend(itertools.islice(self._batches, max(0, count - len(self._ahead))))

    def peek(self, count: int) -> Sequence[Sequence[object]]:
        """The indices of the next batches, up to so many, which `take` will give."""
        try:
            self._read_ahead(count)
        except Exception as error:
            # Its turn comes behind the batches that were given.
            self._raised = error
        # Those that are not asked for are not looked at: what is an iterator can be read only once.
        first = list(itertools.islice(self._ahead, count))
        return [list(each) if self._batched else [each] for each in first]  # type: ignore[call-overload]

    def snapshot(self, batch: int) -> Any:
        """The sampler's state behind a batch, once; None if none was kept."""
        return self._snapshots.pop(batch, None)

    def take(self) -> tuple[Sequence[object], int | None] | None:
        """The next batch's indices, and its worker if only one will do; None at the end."""
        seat = self._taken % self._seats if self._seats else None
        try:
            if self._ahead:
                given = self._ahead.popleft()
            elif self._raised is not None:
                error, self._raised = self._raised, None
                raise error
            else:
                given = next(self._batches)
        except StopIteration:
            return None
        self._taken += 1
        if self._snapshot is not None and self._taken % self._every == 0:
            self._snapshots[self._taken - 1] = self._snapshot()
        if not self._batched:
            return [given], seat
        if not isinstance(given, list):
            try:
                given = list(given)  # type: ignore[call-overload]
            except TypeError:
                raise OptionError(
                    f"the batch sampler gave {given!r}, and a list of indices was expected; "
                    "an object that yields single indices belongs in sampler="
                ) from None
        return given, seat


class RefillingBatches(EpochPlan):
    """An epoch's order in batches of one size, which its own end keeps full.

    A skipped place takes the next sample from the end of the order: first what
    `drop_last` would have dropped, then the last batch's samples, the last one first.
    So every batch but the last stays full, and each sample is still used once. Which
    donor goes where depends only on which samples are bad, as long as donors are asked
    for in delivery order.

    Args:
        order: the sample indices of the epoch, at most once each.
        batch_size: samples a batch.
        drop_last: whether an incomplete batch is left out: the last one, and any for which
            too few donors are left.
        first: the batch to begin with.
        passed: batches behind it that were handed over before; they give nothing away.
        donated: places in the order whose samples were used for other places before.
        seats: see `GivenBatches`.
    """

    def __init__(
        self,
        order: Iterable[object],
        batch_size: int,
        *,
        drop_last: bool,
        first: int = 0,
        passed: Collection[int] = (),
        donated: Collection[int] = (),
        seats: int = 0,
    ) -> None:
        indices = list(order)
        self._order: Sequence[object] = _compact(indices)
        self._end = len(indices)
        self._size = batch_size
        self._drop_last = drop_last
        self._taken = first
        self._left_out: set[int] = set()
        self._passed = frozenset(passed)
        self._gone = set(donated)
        self._seats = seats
        self._donors: dict[int, list[int]] = {}
        self._leave_gone()

    @property
    def planned(self) -> int:
        """Samples that the epoch began with."""
        return len(self._order)

    def take(self) -> tuple[Sequence[object], int | None] | None:
        """The next batch's indices, and its worker if only one will do; None at the end."""
        indices = self.indices(self._taken)
        if not indices and (self._taken + 1) * self._size > self._end:
            return None
        seat = self._taken % self._seats if self._seats else None
        self._taken += 1
        return indices, seat

    def peek(self, count: int) -> Sequence[Sequence[object]]:
        """The indices of the next batches, up to so many, which `take` will give."""
        batches = (self.indices(self._taken + number) for number in range(count))
        return [indices for indices in batches if indices]

    def indices(self, batch: int) -> list[object]:
        """What the batch holds now; nothing if it is used up, or left out as incomplete."""
        start = batch * self._size
        stop = start + self._size
        if batch in self._left_out or (stop > self._end and self._drop_last):
            return []
        stop = min(stop, self._end)
        if not self._gone:
            return list(self._order[start:stop])
        left = [self._order[place] for place in range(start, stop) if place not in self._gone]
        return [] if self._drop_last and len(left) < self._size else left

    def donated(self, batch: int) -> Sequence[int]:
        """The places in the order whose samples `batch` was given; asked for once."""
        return self._donors.pop(batch, ())

    def donor(self, batch: int, *, untaken: bool) -> tuple[object, int | None] | None:
        """Takes a sample from the end of the order for a place in `batch`.

        Args:
            batch: the batch with the place to fill.
            untaken: whether to leave alone the batches that `take` has given out.

        Returns:
            The sample's index, and the batch it was in if `take` has given that
            batch out already: its lease is then out of date. None when no sample behind
            `batch` is left; with `drop_last` the batch is then left out.
        """
        home = (self._end - 1) // self._size
        while home > batch and home in self._passed:
            self._end = home * self._size
            self._leave_gone()
            home = (self._end - 1) // self._size
        last = self._end - 1
        if home <= batch or (untaken and home < self._taken):
            if self._drop_last:
                self._left_out.add(batch)
            return None
        self._end = last
        self._leave_gone()
        self._donors.setdefault(batch, []).append(last)
        return self._order[last], home if home < self._taken else None

    def _leave_gone(self) -> None:
        while self._end - 1 in self._gone:
            self._end -= 1


class Chunks(EpochPlan):
    """All indices of a dataset in leases whose size may change on the way.

    Args:
        length: samples in the dataset.
        size: asked before each lease for the number of samples to put in it. The samples
            are the same whatever it answers, only their grouping differs.
    """

    def __init__(self, length: int, size: Callable[[], int]) -> None:
        self._length = length
        self._size = size
        self._next = 0

    def take(self) -> tuple[Sequence[object], None] | None:
        """The next lease's indices, for any worker; None at the end."""
        if self._next >= self._length:
            return None
        start = self._next
        self._next = min(self._length, start + self._size())
        return range(start, self._next), None


def _compact(indices: list[object]) -> Sequence[object]:
    """Plain ints at 8 bytes each; anything else as it is."""
    if all(type(index) is int for index in indices):
        try:
            return array("q", indices)  # type: ignore[type-var]
        except OverflowError:
            return indices
    return indices
