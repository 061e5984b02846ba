"""The program as a user starts it: a process of its own, with its streams and its exit code."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
from PIL import Image

import penstock

PACKAGES = str(Path(penstock.__file__).parents[1])
# What anything here may take on a machine under load; on an idle one it is a tenth of that.
PATIENCE_S = 30.0


def command(*arguments: str | os.PathLike[str]) -> list[str]:
    return [sys.executable, "-m", "penstock", *(os.fspath(argument) for argument in arguments)]


def environment(*first: Path, **more: str) -> dict[str, str]:
    """The environment of the program; modules in the folders `first` hide those of their name."""
    ours = ("FORCE_COLOR", "PYTHONIOENCODING", "COLUMNS", "LINES")
    clean = {k: v for k, v in os.environ.items() if k not in ours}
    path = os.pathsep.join([*map(str, first), PACKAGES])
    return {**clean, "PYTHONPATH": path, "TERM": "xterm-256color", **more}


def run(*arguments: str | os.PathLike[str], **options: Any) -> subprocess.CompletedProcess[str]:
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    options = {"env": environment(), **streams, **options}
    return subprocess.run(command(*arguments), text=True, timeout=PATIENCE_S, **options)


@contextlib.contextmanager
def started(*arguments: str | os.PathLike[str]) -> Iterator[subprocess.Popen[str]]:
    """The program in a group of its own, as a shell starts it, and gone afterwards."""
    process = subprocess.Popen(
        command(*arguments),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    family = [psutil.Process(process.pid)]
    try:
        with process:
            yield process
            family = descendants(process.pid) or family
    finally:
        for member in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                member.kill()


def descendants(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []


def wait_until(what: Callable[[], Any]) -> Any:
    """What `what` returns as soon as that is true."""
    deadline = time.monotonic() + PATIENCE_S
    while not (result := what()):
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.01)
    return result


def save_photo(path: Path, number: int = 0, size: tuple[int, int] = (40, 30)) -> None:
    Image.new("RGB", size, (number % 256, 128, 200)).save(path)


class StuckPicture:
    """A named pipe that is called a picture: whoever reads it waits, for as long as we want."""

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = path
        self._held: int | None = None

    def wait_reader(self) -> None:
        """Returns once somebody is reading it, and keeps them waiting."""
        self._held = wait_until(self._open)

    def _open(self) -> int | None:
        try:
            return os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # Nobody has it open for reading.
            return None

    def end(self) -> None:
        """Whoever reads it gets nothing, and goes on."""
        if self._held is not None:
            os.close(self._held)
            self._held = None
