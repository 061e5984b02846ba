"""A program that reads an epoch with one loader, and says how many seconds a batch took.

    python -m benchmarks.programs.peer LOADER ROW BATCHES FOLDER [IMAGES]

LOADER is torch, penstock or the name of a peer; FOLDER keeps converted photographs; IMAGES has the
photographs. Counted is from the first batch on: some libraries start their workers anew for each
epoch, which can take seconds.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader

import penstock
from benchmarks.peers import OWN_DATASET, PEERS, TENSORS, Batches, Work
from benchmarks.row import PENSTOCK, TORCH, Setting
from benchmarks.rows.processor import image_dataset
from benchmarks.timing import BATCH_SIZE, WORKERS, FirstSamples
from benchmarks.workloads.in_memory import Tensors
from benchmarks.workloads.photographs import Augmented, Photographs, find_photographs


def main() -> None:
    loader, row, batches, folder = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]
    paths: list[str] = []
    if row != TENSORS:
        paths = find_photographs(Setting(images=Path(sys.argv[5]) if len(sys.argv) > 5 else None))
    work = Work(_dataset(loader, row, paths), paths, batches, Path(folder))
    print(seconds_a_batch(_loader(loader, row, work), batches), flush=True)


def _dataset(loader: str, row: int, paths: list[str]) -> Any:
    if row == TENSORS:
        return Tensors(torch.uint8)
    if row == OWN_DATASET:
        return Photographs(paths)
    return image_dataset(paths) if loader == PENSTOCK else Augmented(paths)


def _loader(name: str, row: int, work: Work) -> Batches:
    if name in (TORCH, PENSTOCK):
        loader_class: Any = TorchDataLoader if name == TORCH else penstock.DataLoader
        batches: Batches = loader_class(
            work.dataset,
            batch_size=BATCH_SIZE,
            sampler=FirstSamples(work.samples),
            num_workers=WORKERS,
        )
        return batches
    (peer,) = (peer for peer in PEERS if peer.name == name)
    return peer.rows[row](work)


def seconds_a_batch(batches: Batches, expected: int) -> float:
    """Seconds from the first batch to the last, for each but the first.

    Raises:
        RuntimeError: as many batches as expected did not come.
    """
    iterator = iter(batches)
    next(iterator)
    began = time.perf_counter()
    count = 1 + sum(1 for _ in iterator)
    took_s = time.perf_counter() - began
    if count != expected:
        raise RuntimeError(f"{count} batches came instead of {expected}")
    return took_s / (count - 1)


if __name__ == "__main__":
    main()
