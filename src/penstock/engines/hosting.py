"""Streams of an iterable dataset, and the process that reads them.

Usually a worker reads one stream, its own. An epoch that is resumed has the streams that it began
with, however many processes there are now: then a process reads several in turn, or the
training process reads those of workers. Each has its own copy of the dataset, its own random
numbers, and is told by `get_worker_info` that it is the worker which it was.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import cloudpickle
from torch.utils.data._utils import worker as torch_worker

from penstock.collate import Allocate
from penstock.engines.job import Job
from penstock.engines.outcome import Held, Outcome
from penstock.engines.protocol import EpochStart
from penstock.engines.randomness import ProcessRandomness, seed_process
from penstock.engines.streaming import StreamFetcher
from penstock.errors import SerializationError
from penstock.plan import stream_of
from penstock.schedule import Fill, Lease
from penstock.transport.codec import find_culprit
from penstock.transport.journal import Journal
from penstock.transport.shared_file import arriving, carrying


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
        journal: where to note which sample is being made; None: nobody would read it.

    Raises:
        SerializationError: several streams need copies of the dataset, which cannot be made.
    """

    def __init__(
        self,
        job: Job,
        seat: int | None,
        seed: int,
        allocate: Allocate | None = None,
        journal: Journal | None = None,
    ) -> None:
        self._job = job
        self._journal = journal
        self._seat = seat
        self._seed = seed
        self._random = ProcessRandomness()
        self._streams_of_held: dict[int, int] = {}
        # A worker with a stream of its own is what it was, and a training process with the one
        # that never was a worker's lends it nothing.
        self._lends = job.stream_count > 0 and (seat is None or not job.owns_stream(seat))
        self._hosted = {number: self._host(number, allocate) for number in job.streams_of(seat)}

    def _host(self, number: int, allocate: Allocate | None) -> _Hosted:
        job = self._job
        if not self._lends:
            return _Hosted(StreamFetcher(job, self._seat, allocate, self._journal), None)
        own = replace(job, dataset=_copied(job.dataset, job.stream_count))
        info = torch_worker.WorkerInfo(
            id=number,
            num_workers=job.stream_count,
            seed=self._seed + number,
            dataset=own.dataset,
        )
        hosted = _Hosted(StreamFetcher(own, number, allocate, self._journal), info)
        with self._lent(hosted):
            seed_process(self._seed, number)
            if job.worker_init_fn is not None:
                job.worker_init_fn(number)
        return hosted

    def begin_epoch(self, epoch: EpochStart) -> None:
        """Starts all streams anew, or where they were left; see `Engine.begin_epoch`."""
        self._streams_of_held.clear()
        for stream, hosted in self._hosted.items():
            with self._lent(hosted):
                if self._job.own_randomness and (self._lends or self._seat is not None):
                    seed_process(epoch.seed, stream)
                hosted.fetcher.begin_epoch(epoch.starts.get(stream), epoch.number)

    def fetch(self, lease: Lease) -> Outcome:
        """Makes the next batch of the stream that the lease names."""
        stream = stream_of(lease.indices)
        hosted = self._hosted[stream]
        if not self._lends:
            outcome = hosted.fetcher.fetch(lease)
        else:
            with self._lent(hosted):
                outcome = hosted.fetcher.fetch(lease)
        if isinstance(outcome, Held):
            self._streams_of_held[lease.batch] = stream
        return outcome

    def amend(self, batch: int, fills: Mapping[int, Fill]) -> Outcome:
        """Goes on with a `Held` batch."""
        stream = self._streams_of_held.pop(batch)
        hosted = self._hosted[stream]
        with self._lent(hosted):
            outcome = hosted.fetcher.amend(batch, fills)
        if isinstance(outcome, Held):
            self._streams_of_held[batch] = stream
        return outcome

    def forget(self, batch: int) -> None:
        """Drops a `Held` batch; its stream goes on behind it."""
        self._streams_of_held.pop(batch, None)

    def pulled(self, stream: int) -> int:
        """Samples taken from a stream."""
        return self._hosted[stream].fetcher.pulled

    def seen(self, stream: int) -> int:
        """What the last of them looks like; see `likeness`."""
        return self._hosted[stream].fetcher.seen

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


def _copied(dataset: Any, streams: int) -> Any:
    try:
        with carrying() as files:
            pickled = cloudpickle.dumps(dataset)
        with arriving(files):
            return cloudpickle.loads(pickled)
    except Exception as error:
        raise SerializationError(
            f"this epoch is read in {streams} streams, as it was begun with {streams} workers, and "
            f"{find_culprit(dataset)} keeps the dataset from being copied for each: {error}. Load "
            f"the state with num_workers={streams}, or leave it out in __getstate__"
        ) from error
