"""How an epoch is run."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.options import ErrorPolicy


@dataclass(frozen=True)
class EpochSettings:
    """How an epoch is run.

    Attributes:
        seed: what the random numbers of the epoch's samples are derived from.
        window: how many batches may be on their way at once.
        in_order: whether batches come in the plan's order.
        timeout_s: how long `next()` waits for a batch; 0 for ever.
        policy: what happens to bad samples.
        planned: samples in the epoch, or None where that is unknown.
        number: the epoch's, for a dataset that has `set_epoch`; None: it is not told.
        claimed_samples: how many samples an iterable dataset has claimed to give, if it was
            asked; a warning says when it gives more.
    """

    seed: int
    window: int
    in_order: bool = True
    timeout_s: float = 0.0
    policy: ErrorPolicy = ErrorPolicy()  # noqa: RUF009 - frozen
    planned: int | None = None
    number: int | None = None
    claimed_samples: int | None = None
