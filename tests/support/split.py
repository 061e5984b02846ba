"""How the streams of these tests split themselves among workers."""

from __future__ import annotations

from torch.utils.data import get_worker_info


def own_part(length: int) -> range:
    """The numbers below a length that fall to this worker: every n-th of n workers.

    All of them where the dataset is iterated by no worker.
    """
    worker = get_worker_info()
    if worker is None:
        return range(length)
    return range(worker.id, length, worker.num_workers)
