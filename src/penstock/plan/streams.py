"""Whose turn it is, where every worker reads a stream of its own."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import ClassVar

from penstock.plan.base import EpochPlan


class StreamTurns(EpochPlan):
    """Batches taken in turn from several streams, the first stream first.

    The order is that of `torch.utils.data.DataLoader` over an iterable dataset: round-robin
    over the workers, from worker 0 in every epoch; a stream that has ended is passed over.

    Args:
        streams: how many streams.
        seats: how many workers; stream `s` is read by worker `s % seats`.
        turn: the stream to begin with.
        ended: streams that have nothing left.
    """

    is_stream: ClassVar[bool] = True

    def __init__(
        self, streams: int, seats: int | None = None, *, turn: int = 0, ended: Collection[int] = ()
    ) -> None:
        self._live = [stream not in ended for stream in range(streams)]
        self._seats = seats or streams
        self._next = turn
        self._given = [0] * streams

    def take(self) -> tuple[Sequence[object], int] | None:
        """A stream, the ordinal of its next batch, and its worker; None when all have ended."""
        for step in range(len(self._live)):
            stream = (self._next + step) % len(self._live)
            if self._live[stream]:
                self._next = stream + 1
                self._given[stream] += 1
                return [stream, self._given[stream] - 1], stream % self._seats
        return None

    def end_stream(self, stream: int) -> None:
        """Takes no more turns for `stream`."""
        self._live[stream] = False


def stream_of(indices: Sequence[object]) -> int:
    """The stream that a batch of `StreamTurns` is of."""
    stream = indices[0]
    if not isinstance(stream, int):
        raise TypeError(f"{indices!r} does not begin with the number of a stream")
    return stream
