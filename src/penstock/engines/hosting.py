"""Streams of an iterable dataset, and the process that reads them.

Usually a worker reads one stream, its own. An epoch that is resumed has the streams that it began
with, however many processes there are now: then a process reads several in turn, or the
training process reads those of workers. Each has its own copy of the dataset, its own random
numbers, and is told by `get_worker_info` that it is the worker which it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
from torch.utils.data._utils import worker as torch_worker

from penstock.collate import Allocate
from penstock.engines.job import Job
from penstock.engines.outcome import Outcome
from penstock.engines.payload import find_culprit
from penstock.engines.protocol import StreamStart
from penstock.engines.randomness import ProcessRandomness, seed_process
from penstock.engines.streaming import StreamFetcher
from penstock.errors import SerializationError
from penstock.schedule import Fill, Lease


@dataclass
class _Hosted:
    """A stream, and what is its own of the process while it is read."""

    fetcher: StreamFetcher
    info: Any
    random: Any = None


class StreamHost:
    """Reads the streams that fall to one process, each when a lease asks for it.

    Args:
        job: what is to be done.
        seat: the worker's number, or None in the training process.
        seed: torch's base seed.
        allocate: memory for default-collated batches; None for ordinary memory.

    Raises:
        SerializationError: several streams need copies of the dataset, which cannot be made.
    """

    def __init__(
        self, job: Job, seat: int | None, seed: int, allocate: Allocate | None = None
    ) -> None:
        self._job = job
        self._seat = seat
        self._seed = seed
        self._random = ProcessRandomness()
        self._streams_of_batches: dict[int, int] = {}
        numbers = job.streams_of(seat)
        # A worker with one stream is the worker that the stream belongs to, and a training
        # process with the one that was always its own lends it nothing.
        self._lends = job.stream_count > 0 and (seat is None or numbers != [seat])
        self._hosted = {
            number: self._host(number, job, allocate) if self._lends else _Hosted(
                StreamFetcher(job, seat, allocate), None
            )
            for number in numbers
        }  # fmt: skip

    def _host(self, number: int, job: Job, allocate: Allocate | None) -> _Hosted:
        own = replace(job, dataset=_copied(job.dataset, job.stream_count))
        info = torch_worker.WorkerInfo(
            id=number,
            num_workers=job.stream_count,
            seed=self._seed + number,
            dataset=own.dataset,
        )
        hosted = _Hosted(StreamFetcher(own, number, allocate), info)
        with self._lent(hosted):
            seed_process(self._seed, number)
            if job.worker_init_fn is not None:
                job.worker_init_fn(number)
        return hosted

    def begin_epoch(
        self, seed: int, starts: Mapping[int, StreamStart], number: int | None = None
    ) -> None:
        """Starts all streams anew, or where they were left; see `Engine.begin_epoch`."""
        self._streams_of_batches.clear()
        for stream, hosted in self._hosted.items():
            with self._lent(hosted):
                if self._job.own_randomness and (self._lends or self._seat is not None):
                    seed_process(seed, stream)
                hosted.fetcher.begin_epoch(starts.get(stream), number)

    def fetch(self, lease: Lease) -> Outcome:
        """Makes the next batch of the stream that the lease names."""
        stream = stream_of(lease.indices)
        self._streams_of_batches[lease.batch] = stream
        hosted = self._hosted[stream]
        with self._lent(hosted):
            return hosted.fetcher.fetch(lease)

    def amend(self, batch: int, fills: Mapping[int, Fill]) -> Outcome:
        """Goes on with a `Held` batch."""
        hosted = self._hosted[self._streams_of_batches[batch]]
        with self._lent(hosted):
            return hosted.fetcher.amend(batch, fills)

    def forget(self, batch: int) -> None:
        """Drops a `Held` batch; its stream goes on behind it."""

    def pulled(self, stream: int) -> int:
        """Samples taken from a stream."""
        return self._hosted[stream].fetcher.pulled

    @contextlib.contextmanager
    def _lent(self, hosted: _Hosted) -> Iterator[None]:
        """Gives the process's generators and its worker's name to a stream for a while."""
        if not self._lends:
            yield
            return
        programs, info = self._random.save(), torch_worker._worker_info
        if hosted.random is not None:
            self._random.restore(hosted.random)
        torch_worker._worker_info = hosted.info
        try:
            yield
        finally:
            hosted.random = self._random.save()
            self._random.restore(programs)
            torch_worker._worker_info = info


def stream_of(indices: Sequence[object]) -> int:
    """The stream that a lease of an iterable dataset is about."""
    return int(indices[0])  # type: ignore[call-overload, no-any-return]


def _copied(dataset: Any, streams: int) -> Any:
    try:
        return cloudpickle.loads(cloudpickle.dumps(dataset))
    except Exception as error:
        raise SerializationError(
            f"this epoch is read in {streams} streams, as it was begun with {streams} workers, and "
            f"{find_culprit(dataset)} keeps the dataset from being copied for each: {error}. Load "
            f"the state with num_workers={streams}, or leave it out in __getstate__"
        ) from error
