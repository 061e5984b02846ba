"""Whose turn it is, where several share turns by weight."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from fractions import Fraction


class WeightedTurns:
    """Turns in proportion to weights, those of each evenly spread.

    By the method of Sainte-Laguë: turn n (from 0) of a member with weight w stands at (2n + 1) / w
    on a line common to all, and turns are taken in the order on it, those at the same place by
    position. So equal weights take strict turns, 2:1 gives a b a, a b a, …, and when a
    member leaves, the order of the others stays.

    Args:
        weights: one for each member, positive.
    """

    def __init__(self, weights: Sequence[Fraction]) -> None:
        # Whole numbers: nothing is rounded, so ties are ties on every machine.
        scale = math.lcm(*(weight.numerator for weight in weights))
        self._steps = [int(scale / weight) for weight in weights]
        self._marks = list(self._steps)

    def choose(self, candidates: Iterable[int], absent: Iterable[int] = ()) -> int:
        """Takes a turn.

        Args:
            candidates: positions of the members of whom one is chosen, ascending.
            absent: positions of members that cannot take a turn now, and keep no claim
                to those which they miss.

        Returns:
            The position of the one whose turn it is.
        """
        chosen = min(candidates, key=self._marks.__getitem__)
        mark = self._marks[chosen]
        self._marks[chosen] += 2 * self._steps[chosen]
        for position in absent:
            self._marks[position] = max(self._marks[position], mark)
        return chosen

    def turns_before(self, position: int, number: int) -> int:
        """How many turns of all members come before one, if nobody is absent or leaves.

        Args:
            position: whose turn.
            number: which of its turns, from 0.
        """
        mark = (2 * number + 1) * self._steps[position]
        turns = 0
        for other, step in enumerate(self._steps):
            # The odd multiples of the step below the mark; at it, the lower position is first.
            multiples = mark // step if other < position else (mark - 1) // step
            turns += (multiples + 1) // 2
        return turns
