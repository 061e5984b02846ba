"""What is given up where memory is short, and made again later.

A lease has a slot from the moment that it is sent, and a batch has it until the loop drops it.
Where the batch that comes next has no room beside those, they give theirs up: what was not begun is
taken back, and what has arrived is thrown away.

A stream cannot give again what it has given. What a worker has taken from it, and what was not
handed over, is had again only by a worker that begins the stream anew and runs it to where it was,
as in the place of one that died. That is done where nothing else is left to do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from penstock.schedule.batch import Batch, State


@dataclass(frozen=True, slots=True)
class Relief:
    """What makes room.

    Attributes:
        batches: those to be given up, in order.
        seats: workers that have to begin their streams again for that.
    """

    batches: tuple[int, ...]
    seats: frozenset[int] = frozenset()


def find_relief(
    batches: Mapping[int, Batch[Any]], following: int, *, in_order: bool, are_streams: bool
) -> Relief:
    """What takes room and is not handed over next.

    Args:
        batches: all that were taken from the plan and not delivered yet, in order; none of them can
            be delivered, or decided on.
        following: the one that is handed over next.
        in_order: whether they are delivered in order; otherwise what has arrived goes first.
        are_streams: whether they are of streams.
    """
    states = {State.LENT, State.OPEN} | ({State.READY} if in_order else set())
    taking = [n for n, batch in batches.items() if n != following and batch.state in states]
    if not are_streams:
        return Relief(tuple(taking))
    waiting = _not_begun(batches)
    if waiting:
        return Relief(waiting)
    seats = frozenset(batches[number].lease.seat for number in taking)
    return Relief(tuple(_made_again(batches, seats)), seats)


def _not_begun(batches: Mapping[int, Batch[Any]]) -> tuple[int, ...]:
    """Those that wait for their worker, which has others of its streams before."""
    busy: set[int] = set()
    found: list[int] = []
    for number, batch in batches.items():
        if batch.state in (State.LENT, State.OPEN):
            if batch.lease.seat in busy:
                found.append(number)
            busy.add(batch.lease.seat)
    return tuple(found)


def _made_again(batches: Mapping[int, Batch[Any]], seats: frozenset[int]) -> Iterator[int]:
    """What comes again of workers that begin their streams again."""
    begun_again: set[object] = set()
    for number, batch in batches.items():
        stream = batch.lease.indices[0]
        if batch.lease.seat not in seats:
            continue
        if batch.state in (State.LENT, State.OPEN, State.READY):
            begun_again.add(stream)
            yield number
        elif batch.state is State.FAILED and stream in begun_again:
            # An error that comes behind what is made again comes again.
            yield number
