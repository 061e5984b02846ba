from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import report
from benchmarks.environment import describe
from benchmarks.results import latest, read, write
from benchmarks.row import PENSTOCK, at_least, at_most
from tests.benchmarks.outcomes import outcome, results


def test_a_run_is_read_as_it_was_written(tmp_path: Path) -> None:
    full = outcome([3.0, 4.0], [1.0, 2.0], [0.5, 0.5], torch=at_least(2), limit=at_least(0.9))
    short = outcome([3.0], [], torch=at_most(0.5), name="case")
    short.missing[PENSTOCK] = "not there yet"
    run = results(full, short)
    assert read(write(run, tmp_path)) == run


def test_a_file_says_its_verdicts(tmp_path: Path) -> None:
    path = write(results(outcome([3.0], [1.0])), tmp_path)
    assert path.name == "2026-01-31-full.json"
    assert json.loads(path.read_text())["outcomes"][0]["verdict"] == "passed"


def test_a_run_passes_if_nothing_falls_short() -> None:
    assert results(outcome([3.0], [1.0])).passed
    assert not results(outcome([3.0], [1.0]), outcome([1.0], [1.0])).passed


def test_a_file_of_another_version_is_refused(tmp_path: Path) -> None:
    path = write(results(), tmp_path)
    path.write_text(path.read_text().replace('"version": 1', '"version": 0'))
    with pytest.raises(ValueError, match="of version 0, not 1"):
        read(path)


def test_the_latest_run_is_the_newest_of_its_mode(tmp_path: Path) -> None:
    assert latest(tmp_path) is None
    for date, mode in [("2026-01-31", "full"), ("2025-12-31", "full"), ("2026-02-01", "quick")]:
        (tmp_path / f"{date}-{mode}.json").touch()
    assert latest(tmp_path) == tmp_path / "2026-01-31-full.json"


def test_the_environment_names_neither_the_machine_nor_a_folder() -> None:
    import platform

    said = json.dumps(describe())
    assert platform.node() not in said
    assert str(Path.cwd()) not in said
    assert str(Path.home()) not in said


def test_the_readme_has_the_table_between_the_marks_and_the_rest_stays() -> None:
    readme = f"before\n{report.BEGIN}old\n{report.END}after\n"
    run = results(outcome([3.0], [1.0]))
    written = report.into_readme(readme, run)
    assert written.startswith(f"before\n{report.BEGIN}")
    assert written.endswith(f"{report.END}after\n")
    assert "old" not in written
    assert "| 7 | some row |" in written
    assert "benchmarks/results/2026-01-31-full.png" in written
    assert report.into_readme(written, run) == written


def test_a_readme_without_marks_is_refused() -> None:
    with pytest.raises(ValueError, match="no marks"):
        report.into_readme("text\n", results())


def test_the_readme_of_the_project_has_the_marks() -> None:
    assert report.into_readme(report.README.read_text(encoding="utf-8"), results())
