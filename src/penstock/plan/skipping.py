"""Going on behind the part of an order that is done, without a look at each index of it."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from types import GeneratorType
from typing import Any

from torch.utils.data import BatchSampler

from penstock.plan.order import SeededShuffle

_LIST_ITERATOR: Any = type(iter([]))
_END = object()


def begin_behind(batches: Iterable[object], skip: int) -> Iterator[object]:
    """Return an iterator over what a sampler gives behind the first `skip`.

    What the sampler does meanwhile, such as drawing from a generator, it does as if each were
    asked for.

    Args:
        batches: a sampler, or a batch sampler.
        skip: how many of what it gives are done.
    """
    # In torch's own class, and no other, a batch is the next so many indices. An iterator stands
    # for the sampler in a new one, which then begins with what that gives next.
    if skip and type(batches) is BatchSampler:
        indices = _behind(batches.sampler, skip * batches.batch_size)
        return iter(BatchSampler(indices, batches.batch_size, batches.drop_last))
    return _behind(batches, skip)


def _behind(order: Iterable[Any], skip: int) -> Iterator[Any]:
    if type(order) is SeededShuffle:
        return order.behind(skip)
    remaining = iter(order)
    _pass_over(remaining, skip)
    return remaining


def _pass_over(iterator: Iterator[object], count: int) -> None:
    while count > 0 and next(iterator, _END) is not _END:
        count -= 1
        jumped = _jump(iterator, count)
        if not jumped:
            next(itertools.islice(iterator, count, count), None)
            return
        count -= jumped


def _jump(iterator: Iterator[object], most: int) -> int:
    """Pass over the rest of a list in one step, where the iterator is amid one.

    A generator that is in a `yield from` does nothing itself until what it yields from has ended.
    torch's samplers, and most that are like them, yield from the list of an epoch's indices: nearly
    a million steps at 90 % of a million samples.

    Args:
        iterator: what to move.
        most: the number of steps at most.

    Returns:
        The number of steps that it was moved.
    """
    amid: Any = iterator.gi_yieldfrom if isinstance(iterator, GeneratorType) else None
    if type(amid) is not _LIST_ITERATOR:
        return 0
    steps: int = min(most, amid.__length_hint__())
    # Behind its last element a list iterator holds no list.
    if steps:
        _, _, place = amid.__reduce__()
        amid.__setstate__(place + steps)
    return steps
