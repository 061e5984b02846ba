"""Outcomes for tests, made of figures that are easy to reckon with."""

from __future__ import annotations

from benchmarks.outcome import Outcome
from benchmarks.results import Results
from benchmarks.row import LIMIT, MS_A_BATCH, PENSTOCK, TORCH, Case, Required, at_least

ENVIRONMENT = {
    "processor": "Some Processor",
    "cores_to_use": 2,
    "memory_gib": 16.0,
    "python": "3.11.7",
    "torch": "2.13.0",
    "numpy": "2.4.6",
    "start_method": "fork",
    "revision": "0123456",
    "load_before": 0.1,
}


def outcome(
    torch_s: list[float],
    penstock_s: list[float],
    limit_s: list[float] | None = None,
    *,
    torch: Required | None = None,
    limit: Required | None = None,
    name: str = "",
) -> Outcome:
    """An outcome with these figures and requirements; by default twice as fast is enough."""
    if torch is None and limit is None:
        torch = at_least(2)
    figures = {TORCH: torch_s, PENSTOCK: penstock_s}
    if limit_s is not None:
        figures[LIMIT] = limit_s
    return Outcome(7, "some row", Case(name, MS_A_BATCH, torch, limit), figures)


def results(*outcomes: Outcome, mode: str = "full") -> Results:
    """A run with these outcomes."""
    return Results("2026-01-31", mode, dict(ENVIRONMENT), list(outcomes))
