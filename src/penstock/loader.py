"""The drop-in for `torch.utils.data.DataLoader`: what users meet, and no mechanism.

How an epoch follows from a loader's settings is in `beginning.py`.
"""

from __future__ import annotations

import copyreg
import inspect
import sys
import warnings
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import (
    Dataset,
    IterableDataset,
    IterDataPipe,
    Sampler,
)

from penstock.automatic import Choice, first_choice, next_choice
from penstock.beginning import (
    OwnSettings,
    begin_epoch,
    identity_of,
    make_memory,
    samplers_of,
)
from penstock.checkpoint import LoaderMemory, check_state
from penstock.engines.launch import warm_up
from penstock.engines.quarantine import Quarantine
from penstock.errors import OptionError, SampleError
from penstock.integrations import accelerate
from penstock.observe import Statistics, StatisticsRecorder
from penstock.options import (
    DEFAULT_MAX_RESTARTS,
    DEFAULT_PREFETCH,
    ErrorPolicy,
    OnError,
    Supervision,
    check_arguments,
    check_count,
    check_switch,
    check_worker_count,
)
from penstock.persistent import RenewedRun
from penstock.pinning import PinnedRun
from penstock.plan import SeededShuffle
from penstock.workers import Workers

T_co = TypeVar("T_co", covariant=True)


