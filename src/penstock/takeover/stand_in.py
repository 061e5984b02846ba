"""One epoch of a loader of torch's, by penstock.

For an epoch, or for all of them with persistent workers, a `penstock.DataLoader` is made of the
attributes that the loader has by then, with the very sampler, generator and functions of it.
"""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import DataLoader as TorchDataLoader
from torch.utils.data import IterableDataset, IterDataPipe, MapDataPipe

from penstock.engines.launch import warm_up
from penstock.epoch import EpochRun
from penstock.errors import OptionError, SerializationError
from penstock.loader import DataLoader
from penstock.observe import Statistics
from penstock.options import DEFAULT_PREFETCH
from penstock.takeover.account import Account
from penstock.takeover.place import Place, calling_place

_log = logging.getLogger("penstock")

# A subclass that has its own of these gives batches in another way than torch's class does.
_MACHINERY = ("_get_iterator", "_index_sampler", "_auto_collation")


class StandIn(DataLoader[Any]):
    """A penstock loader with the attributes of a loader of torch's.

    Args:
        loader: torch's.

    Raises:
        OptionError: penstock refuses what torch takes.
    """

    _keeps_states = False

    def __init__(self, loader: TorchDataLoader[Any]) -> None:
        workers = loader.num_workers
        grouped = loader.batch_sampler is not None
        arguments: dict[str, Any] = {"batch_size": None, "sampler": loader.sampler}
        if isinstance(loader.dataset, IterableDataset):
            arguments = {"batch_size": loader.batch_size, "drop_last": loader.drop_last}
        elif grouped:
            arguments = {"batch_sampler": loader.batch_sampler}
        if workers:
            # Without workers, torch takes these and leaves them alone.
            arguments |= {
                "timeout": loader.timeout,
                "multiprocessing_context": loader.multiprocessing_context,
                # What torch takes where the program has said nothing is ours to choose as well.
                "prefetch_factor": None
                if loader.prefetch_factor == DEFAULT_PREFETCH
                else loader.prefetch_factor,
                "persistent_workers": loader.persistent_workers,
            }
        super().__init__(
            loader.dataset,
            num_workers=workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            worker_init_fn=loader.worker_init_fn,
            generator=loader.generator,
            pin_memory_device=loader.pin_memory_device,
            in_order=loader.in_order,
            **arguments,
        )

    def check_worker_number_rationality(self) -> None:
        """Says nothing: the loader has warned of too many workers when it was made."""

    def begin(self) -> tuple[Iterator[Any], _WatchedEpoch]:
        """Begins an epoch, and watches it."""
        iterator = iter(self)
        run = self._workers.run
        if run is None:
            raise RuntimeError("an iterator that was begun keeps its epoch")
        return iterator, _WatchedEpoch(run)


class _WatchedEpoch:
    """The figures of an epoch, which outlive it.

    Args:
        run: the epoch.
    """

    def __init__(self, run: EpochRun) -> None:
        self._run = weakref.ref(run)
        self._recorder = run.recorder
        self._skipped: Sequence[object] = run.skipped
        # The arena alone: an engine would keep the dataset.
        self._arena = run.arena

    def statistics(self) -> Statistics:
        """See `penstock.takeover.account.Epoch`."""
        return self._recorder.snapshot(len(self._skipped))

    def shared_bytes(self) -> int:
        """See `penstock.takeover.account.Epoch`."""
        return 0 if self._arena is None else self._arena.capacity_bytes

    def is_over(self) -> bool:
        """See `penstock.takeover.account.Epoch`."""
        return self._run() is None


class _Known:
    """What is known of a loader of torch's.

    Args:
        loader: the loader.
        place: what made it.
    """

    def __init__(self, loader: TorchDataLoader[Any], place: Place) -> None:
        key = id(loader)
        self.loader = weakref.ref(loader, lambda _: _known.pop(key, None))
        self.place = place
        self.told: weakref.WeakSet[Account] = weakref.WeakSet()
        # With persistent workers: the one that has them, and what iterates it.
        self.stand_in: StandIn | None = None
        self.iterator: weakref.ref[Iterator[Any]] | None = None
        # Why torch has it, once penstock has refused it.
        self.refused: str | None = None

    def tell(self, accounts: Sequence[Account]) -> None:
        """Has each account count the loader once."""
        for account in accounts:
            if account not in self.told:
                self.told.add(account)
                account.add_loader(self.place)


