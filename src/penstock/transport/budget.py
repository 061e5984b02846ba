"""How much memory batches may take: slots, and the private copies of what the user keeps."""

from __future__ import annotations

import time

from penstock.transport.memory import available_bytes

# Left to the rest of the machine.
RESERVE_BYTES = 64 << 20
# How old a reading of the machine's memory may be where a lease is sent, which is often; before a
# slot grows for it, whoever grows it reads again.
_GLIMPSE_S = 1.0


class Budget:
    """The limit of one loader.

    Args:
        total: bytes; None: what the machine, and the limit of its control group, leave.
    """

    def __init__(self, total: int | None = None) -> None:
        self.total = total
        self._glimpse = 0
        self._glimpse_due = 0.0

    def left(self, taken: int) -> int:
        """Bytes that may be taken besides those that are taken."""
        left = available_bytes() - RESERVE_BYTES
        return max(0, left if self.total is None else min(left, self.total - taken))

    def left_roughly(self) -> int:
        """The same, as far as it is known without looking; 0 where there is a limit to keep."""
        if self.total is not None:
            return 0
        now = time.monotonic()
        if now >= self._glimpse_due:
            self._glimpse, self._glimpse_due = self.left(0), now + _GLIMPSE_S
        return self._glimpse

    def __str__(self) -> str:
        if self.total is None:
            return "what the machine has left"
        return f"memory_budget={self.total:,} bytes"