class DataLoader(TorchDataLoader[T_co]):
    """Loads a dataset in batches, with worker processes that survive, skip, and explain.

    Takes the arguments of `torch.utils.data.DataLoader`, with their meaning there, and these more:
    `seed`, `on_error`, `max_skipped`, `snapshot_every_n_steps`, `sample_timeout`,
    `memory_budget`, `max_restarts` and `share_dataset`.

    Args:
        dataset: map-style or iterable.
        batch_size: samples a batch; None hands over single samples.
        shuffle: whether the order is random, another one in each epoch.
        sampler: yields the index of each sample in turn.
        batch_sampler: yields the list of indices of each batch.
        num_workers: worker processes; 0 makes the samples in the training process. "auto" begins
            with one for each processor that this process may use, and looks behind each epoch at
            what it cost. Where the loop waited longer for batches than the training process would
            take for them, that makes all batches to come; where workers were idle, there are fewer.
            The attribute is then their number, and one that is set ends that. An iterable dataset
            has one worker, and the number stays where the batches might not be the same with
            another: see README.md, "How many workers".
        collate_fn: makes a batch of a list of samples.
        pin_memory: whether batches are copied to page-locked memory, for transfers to a GPU.
        drop_last: whether an incomplete last batch is left out.
        timeout: seconds that `next()` waits for a batch; 0 waits for ever.
        worker_init_fn: called in each worker with its number. With it, random numbers
            are seeded for each worker as torch does, and not for each sample.
        multiprocessing_context: the start method, or a context of `multiprocessing`.
        generator: draws the order and the base seed.
        prefetch_factor: batches on their way for each worker. Unless given it begins with 2, and
            grows, up to 32 and an eighth of the memory there is, while workers would be idle
            otherwise: where samples take unlike times, or next to none.
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
        sample_timeout: seconds that one sample may take in a worker; None for any time. When it
            takes longer, its Python stack is kept, its worker ended, and it counts as a bad sample
            with the error `SampleTimeout`, for `on_error` to decide on. Of samples that the dataset
            gives at once (`__getitems__`), the batch has so many times as long, and the one that
            holds it up is then searched for. A stream cannot go on behind such a sample: it is
            tried a second time, and then the epoch ends with the error.
        memory_budget: bytes of shared memory that batches may take, on their way and kept by the
            program, with the copies that are made of those; None for what the machine, and the
            limit of its control group, leave. With less than all workers need, some wait until
            others' batches were handed over; a batch that does not fit beside those that the
            program keeps, one at least in a loop, raises `MemoryBudgetError`. Needs workers.
        max_restarts: how many workers that died are replaced in an epoch: at once, or, where many
            die in a row and no batch comes in between, after up to 5 seconds. One more death
            raises `WorkerDiedError`; with 0 the first does.
        share_dataset: whether workers have large lists in the dataset, of strings, bytes, numbers
            or tuples of those, as one copy in shared memory, which behaves as a list. False: as
            in torch, each has its own.

    Raises:
        OptionError: an argument cannot be used as given; it is a `ValueError`.
        ValueError: arguments that torch refuses, with its own text.
    """

    # Whether Accelerate has made it of another, and might have given it another order since.
    _is_remade = False
    # Whether anybody could ask for a state: `penstock.takeover` has loaders that nobody knows of.
    _keeps_states = True

    def __init__(
        self,
        dataset: Dataset[T_co],
        batch_size: int | None = 1,
        shuffle: bool | None = None,
        sampler: Sampler[Any] | Iterable[Any] | None = None,
        batch_sampler: Sampler[list[Any]] | Iterable[list[Any]] | None = None,
        num_workers: int | Literal["auto"] = 0,
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
        sample_timeout: float | None = None,
        memory_budget: int | None = None,
        max_restarts: int = DEFAULT_MAX_RESTARTS,
        share_dataset: bool = True,
    ) -> None:
        ErrorPolicy(on_error, max_skipped)  # Refuses what cannot be one.
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
        supervision = Supervision(max_restarts, sample_timeout, memory_budget)
        # How many "auto" means follows from what the loader has, once it has it.
        some = 1 if isinstance(num_workers, str) else num_workers
        supervision.check_workers("num_workers", some)
        if some and isinstance(dataset, IterDataPipe):
            raise OptionError(
                f"dataset={type(dataset).__name__}(…) is a DataPipe, which only torch's own loader "
                "divides among its workers; give num_workers=0, or read it in an IterableDataset "
                "that splits itself by get_worker_info()"
            )
        self._chooses_prefetch = prefetch_factor is None
        self.seed = seed
        self.on_error = on_error
        self.max_skipped = max_skipped
        self.sample_timeout = sample_timeout
        self.memory_budget = memory_budget
        self.max_restarts = max_restarts
        self.share_dataset = check_switch("share_dataset", share_dataset)
        self.snapshot_every_n_steps = check_count(
            "snapshot_every_n_steps",
            1 if snapshot_every_n_steps is None else snapshot_every_n_steps,
            least=1,
            remedy="1 keeps a state behind each batch",
        )
        self._workers = Workers()
        self._renewed: weakref.ref[RenewedRun] | None = None
        self._skipped: list[SampleError] = []
        self._quarantine = Quarantine()
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
            some,
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
        self.num_workers = num_workers
        self._remembered = make_memory(self, self._own)
        if some and self.multiprocessing_context is not None:
            # The fork server imports torch while the program goes on to build its model.
            warm_up(self.multiprocessing_context)

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Begins an epoch.

        Workers start, and work, from here on. Iterators are independent of each other; with
        persistent workers there is one, which goes on with the new epoch.
        """
        if self._is_remade and self.seed is not None:
            self._is_remade = False
            accelerate.check_order(self._memory().samplers)
        pins = self.pin_memory and torch.accelerator.is_available()
        if self.pin_memory and not pins:
            warnings.warn(
                "'pin_memory' argument is set as true but no accelerator is found, then device "
                "pinned memory won't be used.",
                stacklevel=2,
            )
        self._review_choice()
        run = begin_epoch(self, self._own, self._memory(), self._workers)
        self._skipped = run.skipped
        self._recorder = run.recorder
        iterator = PinnedRun(run, self.pin_memory_device) if pins else run
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
    def num_workers(self) -> int:
        """Worker processes: as many as were given, or as "auto" has come to."""
        count: int = self.__dict__["num_workers"]
        return count

    @num_workers.setter
    def num_workers(self, count: int | Literal["auto"]) -> None:
        self._choice: Choice | None = None
        if isinstance(check_worker_count("num_workers", count, remedy="0 uses none"), str):
            self._choose(first_choice(self))
        else:
            self.__dict__["num_workers"] = count

    def _review_choice(self) -> None:
        """Behind an epoch, has "auto" go by what that has cost."""
        self._workers.watches = self._choice is not None and not self._choice.is_final
        last = self._workers.run
        if self._choice is None or self._recorder is None or not (last is None or last.is_over):
            return
        choice = next_choice(
            self,
            self._choice,
            self.statistics(),
            memory=self._memory(),
            opened=self._workers.has_opened,
            harmful=bool(self._quarantine),
        )
        self._choose(choice)

    def _choose(self, choice: Choice) -> None:
        self._choice = choice
        self.__dict__["num_workers"] = choice.workers

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
            return Statistics(choice=str(self._choice or ""))
        return self._recorder.snapshot(len(self._skipped), str(self._choice or ""))

    def set_epoch(self, epoch: int) -> None:
        """Chooses the epoch that the next `iter()` begins; without it, each is one further.

        The sampler, the batch sampler, those that they wrap, and the dataset are told, if they have
        `set_epoch`: now, or within an epoch when the next one begins. So are the copies of the
        dataset in workers, also in persistent ones. They are told this number and no other: where
        the loader counts on by itself, nobody is told.

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
        return self._memory().state(identity_of(self, self._own), self._quarantine.state())

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
        identity = identity_of(self, self._own)
        quarantine = Quarantine.of_state(check_state(state_dict, identity)["quarantine"])
        kept = self._memory().load(state_dict, identity)
        self._quarantine = quarantine
        for part in kept:
            warnings.warn(
                f"this state is of a loader that was not told an epoch, and here the "
                f"{type(part).__name__} was told one by set_epoch(); it keeps that, since it has "
                "no attribute `epoch` to tell what it was before. Give another object to the "
                "loader, or call its set_epoch()",
                stacklevel=2,
            )

    def __reduce__(self) -> tuple[Any, ...]:
        """A copy begins with its own workers and an account of its own, at the same epoch.

        Not by a `__getstate__` of this class: before Python 3.11 others have none, and Accelerate's
        wrappers, which hand on what they lack, would be pickled with ours. That of a derived
        class is asked.
        """
        every: Any = getattr(object, "__getstate__", None)
        own: Any = getattr(type(self), "__getstate__", every)
        attributes: dict[str, Any] = self.__dict__ if own is every else own(self)
        state = {
            **attributes,
            "_workers": Workers(),
            "_renewed": None,
            "_recorder": None,
            "_skipped": [],
            "_quarantine": Quarantine(self._quarantine),
            "_remembered": self._remembered.copied(),
        }
        return copyreg.__newobj__, (type(self),), state  # type: ignore[attr-defined]

    def __setstate__(self, state: dict[str, Any]) -> None:
        copied = state.pop("_remembered")
        self.__dict__.update(state)
        self._remembered = make_memory(self, self._own)
        self._remembered.take_over(copied)

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
        chosen = self._choice if settings.get("num_workers") == self.num_workers else None
        if chosen is not None:
            # Beside none torch refuses what goes with workers.
            settings["num_workers"] = 1
        made: DataLoader[T_co] = DataLoader(
            *args,
            seed=self.seed,
            on_error=self.on_error,
            max_skipped=self.max_skipped,
            snapshot_every_n_steps=self.snapshot_every_n_steps,
            sample_timeout=self.sample_timeout,
            memory_budget=self.memory_budget,
            max_restarts=self.max_restarts,
            share_dataset=self.share_dataset,
            **settings,
        )
        if chosen is not None:
            made._choose(chosen)
        made._is_remade = True
        made._chooses_prefetch = self._chooses_prefetch
        made._quarantine = Quarantine(self._quarantine)
        made._remembered.take_over({**memory.copied(), "_loaded": None, "_follows": True})
        return made

    @property
    def _own(self) -> OwnSettings:
        return OwnSettings(
            self.seed,
            ErrorPolicy(self.on_error, self.max_skipped),
            Supervision(self.max_restarts, self.sample_timeout, self.memory_budget),
            self.snapshot_every_n_steps,
            keeps_states=self._keeps_states,
            quarantine=self._quarantine,
            # An attribute set since is as good as an argument.
            widens=self._chooses_prefetch and self.prefetch_factor == DEFAULT_PREFETCH,
            share_dataset=self.share_dataset,
        )

    def _memory(self) -> LoaderMemory:
        """The loader's memory, with what the order is drawn from now."""
        self._remembered.look_at(samplers_of(self), self.generator)
        return self._remembered
