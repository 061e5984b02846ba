"""The drop-in for `torch.utils.data.DataLoader`: joins the rooms and holds no mechanism."""

from __future__ import annotations

import copyreg
import inspect
import sys
import time
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import (
    Dataset,
    IterableDataset,
    IterDataPipe,
    Sampler,
    default_collate,
)
from torch.utils.data._utils.collate import default_collate_fn_map

from penstock.checkpoint import Checkpoint, Identity, Progress, StreamProgress
from penstock.engines.inline import InlineEngine
from penstock.engines.job import Job
from penstock.engines.launch import warm_up
from penstock.engines.process import ProcessEngine
from penstock.engines.protocol import Engine
from penstock.epoch import EpochRun, EpochSettings
from penstock.errors import OptionError, SampleError
from penstock.integrations import accelerate
from penstock.observe import Statistics, StatisticsRecorder
from penstock.options import (
    ErrorPolicy,
    OnError,
    SampleErrorMode,
    check_arguments,
    check_count,
    length_of,
)
from penstock.persistent import RenewedRun
from penstock.pinning import PinnedRun
from penstock.plan import GivenBatches, RefillingBatches, SeededShuffle, StreamTurns, mix_seeds
from penstock.schedule import DonorPlan, Plan

T_co = TypeVar("T_co", covariant=True)


