"""What samples cost, and whether it pays to have several workers make one batch."""

from __future__ import annotations

# What each part of a batch costs beside its samples: its messages, both ways, and the waking up.
PART_S = 0.00015
# How fast samples come from who made them to who puts them together: written, read, in memory that
# no cache holds.
BYTES_A_SECOND = 1e9
# As much of the time for its samples may be spent on having several make a batch.
MOST_OVERHEAD = 0.02
# While nothing is ready, a batch has so many parts for each worker, if they are worth it: a slow
# sample holds up the fewer others.
HASTE = 4
# Where batches differ so much, as a share of what one costs, there are slow samples: those to come
# may be late although others are ready.
UNEVEN = 0.25
# With so many ready for each worker they will not be.
AHEAD = 2
# So many in a row cannot be made in parts, and no other is tried.
MOST_FAILED = 2
# The weight of the batch that came last in what one is taken to cost.
_LAST = 0.2


class Pace:
    """What the batches of one loader cost, over all its epochs.

    Attributes:
        pays: whether it may pay to have several workers make one.
    """

    def __init__(self) -> None:
        self.pays = False
        self._sample_s = 0.0
        self._sample_bytes = 0.0
        self._deviation_s = 0.0
        self._failed = 0
        self._may = True

    def note(self, busy_s: float, samples: int, size: int) -> None:
        """A batch was made.

        Args:
            busy_s: seconds that workers took, all together.
            samples: how many are in it.
            size: bytes of shared memory that it takes, or that its parts took.
        """
        if samples <= 0:
            return
        weight = _LAST if self._sample_s else 1.0
        cost_s = busy_s / samples
        if self._sample_s:
            self._deviation_s += weight * (abs(cost_s - self._sample_s) - self._deviation_s)
        self._sample_s += weight * (cost_s - self._sample_s)
        self._sample_bytes += weight * (size / samples - self._sample_bytes)
        self._judge(samples)

    def note_parts(self, *, made: bool) -> None:
        """A batch was put together of parts, or could not be."""
        self._failed = 0 if made and self._may else self._failed + 1
        self.pays = self.pays and self._failed < MOST_FAILED

    def note_short(self) -> None:
        """There is too little memory to have batches and parts of them: none is split any more."""
        self._failed = MOST_FAILED
        self._may = self.pays = False

    @property
    def uneven(self) -> bool:
        """Whether some batches take far longer than others."""
        return self._deviation_s > UNEVEN * self._sample_s

    def _judge(self, samples: int) -> None:
        self.pays = self._failed < MOST_FAILED and self.part_of(samples, 2) < samples

    def part_of(self, samples: int, workers: int, ready: int = 0) -> int:
        """How many samples of a batch one worker is to make.

        Args:
            samples: how many are in it.
            workers: how many there are.
            ready: how many batches have arrived, and wait for the loop.

        Returns:
            Their number; `samples`: all of them, since it does not pay to have others help.
        """
        if workers < 2 or samples < 2 or ready >= workers * (AHEAD if self.uneven else 1):
            return samples
        spare_s = MOST_OVERHEAD * samples * self._sample_s
        spare_s -= samples * self._sample_bytes / BYTES_A_SECOND
        most = workers if ready else HASTE * workers
        if ready >= workers:
            # Nobody waits, and each part is work for the loop.
            most = max(2, workers // 2)
        parts = min(samples, most, int(spare_s / PART_S))
        return -(-samples // parts) if parts > 1 else samples
