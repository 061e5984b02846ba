"""Where a worker begins that takes the place of one that died.

A dataset with a state of its own changes as it is read, and every worker has a copy that changes in
its own way, with persistent workers over all epochs. With a batch comes the state behind it
(`snapshot_every_n_steps`), so a new worker begins with the last one that the parent has:

- Batches that have arrived are not made again, and their state counts, although the loop may not
  have been given them yet. What the lost worker was about is made again, from the state before it.
- For a map-style dataset, an epoch begins as the one before has left the copy. A stream begins each
  epoch anew: the state of a stream is a place in it, and from there the epoch would be short. For
  the same reason a copy that was put to such a place is used for that epoch only (`took_up`).

A copy is then exactly what it would have been, if its state says all that its samples depend on,
and, for a map-style dataset, if each batch goes to the worker whose turn it is (`worker_init_fn`).
What cannot be exact:

- Without turns, the batches of a lost worker may be made by others, whose copies differ.
- Samples that the lost copy had made, but not for a batch that arrived, count twice or not at all:
  those of a batch that failed, was taken back, or waited for a decision about a bad sample, and
  those that were still to come when the loop broke off an epoch.
- What a stream's dataset counts over epochs: a new copy begins with what it was made with. The
  number of the epoch it is told, if it has `set_epoch`.
- Random numbers that go on from sample to sample in the process's own generators: their states come
  with that of the dataset. Those of other generators, of datasets without a state with
  `worker_init_fn`, and of streams with it in a later epoch begin as in a new worker.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import replace

from penstock.checkpoint import has_state
from penstock.engines.job import Job
from penstock.engines.protocol import StreamStart
from penstock.engines.shared_result import SharedResult
from penstock.plan import stream_of

Key = tuple[int, int, int]  # epoch, batch, attempt


class Resumption:
    """What the parent knows of the copies of the dataset that the worker in one seat has.

    Args:
        job: what the worker does.
        seat: its number.

    Attributes:
        took_up: whether the worker's copy of a stream was put to a place within the epoch.
    """

    def __init__(self, job: Job, seat: int) -> None:
        self._is_stream = job.stream
        self._seat = seat
        # Copies bear the numbers of their streams; that of a map-style dataset the seat's.
        self._own = job.streams_of(seat) if job.stream else [seat]
        self._keeps = job.snapshot_every > 0 and (job.stream or has_state(job.dataset))
        self._starts: dict[int, StreamStart] = {}
        self._streams: dict[Key, int] = {}
        self._arrived: deque[tuple[int, int, SharedResult]] = deque()
        # Where a stream would have begun before each batch that may be given up.
        self._before: deque[tuple[int, StreamStart, SharedResult]] = deque()
        self.took_up = False

    def begin_epoch(self, starts: Mapping[int, StreamStart]) -> dict[int, StreamStart]:
        """An epoch begins.

        Args:
            starts: where streams begin that were begun before, or copies' states.

        Returns:
            What to tell a worker that has lived through the epoch before.
        """
        self._settle()
        self._before.clear()
        told = {number: starts.get(number, StreamStart()) for number in self._own}
        self._starts = {
            number: start if number in starts else self._left(number)
            for number, start in told.items()
        }
        self._forget()
        self.took_up = False
        return told

    def starts(self) -> dict[int, StreamStart]:
        """What to tell a worker that takes the place of one that died."""
        self._settle(waiting=True)
        self._forget()
        self.took_up = self._is_stream and any(
            start.snapshot is not None for start in self._starts.values()
        )
        return self._starts

    def lent(self, key: Key, indices: Sequence[object]) -> None:
        """The worker is lent a batch."""
        if self._is_stream:
            self._streams[key] = stream_of(indices)

    def answered(
        self, key: Key, position: int, seen: int = 0, result: SharedResult | None = None
    ) -> None:
        """The last word about a lease has come.

        Args:
            key: which.
            position: samples taken from its stream.
            seen: what the last of them looks like.
            result: the batch, if there is one.
        """
        stream = self._seat
        if self._is_stream:
            stream = self._advance(key, position, seen, result)
        if result is not None and self._keeps:
            self._arrived.append((stream, position, result))
            self._settle()

    def _advance(self, key: Key, position: int, seen: int, result: SharedResult | None) -> int:
        """Notes where a stream stands behind a lease; returns which stream that is."""
        stream = self._streams[key]
        first = next(other for other, number in self._streams.items() if number == stream)
        del self._streams[key]
        if first != key:
            # It was taken back while the batch before it was made: the stream is amid that.
            return stream
        start = self._starts[stream]
        if result is not None:
            while self._before and self._before[0][2].settled:
                self._before.popleft()
            self._before.append((stream, start, result))
        # What was taken for a batch that was given up is gone as well.
        self._starts[stream] = replace(start, pulled=position, seen=seen)
        return stream

    def rewind(self) -> None:
        """What has arrived and was not handed over is not wanted."""
        while self._before:
            stream, start, result = self._before.pop()
            if not result.settled:
                self._starts[stream] = start
        self._settle()
        self._forget()

    def _settle(self, *, waiting: bool = False) -> None:
        """Takes the states of batches that were handed over; with `waiting`, of all."""
        while self._arrived and (waiting or self._arrived[0][2].settled):
            number, position, result = self._arrived.popleft()
            snapshot = result.snapshot()
            if snapshot is not None:
                start = self._starts[number]
                self._starts[number] = StreamStart(
                    start.pulled, snapshot, position, result.random, seen=start.seen
                )

    def _left(self, number: int) -> StreamStart:
        """How an epoch has left a copy, as far as that is known."""
        if self._is_stream:
            return StreamStart()
        start = self._starts.get(number, StreamStart())
        return StreamStart(snapshot=start.snapshot, random=start.random, earlier=True)

    def _forget(self) -> None:
        self._streams.clear()
        self._arrived.clear()
