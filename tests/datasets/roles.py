"""To be a rank or a worker, in one process and without starting others."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch.distributed
from torch.testing._internal.distributed.fake_pg import FakeStore
from torch.utils.data import Dataset
from torch.utils.data._utils import worker as torch_worker


@contextlib.contextmanager
def as_worker(number: int, count: int) -> Iterator[None]:
    """Be a worker as far as `torch.utils.data.get_worker_info` knows."""
    before = torch_worker._worker_info
    torch_worker._worker_info = torch_worker.WorkerInfo(
        id=number, num_workers=count, seed=0, dataset=Dataset()
    )
    try:
        yield
    finally:
        torch_worker._worker_info = before


@contextlib.contextmanager
def as_rank(rank: int, world_size: int) -> Iterator[None]:
    """Be a rank of a process group that has no other processes."""
    torch.distributed.init_process_group(
        "fake", rank=rank, world_size=world_size, store=FakeStore()
    )
    try:
        yield
    finally:
        torch.distributed.destroy_process_group()
