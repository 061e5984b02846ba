"""Runs one of the programs of this folder and reads the figures that it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FOLDER = Path(__file__).parent


def run(name: str, *arguments: object, count: int) -> list[float]:
    """The figures that a program prints, of which there must be `count`.

    Raises:
        RuntimeError: it printed something else.
    """
    command = [sys.executable, str(FOLDER / f"{name}.py"), *map(str, arguments)]
    # torch's loader, dropped while its workers still import, may complain on stderr.
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    figures = [float(line) for line in done.stdout.split()]
    if len(figures) != count:
        last = (done.stderr.strip().splitlines() or ["nothing on stderr"])[-1]
        raise RuntimeError(f"{name} {' '.join(map(str, arguments))} did not finish: {last}")
    return figures
