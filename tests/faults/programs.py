"""Whole programs: what a test cannot do to itself is done to them."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

import psutil

import penstock
from tests.faults.deliveries import PATIENCE_S

# Where penstock and these tests are imported from.
_PATH = os.pathsep.join([str(Path(penstock.__file__).parents[1]), str(Path(__file__).parents[2])])


def _command(folder: Path, text: str, arguments: Sequence[object]) -> list[str]:
    script = folder / "program.py"
    script.write_text(textwrap.dedent(text))
    return [sys.executable, str(script), *map(str, arguments)]


def _environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": _PATH, **more}


def run(
    folder: Path, text: str, *arguments: object, under: Sequence[str] = (), **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end.

    Args:
        folder: where to write it.
        text: the program.
        arguments: its `sys.argv`.
        under: a command that runs it.
        environment: variables for it.
    """
    return subprocess.run(
        [*under, *_command(folder, text, arguments)],
        capture_output=True,
        text=True,
        timeout=4 * PATIENCE_S,
        check=False,
        env=_environment(**environment),
    )


@contextlib.contextmanager
def started(folder: Path, text: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A program in a group of its own, as a shell starts it, and gone afterwards with all its own.

    It says that it has come as far as it has to by a line on its standard output.
    """
    process = subprocess.Popen(
        _command(folder, text, arguments),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        env=_environment(),
    )
    family = [psutil.Process(process.pid)]
    try:
        with process:
            assert process.stdout is not None
            yield process
    finally:
        for member in [*family, *_session(process.pid)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def family_of(pid: int) -> list[psutil.Process]:
    """All processes below a program, helpers of multiprocessing included."""
    return psutil.Process(pid).children(recursive=True)


def wait_gone(processes: list[psutil.Process], patience_s: float) -> None:
    """Waits for processes that are on their way out, and fails if one of them stays."""
    _, alive = psutil.wait_procs(processes, timeout=patience_s)
    left = [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]
    assert not left


def _session(pid: int) -> list[psutil.Process]:
    members = []
    for process in psutil.process_iter():
        with contextlib.suppress(ProcessLookupError, psutil.NoSuchProcess):
            if os.getsid(process.pid) == pid:
                members.append(process)
    return members
