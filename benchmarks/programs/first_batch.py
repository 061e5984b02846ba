"""A program that makes loaders one after another, and times the first batch of each.

    python first_batch.py PACKAGE METHOD PATHS LOADERS

What a user would write, but for the clock. Imports are not counted: a program has done them when it
makes its loader.
"""

from __future__ import annotations

import sys
import time

WARMED_UP = "penstock.warm_up()"

PACKAGE, METHOD, PATHS, LOADERS = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])

if PACKAGE == WARMED_UP:
    import penstock

    penstock.warm_up(METHOD)

from torch.utils.data import Dataset  # noqa: E402

if PACKAGE == "torch":
    from torch.utils.data import DataLoader
else:
    from penstock import DataLoader


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
    for _ in range(LOADERS):
        began = time.perf_counter()
        loader = DataLoader(dataset, batch_size=64, num_workers=2, multiprocessing_context=METHOD)
        iterator = iter(loader)
        next(iterator)
        print(time.perf_counter() - began, flush=True)
        del iterator, loader


if __name__ == "__main__":
    main()
