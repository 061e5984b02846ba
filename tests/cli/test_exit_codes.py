"""How each run ends: its exit code, and what is on which stream."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.cli import program
from tests.cli.conftest import Album


def test_broken_pictures_are_skipped_named_and_counted(album: Album) -> None:
    done = program.run(
        "iterate", album.folder, "--workers", "2", "--batch-size", "1", "--on-error", "skip"
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert "3 skipped" in lines
    for name in album.broken:
        named = [line for line in lines if name in line]
        assert len(named) == 1
        assert "Error: " in named[0]
        assert named[0].count(str(album.folder)) == 1
    assert lines[-1] == "complete: 12 read + 3 skipped = 15 pictures"
    # A pipe gets plain lines: one every other second, not one for each of the 12 batches.
    assert "\x1b" not in done.stdout
    assert "\r" not in done.stdout
    progress = [line for line in lines if "/15 " in line]
    assert 1 <= len(progress) <= 6
    assert "15/15" in progress[-1]
    assert "3 errors" in progress[-1]


def test_strict_exits_with_3_and_json_is_all_there_is(album: Album) -> None:
    done = program.run(
        *("iterate", album.folder, "--workers", "2", "--batch-size", "5", "--on-error", "skip"),
        *("--strict", "--json", "--order", "completed", "--shuffle", "--seed", "3"),
        *("--start-method", "spawn"),
    )
    assert done.returncode == 3
    assert done.stderr == ""
    report = json.loads(done.stdout)
    assert report["outcome"] == "complete"
    assert report["exit_code"] == 3
    assert (report["total"], report["samples"], report["skipped"]) == (15, 12, 3)
    assert report["batches"] == 3
    assert [Path(s["path"]).name for s in report["skipped_samples"]] == list(album.broken)
    assert [s["index"] for s in report["skipped_samples"]] == [3, 7, 11]
    assert all(s["reason"] for s in report["skipped_samples"])
    assert 0 < report["first_batch_s"] <= report["elapsed_s"]
    assert report["samples_per_s"] == pytest.approx(12 / report["elapsed_s"], rel=0.01)
    assert 0 < report["wait_share"] <= 1
    assert report["settings"]["seed"] == 3


def test_a_broken_picture_stops_the_run_unless_it_may_be_skipped(album: Album) -> None:
    done = program.run("iterate", album.folder, "--workers", "2", "--batch-size", "2")
    assert done.returncode == 1
    assert "stopped: 2 read + 0 skipped of 15 pictures" in done.stdout
    assert album.broken[0] in done.stderr
    assert "--on-error skip" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 2


def test_too_many_broken_pictures_stop_the_run(album: Album) -> None:
    done = program.run(
        *("iterate", album.folder, "--workers", "2", "--batch-size", "2"),
        *("--on-error", "skip", "--max-skipped", "10%", "--json", "--traceback"),
    )
    assert done.returncode == 1
    report = json.loads(done.stdout)
    assert report["outcome"] == "stopped"
    assert report["skipped"] == 2
    assert report["error"]["type"] == "TooManySkippedError"
    assert "Traceback" in done.stderr
    assert done.stderr.endswith(f"penstock: error: {report['error']['message']}\n")


def test_a_folder_that_does_not_exist_is_a_bad_argument(tmp_path: Path) -> None:
    done = program.run("iterate", "nowhere", cwd=tmp_path)
    assert done.returncode == 2
    assert "source='nowhere' does not exist" in done.stderr
    assert "Traceback" not in done.stderr
    assert "read" not in done.stdout


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ((), "SOURCE"),
        (("photos", "--workers", "-1"), "--workers"),
        (("photos", "--batch-size", "many"), "--batch-size"),
        (("photos", "--order", "sideways"), "--order"),
        (("photos", "--max-skipped", "3"), "--on-error skip"),
        (("photos", "--on-error", "skip", "--max-skipped", "nan"), "'nan'"),
        (("photos", "--on-error", "skip", "--max-skipped", "150%"), "'150%'"),
        (("photos", "--on-error", "skip", "--max-skipped", "-1"), "'-1'"),
        (("photos", "--colour"), "--colour"),
    ],
)
def test_bad_arguments_are_named(arguments: tuple[str, ...], named: str) -> None:
    done = program.run("iterate", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert named.lower() in done.stderr.lower()
    assert "Traceback" not in done.stderr


def test_names_that_are_no_text_harm_no_terminal(tmp_path: Path) -> None:
    program.save_photo(tmp_path / "fine.jpg")
    Path(str(tmp_path) + "/a\udcff\x1b[31m\n[bold].jpg").touch()
    done = program.run(
        *("iterate", tmp_path, "--workers", "1", "--on-error", "skip"),
        env=program.environment(PYTHONIOENCODING="ascii:strict"),
    )
    assert done.returncode == 0, done.stderr
    assert r"/a\udcff\x1b[31m\n[bold].jpg: " in done.stdout
    assert "\x1b" not in done.stdout


def test_a_report_that_cannot_be_written_is_an_error(album: Album) -> None:
    with Path("/dev/full").open("w") as full:
        done = program.run("iterate", album.folder, "--json", "--on-error", "skip", stdout=full)
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
    assert "Traceback" not in done.stderr
