"""How an epoch is run."""

from __future__ import annotations

from dataclasses import dataclass

from penstock.options import DEFAULT_MAX_RESTARTS, ErrorPolicy
from penstock.schedule import Pace


@dataclass(frozen=True)
class EpochSettings:
    """How an epoch is run.

    Attributes:
        seed: what the random numbers of the epoch's samples are derived from.
        window: how many batches may be on their way at once, at first.
        widens: whether they may become more, where workers would be idle otherwise.
        in_order: whether batches come in the plan's order.
        timeout_s: how long `next()` waits for a batch; 0 for ever.
        policy: what happens to bad samples.
        max_restarts: how many workers are replaced.
        planned: samples in the epoch, or None where that is unknown.
        number: the epoch's, for a dataset that has `set_epoch`; None: it is not told.
        pace: what the loader's batches cost; None: each is one worker's.
        bundles: whether several batches may be lent together.
        claimed_samples: how many samples an iterable dataset has claimed to give, if it was
            asked; a warning says when it gives more.
    """

    seed: int
    window: int
    widens: bool = False
    in_order: bool = True
    timeout_s: float = 0.0
    policy: ErrorPolicy = ErrorPolicy()  # noqa: RUF009 - frozen
    max_restarts: int = DEFAULT_MAX_RESTARTS
    planned: int | None = None
    number: int | None = None
    claimed_samples: int | None = None
    pace: Pace | None = None
    bundles: bool = False
