"""How many workers a loader has chosen, and why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choice:
    """What `num_workers="auto"` has come to.

    Attributes:
        workers: worker processes; 0: the training process makes the batches.
        reason: why, in words.
        waited_s: seconds that the loop waited for a batch while this was found out, on average;
            None: nothing was measured.
        busy_s: seconds that it took to make a batch, on average; None likewise.
    """

    workers: int
    reason: str
    waited_s: float | None = None
    busy_s: float | None = None

    def __str__(self) -> str:
        """`2 workers, since …`."""
        count = "no workers" if not self.workers else f"{self.workers} workers"
        return f"{'1 worker' if self.workers == 1 else count}, since {self.reason}"
