"""Streams that are made of shards: the split over ranks and workers, and errors that do not end it.

    shards() ──split by rank──> ──split by worker──> assigned()
                                                        │ one after the other
                                    read(shard, start) ─┴─> sample, sample, ✗, sample, …
                                         ▲                                  │
                                         └── opened again behind the ✗ ─────┘

A place in a stream is (shard, position): what a user's `read` is given to begin there.
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch.utils.data import IterableDataset

from penstock.datasets.split import WHOLE, Part, check_part, in_worker, rank_part, worker_part
from penstock.errors import DatasetError, OptionError

ShardT = TypeVar("ShardT")
SampleT = TypeVar("SampleT")


class ShardedStream(IterableDataset[SampleT], Generic[ShardT, SampleT]):
    """An iterable dataset that splits itself, so that each sample is read exactly once.

    Write three methods: `shards` names the shards, `read` reads one from a position, and
    `shard_length`, if it is known, says how long one is.

        class Lines(ShardedStream[str, str]):
            def shards(self):
                return sorted(glob.glob("logs/*.txt"))

            def read(self, shard, start):
                with open(shard) as file:
                    yield from itertools.islice(file, start, None)

    Of the shards, each rank of `torch.distributed` takes every n-th, and of those each worker of
    its loader every m-th. With fewer shards than readers some readers have nothing to do; nothing
    is lost or doubled. Every rank and worker must see the same shards in the same order.

    The rank is known in workers too: under spawn and forkserver it travels with the dataset.

    Args:
        num_shards: split into so many parts instead of by rank. (A part is then all the shards
            that its reader takes: not to be confused with one of `shards()`.)
        shard: which of those parts this stream is, from 0.

    Raises:
        OptionError: only one of the two is given, or they are no part: see `check_part`.
    """

    # A shard of unknown length whose samples fail without end cannot be told from one that cannot
    # be opened at all. After so many failures in a row it is given up, with an error.
    max_failures_in_row = 100

    num_shards: int | None = None
    shard: int | None = None
    _rank_of_sender: Part = WHOLE
    _received_in: int | None = None

    def __init__(self, num_shards: int | None = None, shard: int | None = None) -> None:
        super().__init__()
        self.num_shards, self.shard = check_part(num_shards, shard)
        if num_shards is not None and shard is None:
            raise OptionError(
                f"num_shards={num_shards} without shard= would read everything in every process; "
                "pass both, or neither: ranks and workers are split by themselves"
            )

    @abstractmethod
    def shards(self) -> Sequence[ShardT]:
        """Return all shards, in an order that is the same everywhere and every time.

        A shard is anything small that names it and can be pickled: a path, a number, a range.
        """

    @abstractmethod
    def read(self, shard: ShardT, start: int) -> Iterable[SampleT]:
        """Return the samples of one shard from position `start` on, which counts from 0.

        Called once for each shard this reader takes, and again after a sample failed: an
        exception stands for exactly one sample, and `read(shard, position + 1)` for those behind
        it. A generator that dies of its exception is all right, therefore. `start` may be the
        length of the shard: then there is nothing left to return.
        """

    def shard_length(self, shard: ShardT) -> int | None:
        """Return the number of samples of one shard, or None if that is not known."""
        return None

    def describe_sample(self, shard: ShardT, position: int) -> str:
        """Return the name of a sample for messages, such as its path. Must not read it."""
        return f"sample {position} of shard {shard!r}"

    def part(self) -> Part:
        """Return which part of the whole stream this process's loader reads, all workers together.

        That is `shard` of `num_shards` if given, else the rank of `torch.distributed`, else
        everything.
        """
        if self.num_shards is not None and self.shard is not None:
            return Part(self.shard, self.num_shards)
        here = rank_part()
        if here is not None:
            return here
        # What a dataset that was saved by some rank remembers says nothing about a run that loads
        # it: only what was sent to this very worker counts, not what it inherited by fork.
        sent_here = in_worker() and self._received_in == os.getpid()
        return self._rank_of_sender if sent_here else WHOLE

    def shards_of(self, part: Part) -> Sequence[ShardT]:
        """Return the shards of one part, in the order in which they are read."""
        return part.of(self.shards())

    def assigned(self, worker: Part) -> Sequence[ShardT]:
        """Return the shards that one worker of this process's loader reads."""
        return worker.of(self.shards_of(self.part()))

    def __iter__(self) -> ShardIterator[ShardT, SampleT]:
        return ShardIterator(self, self.assigned(worker_part()))

    def __len__(self) -> int:
        """Return the number of samples of this rank, of all its workers together.

        Raises:
            TypeError: the length of one of its shards is not known.
        """
        total = 0
        for shard in self.shards_of(self.part()):
            length = self.shard_length(shard)
            if length is None:
                raise TypeError(
                    f"{type(self).__name__} has no length, as that of shard {shard!r} is not "
                    "known; define shard_length() to give it one"
                )
            total += length
        return total

    def __getstate__(self) -> dict[str, Any]:
        # A worker that is spawned has no process group of its own to ask.
        sender = rank_part() or (self._rank_of_sender if in_worker() else WHOLE)
        return {**self.__dict__, "_rank_of_sender": sender}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._received_in = os.getpid()


