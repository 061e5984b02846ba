"""The search for the one sample of a batch that ends whatever worker makes it.

    a place is suspected ──> that place alone ──death──> found
                                  │ no harm
                                  v
    none is ──────────────> the first half ──death──> its first half, and so on
                                  │ no harm
                                  v
                            the first half of the rest, and so on, until one is alone

A *probe* makes some samples of the batch and gives them up. Workers also die of other things, and
may do so in a probe: that leads astray, to a place that does no harm alone, and the search ends
empty.
"""

from __future__ import annotations

from collections.abc import Sequence

# Whoever is killed by a signal that anybody can send may have been at the wrong place at the wrong
# time. Where that was so twice, it is looked into. A sample is blamed that more have died of, with
# nothing else to make: on a busy machine, where workers were killed five times a second, two had
# died at an innocent one.
DEATHS_BY_OTHERS = 2
DEATHS_ALONE = 4


class Hunt:
    """One search.

    Args:
        places: of the batch's samples; one of them may be to blame.
        suspect: the first to be tried, if there is one.

    Attributes:
        probe: the places to be made next; none once the search is over without a find.
        found: the place to blame, once it is known.
    """

    def __init__(self, places: Sequence[int], suspect: int | None = None) -> None:
        self._left = tuple(places)
        self._deaths_alone = 0
        self.found: int | None = None
        self.probe: tuple[int, ...] = ()
        self._aim(suspect)

    def survived(self) -> None:
        """The probe did no harm."""
        self._left = tuple(place for place in self._left if place not in self.probe)
        self._aim()

    def died(self, place: int | None, *, by_itself: bool, of_memory: bool = False) -> None:
        """A worker has died of the probe, or in it.

        Args:
            place: where it was, if that is known.
            by_itself: whether nobody else can have ended it.
            of_memory: whether it was ended since memory was short.
        """
        if len(self.probe) > 1:
            self._left = self.probe
            self._aim(place)
            return
        self._deaths_alone += 1
        enough = DEATHS_BY_OTHERS if of_memory else DEATHS_ALONE
        if by_itself or self._deaths_alone >= enough:
            (self.found,) = self.probe

    def _aim(self, suspect: int | None = None) -> None:
        self._deaths_alone = 0
        if suspect in self._left:
            self.probe = (suspect,)
        else:
            self.probe = self._left[: (len(self._left) + 1) // 2]
