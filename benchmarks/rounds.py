"""Rounds: the contestants of a part take turns, since a machine's speed drifts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

from benchmarks.outcome import Outcome
from benchmarks.row import (
    PENSTOCK,
    TORCH,
    Contestant,
    NotMeasuredError,
    Part,
    Row,
    Setting,
)

T = TypeVar("T")

FULL_ROUNDS = 7


def measure(row: Row, setting: Setting) -> list[Outcome]:
    """Measures a row; what goes wrong with a contestant is in the outcome, and ends nothing."""
    outcomes = []
    for part in row.parts:
        if part.in_quick or not setting.quick:
            outcomes.extend(_measure_part(row, part, setting))
    return outcomes


def turns(contestants: Sequence[T], number: int) -> list[T]:
    """The order of a round: each contestant is first, second and last equally often."""
    first = number % len(contestants)
    return [*contestants[first:], *contestants[:first]]


def _measure_part(row: Row, part: Part, setting: Setting) -> list[Outcome]:
    judged = part.judged_in_quick or not setting.quick
    outcomes = {
        case.name: Outcome(row.number, row.name, case, judged=judged) for case in part.cases
    }
    try:
        with part.prepare(setting) as contestants:
            # In quick mode the short epoch with which each loader begins has to be enough.
            first = -1 if part.warms_up and not setting.quick else 0
            for number in range(first, _rounds(part, setting)):
                _one_round(contestants, number, outcomes)
    except NotMeasuredError as reason:
        for outcome in outcomes.values():
            outcome.missing.update({TORCH: str(reason), PENSTOCK: str(reason)})
    return list(outcomes.values())


def _rounds(part: Part, setting: Setting) -> int:
    if setting.rounds is not None:
        return setting.rounds
    return part.quick_rounds if setting.quick else FULL_ROUNDS


def _one_round(
    contestants: Mapping[str, Contestant], number: int, outcomes: dict[str, Outcome]
) -> None:
    """Gives each contestant its turn. One that fails once is out: a median wants all rounds."""
    any_outcome = next(iter(outcomes.values()))
    for name in turns(list(contestants), max(number, 0)):
        if name in any_outcome.missing:
            continue
        try:
            figures = contestants[name]()
        except Exception as error:
            # Also what a loader raises: the table says so, and the other rows are measured.
            kind = "" if isinstance(error, NotMeasuredError) else f"{type(error).__name__}: "
            lines = str(error).strip().splitlines() or [""]
            for outcome in outcomes.values():
                outcome.missing[name] = f"{kind}{lines[0]}"
                outcome.figures.pop(name, None)
            continue
        if number < 0:
            continue
        for case, figure in figures.items():
            outcomes[case].figures.setdefault(name, []).append(figure)
