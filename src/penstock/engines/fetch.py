"""A lease → a batch, with the policy for bad samples.

The same code runs in a worker process and, for the inline engine, in the training process.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import repeat
from operator import getitem
from typing import Any, cast

from penstock.checkpoint import Snapshots, has_state, unpack
from penstock.collate import Allocate, Rows
from penstock.engines.collation import Collation
from penstock.engines.failure import Failure, describe
from penstock.engines.job import Job
from penstock.engines.naming import explain_index_error, name_source, none_error
from penstock.engines.outcome import (
    Broken,
    Bundle,
    Held,
    Made,
    Outcome,
    Part,
    Tried,
    with_snapshot,
)
from penstock.engines.parts import is_plain
from penstock.engines.protocol import NOTHING_LEFT, EpochStart, StreamStart
from penstock.engines.randomness import ProcessRandomness, SampleRandomness
from penstock.schedule import Fill, Lease
from penstock.transport.journal import AT_ONCE, NO_PLACE, Journal

# Samples that take as long are noted with their time, which takes 0.15 µs; of others only the
# place is, which takes 0.03.
_TIMED_FROM_S = 20e-6

_OPEN = object()
_DROPPED = object()


@dataclass
class _Partial:
    """A batch in the making: a place is open, dropped, or holds its sample."""

    samples: list[Any]


class Fetcher:
    """Carries out the leases of a map-style dataset, one after another.

    Args:
        job: what is to be done.
        seat: the worker's number, or None in the training process.
        allocate: memory for default-collated batches; None for ordinary memory.
        journal: where to note which sample is being made; None: nobody would read it.
    """

    def __init__(
        self,
        job: Job,
        seat: int | None,
        allocate: Allocate | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._job = job
        self._dataset = job.dataset
        self._seat = seat
        self._journal = journal
        self._collate = Collation(job, seat, allocate)
        self._randomness = SampleRandomness(restoring=seat is None) if job.own_randomness else None
        # Where no sample has random numbers of its own, they go on from each to the next.
        in_sequence = seat is not None and not job.own_randomness
        self._sequence = ProcessRandomness() if in_sequence else None
        self._is_plain = seat is None and not has_state(job.dataset)
        self._held: dict[int, _Partial] = {}
        self._snapshots = Snapshots(job.dataset, job.snapshot_every)
        self._many = getattr(job.dataset, "__getitems__", None) if job.batched else None

    def begin_epoch(self, epoch: EpochStart) -> None:
        """Drops what is left of the epoch before; see `Engine.begin_epoch`."""
        self._held.clear()
        start = epoch.starts.get(self._seat or 0, StreamStart())
        self._snapshots.begin_epoch(epoch.number, start.snapshot, earlier=start.earlier)
        if self._sequence is not None and start.random is not None:
            self._sequence.restore(unpack(start.random))
        if self._randomness is not None:
            self._randomness.begin_epoch(epoch.seed)

    def fetch(self, lease: Lease) -> Outcome:
        """Carries out a lease."""
        indices, batch = lease.indices, lease.batch
        self._collate.begin()
        if lease.probe:
            return self._with_randomness(lambda: self._try(lease))
        part = lease.part
        if part is not None:
            return self._with_randomness(lambda: self._fetch_part(indices, part))
        if self._job.sample_errors == "raise":
            return self._with_randomness(lambda: self._make(lease))
        todo: dict[int, object] = dict(enumerate(indices))
        return self._go_on(batch, _Partial([_OPEN] * len(indices)), todo, lease.fills)

    def fetch_several(
        self,
        leases: Sequence[Lease],
        begin: Callable[[Lease], None],
        finish: Callable[[Made], bytes],
        enough: Callable[[], bool],
    ) -> Outcome:
        """Carries out leases that came together, one after another.

        Whether samples have drawn random numbers is looked at behind the last: that takes as long
        as making a batch of numbers does.

        Args:
            leases: they, each of one batch; a bad sample is an error.
            begin: called before each.
            finish: makes the message of each, behind it: a collate function may use its memory
                again for the next.
            enough: asked behind each, whether the others are left undone.

        Returns:
            The messages of those before the first that fails, or what has become of that one.
        """

        def attempt() -> Outcome:
            bodies: list[bytes] = []
            for lease in leases:
                begin(lease)
                self._collate.begin()
                outcome = self._make(lease)
                if isinstance(outcome, Made):
                    try:
                        bodies.append(finish(outcome))
                    except Exception as error:
                        outcome = Broken(describe(error, seat=self._seat))
                if not isinstance(outcome, Made):
                    return Bundle(bodies) if bodies else outcome
                if enough():
                    break
            return Bundle(bodies)

        return self._with_randomness(attempt)

    def gather(self, batch: int, samples: Callable[[], list[Any]]) -> Outcome:
        """Puts a batch together of samples that others have made.

        Args:
            batch: its number.
            samples: gives them, as often as it is called.
        """
        self._collate.begin()
        return self._with_randomness(lambda: self._collated(samples(), batch))

    def amend(self, batch: int, fills: Mapping[int, Fill]) -> Outcome:
        """Goes on with a `Held` batch, its open places decided."""
        self._collate.begin()
        return self._go_on(batch, self._held.pop(batch), {}, fills)

    def forget(self, batch: int) -> None:
        """Drops a `Held` batch."""
        self._held.pop(batch, None)

    @property
    def _begin_sample(self) -> Callable[[object], None] | None:
        """What to call before each sample, if its dataset draws random numbers: few do."""
        if self._randomness is not None and self._randomness.seeding:
            return self._randomness.begin_sample
        return None

    def _with_randomness(self, attempt: Callable[[], Outcome]) -> Outcome:
        randomness = self._randomness
        if randomness is None:
            return attempt()
        randomness.begin_lease()
        try:
            outcome = attempt()
            while randomness.end_lease():
                outcome = attempt()
            return outcome
        finally:
            randomness.abandon_lease()

    def _make(self, lease: Lease) -> Outcome:
        """The batch, or the first error."""
        for place, fill in lease.fills.items():
            if fill.kind == "bad":
                return Broken(_set_aside(fill, place))
        if self._many is not None:
            return self._fetch_at_once(lease.indices, lease.batch)
        return self._fetch_all(lease.indices, lease.batch)

    def _fetch_all(self, indices: Sequence[object], batch: int) -> Outcome:
        """All samples, or the first error."""
        dataset, refuse_none = self._dataset, self._job.none_is_error
        begin_sample, note = self._begin_sample, self._note
        if self._is_plain and begin_sample is None:
            return self._fetch_here(indices, batch)
        limited = self._job.sample_timeout_s is not None
        line = self._place
        samples: list[Any] = []
        rows: Rows | None = None
        index: object = None
        began = time.perf_counter()
        try:
            for index in indices:
                if note is not None:
                    note(len(samples))
                elif line is not None:
                    line[0] = len(samples)
                if begin_sample is not None:
                    begin_sample(index)
                sample = dataset[index]
                if sample is None and refuse_none:
                    raise none_error(index)
                if not samples:
                    took_s = time.perf_counter() - began
                    rows = self._collate.rows(sample, len(indices), took_s)
                    note = _while_it_pays(note, took_s, limited=limited)
                samples.append(sample if rows is None else rows.place(sample))
        except Exception as error:
            return Broken(self._describe(error, index, len(samples)))
        return self._collated(samples, batch)

    def _fetch_here(self, indices: Sequence[object], batch: int) -> Outcome:
        """The same with less ado: nobody reads what is noted, and rows are for slots.

        Behind a None the samples of the batch are made all the same, which a dataset that tells its
        state would show.
        """
        samples: list[Any] = []
        error: Exception | None = None
        try:
            # What was made before an error is kept.
            samples.extend(map(getitem, repeat(self._dataset), indices))
        except Exception as raised:
            error = raised
        outcome: Outcome | None = None
        if error is None and len(samples) == len(indices) and _are_tuples(samples):
            # Among tuples a None is refused here, and need not be looked for.
            outcome = self._collated(samples, batch)
            if isinstance(outcome, Made):
                return outcome
        if self._job.none_is_error and type(None) in map(type, samples):
            del samples[next(place for place, sample in enumerate(samples) if sample is None) :]
            error = none_error(indices[len(samples)])
        elif error is None and len(samples) < len(indices):
            # A sample has raised it, and to `map` it is the end of what it reads.
            error = StopIteration()
        if error is not None:
            return Broken(self._describe(error, indices[len(samples)], len(samples)))
        return outcome or self._collated(samples, batch)

    def _fetch_part(self, indices: Sequence[object], part: range) -> Outcome:
        """Some samples, or the first error.

        Args:
            indices: theirs.
            part: their places in the batch.
        """
        begin_sample, note = self._begin_sample, self._note
        samples: list[Any] = []
        for place, index in zip(part, indices, strict=True):
            if note is not None:
                note(place)
            if begin_sample is not None:
                begin_sample(index)
            try:
                sample = self._dataset[index]
                if sample is None and self._job.none_is_error:
                    raise none_error(index)
                if not is_plain(sample):
                    raise TypeError(f"a {type(sample).__name__} is not made in parts")
            except Exception as error:
                return Broken(self._describe(error, index, place))
            samples.append(sample)
        return Part(samples)

    def _try(self, lease: Lease) -> Outcome:
        """Makes the samples of a probe, one after another, and gives them up."""
        indices = [lease.index_at(place) for place in lease.probe]
        sequence = None if self._sequence is None else self._sequence.save()
        at_once = self._many if self._job.sample_errors == "raise" else None
        begin_sample, note = self._begin_sample, self._note
        if at_once is not None:
            if note is not None:
                note(AT_ONCE)
            if begin_sample is not None:
                begin_sample(indices[0])
            with contextlib.suppress(Exception):  # It comes up again where the batch is made.
                at_once(indices)
        else:
            for place, index in zip(lease.probe, indices, strict=True):
                if note is not None:
                    note(place)
                if begin_sample is not None:
                    begin_sample(index)
                with contextlib.suppress(Exception):
                    self._dataset[index]
        if self._sequence is not None and sequence is not None:
            self._sequence.restore(sequence)
        return Tried()

    @property
    def _note(self) -> Callable[[int], None] | None:
        """What to call with the place of each sample, while somebody could read that."""
        return None if self._journal is None else self._journal.at

    @property
    def _place(self) -> memoryview[int] | None:
        """Where to set the place alone of samples that take less time than that does."""
        return None if self._journal is None else self._journal.place

    def _fetch_at_once(self, indices: Sequence[object], batch: int) -> Outcome:
        """All samples by one call of the dataset, which knows how to fetch many."""
        asked = list(indices)
        begin_sample, note = self._begin_sample, self._note
        if note is not None:
            note(AT_ONCE)
        if begin_sample is not None:
            begin_sample(asked[0] if asked else None)
        try:
            samples = self._many(asked)  # type: ignore[misc]
        except Exception as error:
            source = f"{type(self._dataset).__name__}.__getitems__({asked!r:.200})"
            return Broken(describe(error, index=asked, source=source, seat=self._seat))
        return self._collated(samples, batch)

    def _go_on(
        self,
        batch: int,
        partial: _Partial,
        todo: dict[int, object],
        fills: Mapping[int, Fill],
    ) -> Outcome:
        """What can be done of a batch that may have bad samples."""
        bad: list[Failure] = []
        for place, fill in fills.items():
            todo.pop(place, None)
            if fill.kind == "index":
                todo[place] = fill.value
            elif fill.kind == "bad":
                bad.append(_set_aside(fill, place))
                asking = self._job.sample_errors == "ask"
                partial.samples[place] = _OPEN if asking else _DROPPED
            else:
                partial.samples[place] = _DROPPED if fill.kind == "drop" else fill.value
        # Row by row only from the first on: places that come later are filled out of turn.
        in_rows = not fills
        return self._with_randomness(lambda: self._fetch_open(batch, partial, todo, bad, in_rows))

    def _fetch_open(
        self,
        batch: int,
        partial: _Partial,
        todo: dict[int, object],
        bad: Sequence[Failure],
        in_rows: bool,
    ) -> Outcome:
        dataset, refuse_none = self._dataset, self._job.none_is_error
        begin_sample, note = self._begin_sample, self._note
        line = self._place
        asking = self._job.sample_errors == "ask"
        # An attempt before this one may have been held.
        self._held.pop(batch, None)
        failures = list(bad)
        rows: Rows | None = None
        began = time.perf_counter()
        for place, index in todo.items():
            if note is not None:
                note(place)
            elif line is not None:
                line[0] = place
            if begin_sample is not None:
                begin_sample(index)
            try:
                sample = dataset[index]
                if sample is None and refuse_none:
                    raise none_error(index)
            except Exception as error:
                failures.append(self._describe(error, index, place))
                partial.samples[place] = _OPEN if asking else _DROPPED
                continue
            if in_rows:
                took_s = time.perf_counter() - began
                rows = self._collate.rows(sample, len(todo), took_s)
                note = _while_it_pays(note, took_s, limited=self._job.sample_timeout_s is not None)
                in_rows = False
            partial.samples[place] = sample if rows is None else rows.place(sample)
        if failures and asking:
            if rows is not None:
                # The slot is lent to one lease at a time.
                partial.samples = rows.withdraw(partial.samples)
            self._held[batch] = partial
            return Held(failures)
        samples = [sample for sample in partial.samples if sample is not _DROPPED]
        if not samples:
            return Made(NOTHING_LEFT, 0, failures)
        return self._collated(samples, batch, failures)

    def _collated(
        self, samples: list[Any], batch: int, failures: Sequence[Failure] = ()
    ) -> Outcome:
        if self._journal is not None:
            self._journal.at(NO_PLACE)
        begin_sample = self._begin_sample
        if begin_sample is not None and self._collate.is_users:
            begin_sample(("batch", batch))
        outcome = self._collate(samples, batch, failures)
        return with_snapshot(outcome, self._snapshots.take(), self._sequence)

    def _describe(self, error: Exception, index: object, place: int) -> Failure:
        error = explain_index_error(error, self._dataset, index)
        source = name_source(self._dataset, index, error)
        return describe(error, index=index, source=source, seat=self._seat, place=place)


def _are_tuples(samples: list[Any]) -> bool:
    return bool(samples) and type(samples[0]) is tuple


def _while_it_pays(
    note: Callable[[int], None] | None, took_s: float, *, limited: bool
) -> Callable[[int], None] | None:
    """The same, unless the first sample of the batch came so fast that the calls would be felt.

    They are made all the same where the time of each sample is limited, which is read there.
    """
    return note if limited or took_s >= _TIMED_FROM_S else None


def _set_aside(fill: Fill, place: int) -> Failure:
    """What is reported of a sample that is not to be made."""
    return cast(Failure, replace(cast(Any, fill.value), place=place))
