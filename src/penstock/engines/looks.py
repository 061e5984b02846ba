"""Whether an epoch goes faster without workers, from what waiting and making have taken.

It is asked at *looks*, of some batches each. Where a few of them agree that it may be so, it is
tried. What a worker takes does not tell it alone: workers that share a processor with the loop, or
with each other, take longer than the training process would.
"""

from __future__ import annotations

from dataclasses import dataclass

# Batches in a look: as many as even out that one is slow, and few beside an epoch.
LOOK_BATCHES = 16
# So many looks in a row have to say the same.
AGREEING = 2
# Behind so many looks an epoch is left as it is.
MOST_LOOKS = 8
# Batches in a trial, behind a few that show what random numbers the dataset draws, and take longer.
TRIAL_BATCHES = 32
WARM_UP_BATCHES = 2
# How often one loader tries it at most.
MOST_TRIALS = 3
# Batches that take longer are not made in the training process on the mere chance that this could
# be faster: a trial is to cost no more than is felt.
TRIAL_BELOW_S = 0.005
# The loop has to wait for so much of what a batch takes, for that chance.
WAITS_FOR = 0.5


@dataclass(frozen=True, slots=True)
class Tally:
    """Figures at one moment of an epoch, or what they have grown by since another.

    Attributes:
        batches: handed over.
        waited_s: what the loop waited for those.
        made: batches that were made by workers, and arrived.
        busy_s: what those took.
    """

    batches: int = 0
    waited_s: float = 0.0
    made: int = 0
    busy_s: float = 0.0

    def since(self, other: Tally) -> Tally:
        """What has come to it since another moment."""
        return Tally(
            self.batches - other.batches,
            self.waited_s - other.waited_s,
            self.made - other.made,
            self.busy_s - other.busy_s,
        )

    def plus(self, other: Tally) -> Tally:
        """Both together."""
        return Tally(
            self.batches + other.batches,
            self.waited_s + other.waited_s,
            self.made + other.made,
            self.busy_s + other.busy_s,
        )

    @property
    def wait_s(self) -> float:
        """Seconds that the loop waited for a batch."""
        return self.waited_s / max(1, self.batches)

    @property
    def cost_s(self) -> float:
        """Seconds that a batch took to make."""
        return self.busy_s / max(1, self.made)

    @property
    def is_slower(self) -> bool:
        """Whether the loop waited longer than the training process would have worked."""
        return self.made > 0 and self.wait_s > self.cost_s

    @property
    def may_be_slower(self) -> bool:
        """Whether that could be so, and costs little to try."""
        cheap = self.cost_s < TRIAL_BELOW_S and self.wait_s > WAITS_FOR * self.cost_s
        return self.is_slower or (self.made > 0 and cheap)


class Looks:
    """The looks at one epoch.

    Args:
        first: behind how many batches the first one begins: those before have waited for
            workers to start.
    """

    def __init__(self, first: int) -> None:
        self.due = first
        self._left = MOST_LOOKS
        self._agreed = 0
        self._before: Tally | None = None

    def look(self, now: Tally) -> Tally | None:
        """Looks at an epoch of which `due` batches were handed over.

        Returns:
            What the last look has seen, if a few agree that it may be faster without workers.
        """
        before, self._before = self._before, now
        self.due = now.batches + LOOK_BATCHES
        if before is None:
            return None
        seen = now.since(before)
        self._agreed = self._agreed + 1 if seen.may_be_slower else 0
        self._left -= 1
        if self._agreed >= AGREEING:
            return seen
        if not self._left:
            self.end()
        return None

    def resume(self, now: Tally) -> None:
        """A trial has ended, and there are workers again: what they make first comes late."""
        self._agreed, self._before = 0, None
        if self._left:
            self.due = now.batches + LOOK_BATCHES

    def end(self) -> None:
        """There are to be no more."""
        self.due = 1 << 62
