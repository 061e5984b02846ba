"""Who reads what: the split of a stream over ranks and workers. Pure but for two look-ups.

    items   0 1 2 3 4 5 6 7 8 9 …
    rank    0 1 2 0 1 2 0 1 2 0 …      every third item, if there are three ranks
    worker  0     1     0     1 …      of those of rank 0, every second, if it has two workers

Taking every n-th item, rather than a slice of consecutive ones, has three uses. Parts differ by at
most one item whatever the numbers, without a ceiling to get wrong. A loader that takes one item
from each worker in turn sees the items of its rank in their order, the same for any number of
workers. And where neighbours resemble each other (files sorted by class), every part gets of all.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch.distributed
from torch.utils.data import get_worker_info

from penstock.errors import OptionError

T = TypeVar("T")


@dataclass(frozen=True)
class Part:
    """Part `number` of `count`. The parts of a sequence hold each of its items exactly once."""

    number: int = 0
    count: int = 1

    def of(self, items: Sequence[T]) -> Sequence[T]:
        """Return the items of this part; of a `range`, a `range`."""
        return items[self.number :: self.count]


WHOLE = Part()


def check_part(num_shards: int | None, shard: int | None) -> tuple[int | None, int | None]:
    """Return the two arguments as plain integers.

    Raises:
        OptionError: not whole numbers, `num_shards < 1`, `shard` outside of `range(num_shards)`,
            or a `shard` without `num_shards`.
    """
    if num_shards is not None:
        num_shards = _whole("num_shards", num_shards, "the number of parts of the split")
        if num_shards < 1:
            raise OptionError(f"num_shards={num_shards} must be at least 1")
    if shard is not None:
        shard = _whole("shard", shard, "the number of one part of the split")
        if num_shards is None:
            raise OptionError(f"shard={shard} says nothing without num_shards=; pass both")
        if not 0 <= shard < num_shards:
            raise OptionError(
                f"shard={shard} must be from 0 to {num_shards - 1}, as num_shards={num_shards}; "
                "shards count from 0"
            )
    return num_shards, shard


def _whole(name: str, value: object, meaning: str) -> int:
    try:
        if isinstance(value, bool):
            raise TypeError("a truth value is not a number")
        return operator.index(value)  # type: ignore[arg-type]
    except TypeError as exc:
        raise OptionError(f"{name}={value!r} must be a whole number: {meaning}") from exc


def rank_part() -> Part | None:
    """Return this process's part among the ranks of `torch.distributed`, None if not set up.

    The default process group counts, not environment variables: those stay behind in processes
    that do not take part.
    """
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        return Part(torch.distributed.get_rank(), torch.distributed.get_world_size())
    return None


def worker_part() -> Part:
    """Return this worker's part among the workers of its loader; the whole outside of a worker."""
    info = get_worker_info()
    return WHOLE if info is None else Part(info.id, info.num_workers)


def in_worker() -> bool:
    """Say whether this code runs in a worker of a loader."""
    return get_worker_info() is not None