class ShardIterator(Iterator[SampleT], Generic[ShardT, SampleT]):
    """The samples of some shards, one shard after the other.

    Not a generator: when `__next__` raises for one sample, the call after it goes on with the next.

    Attributes:
        shard: the shard of the sample that the latest `__next__` was about; None before the first
            and after the last.
        position: the place of that sample in its shard.
    """

    def __init__(self, stream: ShardedStream[ShardT, SampleT], shards: Sequence[ShardT]) -> None:
        self._stream = stream
        self._pending = iter(shards)
        self._reader: Iterator[SampleT] | None = None
        self._reading = False
        self._next_position = 0
        self._failures_in_row = 0
        self.shard: ShardT | None = None
        self.position = 0

    def __iter__(self) -> ShardIterator[ShardT, SampleT]:
        return self

    def __next__(self) -> SampleT:
        """Return the next sample.

        Raises:
            Exception: what `read` raised for one sample, unchanged. Go on by calling again.
            DatasetError: a shard of unknown length failed too many times in a row; the rest of it
                is left out. Calling again goes on with the next shard.
        """
        while True:
            if not self._reading:
                self._open_next()
            self.position = self._next_position
            try:
                if self._reader is None:
                    self._reader = iter(self._stream.read(self._current(), self.position))
                sample = next(self._reader)
            except StopIteration:
                self.close()
                self._reading = False
                continue
            except Exception as exc:
                self.close()
                self._pass_over_failed(exc)
                raise
            except BaseException:
                # Ctrl-C and the like are no fault of the sample: it is read again.
                self.close()
                raise
            self._next_position += 1
            self._failures_in_row = 0
            return sample

    def _open_next(self) -> None:
        self.shard, self.position = None, 0
        self.shard = next(self._pending)
        self._reading, self._next_position, self._failures_in_row = True, 0, 0

    def _current(self) -> ShardT:
        shard: Any = self.shard
        return shard  # type: ignore[no-any-return]

    def _pass_over_failed(self, exc: Exception) -> None:
        self._next_position += 1
        self._failures_in_row += 1
        length = self._stream.shard_length(self._current())
        if length is not None:
            self._reading = self._next_position < length
        elif self._failures_in_row >= self._stream.max_failures_in_row:
            self._reading = False
            raise DatasetError(
                f"shard {self.shard!r} failed {self._failures_in_row} times in a row, up to "
                f"position {self.position}, so the rest of it is left out; the last error was "
                f"{type(exc).__name__}: {exc}. If these are single bad samples, define "
                "shard_length() or raise max_failures_in_row"
            ) from exc

    def describe(self) -> str:
        """Return the name of the sample that the latest `__next__` was about.

        Before the first sample and after the last it says that there is none.
        """
        if self.shard is None:
            return f"no sample of {type(self._stream).__name__}"
        return self._stream.describe_sample(self.shard, self.position)

    def close(self) -> None:
        """Close the open shard, if its reader can be closed. Iterating on opens it again."""
        reader, self._reader = self._reader, None
        if isinstance(reader, Generator):
            reader.close()
