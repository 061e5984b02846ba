"""Leases on a stream: the next batch of what the worker's own iterator gives."""

from __future__ import annotations

import inspect
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from penstock.checkpoint import Snapshots, unpack
from penstock.collate import Allocate, Rows
from penstock.engines.collation import Collation
from penstock.engines.failure import Failure, describe
from penstock.engines.job import Job
from penstock.engines.likeness import UNKNOWN, likeness
from penstock.engines.naming import name_current
from penstock.engines.outcome import Broken, Held, Made, Outcome, StreamEnded, with_snapshot
from penstock.engines.protocol import NOTHING_LEFT, StreamStart
from penstock.engines.randomness import ProcessRandomness
from penstock.errors import DatasetError
from penstock.schedule import Fill, Lease
from penstock.transport.journal import NO_PLACE, Journal

# An endless stream may have nothing but bad samples: so many of them in one batch are told
# before it is full, for the training process to say when it is enough.
MOST_UNTOLD_FAILURES = 100

_NOTHING = object()
_NOT_THE_SAME = (
    "it is not the same stream each time, so nothing can go on where another worker was, or from a "
    "saved state. Draw its order from the global random generators, which are seeded, or from "
    "set_epoch(), or give it state_dict() and load_state_dict()"
)


class StreamFetcher:
    """Carries out the leases of an iterable dataset, which have to come in order.

    A skipped sample's place is taken by the next sample of the stream.

    Args:
        job: what is to be done.
        seat: the worker's number, or None in the training process.
        allocate: memory for default-collated batches; None for ordinary memory.
        journal: where to note which sample is being made; None: nobody would read it.

    Attributes:
        pulled: samples taken from the stream, bad ones among them: where a
            worker in this one's place has to go on.
        seen: what the last of them looks like.
    """

    def __init__(
        self,
        job: Job,
        seat: int | None,
        allocate: Allocate | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._job = job
        # Which one it is matters only where its time is limited: none can be left out.
        self._journal = journal if job.sample_timeout_s is not None else None
        self._seat = seat
        self._collate = Collation(job, seat, allocate)
        self._snapshots = Snapshots(job.dataset, job.snapshot_every)
        self._sequence = None if seat is None else ProcessRandomness()
        self._iterator: Iterator[Any] | None = None
        self._samples: list[Any] = []
        self._failures: list[Failure] = []
        self._over = False
        # Until one batch was full, the batch size may be far more than there are samples.
        self._fills_batches = False
        self.pulled = 0
        self.seen = UNKNOWN

    def begin_epoch(self, start: StreamStart | None = None, number: int | None = None) -> None:
        """Starts the stream anew.

        Args:
            start: where to begin; None for the beginning. What lies before was handed over.
            number: the epoch's, or None.
        """
        self._start = start = StreamStart() if start is None else start
        self._iterator_state = self._snapshots.begin_epoch(
            number, start.snapshot, earlier=start.earlier
        )
        self._iterator = None
        self._over = False
        self._samples, self._failures = [], []
        # Until the stream is there, the place that it will be at.
        self.pulled = self._start.pulled
        self.seen = self._start.seen

    def fetch(self, lease: Lease) -> Outcome:
        """Makes the next batch."""
        self._samples, self._failures = [], []
        self._collate.begin()
        return self._go_on(lease.batch)

    def amend(self, batch: int, fills: Mapping[int, Fill]) -> Outcome:
        """Goes on with the `Held` batch."""
        self._collate.begin()
        for fill in fills.values():
            if fill.kind == "value":
                self._samples.append(fill.value)
        return self._go_on(batch)

    def _go_on(self, batch: int) -> Outcome:
        job = self._job
        wanted = job.batch_size if job.batched else 1
        rows: Rows | None = None
        last: Any = _NOTHING
        began = time.perf_counter()
        while len(self._samples) < wanted:
            try:
                sample = last = self._pull()
            except StopIteration:
                break
            except Exception as error:
                last, self.seen = _NOTHING, UNKNOWN
                failure = self._describe(error)
                if job.sample_errors == "raise" or self._over:
                    return Broken(failure)
                self._failures.append(failure)
                if job.sample_errors == "drop" and len(self._failures) < MOST_UNTOLD_FAILURES:
                    continue
                if rows is not None:
                    # The slot is lent to one lease at a time.
                    self._samples = rows.withdraw(self._samples)
                failures, self._failures = self._failures, []
                return Held(failures)
            if not self._samples and self._fills_batches:
                rows = self._collate.rows(sample, wanted, time.perf_counter() - began)
            self._samples.append(sample if rows is None else rows.place(sample))
        if self._journal is not None:
            self._journal.at(NO_PLACE)
        if last is not _NOTHING and self._seat is not None:
            # Now: the function that collates may change it.
            self.seen = likeness(last)
        samples, failures = self._samples, self._failures
        self._fills_batches = len(samples) == wanted
        if not samples or (job.drop_last and len(samples) < wanted):
            if failures:
                return Made(NOTHING_LEFT, 0, failures)
            return StreamEnded()
        snapshot = None if self._over else self._snapshots.take(self._iterator)
        return with_snapshot(self._collate(samples, batch, failures), snapshot, self._sequence)

    def _pull(self) -> Any:
        if self._over:
            raise StopIteration
        journal = self._journal
        if self._iterator is None:
            self._iterator = self._begin_stream()
        self.pulled += 1
        if journal is not None:
            journal.at(len(self._samples))
        try:
            sample = next(self._iterator)
        except StopIteration:
            self.pulled -= 1
            self._over = True
            raise
        except Exception as error:
            if self._job.sample_errors != "raise" and inspect.isgenerator(self._iterator):
                # Its next `next()` would say that the stream has ended, and the rest of it
                # would be lost in silence.
                self._over = True
                raise DatasetError(
                    f"{type(self._job.dataset).__name__}.__iter__ is a generator, which cannot go "
                    f"on behind the sample that raised {type(error).__name__}: {error}. Catch the "
                    "exception inside it, return an iterator object whose __next__ may raise and "
                    "be called again, or derive from penstock.datasets.ShardedStream"
                ) from error
            raise
        if sample is None and self._job.none_is_error:
            raise TypeError(
                f"the stream gave None as its sample {self.pulled - 1}; skip such samples with "
                "on_error='skip', or do not yield them"
            )
        return sample

    def _begin_stream(self) -> Iterator[Any]:
        """The iterator, where it has to begin."""
        start, dataset = self._start, self._job.dataset
        iterator: Iterator[Any] = iter(dataset)
        if self._iterator_state is not None:
            iterator.load_state_dict(self._iterator_state)  # type: ignore[attr-defined]
        if self._sequence is not None and start.random is not None:
            self._sequence.restore(unpack(start.random))
        for pulled in range(start.snapshot_at, start.pulled):
            if self._journal is not None:
                self._journal.at(0)
            try:
                sample = next(iterator)
            except StopIteration:
                self._over = True
                raise DatasetError(
                    f"the stream ended after {pulled} samples when it was run again, before the "
                    f"{start.pulled} that were handed over: {_NOT_THE_SAME}"
                ) from None
            except Exception:
                continue
            if pulled + 1 == start.pulled and start.seen not in (UNKNOWN, likeness(sample)):
                self._over = True
                raise DatasetError(
                    f"the stream gave another sample {pulled} when it was run again than the first "
                    f"time: {_NOT_THE_SAME}"
                )
        return iterator

    def _describe(self, error: Exception) -> Failure:
        index = self.pulled - 1
        source = name_current(self._iterator, self._job.dataset, index, error)
        failure = describe(error, index=index, source=source, seat=self._seat)
        if inspect.isgenerator(self._iterator) and self._job.sample_errors == "raise":
            lost = (
                "A generator ends with its exception: the rest of its part of the stream is lost\n"
            )
            return replace(failure, traceback=failure.traceback + lost)
        return failure
