"""What the scheduler asks of a plan, and what it hands over."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol

from penstock.schedule.lease import R


class Plan(Protocol):
    """Where batches come from."""

    def take(self) -> tuple[Sequence[object], int | None] | None:
        """The next batch's indices, and its worker if only one will do; None at the end.

        Called once for each batch, in order. What it raises ends the epoch, once the
        batches taken before have been delivered.
        """


class DonorPlan(Plan, Protocol):
    """A plan that finds another sample for a place whose own cannot be made."""

    def donor(self, batch: int, *, untaken: bool) -> tuple[object, int | None] | None:
        """A sample from behind `batch`, and the batch it is taken from if that was given out.

        With `untaken`, only from batches that were not given out.
        """

    def indices(self, batch: int) -> Sequence[object]:
        """What is left of a batch that was given out; nothing: it is no more."""


@dataclass(slots=True)
class Delivery(Generic[R]):
    """What is handed to the training loop next: a result, or the error in its place.

    Attributes:
        batch: the batch's number in the plan; None for an error of the plan itself.
        result: what the worker replied.
        error: what to raise instead.
        seat: whose worker made it.
        count: how many batches the result is; they are numbered from `batch` on.
    """

    batch: int | None
    result: R | None
    error: BaseException | None
    seat: int = field(default=-1, compare=False)
    count: int = 1
