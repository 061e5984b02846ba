from __future__ import annotations

import pytest

from benchmarks import table
from benchmarks.outcome import Spread
from benchmarks.row import PENSTOCK, at_least, at_most
from tests.benchmarks.outcomes import outcome, results


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (1234.5, "1234"),
        (99.96, "100"),
        (12.345, "12.3"),
        (9.996, "10.0"),
        (1.2345, "1.23"),
        (0.98765, "0.988"),
        (0.9996, "1.00"),
        (0.0004, "0.000"),
        (float("inf"), "∞"),
    ],
)
def test_a_figure_is_shown_with_three_digits(value: float, shown: str) -> None:
    assert table.figure(value) == shown


def test_a_spread_is_shown_as_the_median_and_its_ends() -> None:
    assert table.spread(Spread(0.002, 0.001, 0.004), 1e3) == "2.00 (1.00–4.00)"
    assert table.spread(Spread(2.0, 2.0, 2.0), suffix="×") == "2.00×"
    assert table.spread(None) == "–"


def test_a_line_has_each_figure_beside_what_is_required() -> None:
    measured = outcome(
        [0.010, 0.012, 0.011],
        [0.002, 0.002, 0.002],
        [0.001, 0.0012, 0.001],
        torch=at_least(6),
        limit=at_least(0.5),
        name="case",
    )
    assert table.cells(measured) == [
        "7",
        "some row: case",
        "ms a batch",
        "11.0 (10.0–12.0)",
        "2.00",
        "5.50× (5.00–6.00)",
        "≥ 6×",
        "1.00 (1.00–1.20)",
        "0.500× (0.500–0.600)",
        "≥ 0.5×",
        "SHORT",
    ]


def test_a_line_without_a_limit_leaves_its_cells_empty() -> None:
    line = table.cells(outcome([0.010], [0.001], torch=at_most(0.25)))
    assert line[6:] == ["≤ 0.25×", "", "", "", "passed"]


def test_the_markdown_table_is_one() -> None:
    measured = outcome([0.010] * 5, [0.001] * 5)
    missing = outcome([0.010] * 5, [], name="other")
    missing.missing[PENSTOCK] = "not there yet"
    text = table.markdown(results(measured, missing))
    lines = text.splitlines()
    assert {line.count("|") for line in lines[:4]} == {len(table.COLUMNS) + 1}
    assert "- 7, some row: other: penstock: not there yet" in lines
    assert "of 0 to 5 rounds" in text
    assert "Some Processor, 2 cores, 16.0 GiB" in text


def test_lines_of_the_terminal_stand_below_each_other() -> None:
    header = table.text_line(table.COLUMNS)
    line = table.text_line(table.cells(outcome([0.010] * 2, [0.001] * 2)))
    assert line.index("≥ 2×") == header.index("required")
