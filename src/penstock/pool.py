"""Every sample of a map-style dataset, once, made by several workers."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Iterator, Sized
from multiprocessing.context import BaseContext
from types import TracebackType
from typing import Any, Generic, Literal, NamedTuple, TypeVar

from torch.utils.data import IterableDataset, get_worker_info

from penstock.engines.failure import Failure, describe, to_raise
from penstock.engines.inline import InlineEngine
from penstock.engines.job import Job
from penstock.engines.launch import forks, named_context
from penstock.engines.naming import explain_index_error, name_source, none_error
from penstock.engines.process import ProcessEngine
from penstock.engines.processors import processors_of_rank
from penstock.engines.protocol import Engine
from penstock.engines.shared_lists import SharedLists
from penstock.epoch import EpochRun, EpochSettings
from penstock.errors import OptionError, SampleError
from penstock.observe import Progress, ProgressLines, Statistics, StatisticsRecorder
from penstock.options import (
    DEFAULT_MAX_RESTARTS,
    ErrorPolicy,
    OnError,
    Supervision,
    check_count,
    check_dataset,
    check_switch,
    check_worker_count,
    is_slip,
)
from penstock.plan import Chunks

T = TypeVar("T")

# A lease is given so many samples that it takes about this long: much longer than sending it
# does (30 µs), and short beside what anybody would notice at the end, when one worker is last.
LEASE_S = 0.004
MOST_SAMPLES_PER_LEASE = 512
# Leases on their way for each worker: one that it works on and one to go on with.
LEASES_PER_WORKER = 2


class Sample(NamedTuple, Generic[T]):
    """One sample of a dataset.

    Attributes:
        index: its index in the dataset.
        value: what the dataset returned for it.
    """

    # Hides `tuple.index`, which nobody looks for here.
    index: int  # type: ignore[assignment]
    value: T


def iterate(
    dataset: Any,
    workers: int | Literal["auto"] = 4,
    order: Literal["plan", "completed"] = "plan",
    on_error: OnError = "raise",
    max_skipped: int | float | None = 0.01,
    progress: bool = False,
    *,
    seed: int = 0,
    multiprocessing_context: str | BaseContext | None = None,
    sample_timeout: float | None = None,
    memory_budget: int | None = None,
    max_restarts: int = DEFAULT_MAX_RESTARTS,
    share_dataset: bool = True,
) -> SampleIterator:
    """Iterates all samples of a dataset, made by several worker processes.

    The dataset travels to each worker once. Samples come back through shared memory; as many are
    made ahead as keep the workers busy, and no more while the caller is slow.

        for index, value in penstock.iterate(dataset, workers=4):
            ...

    Args:
        dataset: map-style: it has `__getitem__` and `__len__`.
        workers: worker processes; 0 makes the samples in this process, "auto" has one for each
            processor that it may use.
        order: `"plan"`: by index; `"completed"`: as they are made.
        on_error: what to do about a sample that cannot be made: `"raise"`, `"skip"`, or a function
            that gets a `SampleError` and returns `"skip"`, `"raise"` or a value to use instead.
        max_skipped: how many samples may be skipped: a count, a fraction, or None for any number.
        progress: whether to show on stderr how far it is.
        seed: what random numbers that the dataset draws follow from; for the same seed each
            sample is the same, with any number of workers.
        multiprocessing_context: the start method, or a context of `multiprocessing`.
        sample_timeout: seconds that one sample may take in a worker; None for any time. See
            `penstock.DataLoader`, also for the next two.
        memory_budget: bytes of shared memory that samples may take; None for what the machine
            has left.
        max_restarts: how many workers that died are replaced.
        share_dataset: whether workers have large lists of the dataset together.

    Returns:
        An iterator of `Sample(index, value)` with a length. Dropping it, as `break` does, ends
        the workers.

    Raises:
        OptionError: an argument cannot be used as given.
        SerializationError: the dataset cannot be sent to workers.
    """
    check_dataset(dataset)
    if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        raise OptionError(
            f"dataset={type(dataset).__name__} has no samples to ask for by index; iterate() takes "
            "map-style datasets, and a DataLoader takes iterable ones"
        )
    if not isinstance(dataset, Sized):
        raise OptionError(
            f"dataset={type(dataset).__name__} has no __len__, so its samples cannot be counted; "
            "add one"
        )
    if order not in ("plan", "completed"):
        raise OptionError(f"order={order!r}: give 'plan' (by index) or 'completed' (as made)")
    workers = check_worker_count("workers", workers, remedy="0 makes the samples in this process")
    if isinstance(workers, str):
        workers, _ = processors_of_rank()
    seed = check_count("seed", seed, least=0, remedy="give a seed of 0 or more")
    policy = ErrorPolicy(_with_index(on_error), max_skipped)
    supervision = Supervision(max_restarts, sample_timeout, memory_budget)
    supervision.check_workers("workers", workers)
    check_switch("share_dataset", share_dataset)
    context = named_context(multiprocessing_context)
    return SampleIterator(
        _Indexed(dataset, catching=not policy.tolerant),
        workers,
        order == "plan",
        policy,
        supervision,
        progress,
        seed,
        context,
        share_dataset,
    )


class SampleIterator(Iterator[Sample[Any]]):
    """Iterates samples; made by `iterate`. Also a context manager that closes itself."""

    def __init__(
        self,
        dataset: _Indexed,
        workers: int,
        in_order: bool,
        policy: ErrorPolicy,
        supervision: Supervision,
        progress: bool,
        seed: int,
        context: BaseContext | None,
        share_dataset: bool,
    ) -> None:
        began = time.perf_counter()
        self._length = len(dataset)
        mode = "raise" if not policy.tolerant else "ask" if callable(policy.on_error) else "drop"
        job = Job(
            dataset,
            seats=workers,
            sample_errors=mode,  # type: ignore[arg-type]
            none_is_error=False,
            sample_timeout_s=supervision.sample_timeout,
        )
        engine: Engine
        if workers:
            engine = ProcessEngine(
                job,
                context=context,
                seed=seed,
                memory_budget=supervision.memory_budget,
                lists=SharedLists(job, forks=forks(context)) if share_dataset else None,
            )
            engine.start()
        else:
            engine = InlineEngine(job)
        size = _LeaseSize()
        settings = EpochSettings(
            seed=seed,
            window=max(1, workers * LEASES_PER_WORKER),
            in_order=in_order,
            policy=policy,
            max_restarts=supervision.max_restarts,
            planned=self._length,
        )
        plan = Chunks(self._length, size)
        try:
            self._run = EpochRun(
                engine, plan, settings, workers=workers, release=engine.close, began=began
            )
        except BaseException:
            engine.close()
            raise
        size.recorder = self._run.recorder
        self._arrived: deque[tuple[int, Any]] = deque()
        self._progress = ProgressLines(_to_stderr) if progress else None

    def __iter__(self) -> SampleIterator:
        return self

    def __next__(self) -> Sample[Any]:
        """The next sample.

        Raises:
            StopIteration: all were handed over, or skipped.
            ClosedError: `close` was called.
            Exception: what the dataset raised for a sample, in that sample's turn; iteration
                may go on behind it.
        """
        while not self._arrived:
            try:
                self._arrived.extend(next(self._run))
            except StopIteration:
                if self._progress is not None:
                    self._progress.end(self._so_far())
                raise
            if self._progress is not None:
                self._progress.show(self._so_far())
        index, value = self._arrived.popleft()
        if isinstance(value, Failure):
            raise to_raise(value)
        return Sample(index, value)

    def __len__(self) -> int:
        """Samples in the dataset, whatever was handed over or skipped so far."""
        return self._length

    def ready(self) -> bool:
        """Whether `next()` would return, or raise, without waiting; never waits itself."""
        return bool(self._arrived) or self._run.ready()

    def look_ahead(self) -> bool:
        """See `EpochRun.look_ahead`."""
        return bool(self._arrived) or self._run.look_ahead()

    def wait_handles(self) -> list[int]:
        """See `EpochRun.wait_handles`."""
        return self._run.wait_handles()

    def left_s(self, began: float) -> float | None:
        """See `EpochRun.left_s`."""
        return self._run.left_s(began)

    @property
    def skipped(self) -> list[SampleError]:
        """The samples that were left out so far."""
        return list(self._run.skipped)

    def statistics(self) -> Statistics:
        """Counts and times so far."""
        return self._run.recorder.snapshot(len(self._run.skipped))

    def _so_far(self) -> Progress:
        statistics = self.statistics()
        done = statistics.samples + statistics.skipped
        return Progress(
            done=done,
            total=self._length,
            errors=statistics.skipped,
            samples_per_s=statistics.samples_per_s,
            busy_share=statistics.busy_share,
            workers=statistics.workers,
            over=done == self._length,
        )

    def close(self) -> None:
        """Ends the workers. Twice does no harm."""
        self._arrived.clear()
        self._run.close()

    def __enter__(self) -> SampleIterator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Indexed:
    """The user's dataset, with each sample's index beside it.

    Args:
        dataset: the user's.
        catching: whether a bad sample becomes its `Failure`, so that the samples beside
            it in the lease are handed over all the same.
    """

    def __init__(self, dataset: Any, *, catching: bool) -> None:
        self.dataset = dataset
        self._catching = catching

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> tuple[int, Any]:
        try:
            value = self.dataset[index]
            if value is None:
                raise none_error(index)
        except Exception as raised:
            error = explain_index_error(raised, self.dataset, index)
            if not self._catching:
                raise error from error.__cause__
            info = get_worker_info()
            seat = None if info is None else info.id
            source = name_source(self.dataset, index, error)
            return index, describe(error, index=index, source=source, seat=seat)
        return index, value

    def describe(self, index: int) -> str:
        """What a message calls the sample."""
        return name_source(self.dataset, index)


class _LeaseSize:
    """How many samples to put into the next lease, from what they have cost so far."""

    def __init__(self) -> None:
        self.recorder: StatisticsRecorder | None = None

    def __call__(self) -> int:
        recorder = self.recorder
        if recorder is None or not recorder.samples:
            return 1
        fitting = LEASE_S * recorder.samples / max(recorder.busy_s, 1e-9)
        return int(min(max(1, fitting), MOST_SAMPLES_PER_LEASE))


def _to_stderr(line: str) -> None:
    sys.stderr.write(line + "\n")


def _with_index(on_error: OnError) -> OnError:
    """The policy, with a replacement put where a pair of index and value is expected."""
    if not callable(on_error):
        return on_error
    ask = on_error

    def decide(error: SampleError) -> object:
        answer = ask(error)
        # The words themselves are among what is told from a replacement here.
        return answer if is_slip(answer) else (error.index, answer)

    return decide
