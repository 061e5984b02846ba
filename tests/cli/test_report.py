"""What is said of a run."""

from __future__ import annotations

import errno

import pytest

from penstock.cli.explain import explain, reason
from penstock.cli.report import SHOWN_FIRST, SHOWN_LAST, Report
from penstock.errors import SampleError, WorkerDiedError
from penstock.observe import Statistics
from penstock.observe.words import counted, duration, printable
from tests.cli.conftest import Album
from tests.cli.test_consume import request_for


@pytest.fixture
def report(album: Album) -> Report:
    return Report(
        request_for(album),
        begun=True,
        total=1000,
        samples=960,
        skipped=[SampleError(i, f"p/{i}.jpg", OSError("torn")) for i in range(40)],
        statistics=Statistics(batches=15, workers=2, restarts=1, elapsed_s=2.0, first_batch_s=0.5),
        wait_share=0.75,
    )


def test_a_long_list_is_shortened_in_the_middle(report: Report) -> None:
    lines = [line.plain for line in report.as_text()]
    named = [line for line in lines if ".jpg" in line]
    assert len(named) == SHOWN_FIRST + SHOWN_LAST
    assert named[0] == "  p/0.jpg: OSError: torn"
    assert named[-1] == "  p/39.jpg: OSError: torn"
    assert "40 skipped" in lines
    assert f"  … {40 - SHOWN_FIRST - SHOWN_LAST} more; --json names them all …" in lines


def test_json_names_all_of_them(report: Report) -> None:
    assert len(report.as_dict()["skipped_samples"]) == 40


def test_a_list_is_not_shortened_by_one_line(report: Report) -> None:
    report.skipped = report.skipped[: SHOWN_FIRST + SHOWN_LAST + 1]
    text = "\n".join(line.plain for line in report.as_text())
    assert text.count(".jpg") == SHOWN_FIRST + SHOWN_LAST + 1


def test_the_figures_are_those_of_the_run(report: Report) -> None:
    text = "\n".join(line.plain for line in report.as_text())
    assert "960 in 15 batches" in text
    assert "480 samples/s over 2.00 s" in text
    assert "after 0.50 s" in text
    assert "waited for data 75%" in text
    assert "2, busy 0% of the time, 1 died and was replaced" in text
    assert "complete: 960 read + 40 skipped = 1,000 pictures" in text


@pytest.mark.parametrize(
    ("cause", "said"),
    [
        (OSError("p/1.jpg: torn"), "OSError: torn"),
        (
            OSError(errno.EACCES, "Permission denied", "p/1.jpg"),
            "PermissionError: Permission denied",
        ),
        (ValueError(), "ValueError"),
        (ValueError("two\nlines"), r"ValueError: two\nlines"),
    ],
)
def test_a_reason_does_not_repeat_the_path(cause: Exception, said: str) -> None:
    assert reason(SampleError(1, "p/1.jpg", cause)) == said


def test_an_error_from_a_worker_is_told_without_its_traceback(album: Album) -> None:
    text = "MemoryError in worker 1: too big\nOriginal traceback:\nTraceback …"
    assert explain(MemoryError(text), request_for(album)) == (
        "MemoryError: MemoryError in worker 1: too big"
    )
    assert explain(WorkerDiedError("it died"), request_for(album)) == "it died"
    assert explain(MemoryError(), request_for(album)) == "MemoryError"


def test_words() -> None:
    assert counted(1, "sample") == "1 sample"
    assert counted(1200, "sample") == "1,200 samples"
    assert [duration(s) for s in (0.084, 12.34, 200, 7500)] == [
        "0.08 s",
        "12.3 s",
        "3 min 20 s",
        "2 h 05 min",
    ]
    assert printable("é/a\tb\x9b") == r"é/a\tb\x9b"
