"""A program that reads an epoch of a dataset with many paths, and says what memory it takes then.

    python memory.py PACKAGE METHOD PATHS

Prints the sum, in bytes, of the proportional set sizes (PSS) of the program and of all its
children, workers that live on and fork servers among them. PACKAGE "none" holds the list and
reads nothing.
"""

from __future__ import annotations

import sys

import psutil
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset

PACKAGE, METHOD, PATHS = sys.argv[1], sys.argv[2], int(sys.argv[3])
WORKERS, BATCH_SIZE = 4, 1000

if PACKAGE == "penstock":
    from penstock import DataLoader
else:
    DataLoader = TorchDataLoader  # type: ignore[assignment,misc]


class Paths(Dataset[int]):
    """As a folder of photographs has them."""

    def __init__(self, length: int) -> None:
        self.paths = [f"/data/photos/train/{n % 1000:04d}/{n:08d}.jpg" for n in range(length)]

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> int:
        return len(self.paths[index])


def main() -> None:
    dataset = Paths(PATHS)
    if PACKAGE != "none":
        loader = DataLoader(
            dataset,
            batch_size=BATCH_SIZE,
            shuffle=True,
            num_workers=WORKERS,
            multiprocessing_context=METHOD,
            persistent_workers=True,
        )
        for _ in loader:
            pass
    me = psutil.Process()
    everyone = [me, *me.children(recursive=True)]
    print(sum(process.memory_full_info().pss for process in everyone), flush=True)


if __name__ == "__main__":
    main()
