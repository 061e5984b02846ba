"""Time to the first batch, each time in a program of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

LOADERS_PER_PROGRAM = 3

# What a user would write, but for the clock. Imports are not counted: a program has done them
# when it makes its loader.
_PROGRAM = """
import sys, time
if sys.argv[1] == "penstock, warmed up":
    import penstock
    penstock.warm_up(sys.argv[2])
import torch
from torch.utils.data import Dataset
if sys.argv[1].startswith("penstock"):
    from penstock import DataLoader
else:
    from torch.utils.data import DataLoader


class Numbers(Dataset):
    def __len__(self):
        return 100_000

    def __getitem__(self, index):
        return index


if __name__ == "__main__":
    for _ in range(int(sys.argv[3])):
        began = time.perf_counter()
        loader = DataLoader(
            Numbers(), batch_size=64, num_workers=2, multiprocessing_context=sys.argv[2]
        )
        iterator = iter(loader)
        next(iterator)
        print(time.perf_counter() - began, flush=True)
        del iterator, loader
"""


@dataclass(frozen=True)
class StartRow:
    """Seconds to the first batch under one start method, a figure a program.

    Attributes:
        method: the start method.
        which: the first loader of a program, or a later one.
        required: the ratio to torch's time that must not be exceeded; None: not asked.
        library: how Penstock is used.
        torch_s: torch's figures.
        penstock_s: Penstock's figures.
    """

    method: str
    which: str
    required: float | None
    library: str = "penstock"
    torch_s: list[float] = field(default_factory=list)
    penstock_s: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        """Penstock's time over torch's, of the medians."""
        return statistics.median(self.penstock_s) / statistics.median(self.torch_s)

    @property
    def passed(self) -> bool:
        """Whether the required ratio holds."""
        return self.required is None or self.ratio <= self.required


def measure(rounds: int) -> list[StartRow]:
    """Measures all start methods; the two libraries take turns."""
    rows = [
        StartRow("fork", "first loader", 1.0),
        StartRow("spawn", "first loader", 1.0),
        StartRow("forkserver", "first, warm_up()", 0.6, "penstock, warmed up"),
        StartRow("forkserver", "first, without", None),
        StartRow("forkserver", "later loader", 0.1),
    ]
    for _ in range(rounds):
        for method in ("fork", "spawn", "forkserver"):
            mine = [row for row in rows if row.method == method]
            for library in ("torch", *sorted({row.library for row in mine})):
                first_s, *later_s = _run(library, method)
                for row in mine:
                    figures = row.torch_s if library == "torch" else row.penstock_s
                    if library in ("torch", row.library):
                        figures.extend(later_s if row.which == "later loader" else [first_s])
    return rows


def _run(library: str, method: str) -> list[float]:
    """Seconds to the first batch of each loader of one program."""
    with tempfile.TemporaryDirectory() as folder:
        # A file, since torch's spawned workers import the main module again.
        program = Path(folder) / "program.py"
        program.write_text(_PROGRAM)
        command = [sys.executable, program, library, method, str(LOADERS_PER_PROGRAM)]
        # torch's loader, dropped while its workers still import, may complain on stderr.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    figures = [float(line) for line in done.stdout.split()]
    if len(figures) != LOADERS_PER_PROGRAM:
        raise RuntimeError(f"{library} under {method} did not finish:\n{done.stderr}")
    return figures