class DataLoader(TorchDataLoader[T_co]):
    """Loads a dataset in batches, with worker processes that survive, skip, and explain.

    Takes the arguments of `torch.utils.data.DataLoader`, with their meaning there, and four more:
    `seed`, `on_error`, `max_skipped` and `snapshot_every_n_steps`.

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
        snapshot_every_n_steps: of how many batches one has the state of a sampler or an iterable
            dataset with a `state_dict` of its own kept; None means 1. What lies behind it is read
            again, and passed by, where `load_state_dict` goes on between two.

    Raises:
        OptionError: an argument cannot be used as given; it is a `ValueError`.
        ValueError: arguments that torch refuses, with its own text.
    """

    # Whether anybody could ask for a state: `penstock.takeover` has loaders that nobody knows of.
    _keeps_states = True

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
        snapshot_every_n_steps: int | None = 1,
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
        if num_workers and isinstance(dataset, IterDataPipe):
            raise OptionError(
                f"dataset={type(dataset).__name__}(…) is a DataPipe, which only torch's own loader "
                "divides among its workers; give num_workers=0, or read it in an IterableDataset "
                "that splits itself by get_worker_info()"
            )
        self._policy = policy
        self.seed = seed
        self.on_error = on_error
        self.max_skipped = max_skipped
        self.snapshot_every_n_steps = check_count(
            "snapshot_every_n_steps",
            1 if snapshot_every_n_steps is None else snapshot_every_n_steps,
            least=1,
            remedy="1 keeps a state behind each batch",
        )
        self._engine: ProcessEngine | None = None
        self._end_engine: Callable[[], object] = _nothing
        self._run: weakref.ref[EpochRun] | None = None
        self._renewed: weakref.ref[RenewedRun] | None = None
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
        self._checkpoint = self._make_checkpoint()
        if num_workers and self.multiprocessing_context is not None:
            # The fork server imports torch while the program goes on to build its model.
            warm_up(self.multiprocessing_context)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Begins an epoch.

        Workers start, and work, from here on. Iterators are independent of each other; with
        persistent workers there is one, which goes on with the new epoch.
        """
        run = self._begin()
        self._run = weakref.ref(run)
        self._skipped = run.skipped
        self._recorder = run.recorder
        iterator: EpochRun | PinnedRun = run
        if self.pin_memory and torch.accelerator.is_available():
            iterator = PinnedRun(run, self.pin_memory_device)
        elif self.pin_memory:
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device "
                "pinned memory won't be used.",
                stacklevel=2,
            )
        if not self.persistent_workers:
            return iterator
        renewed = self._renewed() if self._renewed is not None else None
        if renewed is None:
            renewed = RenewedRun(iterator, self)
            self._renewed = weakref.ref(renewed)
        else:
            renewed.renew(iterator)
        return renewed

    @property
    def pin_memory_device(self) -> str:
        """As given. Accelerate alone, which takes loaders apart, is told more by it."""
        device: str = self.__dict__["pin_memory_device"]
        reader = sys._getframe(1).f_globals.get("__name__", "")
        return accelerate.device_for(reader, device, self._make_again)

    @pin_memory_device.setter
    def pin_memory_device(self, device: str) -> None:
        self.__dict__["pin_memory_device"] = device

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

        The sampler, the batch sampler, those that they wrap, and the dataset are told, if they have
        `set_epoch`: now, or within an epoch when the next one begins. So are the copies of the
        dataset in workers, also in persistent ones.

        It need not be called where samplers are told: if anybody calls the `set_epoch` of one,
        the loader goes to that epoch as well. A loader that has loaded a state counts on from
        there, whatever its samplers are told, until this is called.
        """
        epoch = check_count("epoch", epoch, least=0, remedy="epochs count from 0")
        left = self._memory().choose(epoch)
        if left is not None:
            warnings.warn(
                f"set_epoch({epoch}) leaves the loaded state, which is in the middle of epoch "
                f"{left}: epoch {epoch} begins at its beginning",
                stacklevel=2,
            )

    def state_dict(self) -> dict[str, Any]:
        """Where the loader is: what `load_state_dict` needs to go on behind the last batch.

        Call it at any time, in the process that iterates. Of several iterators, it is about the
        one that was begun last.

        Returns:
            Plain JSON, save for what a sampler or dataset has returned from a `state_dict` of
            its own. A few kilobytes, for the states of the generators.
        """
        return self._memory().state(self._identity())

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Has the next `iter()` go on where another loader was when its `state_dict` was called.

        The rest of that epoch, and the epochs behind it, are then the same as there, with
        any number of workers. Generators that were given to the loader or a sampler are put back
        to what they were. torch's default generator, the program's own, is left as it is: a
        loader that draws from it (no `seed` and no `generator`) goes on from the state it had
        then, or from where the program puts it back itself.

        Raises:
            StateError: the state does not fit this loader; the message says what differs.
        """
        for part in self._memory().load(state_dict, self._identity()):
            warnings.warn(
                f"this state is of a loader that was not told an epoch, and here the "
                f"{type(part).__name__} was told one by set_epoch(); it keeps that, since it has "
                "no attribute `epoch` to tell what it was before. Give another object to the "
                "loader, or call its set_epoch()",
                stacklevel=2,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy begins with its own workers and an account of its own, at the same epoch.

        Not by `__getstate__`: before Python 3.11 only classes that define it have it, and
        Accelerate's wrappers, which hand on what they lack, would be pickled with ours.
        """
        state = {
            **self.__dict__,
            "_engine": None,
            "_end_engine": _nothing,
            "_run": None,
            "_renewed": None,
            "_recorder": None,
            "_skipped": [],
            "_checkpoint": self._checkpoint.copied(),
        }
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        copied = state.pop("_checkpoint")
        self.__dict__.update(state)
        self._checkpoint = self._make_checkpoint()
        self._checkpoint.take_over(copied)

    def _make_again(self, *args: Any, **settings: Any) -> DataLoader[T_co] | None:
        """A loader of torch's arguments, with this one's own options and at the same epoch.

        None: some of the arguments are newer than this class.
        """
        if not settings.keys() <= inspect.signature(DataLoader.__init__).parameters.keys():
            return None
        memory = self._memory()
        if memory.has_loaded:
            warnings.warn(
                "a state was loaded into this loader, and another loader is made of it, which "
                "begins at the beginning: load the state into that one",
                stacklevel=2,
            )
        made: DataLoader[T_co] = DataLoader(
            *args,
            seed=self.seed,
            on_error=self.on_error,
            max_skipped=self.max_skipped,
            snapshot_every_n_steps=self.snapshot_every_n_steps,
            **settings,
        )
        made._checkpoint.take_over({**memory.copied(), "_loaded": None})
        return made

    # How an epoch is put together.

    def _begin(self) -> EpochRun:
        began = time.perf_counter()
        memory = self._memory()
        try:
            with memory.begin() as progress:
                if self._is_stream and not progress.streams:
                    # As many as there were when this, or the loader whose state it has, was made.
                    count = max(1, memory.streams or 0)
                    progress.streams = [StreamProgress() for _ in range(count)]
                number = memory.told
                seed = self._next_seed()
            with memory.order() as lent:
                plan, donors, planned = self._make_plan(progress)
                if lent and isinstance(plan, GivenBatches):
                    plan.look_ahead()
            engine, release = self._get_engine(seed, self._make_job(asks=donors is not None))
        except BaseException:
            memory.undo()
            raise
        settings = EpochSettings(
            seed=seed,
            window=self.num_workers * (self.prefetch_factor or 0) or 1,
            in_order=self.in_order,
            timeout_s=self.timeout if self.num_workers else 0.0,
            policy=self._policy,
            planned=planned,
            number=number,
            claimed_samples=self._IterableDataset_len_called if self._is_stream else None,
        )
        try:
            return EpochRun(
                engine,
                plan,
                settings,
                workers=self._seats,
                donors=donors,
                release=release,
                began=began,
                progress=progress,
                sized=self._index_sampler,
            )
        except BaseException:
            release()
            memory.undo()
            raise

    @property
    def _is_stream(self) -> bool:
        return isinstance(self.dataset, IterableDataset)

    def _next_seed(self) -> int:
        """The seed of the epoch that begins."""
        checkpoint = self._checkpoint
        if self.seed is not None:
            return mix_seeds(self.seed, checkpoint.epoch) >> 1
        if checkpoint.drawn is None or checkpoint.redraws:
            # torch draws its base seed from the same generator at the same moment.
            drawn = torch.empty((), dtype=torch.int64).random_(generator=self.generator).item()
            checkpoint.drawn = int(drawn), 0
            return int(drawn)
        drawn, epochs = checkpoint.drawn
        checkpoint.drawn = drawn, epochs + 1
        return mix_seeds(drawn, epochs + 1) >> 1

    def _make_plan(self, progress: Progress) -> tuple[Plan, DonorPlan | None, int | None]:
        """The plan, the plan again if it can fill skipped places, and its number of samples."""
        if self._is_stream:
            ended = [number for number, each in enumerate(progress.streams) if each.ended]
            turns = StreamTurns(
                len(progress.streams), max(1, self._seats), turn=progress.turn, ended=ended
            )
            return turns, None, length_of(self.dataset)
        # The function may seed each worker in its own way: then which one makes a batch counts.
        seats = self.num_workers if self.worker_init_fn is not None and self.in_order else 0
        planned = length_of(self.sampler if self.batch_size is not None else self.dataset)
        tolerant = self._policy.tolerant or progress.donated
        if tolerant and self.batch_size is not None and planned is not None:
            refilling = RefillingBatches(
                self.sampler,
                self.batch_size,
                drop_last=self.drop_last,
                first=progress.passed,
                passed=progress.beyond,
                donated=progress.donated,
                seats=seats,
            )
            # It has the whole order at once.
            progress.started = True
            return refilling, refilling, refilling.planned
        done = self._checkpoint.resume_sampler()
        given = GivenBatches(
            self._checkpoint.watch(
                self.sampler if self.batch_sampler is None else self.batch_sampler
            ),
            batched=self.batch_sampler is not None,
            skip=progress.passed - done,
            first=progress.passed,
            snapshot=self._checkpoint.snapshot,
            every=self.snapshot_every_n_steps,
            seats=seats,
        )
        return given, None, planned

    @property
    def _snapshot_every(self) -> int:
        if not self._keeps_states:
            return 0
        # What a map-style dataset was asked for is not asked for again, so that nothing would
        # bring an older state up to date.
        return self.snapshot_every_n_steps if self._is_stream else 1

    @property
    def _seats(self) -> int:
        """Workers that have something to do."""
        streams = self._checkpoint.streams
        return self.num_workers if streams is None else min(self.num_workers, max(1, streams))

    def _make_checkpoint(self) -> Checkpoint:
        return Checkpoint(
            self.dataset,
            draws=self.seed is None,
            redraws=not self.persistent_workers,
            streams=self.num_workers if self._is_stream else None,
            keeps=self._keeps_states,
        )

    def _memory(self) -> Checkpoint:
        """The loader's memory, with what the order is drawn from now."""
        samplers = [part for part in (self.batch_sampler, self.sampler) if part is not None]
        self._checkpoint.look_at([] if self._is_stream else samplers, self.generator)
        return self._checkpoint

    def _identity(self) -> Identity:
        """What a state has to agree with."""
        grouped = self.batch_size is None and self.batch_sampler is not None
        ordering: object = self.batch_sampler if grouped else self.sampler
        return Identity(
            kind="iterable" if self._is_stream else "map",
            length=length_of(self.dataset),
            samples=None if self._is_stream else length_of(ordering),
            batch_size=self.batch_size,
            drop_last=self.drop_last,
            sampler=type(ordering).__name__,
            seed=self.seed,
        )

    def _make_job(self, *, asks: bool) -> Job:
        mode: SampleErrorMode = "raise"
        if self._policy.tolerant:
            mode = "ask" if asks or callable(self._policy.on_error) else "drop"
        default = self.collate_fn is default_collate
        return Job(
            dataset=self.dataset,
            seats=self._seats,
            stream=self._is_stream,
            streams=self._checkpoint.streams,
            collate=self.collate_fn,
            default_collate=default,
            batched=self.batch_sampler is not None,
            batch_size=self.batch_size or 1,
            drop_last=self.drop_last,
            worker_init_fn=self.worker_init_fn,
            sample_errors=mode,
            # A program may have told `default_collate` what to do with None.
            none_is_error=mode != "raise" or (default and type(None) not in default_collate_fn_map),
            own_randomness=self.worker_init_fn is None or not self.num_workers,
            snapshot_every=self._snapshot_every,
        )

    def _get_engine(self, seed: int, job: Job) -> tuple[Engine, Callable[[], None]]:
        """An engine that is started, and what to call when the epoch is over."""
        if not self.num_workers:
            inline = InlineEngine(job, seed=seed)
            return inline, inline.close
        if self._engine is not None and not self._engine.is_ours:
            # This process was forked since: its parent goes on with these workers.
            self._engine = None
        if self._engine is not None:
            previous = self._run() if self._run is not None else None
            if previous is not None:
                previous.close()
            if not self._checkpoint.took_up:
                return self._engine, _nothing
            # Its copies of the dataset have gone on from where the loaded state is, and the
            # streams may be others.
            self._end_engine()
            self._engine = None
        engine = ProcessEngine(job, context=self.multiprocessing_context, seed=seed)
        engine.start()
        if not self.persistent_workers:
            return engine, engine.close
        self._engine = engine
        self._end_engine = weakref.finalize(self, engine.close)
        return engine, _nothing


def _nothing() -> None:
    """Persistent workers outlive the epoch."""
