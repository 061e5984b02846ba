from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import chart
from benchmarks.row import LIMIT, PENSTOCK, TORCH, at_least, at_most
from tests.benchmarks.outcomes import outcome, results


def test_costs_that_must_be_small_are_turned_round() -> None:
    assert chart.advantage(outcome([8.0], [2.0], torch=at_least(2)), TORCH) == 4.0
    assert chart.advantage(outcome([8.0], [2.0], torch=at_most(0.5)), TORCH) == 4.0
    measured = outcome([8.0], [2.0], [1.0], torch=at_least(2), limit=at_most(2))
    assert chart.advantage(measured, LIMIT) == 0.5


def test_what_was_not_measured_has_no_advantage() -> None:
    assert chart.advantage(outcome([8.0], []), TORCH) is None


def test_a_chart_is_drawn_of_all_kinds_of_lines(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    missing = outcome([8.0], [], name="missing")
    missing.missing[PENSTOCK] = "not there yet"
    run = results(
        outcome([8.0, 9.0], [2.0, 2.0], [1.0, 1.0], torch=at_least(2), limit=at_least(0.7)),
        outcome([8.0, 9.0], [0.0, 0.0], torch=at_most(0.5), name="nothing at all"),
        missing,
    )
    path = tmp_path / "chart.png"
    chart.draw(run, path)
    assert path.read_bytes().startswith(b"\x89PNG")
