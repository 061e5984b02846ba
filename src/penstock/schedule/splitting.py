"""Batches that several workers make, where their samples take long.

The scheduler lends whole batches, each to one worker. Between it and the engine, a lease may be
split: its *parts* go to whichever workers are free, in the order of batches, and are put together
by one of them::

    scheduler ──Issue──> Splitting ──Issue part, part, …──> engine
                             │ <──────────part, part, …────────┘
                             └────Issue of what gathers them──> engine ──the batch──> scheduler

So a slow sample delays only the part that it is in, the first batch is there as many times sooner
as there are workers, and all have something to do until the last. The batch is the same: each
sample has random numbers of its own, and the batch is collated from all of them, in order.

Only what goes well is done in parts. A bad sample, a worker's death, a batch that is taken back, or
memory that is short: the whole batch is made as if nothing had been, by the rules that hold there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic

from penstock.schedule.lease import Command, Death, Discard, Issue, Lease, R, Recall
from penstock.schedule.pace import Pace

# Attempts from here on are of parts, of which the scheduler does not know.
FIRST_PART = 1 << 31
# A worker is helped that has so many parts more than another: that other one has no part at all, or
# has some.
_ENOUGH = 2
_HELPED_FROM = 3


@dataclass
class _Split(Generic[R]):
    """A lease of the scheduler's that is made in parts.

    Attributes:
        lease: the scheduler's.
        waiting: the parts that no worker has.
        lent: the parts that workers have, by attempt.
        arrived: what came of parts, by their first place.
        gathering: the lease of the worker that puts them together.
        busy_s: seconds that its parts took.
        size: bytes of shared memory that they have taken.
    """

    lease: Lease
    waiting: list[range]
    lent: dict[int, Lease] = field(default_factory=dict)
    arrived: dict[int, R] = field(default_factory=dict)
    gathering: Lease | None = None
    busy_s: float = 0.0
    size: int = 0

    @property
    def leases(self) -> list[Lease]:
        """All that workers have of it."""
        return [*self.lent.values(), *([self.gathering] if self.gathering else [])]


class Splitting(Generic[R]):
    """Splits the leases of one epoch.

    Args:
        workers: those present, and the scheduler's leases that each has, by batch; kept up to date
            by whoever holds them.
        pace: says whether it pays; None: no lease can be split.
        whole: batches before this one stay whole: workers may have begun them already.
    """

    def __init__(
        self,
        workers: Mapping[int, Mapping[int, Lease]],
        pace: Pace | None,
        *,
        whole: int = 0,
    ) -> None:
        self._workers = workers
        self._pace = pace
        self._whole = whole
        self._splits: dict[int, _Split[R]] = {}
        self._next = FIRST_PART

    # Orders.

    def carry(self, commands: Sequence[Command[R]], ready: int = 0) -> Sequence[Command[R]]:
        """What the scheduler orders, as the engine is to be told it.

        Args:
            commands: its orders.
            ready: how many batches have arrived, and wait for the loop.
        """
        pace = self._pace
        if not self._splits and (pace is None or not pace.pays):
            return commands
        told: list[Command[R]] = []
        for command in commands:
            if isinstance(command, Issue) and pace is not None and self._may_split(command.lease):
                lease = command.lease
                size = pace.part_of(len(lease.indices), len(self._workers), ready)
                if size < len(lease.indices):
                    places = range(len(lease.indices))
                    parts = [places[at : at + size] for at in places[::size]]
                    self._splits[lease.batch] = _Split(lease, parts)
                    continue
            if isinstance(command, Recall) and command.lease.batch in self._splits:
                told += self._give_up(command.lease.batch)
                continue
            told.append(command)
        return told + self._lend() if self._splits else told

    def _may_split(self, lease: Lease) -> bool:
        # What is made once more has had trouble before.
        first = lease.attempt == 0 and not lease.fills and not lease.sizes
        return first and lease.batch >= self._whole

    def _lend(self) -> list[Command[R]]:
        """Lends the parts of new batches, and those that wait behind others to whoever is idle.

        All at once, since nothing is lent while the training loop makes its step.
        """
        told: list[Command[R]] = []
        load = self._load()
        if not load:
            return told
        for split in self._splits.values():
            for part in split.waiting:
                seat = min(load, key=load.__getitem__)
                told.append(self._issue(split, seat, part))
                load[seat] += 1
            split.waiting.clear()
        return told + self._balance(load)

    def _balance(self, load: dict[int, int]) -> list[Command[R]]:
        """Has workers that are ahead help those that are held up, the first batches first."""
        told: list[Command[R]] = []
        waiting: dict[int, list[tuple[int, int]]] | None = None
        while True:
            ahead, most = min(load, key=load.__getitem__), max(load.values())
            if most - load[ahead] < _ENOUGH:
                return told
            if waiting is None:
                waiting = self._not_begun()
            able = [seat for seat, parts in waiting.items() if parts and seat in load]
            behind = max(able, key=load.__getitem__, default=ahead)
            if load[behind] - load[ahead] < (_HELPED_FROM if load[ahead] else _ENOUGH):
                return told
            batch, attempt = waiting[behind].pop(0)
            split = self._splits[batch]
            lease = split.lent.pop(attempt)
            told += [Recall(lease), self._issue(split, ahead, lease.part)]
            load[behind] -= 1
            load[ahead] += 1

    def _not_begun(self) -> dict[int, list[tuple[int, int]]]:
        """The parts of each worker that it can hardly be at, as (batch, attempt), in order."""
        having: dict[int, list[tuple[int, int]]] = {}
        for batch, split in sorted(self._splits.items()):
            for attempt, lease in split.lent.items():
                having.setdefault(lease.seat, []).append((batch, attempt))
        for parts in having.values():
            # They are carried out in the order of batches; but what one has taken over came later.
            first, oldest = min(parts), min(parts, key=lambda part: part[1])
            parts[:] = [part for part in sorted(parts) if part not in (first, oldest)]
        return having

    def _issue(self, split: _Split[R], seat: int, part: range | None) -> Command[R]:
        lease = self._lease(split, seat, part=part)
        split.lent[lease.attempt] = lease
        return Issue(lease)

    def _load(self) -> dict[int, int]:
        """How many parts each worker has, with whole batches for as many as they would be in."""
        load = {
            seat: len(self._workers) * sum(batch not in self._splits for batch in leases)
            for seat, leases in self._workers.items()
        }
        for split in self._splits.values():
            for lease in split.leases:
                if lease.seat in load:
                    load[lease.seat] += 1
        return load

    def _lease(self, split: _Split[R], seat: int, **what: Any) -> Lease:
        attempt, self._next = self._next, self._next + 1
        return Lease(split.lease.batch, attempt, seat, split.lease.indices, **what)

    # Replies.

    def add_part(
        self, seat: int, batch: int, attempt: int, result: R, busy_s: float, size: int
    ) -> Sequence[Command[R]]:
        """A part is there.

        Returns:
            What is to be done: with the last part, to have all of them put together.
        """
        split = self._splits.get(batch)
        lease = None if split is None else split.lent.get(attempt)
        if split is None or lease is None or lease.part is None or lease.seat != seat:
            return [Discard(result)]
        del split.lent[attempt]
        split.arrived[lease.part.start] = result
        split.busy_s += busy_s
        split.size += size
        if split.waiting or split.lent:
            return []
        pieces = tuple(split.arrived[start] for start in sorted(split.arrived))
        # Theirs from here on, who carry it out.
        split.arrived.clear()
        # By who has nothing to do, or was heard last: another may be at a sample that takes long.
        load = self._load()
        idle = next((other for other, parts in load.items() if not parts), seat)
        split.gathering = self._lease(split, idle, pieces=pieces)
        return [Issue(split.gathering)]

    def gathered(self, seat: int, batch: int, attempt: int) -> tuple[Lease, float, int] | None:
        """A batch was put together.

        Returns:
            The scheduler's lease that is fulfilled with it, and the seconds and bytes that its
            parts took; None: it is not wanted any more.
        """
        split = self._splits.get(batch)
        if split is None or split.gathering is None:
            return None
        if (split.gathering.seat, split.gathering.attempt) != (seat, attempt):
            return None
        del self._splits[batch]
        if self._pace is not None:
            self._pace.note_parts(made=True)
        return split.lease, split.busy_s, split.size

    def failed(self, seat: int, batch: int, attempt: int) -> Sequence[Command[R]]:
        """A part, or their putting together, has failed: the whole batch is made instead.

        Returns:
            What is to be done for that.
        """
        split = self._splits.get(batch)
        if split is None or (seat, attempt) not in {
            (lease.seat, lease.attempt) for lease in split.leases
        }:
            return []
        if self._pace is not None:
            self._pace.note_parts(made=False)
        return [*self._give_up(batch, answered=attempt), Issue(split.lease)]

    def make_whole(self, batch: int) -> Sequence[Command[R]]:
        """Memory is short: a batch takes more in parts, so no other is split.

        Returns:
            What is to be done; nothing: the batch is not in parts.
        """
        if self._pace is not None:
            self._pace.note_short()
            self._pace = None
        split = self._splits.get(batch)
        return [] if split is None else [*self._give_up(batch), Issue(split.lease)]

    def remove_worker(
        self, seat: int, death: Death
    ) -> tuple[list[tuple[Lease, int]], Sequence[Command[R]]]:
        """A worker is gone; call it before the scheduler is told.

        Others make its parts, but for those of the batch that it was at, which may be the reason of
        its death, and of one that it was to put together: such a batch is lost with it.

        Args:
            seat: where it was.
            death: what is known of how it died.

        Returns:
            Leases of the scheduler's that count as another worker's from now on, with that: as of
            the one that is gone where the batch is lost. And what is to be done with other parts.
        """
        moved: list[tuple[Lease, int]] = []
        told: list[Command[R]] = []
        others = [other for other in self._workers if other != seat]
        guilty = None if death.lease is None else death.lease[0]
        for batch, split in sorted(self._splits.items()):
            parts = [lease for lease in split.lent.values() if lease.seat == seat]
            gathers = split.gathering is not None and split.gathering.seat == seat
            suspect = guilty == batch if guilty is not None else bool(parts) and not death.idle
            if suspect or gathers or not others:
                moved.append((split.lease, seat))
                told += self._give_up(batch, gone=seat)
                continue
            for lease in parts:
                del split.lent[lease.attempt]
                split.waiting += [] if lease.part is None else [lease.part]
            if split.lease.seat == seat:
                moved.append((split.lease, others[0]))
                split.lease = replace(split.lease, seat=others[0])
        return moved, told

    def abandon(self) -> list[R]:
        """Ends the epoch here.

        Returns:
            The parts that have arrived, to be given up.
        """
        left = [result for split in self._splits.values() for result in split.arrived.values()]
        self._splits.clear()
        return left

    def _give_up(
        self, batch: int, *, gone: int | None = None, answered: int | None = None
    ) -> list[Command[R]]:
        """Takes all parts back, but those of a worker that is gone, and the one that has failed."""
        split = self._splits.pop(batch)
        told: list[Command[R]] = [
            Recall(lease)
            for lease in split.leases
            if lease.seat != gone and lease.attempt != answered
        ]
        told += [Discard(result) for result in split.arrived.values()]
        return told
