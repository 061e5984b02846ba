"""What `num_workers="auto"` means for one loader: how many workers, and whether they may change.

The batches of a loader are the same however many workers make them. Where they would not be, one
number is chosen once, and kept.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, overload

from torch.utils.data import IterableDataset, IterDataPipe

from penstock.checkpoint import has_state
from penstock.engines.chooser import Chooser
from penstock.engines.processors import usable_processors
from penstock.engines.sharing import names_worker
from penstock.options import AUTO

# More are started only where the loop was seen to wait for these: each takes memory, and time to
# start.
FIRST_WORKERS = 16
# Of a loader: what only workers can keep to; where it has how many there are, and who chooses.
_NEED_WORKERS = ("timeout", "sample_timeout", "memory_budget")
_NAME, _CHOOSER = "num_workers", "_chooser"


def make_chooser(
    dataset: Any,
    *functions: object,
    needs_workers: Mapping[str, object] | None = None,
    init_fn: object = None,
    stays: bool = False,
) -> Chooser:
    """What chooses for a loader.

    Args:
        dataset: the loader's.
        functions: what else makes its batches; None stands for none.
        needs_workers: arguments that only workers can keep to, by name; of no account if unset.
        init_fn: what is called in each worker, or None.
        stays: whether workers live on between epochs.
    """
    if isinstance(dataset, IterDataPipe):
        why = "only torch's own loader divides a DataPipe among workers"
        return Chooser(0, why, is_bound=True)
    if isinstance(dataset, IterableDataset):
        why = "what an iterable dataset gives depends on their number, which is yours to say"
        return Chooser(1, why, is_bound=True)
    count, why = _processors()
    first = min(count, FIRST_WORKERS)
    given = [name for name, value in (needs_workers or {}).items() if value]
    bound = None
    if init_fn is not None:
        bound = "worker_init_fn may have each make other samples"
    elif has_state(dataset):
        bound = "each has a copy of the dataset with a state of its own"
    elif given:
        bound = f"{given[0]}= needs workers"
    elif names_worker(dataset, *functions):
        bound = "the dataset asks for get_worker_info()"
    if bound is not None:
        return Chooser(first, f"{why}; it stays so: {bound}", is_bound=True)
    return Chooser(count, why, first=first, stays=stays)


class WorkerCount:
    """The attribute `num_workers` of a loader: an int, as programs and frameworks read it.

    What was given is in the loader's `__dict__`, "auto" too: there those find it that take a loader
    apart to make another alike. An attribute that is set is as good as an argument.
    """

    @overload
    def __get__(self, loader: None, kind: type) -> WorkerCount: ...
    @overload
    def __get__(self, loader: Any, kind: type) -> int: ...
    def __get__(self, loader: Any, kind: type) -> WorkerCount | int:
        """Worker processes; with "auto" those that there are, or will be next."""
        if loader is None:
            return self
        chooser = chooser_of(loader)
        count: int = loader.__dict__[_NAME] if chooser is None else chooser.workers
        return count

    def __set__(self, loader: Any, count: int | Literal["auto"]) -> None:
        """Sets it, for the epochs to come."""
        loader.__dict__.update({_NAME: count, _CHOOSER: None})


def keep_chooser(loader: Any, chooser: Chooser) -> None:
    """Has a loader's `num_workers` be "auto"."""
    loader.__dict__.update({_NAME: AUTO, _CHOOSER: chooser})


def chooser_of(loader: Any) -> Chooser | None:
    """What chooses how many workers a loader has; None: nothing, a number was given."""
    attributes = loader.__dict__
    if attributes[_NAME] != AUTO:
        return None
    if attributes[_CHOOSER] is None:
        # A copy's, or of a loader that was told so after it was made.
        attributes[_CHOOSER] = make_chooser(
            loader.dataset,
            loader.collate_fn,
            needs_workers={name: attributes[name] for name in _NEED_WORKERS},
            init_fn=loader.worker_init_fn,
            stays=loader.persistent_workers,
        )
    chooser: Chooser = attributes[_CHOOSER]
    return chooser


def _processors() -> tuple[int, str]:
    """Workers that can compute at once, and why they are as many."""
    count = usable_processors()
    # As torchrun, and Accelerate, tell each process how many there are on its machine.
    told = os.environ.get("LOCAL_WORLD_SIZE", "")
    ranks = int(told) if told.isdigit() else 1
    plural = "" if count == 1 else "s"
    if ranks <= 1:
        return count, f"this process may use {count} processor{plural}"
    return max(1, count // ranks), f"{ranks} processes share {count} processor{plural}"
