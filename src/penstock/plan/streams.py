"""Whose turn it is, where every worker reads a stream of its own."""

from __future__ import annotations

from collections.abc import Sequence


class StreamTurns:
    """Batches taken in turn from several streams, the first stream first.

    The order is that of `torch.utils.data.DataLoader` over an iterable dataset: round-robin
    over the workers, from worker 0 in every epoch; a stream that has ended is passed over.

    Args:
        streams: how many streams, which is how many workers.
    """

    def __init__(self, streams: int) -> None:
        self._live = [True] * streams
        self._next = 0
        self._given = [0] * streams

    def take(self) -> tuple[Sequence[object], int] | None:
        """The next batch's ordinal within a stream, and that stream; None when all have ended."""
        for step in range(len(self._live)):
            stream = (self._next + step) % len(self._live)
            if self._live[stream]:
                self._next = stream + 1
                self._given[stream] += 1
                return [self._given[stream] - 1], stream
        return None

    def end_stream(self, stream: int) -> None:
        """Takes no more turns for `stream`."""
        self._live[stream] = False
