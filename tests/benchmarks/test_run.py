from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from benchmarks import report, run
from benchmarks.row import MS, PENSTOCK, TORCH, Case, Part, Row, at_least


def row_of(number: int, penstock_s: float) -> Row:
    contestants = {TORCH: lambda: {"": 4.0}, PENSTOCK: lambda: {"": penstock_s}}
    part = Part((Case("", MS, at_least(2)),), lambda _: contextlib.nullcontext(contestants))
    return Row(number, f"row {number}", "Really?", "So.", (part,))


@pytest.fixture(autouse=True)
def rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "ROWS", (row_of(1, 1.0), row_of(2, 3.0)))


def test_a_run_that_falls_short_ends_with_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--quick"]) == 1
    printed = capsys.readouterr().out
    assert "row 1" in printed
    assert "SHORT" in printed


def test_a_run_of_rows_that_pass_ends_with_0(capsys: pytest.CaptureFixture[str]) -> None:
    assert run.main(["--only", "1"]) == 0
    assert "row 2" not in capsys.readouterr().out


def test_nothing_is_written_unless_asked(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written: list[object] = []
    monkeypatch.setattr(report, "write", lambda results: written.append(results) or [])
    run.main(["--quick", "--only", "1"])
    assert written == []
    run.main(["--quick", "--only", "1", "--write"])
    assert len(written) == 1


@pytest.mark.parametrize(
    "arguments", [["--rounds", "4"], ["--only", "15"], ["--images", "nowhere"]]
)
def test_what_cannot_be_measured_is_refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as refused:
        run.main(arguments)
    assert refused.value.code == 2
