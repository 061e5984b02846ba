"""Several small batches in one lease, where what is done for each lease would be felt.

Orders, replies and decisions cost some twenty microseconds for each lease, as much as a batch of
numbers does. So, where batches are small, quick, and taken as quickly, a worker is lent several at
once: it makes one after another, and sends them in one message::

    plan ──batch, batch, batch──> one lease ──> worker ──one reply──> batch, batch, batch

What is handed over is the same, one batch after another. Only what goes well is bundled: behind an
error, a worker's death, or memory that is short, each of the batches is lent by itself, by the
rules that hold there, and so is the rest of the epoch.
"""

from __future__ import annotations

from penstock.schedule.window import Window

# A bundle is to be so much work. A sample that suddenly takes long holds up those before it.
BUNDLED_WORK_S = 0.008
# The most shared memory that a bundle may take.
BUNDLED_BYTES = 1 << 20
# A loop whose step takes longer does not feel what a lease costs, and would feel it more where
# several batches wait for one slow sample.
FELT_STEP_S = 0.0005
MOST_BUNDLED = 16
# There is to be room for so many for each worker.
BUNDLES_A_WORKER = 4
# The weight of what came last in what is taken to be usual.
_LAST = 0.2


class Bundling:
    """How many batches of one epoch are lent together.

    Args:
        window: how many batches may be on their way.
        workers: how many workers there are.
    """

    def __init__(self, window: Window, workers: int) -> None:
        self._window = window
        self._workers = workers
        self._busy_s = 0.0
        self._largest = 0
        self._step_s = FELT_STEP_S
        self._may = True

    @property
    def size(self) -> int:
        """As many; 1: each by itself."""
        if not self._may or self._step_s >= FELT_STEP_S or not self._busy_s:
            return 1
        most = min(MOST_BUNDLED, self._window.size // (BUNDLES_A_WORKER * self._workers))
        if most * self._largest > BUNDLED_BYTES:
            most = BUNDLED_BYTES // self._largest
        return max(1, min(most, int(BUNDLED_WORK_S / self._busy_s)))

    def note_done(self, busy_s: float, size: int) -> None:
        """A batch has arrived, or each of several that are alike.

        Args:
            busy_s: seconds that its worker took.
            size: bytes of shared memory that it takes.
        """
        self._busy_s += (_LAST if self._busy_s else 1.0) * (busy_s - self._busy_s)
        self._largest = max(self._largest, size)

    def note_step(self, step_s: float) -> None:
        """So many seconds the loop has taken for its step behind a batch."""
        self._step_s += _LAST * (step_s - self._step_s)

    def stop(self) -> None:
        """From now on each is lent by itself."""
        self._may = False
