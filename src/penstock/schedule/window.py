"""How many batches may be on their way at once, and how that is found out where nobody has said.

Few are enough while workers are as fast as the loop, and each costs memory and has the sampler
asked so far ahead. So a window begins small, and grows where a worker would be idle otherwise:

- the loop waits for one batch, and a worker has nothing to do since all others are there already:
  samples take unlike times, and the window was too narrow for a slow one (`note_starved`). Where
  batches are large, it has to have waited as long as fresh memory for more of them would take: of
  workers that are only a little out of step, none is idle for long;
- some batches take far longer than others, and are to be begun the earlier (`note_uneven`);
- a worker has made all that it was lent before a reply and the next lease have gone their ways
  (`note_done`). With more at once, they also go together, in one call of the system. Where that
  takes hardly any memory: what fits into a cache is worth more.
"""

from __future__ import annotations

from collections.abc import Callable

# A worker is to have so much work by it: what a loop takes, or is kept from the processor, between
# two looks at its workers; and two bundles of quick batches (see `bundling`).
LENT_WORK_S = 0.016
# As long as getting memory that nobody has used yet may take, for quick batches.
FRESH_MEMORY_S = 0.001
# The most batches on their way for each worker, where nobody has said.
MOST_PER_WORKER = 128
# How fast memory is had that nobody has used yet: the system empties it, and shows it to two
# processes.
FRESH_BYTES_A_SECOND = 2e9
# What the loop has waited counts for about as many batches. What adds up to more only over hundreds
# is workers that are now and then out of step, and memory that a cache holds is worth more than it.
COUNTED_BATCHES = 32
# As many for each worker where some batches take far longer than others, so that a slow one is
# begun long before its turn.
UNEVEN_PER_WORKER = 6
# The share of the room for batches that those on their way may take, where nobody has said.
MOST_OF_ROOM = 8


class Window:
    """How many batches of one epoch may be lent out or wait for their delivery.

    Args:
        size: as many, at first.
        workers: for how many workers it may grow; 0: it stays as it is.
        fits: how many batches of so many bytes there is room for; None: of any number.

    Attributes:
        size: as many at present; at least 1.
    """

    def __init__(
        self, size: int, *, workers: int = 0, fits: Callable[[int], int] | None = None
    ) -> None:
        self.size = size
        self._first = size
        self._workers = workers
        self._fits = fits
        self._most = max(size, workers * MOST_PER_WORKER) if workers else size
        self._largest = 0
        # Since it last grew, and lately.
        self._starved_s = 0.0

    @property
    def refill_at(self) -> int:
        """With no more batches than that on their way, others are lent: as many as there is room.

        That is with one place free at first. A wide window is filled again when a quarter of it is
        free: what goes to a worker together costs one call of the system.
        """
        return self.size - max(1, (self.size - self._first) // 4)

    def note_done(self, busy_s: float, size: int) -> None:
        """A batch has arrived.

        Args:
            busy_s: seconds that its worker took.
            size: bytes of shared memory that it takes.
        """
        if size > self._largest:
            self._largest = size
        self._starved_s -= self._starved_s / COUNTED_BATCHES
        # Nobody has waited for it: memory that takes as long is not worth it.
        is_cheap = self._more * self._largest < FRESH_MEMORY_S * FRESH_BYTES_A_SECOND
        if is_cheap and self._more and busy_s * self.size < LENT_WORK_S * self._workers:
            self._grow()

    def note_starved(self, waited_s: float = 0.0) -> None:
        """The loop waits, all places are taken, and a worker has nothing to do.

        Args:
            waited_s: seconds that it has been so since this was told last.
        """
        self._starved_s += waited_s
        if self._more and self._starved_s * FRESH_BYTES_A_SECOND >= self._more * self._largest:
            self._grow()

    def note_uneven(self) -> None:
        """Some batches take far longer than others."""
        if self._more and self.size < UNEVEN_PER_WORKER * self._workers:
            self._grow()

    @property
    def _more(self) -> int:
        """By how much it would grow."""
        return min(self._most, 2 * self.size) - self.size

    def narrow(self, size: int) -> None:
        """From now on, at most so many; at least 1."""
        self._most = max(1, min(self._most, size))
        self.size = min(self.size, self._most)

    def _grow(self) -> None:
        self._starved_s = 0.0
        size = min(self._most, 2 * self.size)
        if self._fits is not None and self._largest:
            size = min(size, self._fits(self._largest) // MOST_OF_ROOM)
        if size <= self.size:
            # There will be no more room than now.
            self._most = self.size
        else:
            self.size = size
