"""Each example is run as a user would run it."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parent.parent / "examples"


def run(name: str, *arguments: str, patience_s: float = 50.0) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        timeout=patience_s,
        check=False,
    )


@pytest.mark.parametrize("name", ["pool.py", "loader.py", "stream.py", "photographs.py"])
def test_each_way_ends_with_all_50_of_50(name: str) -> None:
    done = run(name)
    assert done.returncode == 0, done.stderr
    assert "50 of 50" in done.stdout
    assert "17_truncated.jpg: OSError" in done.stdout
    assert "34_not_a_picture.jpg: UnidentifiedImageError" in done.stdout


def test_no_picture_is_seen_twice_in_the_streams() -> None:
    assert "50 of 50, 0 twice" in run("stream.py").stdout


@pytest.mark.parametrize("name", ["pool.py", "loader.py", "stream.py", "photographs.py"])
def test_an_example_takes_a_folder_of_ones_own(name: str, tmp_path: Path) -> None:
    for photo in sorted((EXAMPLES / "photos").glob("*.jpg"))[:11]:
        shutil.copy(photo, tmp_path)
    done = run(name, str(tmp_path))
    assert done.returncode == 0, done.stderr
    assert "11 of 11" in done.stdout


def test_crops_do_not_depend_on_workers() -> None:
    assert "crops and flips: the same in every bit" in run("photographs.py").stdout


# On a busy machine less is made between two kills, which come by the clock.
@pytest.mark.timeout(300)
def test_no_step_of_a_training_run_notices_that_its_workers_are_killed() -> None:
    done = run("unkillable.py", patience_s=280.0)
    assert done.returncode == 0, done.stdout + done.stderr
    assert not done.stderr
    verdict = re.search(r"(\d+) workers killed, (\d+) losses: the same in every bit", done.stdout)
    assert verdict, done.stdout
    assert int(verdict[1]) >= 20
    # 50 whole pictures, three times in each of five epochs, in batches of eight.
    assert int(verdict[2]) == 95


def test_the_photographs_are_accounted_for() -> None:
    photos = EXAMPLES / "photos"
    assert len(list(photos.glob("*.jpg"))) == 52
    sources = (photos / "SOURCES.md").read_text()
    assert re.search(r"public domain|CC0", sources)
