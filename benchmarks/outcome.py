"""What came out of a case, and the arithmetic on it: medians, spreads, ratios, verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.row import LIMIT, PENSTOCK, TORCH, Case, Required, at_least

PASSED, SHORT, SHOWN = "passed", "SHORT", "not judged"


@dataclass(frozen=True)
class Spread:
    """The median of several figures, and between which they lie."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, figures: Sequence[float]) -> Spread:
        """The spread of at least one figure."""
        return cls(statistics.median(figures), min(figures), max(figures))


@dataclass(frozen=True)
class Outcome:
    """All figures of one case.

    Attributes:
        row: the number of its row.
        row_name: the name of its row.
        case: what was measured, and what is required.
        figures: by contestant, a figure for each round.
        missing: by contestant, why it has none.
        judged: whether what is required is required of this size.
    """

    row: int
    row_name: str
    case: Case
    figures: dict[str, list[float]] = field(default_factory=dict)
    missing: dict[str, str] = field(default_factory=dict)
    judged: bool = True

    @property
    def title(self) -> str:
        """The name of the row, and of the case where it has one."""
        return f"{self.row_name}: {self.case.name}" if self.case.name else self.row_name

    def cost(self, contestant: str) -> Spread | None:
        """What a contestant's rounds cost."""
        figures = self.figures.get(contestant)
        return Spread.of(figures) if figures else None

    def against(self, other: str) -> Spread | None:
        """The ratio to a contestant, taken round by round: a machine that slows down slows both."""
        required = self._required(other) or at_least(1)
        ours, theirs = self.figures.get(PENSTOCK), self.figures.get(other)
        if not ours or not theirs:
            return None
        return Spread.of([required.ratio(a, b) for a, b in zip(ours, theirs, strict=True)])

    @property
    def verdict(self) -> str:
        """PASSED, SHORT or SHOWN. What is required and could not be measured is short."""
        if PENSTOCK in self.missing:
            return SHORT
        wanted = [(other, self._required(other)) for other in (TORCH, LIMIT)]
        ratios = [(required, self.against(other)) for other, required in wanted if required]
        if not ratios or not self.judged:
            return SHOWN
        holds = all(ratio and required.holds(ratio.median) for required, ratio in ratios)
        return PASSED if holds else SHORT

    @property
    def is_short(self) -> bool:
        """Whether it fails the run."""
        return self.verdict == SHORT

    @property
    def reasons(self) -> list[str]:
        """Why figures are missing, each reason once."""
        together: dict[str, list[str]] = {}
        for contestant, reason in self.missing.items():
            together.setdefault(reason, []).append(contestant)
        return [f"{', '.join(names)}: {reason}" for reason, names in together.items()]

    def _required(self, other: str) -> Required | None:
        return {TORCH: self.case.torch, LIMIT: self.case.limit}.get(other)
