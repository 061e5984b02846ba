from __future__ import annotations

from pathlib import Path

from benchmarks import table
from benchmarks.row import Setting
from benchmarks.rows import ROWS


def test_every_row_of_the_table_is_there_in_its_order() -> None:
    assert [row.number for row in ROWS] == list(range(1, 15))


def test_every_row_is_measured_in_quick_mode() -> None:
    for row in ROWS:
        assert any(part.in_quick for part in row.parts), row.name


def test_every_row_requires_something() -> None:
    for row in ROWS:
        assert any(case.torch or case.limit for part in row.parts for case in part.cases), row.name


def test_cases_of_a_row_can_be_told_apart() -> None:
    for row in ROWS:
        names = [case.name for part in row.parts for case in part.cases]
        assert len(set(names)) == len(names), row.name
        assert len(names) == 1 or all(names), row.name


def test_sizes_are_smaller_in_quick_mode() -> None:
    assert Setting(quick=True).size(full=10, quick=1) == 1
    assert Setting().size(full=10, quick=1) == 10


def test_the_readme_lists_the_rows_as_they_are() -> None:
    readme = Path(table.__file__).with_name("README.md").read_text(encoding="utf-8")
    _, _, rest = readme.partition("<!-- rows: begin -->\n\n")
    listed, _, _ = rest.partition("\n<!-- rows: end -->")
    assert listed == table.rows_markdown(ROWS)
