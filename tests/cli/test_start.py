"""What it takes to start the program: little for --help, and clear words for what is missing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import penstock
from tests.cli import program
from tests.cli.conftest import Album


@pytest.mark.parametrize("arguments", [("--help",), ("iterate", "--help"), ("--version",)])
def test_help_and_version_import_nothing_heavy(arguments: tuple[str, ...]) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "penstock", *arguments],
        capture_output=True,
        text=True,
        env=program.environment(),
        timeout=program.PATIENCE_S,
    )
    assert done.returncode == 0
    imported = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert "penstock.cli.app" in imported
    assert not imported & {"torch", "numpy", "PIL", "penstock.loader"}
    assert done.stdout


def test_the_version_is_that_of_the_package() -> None:
    assert program.run("--version").stdout == f"penstock {penstock.__version__}\n"


@pytest.mark.parametrize("tool", ["typer", "rich"])
def test_a_missing_tool_is_named_with_what_to_install(
    tool: str, tmp_path: Path, album: Album
) -> None:
    (tmp_path / f"{tool}.py").write_text(
        f"raise ModuleNotFoundError('No module of that name', name={tool!r})"
    )
    done = program.run("iterate", album.folder, env=program.environment(tmp_path))
    assert done.returncode == 1
    assert done.stdout == ""
    assert tool in done.stderr
    assert 'pip install "penstock[cli]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_pillow_is_named_with_what_to_install(tmp_path: Path, album: Album) -> None:
    (tmp_path / "PIL.py").write_text("raise ModuleNotFoundError('No PIL', name='PIL')")
    done = program.run("iterate", album.folder, env=program.environment(tmp_path))
    assert done.returncode == 1
    assert 'pip install "penstock[images]"' in done.stderr
    assert "Traceback" not in done.stderr
