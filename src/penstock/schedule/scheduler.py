"""Which reply counts, and what may be delivered next.

The scheduler is told what happened and answers with commands; it starts nothing, waits for
nothing and reads no clock. Whoever runs it carries the commands out (`penstock.epoch`).

The life of one batch is drawn in `batch.py`; to which worker it goes is for `lending.py`. Two
frontiers move through the batches. Behind the *settled* frontier nothing can change any more: each
place has its sample. A batch is *delivered* only from behind it. With bad samples and refilling,
what a batch holds depends on how many donors the batches before it took, so decisions are made at
the frontier, one batch after another, however the replies arrive.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Generic

from penstock.errors import SampleError
from penstock.schedule.batch import OVER, Batch, State
from penstock.schedule.bundling import Bundling
from penstock.schedule.inquest import Inquest
from penstock.schedule.lease import Amend, Command, Death, Discard, Fill, Lease, R, Recall, Rewind
from penstock.schedule.lending import Lending
from penstock.schedule.protocol import Delivery, DonorPlan, Plan
from penstock.schedule.relief import find_relief
from penstock.schedule.window import Window


class Scheduler(Generic[R]):
    """Schedules one epoch.

    Args:
        plan: where batches come from.
        window: how many batches may be lent out or waiting for delivery at once.
        in_order: whether batches are delivered in the plan's order, or as they are completed.
        donors: the plan again, if it can fill skipped places.
        inquest: what follows from the deaths of workers.
        first: the number of the batch that the plan gives first.
        passed: batches behind it that are taken from the plan and left alone.
        bundling: says how many batches are lent together, in order; None: each by itself.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        window: Window,
        in_order: bool = True,
        donors: DonorPlan | None = None,
        inquest: Inquest | None = None,
        first: int = 0,
        passed: Collection[int] = (),
        bundling: Bundling | None = None,
    ) -> None:
        self._plan = plan
        self._donors = donors
        self._in_order = in_order
        self._inquest = Inquest() if inquest is None else inquest
        self._commands: list[Command[R]] = []
        self._batches: dict[int, Batch[R]] = {}
        self._window = window
        self._lending = Lending(self._batches, self._commands, window)
        self._taken = first
        self._settled = first
        self._delivered = first
        self._passed = frozenset(passed)
        self._bundling = bundling
        # How many batches were taken and not delivered, and how many of those are over.
        self._ahead = 0
        self._emptied: list[int] = []
        self._arrived: deque[int] = deque()
        self._over = 0
        self._plan_ended = False
        self._plan_error: BaseException | None = None

    # What is to be done, and what can be delivered.

    def commands(self) -> list[Command[R]]:
        """The commands since the last call, to be carried out in this order."""
        commands = self._commands.copy()
        self._commands.clear()
        return commands

    def fill(self) -> None:
        """Lends out batches, as many as the window and the workers present allow."""
        lending = self._lending
        lending.lend_queued()
        if not lending.may_begin():
            return
        window = self._window
        if self._ahead > window.refill_at:
            return
        bundling = self._bundling
        while self._ahead < window.size and not self._plan_ended and lending.workers:
            most = 1 if bundling is None else min(bundling.size, window.size - self._ahead)
            batch = self._take() if most < 2 else self._take_bundle(most)
            if batch is not None:
                lease = batch.lease
                self._batches[lease.batch] = batch
                self._ahead += lease.count
                lending.lend(batch)

    def _take(self) -> Batch[R] | None:
        """The plan's next batch; None: that was handed over before, or there is no more."""
        try:
            work = self._plan.take()
        except Exception as error:
            self._plan_error = error
            work = None
        if work is None:
            self._plan_ended = True
            return None
        indices, pinned = work
        number = self._taken
        self._taken += 1
        if number in self._passed:
            return None
        return Batch(Lease(number, 0, -1, indices, self._inquest.known_bad(indices)), pinned)

    def _take_bundle(self, most: int) -> Batch[R] | None:
        """The plan's next batches, up to so many, in one lease."""
        taken: list[Lease] = []
        while len(taken) < most:
            batch = self._take()
            if batch is None:
                break
            taken.append(batch.lease)
        if len(taken) < 2:
            return Batch(taken[0], None) if taken else None
        indices = [index for lease in taken for index in lease.indices]
        sizes = tuple(len(lease.indices) for lease in taken)
        bad = self._inquest.known_bad(indices)
        return Batch(Lease(taken[0].batch, 0, -1, indices, bad, sizes=sizes), None)

    def narrow(self, window: int) -> None:
        """From now on no more batches than that may be on their way at once; at least one may."""
        self._window.narrow(window)

    @property
    def starves(self) -> bool:
        """Whether a worker has nothing to do although the plan has more: see `Window`."""
        return (
            self._lending.idles
            and self._ahead >= self._window.size
            and not self._plan_ended
            # A worker whose stream has ended is not kept from anything.
            and all(batch.pinned is None for batch in self._batches.values())
        )

    def pop(self) -> Delivery[R] | None:
        """The next delivery, or None if there is none yet (or no more: see `finished`)."""
        number = self._next_in_order() if self._in_order else self._next_arrived()
        if number is not None:
            batch = self._batches.pop(number)
            lease = batch.lease
            count = lease.count
            self._over -= count
            self._ahead -= count
            return Delivery(number, batch.result, batch.error, lease.seat, count)
        if self._plan_error is not None and not self._batches:
            error, self._plan_error = self._plan_error, None
            return Delivery(None, None, error)
        return None

    def take_emptied(self) -> list[int]:
        """Batches that turned out to hold nothing, since the last call."""
        emptied, self._emptied = self._emptied, []
        return emptied

    @property
    def deliverable(self) -> bool:
        """Whether `pop` would return something."""
        if self._plan_error is not None and not self._batches:
            return True
        return self._next_in_order() is not None if self._in_order else bool(self._arrived)

    @property
    def finished(self) -> bool:
        """Whether everything was delivered."""
        return self._plan_ended and not self._batches and self._plan_error is None

    @property
    def all_made(self) -> bool:
        """Whether no worker is needed any more: all that is left is there to be delivered."""
        return self._plan_ended and self._over == self._ahead

    @property
    def ready(self) -> int:
        """How many batches have arrived and wait for their delivery."""
        return self._over

    def abandon(self) -> list[R]:
        """Ends the epoch here.

        Returns:
            The results that have arrived and were not delivered, to be given up.
        """
        left = [b.result for b in self._batches.values() if b.state is State.READY]
        self._batches.clear()
        self._over = self._ahead = 0
        self._arrived.clear()
        self._lending.clear()
        self._commands.clear()
        self._plan_ended = True
        self._plan_error = None
        return left  # type: ignore[return-value]

    def open_batch(self) -> tuple[int, Sequence[tuple[int, SampleError]]] | None:
        """A batch whose bad samples are to be decided on now, with those samples by place.

        Answer with `resolve` or `fail` before asking again.
        """
        if self._in_order:
            self._settle()
            candidates = [self._settled] if self._settled in self._batches else []
        else:
            candidates = list(self._batches)
        for number in candidates:
            batch = self._batches[number]
            if batch.state is State.OPEN:
                return number, batch.failures
        return None

    def lease(self, batch: int) -> Lease | None:
        """The live lease of a batch that was not delivered yet."""
        record = self._batches.get(batch)
        return None if record is None else record.lease

    # Workers come and go.

    def add_worker(self, seat: int) -> None:
        """A worker is there to be lent batches."""
        self._lending.add_worker(seat)

    def remove_worker(self, seat: int, death: Death = Death()) -> Lease | None:  # noqa: B008
        """A worker is gone, and with it all that was lent to it; others will do it again.

        Args:
            seat: its number.
            death: what is known of how it died.

        Returns:
            The lease that it was working on, as far as can be known.
        """
        lost = dict(self._by_themselves(self._lending.remove_worker(seat)))
        suspect = self._inquest.suspect([self._batches[number] for number in lost], death)
        for number, lease in lost.items():
            batch = self._batches[number]
            error = self._inquest.blame(batch, death) if lease is suspect else None
            if error is not None:
                self._finish(batch, State.FAILED, error=error)
            else:
                self._requeue(batch)
        return suspect

    def move(self, lease: Lease, seat: int) -> None:
        """A lease counts from now on as one of another worker, who has worked on it as well."""
        record = self._live(lease.seat, lease.batch, lease.attempt)
        if record is not None and seat != lease.seat:
            self._lending.move(record, seat)

    @property
    def workers(self) -> Mapping[int, Mapping[int, Lease]]:
        """The workers present, and what each has been lent, by batch: always as it is then."""
        return self._lending.workers

    # What workers reply. Each returns whether the reply counts; if not, drop it.

    def completed(
        self, seat: int, batch: int, attempt: int, result: R, count: int | None = None
    ) -> bool:
        """The batch is there; of several that were lent together the first `count`, or all."""
        record = self._live(seat, batch, attempt)
        if record is None:
            return False
        self._lending.give_back(record)
        if count is not None and count < record.lease.count:
            made, *left = self._break_up(record, count)
            for each in left:
                self._requeue(each)
            record = made
        record.result = result
        self._finish(record, State.READY)
        return True

    def failed(self, seat: int, batch: int, attempt: int, error: BaseException) -> bool:
        """The batch cannot be made."""
        record = self._live(seat, batch, attempt)
        if record is None:
            return False
        self._lending.give_back(record)
        if record.lease.sizes:
            # It is told again of the one that it is about.
            self._requeue(record)
        else:
            self._finish(record, State.FAILED, error=error)
        return True

    def make_room(self, batch: int, *, are_streams: bool = False) -> bool:
        """Gives up what takes room and is not handed over next; it is made again, later.

        Nothing is begun any more until what is next is over. Call it where nothing is deliverable,
        and no batch open: otherwise that makes room.

        Args:
            batch: the first of those that there is no room for, and what is next out of order;
                in order that is the first batch of all.
            are_streams: whether batches are of streams: workers may have to begin them again.

        Returns:
            Whether there was anything to give up.
        """
        following = min(self._batches) if self._in_order else batch
        relief = find_relief(
            self._batches, following, in_order=self._in_order, are_streams=are_streams
        )
        if not relief.batches:
            return False
        # First, while it is known which results were not handed over.
        self._commands.extend(Rewind(seat) for seat in sorted(relief.seats))
        for number in relief.batches:
            record = self._batches[number]
            if record.state is State.READY:
                self._commands.append(Discard(record.result))  # type: ignore[arg-type]
            elif record.state is not State.FAILED:
                if record.lease.seat not in relief.seats:
                    self._commands.append(Recall(record.lease))
                self._lending.give_back(record)
            self._requeue(record)
        if relief.seats:
            # That costs a worker: not with every batch.
            self._window.narrow(self._window.size - 1)
        self._lending.set_apart(self._batches[following])
        return True

    def emptied(self, seat: int, batch: int, attempt: int) -> bool:
        """There is nothing in the batch: its stream has ended."""
        record = self._live(seat, batch, attempt)
        if record is None:
            return False
        self._lending.give_back(record)
        self._finish(record, State.EMPTY)
        return True

    def probed(self, seat: int, batch: int, attempt: int) -> bool:
        """The samples of a probe were made without harm, and given up."""
        record = self._live(seat, batch, attempt)
        if record is None or record.hunt is None:
            return False
        self._lending.give_back(record)
        record.hunt.survived()
        self._requeue(record)
        return True

    def withheld(
        self, seat: int, batch: int, attempt: int, failures: Sequence[tuple[int, SampleError]]
    ) -> bool:
        """The worker has the batch but for the places in `failures`, and waits for a decision."""
        record = self._live(seat, batch, attempt)
        if record is None:
            return False
        record.state = State.OPEN
        record.failures = failures
        return True

    # Decisions about bad samples.

    def resolve(self, batch: int, fills: Mapping[int, Fill]) -> None:
        """Settles the open places of `open_batch()`.

        Args:
            batch: its number.
            fills: for each open place, `drop` or `value`. A dropped place is given a donor
                where the plan has one; where it has none, the plan may leave the batch out.
        """
        record = self._batches[batch]
        answer: dict[int, Fill] = {}
        robbed: set[int] = set()
        for place, fill in fills.items():
            donation = None
            if fill.kind == "drop" and self._donors is not None:
                # Out of order, a batch behind this one may have taken donors itself, so what
                # is in it cannot be taken back.
                donation = self._donors.donor(batch, untaken=not self._in_order)
            if donation is not None:
                index, home = donation
                fill = self._inquest.known_bad([index]).get(0) or Fill("index", index)
                if home is not None:
                    robbed.add(home)
            answer[place] = fill
        lease = record.lease
        if self._donors is not None and not self._donors.indices(batch):
            self._commands.append(Recall(lease))
            self._lending.give_back(record)
            self._finish(record, State.EMPTY)
        else:
            lease.fills.update(answer)
            record.state = State.LENT
            record.failures = ()
            self._commands.append(Amend(lease, answer))
        for home in sorted(robbed):
            self._shrink(home)

    def fail(self, batch: int, error: BaseException) -> None:
        """Gives up `open_batch()`: `error` is delivered in its place."""
        record = self._batches[batch]
        self._commands.append(Recall(record.lease))
        self._lending.give_back(record)
        self._finish(record, State.FAILED, error=error)

    # How it is done.

    def _live(self, seat: int, number: int, attempt: int) -> Batch[R] | None:
        """The batch, if this attempt of it is the live one."""
        batch = self._batches.get(number)
        if (
            batch is None
            or batch.state is not State.LENT
            or batch.lease.attempt != attempt
            or batch.lease.seat != seat
        ):
            return None
        return batch

    def _by_themselves(self, leases: Mapping[int, Lease]) -> Iterator[tuple[int, Lease]]:
        """Leases by their batches, with those of several broken up."""
        for number, lease in leases.items():
            if lease.sizes:
                for batch in self._break_up(self._batches[number]):
                    yield batch.lease.batch, batch.lease
            else:
                yield number, lease

    def _break_up(self, bundle: Batch[R], count: int = 0) -> list[Batch[R]]:
        """Has each of several batches be one by itself, but the first `count` stay together."""
        if self._bundling is not None:
            self._bundling.stop()
        leases = list(bundle.lease.singles())
        if count:
            sizes = bundle.lease.sizes[:count]
            leases[:count] = [
                replace(bundle.lease, indices=bundle.lease.indices[: sum(sizes)], sizes=sizes)
            ]
        batches: list[Batch[R]] = [Batch(lease, bundle.pinned, bundle.state) for lease in leases]
        self._batches.update((batch.lease.batch, batch) for batch in batches)
        return batches

    def _requeue(self, batch: Batch[R]) -> None:
        """Another attempt, under a number of its own, so that the old one cannot count."""
        old = batch.lease
        if old.sizes:
            for each in self._break_up(batch):
                self._requeue(each)
            return
        if batch.hunt is not None and not batch.hunt.probe:
            batch.hunt = None
        probe = () if batch.hunt is None else batch.hunt.probe
        batch.lease = Lease(old.batch, old.attempt + 1, -1, old.indices, dict(old.fills), probe)
        self._over -= batch.state in OVER
        batch.state = State.QUEUED
        batch.failures = ()
        batch.result = batch.error = None
        self._lending.queue(batch)

    def _finish(self, batch: Batch[R], state: State, *, error: BaseException | None = None) -> None:
        count = batch.lease.count
        self._over -= count * (batch.state in OVER)
        batch.state = state
        batch.error = error
        number = batch.lease.batch
        self._lending.note_over(batch)
        if state is State.EMPTY:
            del self._batches[number]
            self._ahead -= count
            self._emptied.append(number)
            return
        self._over += count
        if not self._in_order:
            self._arrived.append(number)

    def _next_in_order(self) -> int | None:
        self._settle()
        while self._delivered < self._settled:
            if self._delivered in self._batches:
                return self._delivered
            self._delivered += 1
        return None

    def _next_arrived(self) -> int | None:
        return self._arrived.popleft() if self._arrived else None

    def _settle(self) -> None:
        """Moves the settled frontier over all that is over."""
        while self._settled < self._taken:
            batch = self._batches.get(self._settled)
            if batch is not None and batch.state not in OVER:
                return
            self._settled += 1

    def _shrink(self, number: int) -> None:
        """The plan took samples back from a batch that was given out: what is left is done anew."""
        batch = self._batches.get(number)
        if batch is None or self._donors is None:
            return
        left = self._donors.indices(number)
        if batch.state is State.READY:
            self._commands.append(Discard(batch.result))  # type: ignore[arg-type]
        elif batch.state in (State.LENT, State.OPEN):
            self._commands.append(Recall(batch.lease))
            self._lending.give_back(batch)
        if not left:
            self._finish(batch, State.EMPTY)
            return
        # A lease of its own: whoever makes the old one still goes by the places that were lent.
        batch.lease = replace(batch.lease, indices=left, fills=self._inquest.known_bad(left))
        batch.hunt = None
        self._requeue(batch)
