"""The drop-in for `torch.utils.data.DataLoader`: joins the rooms and holds no mechanism."""

from __future__ import annotations

import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import Dataset, IterableDataset, Sampler, default_collate

from penstock.engines.inline import InlineEngine
from penstock.engines.job import Job
from penstock.engines.launch import warm_up
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Engine
from penstock.epoch import EpochRun, EpochSettings
from penstock.errors import SampleError
from penstock.observe import Statistics, StatisticsRecorder
from penstock.options import (
    ErrorPolicy,
    OnError,
    SampleErrorMode,
    check_arguments,
    check_count,
)
from penstock.pinning import PinnedRun
from penstock.plan import GivenBatches, RefillingBatches, SeededShuffle, StreamTurns, mix_seeds
from penstock.schedule import DonorPlan, Plan

T_co = TypeVar("T_co", covariant=True)


class DataLoader(TorchDataLoader[T_co]):
    """Loads a dataset in batches, with worker processes that survive, skip, and explain.

    Takes the arguments of `torch.utils.data.DataLoader`, with their meaning there, and three more:
    `seed`, `on_error` and `max_skipped`.

    Args:
        dataset: map-style or iterable.
        batch_size: samples a batch; None hands over single samples.
        shuffle: whether the order is random, another one in each epoch.
        sampler: yields the index of each sample in turn.
        batch_sampler: yields the list of indices of each batch.
        num_workers: worker processes; 0 makes the samples in the training process.
        collate_fn: makes a batch of a list of samples.
        pin_memory: whether batches are copied to page-locked memory, for transfers to a GPU.
        drop_last: whether an incomplete last batch is left out.
        timeout: seconds that `next()` waits for a batch; 0 waits for ever.
        worker_init_fn: called in each worker with its number. With it, random numbers
            are seeded for each worker as torch does, and not for each sample.
        multiprocessing_context: the start method, or a context of `multiprocessing`.
        generator: draws the order and the base seed.
        prefetch_factor: batches on their way for each worker; 2 unless given.
        persistent_workers: whether workers live on between epochs.
        pin_memory_device: as in torch.
        in_order: whether batches come in the order of the plan, or as they are completed.
        seed: makes the epochs of a map-style dataset a function of (seed, epoch, dataset,
            batch size) alone: order and random augmentation are then the same on every
            machine, with any number of workers. Without it both follow from torch's random
            state. It takes the place of `generator`; a sampler of your own keeps its order.
            An iterable dataset is seeded by it in each worker, and its batches still depend on
            the number of workers.
        on_error: what to do about a sample that cannot be made, or is None: `"raise"`; `"skip"`,
            which fills its place with the last sample of the epoch that is not used yet, or
            leaves the batch of a batch sampler short; or a function that gets a
            `SampleError` and returns `"skip"`, `"raise"` or a sample to use instead. With the
            last two samples are asked for one by one, also where there is `__getitems__`. What
            the collate function raises is never skipped.
        max_skipped: how many samples of an epoch may be skipped: a count, a fraction, or None. A
            fraction of a stream without `__len__` is one of the samples read so far, or of 1000
            where they are fewer.

    Raises:
        OptionError: an argument cannot be used as given; it is a `ValueError`.
        ValueError: arguments that torch refuses, with its own text.
    """

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int = 0,
        collate_fn: Callable[[list[Any]], Any] | None = None,
        pin_memory: bool = False,
        drop_last: bool = False,
        timeout: float = 0,
        worker_init_fn: Callable[[int], object] | None = None,
        multiprocessing_context: Any = None,
        generator: torch.Generator | None = None,
        *,
        prefetch_factor: int | None = None,
        persistent_workers: bool = False,
        pin_memory_device: str = "",
        in_order: bool = True,
        seed: int | None = None,
        on_error: OnError = "raise",
        max_skipped: int | float | None = 0.01,
    ) -> None:
        policy = ErrorPolicy(on_error, max_skipped)
        check_arguments(
            dataset=dataset,
            batch_size=batch_size,
            shuffle=shuffle,
            sampler=sampler,
            batch_sampler=batch_sampler,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            timeout=timeout,
            seed=seed,
            collate_fn=collate_fn,
            worker_init_fn=worker_init_fn,
        )
        self._policy = policy
        self._seed = seed
        self._epoch = 0
        self._drawn: tuple[int, int] | None = None
        self._engine: ProcessEngine | None = None
        self._run: weakref.ref[EpochRun] | None = None
        self._skipped: list[SampleError] = []
        self._recorder: StatisticsRecorder | None = None
        if batch_sampler is None and batch_size is not None:
            # NumPy's ints are counts too, though torch's samplers do not take them for such.
            batch_size = int(batch_size)
        seeded = seed is not None and sampler is None and batch_sampler is None
        if seeded and shuffle and not isinstance(dataset, IterableDataset):
            sampler, shuffle = SeededShuffle(dataset, seed or 0), None  # type: ignore[arg-type]
        super().__init__(
            dataset,
            batch_size,
            shuffle,
            sampler,
            batch_sampler,
            num_workers,
            collate_fn,
            pin_memory,
            drop_last,
            timeout,
            worker_init_fn,  # type: ignore[arg-type]
            multiprocessing_context,
            generator,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            pin_memory_device=pin_memory_device,
            in_order=in_order,
        )
        if num_workers and self.multiprocessing_context is not None:
            # The fork server imports torch while the program goes on to build its model.
            warm_up(self.multiprocessing_context)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Begins an epoch.

        Workers start, and work, from here on. With persistent workers an iterator of an
        epoch before ends; without them, iterators are independent of each other.
        """
        run = self._begin()
        self._run = weakref.ref(run)
        self._skipped = run.skipped
        self._recorder = run.recorder
        if not self.pin_memory:
            return run
        if not torch.accelerator.is_available():
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device "
                "pinned memory won't be used.",
                stacklevel=2,
            )
            return run
        return PinnedRun(run, self.pin_memory_device)

    @property
    def skipped(self) -> list[SampleError]:
        """The samples of the current or last epoch that were left out, in delivery order."""
        return list(self._skipped)

    def statistics(self) -> Statistics:
        """Counts and times of the current or last epoch."""
        if self._recorder is None:
            return Statistics()
        return self._recorder.snapshot(len(self._skipped))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next `iter()` begins; without it, each is one further.

        The sampler and the batch sampler are told, if they have `set_epoch`.
        """
        self._epoch = check_count("epoch", epoch, least=0, remedy="epochs count from 0")
        for part in (self.sampler, self.batch_sampler):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)

    def __getstate__(self) -> dict[str, Any]:
        """A copy begins with its own workers and an account of its own."""
        return {
            **self.__dict__,
            "_engine": None,
            "_run": None,
            "_recorder": None,
            "_skipped": [],
            "_drawn": None,
        }

    # How an epoch is put together.

    def _begin(self) -> EpochRun:
        began = time.perf_counter()
        if isinstance(self.sampler, SeededShuffle):
            self.sampler.set_epoch(self._epoch)
        seed = self._next_seed()
        self._epoch += 1
        plan, donors, planned = self._make_plan()
        engine, release = self._get_engine(seed, self._make_job(asks=donors is not None))
        settings = EpochSettings(
            seed=seed,
            window=self.num_workers * (self.prefetch_factor or 0) or 1,
            in_order=self.in_order,
            timeout_s=self.timeout if self.num_workers else 0.0,
            policy=self._policy,
            planned=planned,
            claimed_samples=self._claimed_samples if self._is_stream else None,
        )
        try:
            return EpochRun(
                engine,
                plan,
                settings,
                workers=self.num_workers,
                donors=donors,
                release=release,
                began=began,
            )
        except BaseException:
            release()
            raise

    @property
    def _is_stream(self) -> bool:
        return isinstance(self.dataset, IterableDataset)

    def _next_seed(self) -> int:
        """The seed of the epoch that begins."""
        if self._seed is not None:
            return mix_seeds(self._seed, self._epoch) >> 1
        if self._drawn is None or not self.persistent_workers:
            # torch draws its base seed from the same generator at the same moment.
            drawn = torch.empty((), dtype=torch.int64).random_(generator=self.generator).item()
            self._drawn = int(drawn), 0
            return int(drawn)
        drawn, epochs = self._drawn
        self._drawn = drawn, epochs + 1
        return mix_seeds(drawn, epochs + 1) >> 1

    def _make_plan(self) -> tuple[Plan, DonorPlan | None, int | None]:
        """The plan, the plan again if it can fill skipped places, and its number of samples."""
        if self._is_stream:
            return StreamTurns(max(1, self.num_workers)), None, _length(self.dataset)
        planned = _length(self.sampler if self.batch_size is not None else self.dataset)
        if self._policy.tolerant and self.batch_size is not None and planned is not None:
            refilling = RefillingBatches(self.sampler, self.batch_size, drop_last=self.drop_last)
            return refilling, refilling, refilling.planned
        if self.batch_sampler is None:
            return GivenBatches(self.sampler, batched=False), None, planned
        return GivenBatches(self.batch_sampler, batched=True), None, planned

    def _make_job(self, *, asks: bool) -> Job:
        mode: SampleErrorMode = "raise"
        if self._policy.tolerant:
            mode = "ask" if asks or callable(self._policy.on_error) else "drop"
        default = self.collate_fn is default_collate
        return Job(
            dataset=self.dataset,
            seats=self.num_workers,
            stream=self._is_stream,
            collate=self.collate_fn,
            default_collate=default,
            batched=self.batch_sampler is not None,
            batch_size=self.batch_size or 1,
            drop_last=self.drop_last,
            worker_init_fn=self.worker_init_fn,
            sample_errors=mode,
            none_is_error=default or mode != "raise",
            own_randomness=self.worker_init_fn is None or not self.num_workers,
        )

    def _get_engine(self, seed: int, job: Job) -> tuple[Engine, Callable[[], None]]:
        """An engine that is started, and what to call when the epoch is over."""
        if not self.num_workers:
            inline = InlineEngine(job)
            return inline, inline.close
        if self._engine is not None and not self._engine.is_ours:
            # This process was forked since: its parent goes on with these workers.
            self._engine = None
        if self._engine is not None:
            previous = self._run() if self._run is not None else None
            if previous is not None:
                previous.close()
            return self._engine, _nothing
        engine = ProcessEngine(job, context=self.multiprocessing_context, seed=seed)
        engine.start()
        if not self.persistent_workers:
            return engine, engine.close
        self._engine = engine
        weakref.finalize(self, engine.close)
        return engine, _nothing

    def _claimed_samples(self) -> int | None:
        # Set by torch's `__len__` when it is called.
        return self._IterableDataset_len_called


def _nothing() -> None:
    """Persistent workers outlive the epoch."""


def _length(source: object) -> int | None:
    if not isinstance(source, Sized):
        return None
    try:
        return len(source)
    except (TypeError, NotImplementedError):
        # Some have a __len__ that says so when it is called.
        return None
