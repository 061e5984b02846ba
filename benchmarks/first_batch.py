"""Time to the first batch, each time in a program of its own."""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

LOADERS_PER_PROGRAM = 3
# As a folder of photographs has, and as a small test has.
MANY_PATHS = 100_000
FEW_PATHS = 100

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


class Paths(Dataset):
    def __init__(self, length):
        self.paths = [f"/data/photos/train/{n % 1000:04d}/{n:08d}.jpg" for n in range(length)]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        return len(self.paths[index])


if __name__ == "__main__":
    dataset = Paths(int(sys.argv[3]))
    for _ in range(int(sys.argv[4])):
        began = time.perf_counter()
        loader = DataLoader(
            dataset, batch_size=64, num_workers=2, multiprocessing_context=sys.argv[2]
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
        paths: how many paths the dataset holds in a list.
        required: the ratio to torch's time that must not be exceeded; None: not asked.
        package: how Penstock is used.
        torch_s: torch's figures.
        penstock_s: Penstock's figures.
    """

    method: str
    which: str
    paths: int
    required: float | None
    package: str = "penstock"
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
        StartRow("fork", "first loader", MANY_PATHS, 1.0),
        StartRow("fork", "first loader", FEW_PATHS, 1.0),
        StartRow("spawn", "first loader", MANY_PATHS, 1.0),
        StartRow("spawn", "first loader", FEW_PATHS, 1.0),
        StartRow("forkserver", "first loader", MANY_PATHS, 0.6),
        StartRow("forkserver", "later loader", MANY_PATHS, 0.1),
        # There is one import of torch to wait for, and torch's workers do theirs side by side
        # as long as their dataset fits into a pipe: see docs/decisions/0004.
        StartRow("forkserver", "first loader", FEW_PATHS, None),
        StartRow("forkserver", "first, warm_up()", FEW_PATHS, 0.6, "penstock, warmed up"),
        StartRow("forkserver", "later loader", FEW_PATHS, 0.1),
    ]
    for _ in range(rounds):
        for method, paths in dict.fromkeys((row.method, row.paths) for row in rows):
            mine = [row for row in rows if (row.method, row.paths) == (method, paths)]
            for package in ("torch", *sorted({row.package for row in mine})):
                first_s, *later_s = _run(package, method, paths)
                for row in mine:
                    figures = row.torch_s if package == "torch" else row.penstock_s
                    if package in ("torch", row.package):
                        figures.extend(later_s if row.which == "later loader" else [first_s])
    return rows


def _run(package: str, method: str, paths: int) -> list[float]:
    """Seconds to the first batch of each loader of one program."""
    with tempfile.TemporaryDirectory() as folder:
        # A file, since torch's spawned workers import the main module again.
        program = Path(folder) / "program.py"
        program.write_text(_PROGRAM)
        settings = [package, method, str(paths), str(LOADERS_PER_PROGRAM)]
        command = [sys.executable, program, *settings]
        # torch's loader, dropped while its workers still import, may complain on stderr.
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    figures = [float(line) for line in done.stdout.split()]
    if len(figures) != LOADERS_PER_PROGRAM:
        raise RuntimeError(f"{package} under {method} did not finish:\n{done.stderr}")
    return figures
