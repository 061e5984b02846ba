"""The last step of a lease: samples → batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from penstock.collate import Allocate, Rows, SlotCollate
from penstock.engines.failure import Failure, describe
from penstock.engines.job import Job
from penstock.engines.outcome import Broken, Made, Outcome


class Collation:
    """Collates with the job's function.

    Args:
        job: whose function.
        seat: the worker's number, or None in the training process.
        allocate: memory for default-collated batches; None for ordinary memory.
    """

    def __init__(self, job: Job, seat: int | None, allocate: Allocate | None) -> None:
        self._seat = seat
        self._batched = job.batched
        self._function = job.collate
        self._name = getattr(job.collate, "__qualname__", type(job.collate).__name__)
        self._into_slot: SlotCollate | None = None
        if job.default_collate and job.batched:
            self._function = self._into_slot = SlotCollate(allocate)
        self.is_users = job.collate is not None and not job.default_collate

    def begin(self) -> None:
        """Begins a lease."""
        if self._into_slot is not None:
            self._into_slot.begin()

    def rows(self, sample: Any, count: int, took_s: float) -> Rows | None:
        """See `SlotCollate.rows`; None for the user's function."""
        return None if self._into_slot is None else self._into_slot.rows(sample, count, took_s)

    def __call__(self, samples: list[Any], batch: int, failures: Sequence[Failure] = ()) -> Outcome:
        """Makes the batch.

        Args:
            samples: at least one; exactly one where a lease is a single sample.
            batch: the batch's number, for messages.
            failures: samples that were left out.
        """
        value: Any = samples if self._batched else samples[0]
        if self._function is None:
            return Made(value, len(samples), failures)
        try:
            return Made(self._function(value), len(samples), failures)
        except Exception as error:
            return Broken(self._describe(error, batch, len(samples)))

    def _describe(self, error: Exception, batch: int, count: int) -> Failure:
        failure = describe(error, seat=self._seat)
        told = f"{failure.message}\n({self._name} raised this for batch {batch}, {count} samples)"
        if "stack expects each tensor to be equal size" in failure.message:
            told += (
                "\nThe samples differ in shape: bring them to one (penstock.datasets.ResizeCrop "
                "does so for images), or give a collate_fn that pads"
            )
        return replace(failure, message=told)
