"""What a row of the table is.

    Row      one workload: a number, a question, and how it is answered
    └ Part   what is measured together: contestants that take turns, round by round
      └ Case a line of the table: one figure of each contestant, and what is required of it

A figure is a cost: seconds, or bytes, and less is better. What is required is a ratio of two costs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

# The contestants that each row has. Peers have names of their own.
TORCH, PENSTOCK, LIMIT = "torch", "penstock", "limit"

LEAST_ROUNDS = 5

# What one turn of one contestant gives: by the name of the case, its figure.
Figures = dict[str, float]
Contestant = Callable[[], Figures]


class NotMeasuredError(Exception):
    """A contestant, or a whole part, cannot be measured; the message says why, in a few words."""


@dataclass(frozen=True)
class Setting:
    """What a run was asked for.

    Attributes:
        quick: smaller sizes, for a look within minutes.
        rounds: how many rounds count; None: what each part is given.
        images: a folder of photographs of the user's own.
    """

    quick: bool = False
    rounds: int | None = None
    images: Path | None = None

    def size(self, full: int, quick: int) -> int:
        """The size of a workload in this run."""
        return quick if self.quick else full


@dataclass(frozen=True)
class Unit:
    """How a figure is shown: `label`, after multiplying it by `scale`."""

    label: str
    scale: float


MS_A_BATCH = Unit("ms a batch", 1e3)
MS = Unit("ms", 1e3)
MIB = Unit("MiB", 2.0**-20)


@dataclass(frozen=True)
class Required:
    """What the ratio to another contestant has to be.

    Attributes:
        bound: the ratio.
        at_least: True: how many times as fast (`≥ 6×`), the other's cost over ours. False: which
            share of the other's cost (`≤ 0.1×`), ours over the other's.
    """

    bound: float
    at_least: bool

    def ratio(self, ours: float, other: float) -> float:
        """The ratio that `bound` is about. A cost of nothing is infinitely better than any."""
        above, below = (other, ours) if self.at_least else (ours, other)
        if below:
            return above / below
        return 1.0 if above == below else float("inf")

    def holds(self, ratio: float) -> bool:
        """Whether a ratio is within the bound."""
        return ratio >= self.bound if self.at_least else ratio <= self.bound

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.bound:.4g}×"


def at_least(bound: float) -> Required:
    """At least so many times as fast."""
    return Required(bound, at_least=True)


def at_most(bound: float) -> Required:
    """At most this share of the cost."""
    return Required(bound, at_least=False)


@dataclass(frozen=True)
class Case:
    """A line of the table.

    Attributes:
        name: what tells it from the other cases of its row; may be empty if there are none.
        unit: what its figures are shown in.
        torch: what is required against torch's loader.
        limit: what is required against the limit.
    """

    name: str
    unit: Unit
    torch: Required | None = None
    limit: Required | None = None


Contest = AbstractContextManager[Mapping[str, Contestant]]


@dataclass(frozen=True)
class Part:
    """What is measured together.

    Attributes:
        cases: the lines of the table that it fills.
        prepare: makes data, and gives the contestants by name for as long as it is entered. Raises
            NotMeasuredError where this machine cannot do it.
        quick_rounds: rounds in quick mode, less than five where a round takes long.
        warms_up: whether a round that does not count comes first in a full run; without sense where
            each turn is a program of its own.
        in_quick: whether quick mode measures it.
        judged_in_quick: whether the quick size can be held to what is required of the full one.
    """

    cases: tuple[Case, ...]
    prepare: Callable[[Setting], Contest]
    quick_rounds: int = LEAST_ROUNDS
    warms_up: bool = True
    in_quick: bool = True
    judged_in_quick: bool = True


@dataclass(frozen=True)
class Row:
    """A workload.

    Attributes:
        number: as in the table.
        name: what is loaded, or what is measured.
        question: what the row answers.
        measured: how; a sentence or two, for the reader of the table.
        parts: see Part.
    """

    number: int
    name: str
    question: str
    measured: str
    parts: tuple[Part, ...]