# By identity: a program's own class of loaders may define what is equal.
_known: dict[int, _Known] = {}


def note(loader: TorchDataLoader[Any], accounts: Sequence[Account]) -> None:
    """A loader was made.

    Args:
        loader: torch's, or one of ours, which is left alone.
        accounts: what counts it.
    """
    if isinstance(loader, DataLoader):
        return
    known = _known[id(loader)] = _Known(loader, calling_place())
    known.tell(accounts)
    if loader.num_workers and loader.multiprocessing_context is not None:
        # As `penstock.DataLoader` does: the fork server comes up while the program goes on. If it
        # cannot, the loader will say so once it is iterated.
        with contextlib.suppress(OSError):
            warm_up(loader.multiprocessing_context)


def begin(
    loader: TorchDataLoader[Any],
    by_torch: Callable[[TorchDataLoader[Any]], Iterator[Any]],
    accounts: Sequence[Account],
) -> Iterator[Any]:
    """Begins an epoch of a loader.

    Args:
        loader: torch's.
        by_torch: torch's own `__iter__`, for what penstock cannot do.
        accounts: what counts it.

    Returns:
        The iterator.
    """
    if isinstance(loader, DataLoader):
        return by_torch(loader)
    known = _known.get(id(loader))
    if known is None:
        known = _known[id(loader)] = _Known(loader, calling_place(iterated=True))
    known.tell(accounts)
    reason = known.refused or _why_not(loader)
    if reason is None:
        begun = _try_begin(loader, known)
        if begun is not None:
            iterator, epoch = begun
            for account in accounts:
                account.add_epoch(known.place, epoch)
            return iterator
        reason = known.refused or ""
    news = [account.add_left(known.place, reason) for account in accounts]
    if any(news):
        _log.warning(
            "torch's own DataLoader is used in place of penstock's, for the one made at %s: %s",
            known.place,
            reason,
        )
    return by_torch(loader)


def let_go() -> None:
    """Ends the persistent workers of loaders of torch's, save where their epoch goes on."""
    for known in _known.copy().values():
        # One that is iterated lives as long as its iterator does.
        known.stand_in = None


def _why_not(loader: TorchDataLoader[Any]) -> str | None:
    """What makes a loader one that only torch can iterate, if anything does."""
    for owner in (loader, *type(loader).__mro__):
        if owner is TorchDataLoader:
            break
        for name in _MACHINERY:
            if name in vars(owner):
                return f"{type(loader).__qualname__} has its own {name}"
    if isinstance(loader.dataset, (IterDataPipe, MapDataPipe)):
        return "its dataset is a DataPipe, which torch's loader divides among workers itself"
    if loader._iterator is not None:
        return "its persistent workers are torch's, from before penstock was installed"
    return None


def _try_begin(
    loader: TorchDataLoader[Any], known: _Known
) -> tuple[Iterator[Any], _WatchedEpoch] | None:
    """Begins an epoch; None: penstock refuses, and `known.refused` says why."""
    generator = torch.default_generator if loader.generator is None else loader.generator
    before = generator.get_state()
    try:
        stand_in = known.stand_in
        if stand_in is None:
            stand_in = StandIn(loader)
        # What `len()` has claimed of an iterable dataset, which a warning holds it to.
        stand_in._IterableDataset_len_called = loader._IterableDataset_len_called
        iterator, epoch = stand_in.begin()
    except (OptionError, SerializationError) as error:
        # torch draws its seed from there as if nothing had been.
        generator.set_state(before)
        known.refused = str(error)
        return None
    if known.iterator is None or known.iterator() is not iterator:
        # A loop may hold the iterator alone, and the workers end with the stand-in.
        weakref.finalize(iterator, _outlived, stand_in).atexit = False
    if stand_in.persistent_workers:
        known.stand_in, known.iterator = stand_in, weakref.ref(iterator)
    return iterator, epoch


def _outlived(_: StandIn) -> None:
    """Nothing has to be done: that it was kept until now is all."""
