"""Accelerate: the loaders that it makes of Penstock's are Penstock's too, with their options.

`Accelerator.prepare` and `skip_first_batches` take a loader apart, and build another, of torch's
class:

    our loader ──its attributes──> accelerate.data_loader ──as arguments──> DataLoader(...)

One of those attributes, `pin_memory_device`, is told to that module, and to no other, as a text
that also knows how to make the loader again. What the module calls to build one looks for it there.
So nothing of Accelerate is touched until it takes a loader of ours apart, and what it makes of
others, or of ours in another way than is known here, stays torch's.
"""

from __future__ import annotations

import functools
import inspect
import sys
import warnings
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from torch.utils.data import DataLoader as TorchDataLoader

_PACKAGE = "accelerate"
_STATEFUL = "use_stateful_dataloader"

# Makes a loader of torch's arguments; None: there are some that it does not know.
Make = Callable[..., TorchDataLoader[Any] | None]

# Modules that build loaders in a way that is not known here, and were warned of.
_strange: set[str] = set()


class Remaking(str):
    """A loader's `pin_memory_device`, which knows how to make the loader again.

    Args:
        device: as given to the loader.
        make: makes a loader with the options of this one that torch's lack.
    """

    __slots__ = ("make",)

    make: Make

    def __new__(cls, device: str, make: Make) -> Remaking:
        """The device."""
        text = super().__new__(cls, device)
        text.make = make
        return text

    def __reduce__(self) -> tuple[Any, ...]:
        return str, (str(self),)


def device_for(reader: str, device: str, make: Make) -> str:
    """What a module is told that reads a loader's `pin_memory_device`.

    Args:
        reader: the module's name.
        device: as given to the loader.
        make: see `Remaking`.

    Returns:
        The device; where the module is Accelerate's, and now builds loaders by `make`, as a
        `Remaking`.
    """
    if reader.partition(".")[0] != _PACKAGE:
        return device
    module = sys.modules.get(reader)
    if module is not None and _joins(module):
        return Remaking(device, make)
    _warn_of(reader)
    return device


def check_order(samplers: Iterable[Any]) -> None:
    """Warns where Accelerate has put a sampler of its own in the place of a loader's.

    It does so behind the making of the loader, in the batch sampler.

    Args:
        samplers: of a loader with a seed.
    """
    if any(type(part).__name__ == "SeedableRandomSampler" for part in samplers):
        warnings.warn(
            "Accelerate has put its SeedableRandomSampler in the place of the order that follows "
            "from the loader's seed=; to keep that, give Accelerator a "
            "DataLoaderConfiguration(use_seedable_sampler=False), or the Trainer "
            "accelerator_config={'use_seedable_sampler': False}",
            stacklevel=3,
        )


def _warn_of(reader: str) -> None:
    if reader in _strange:
        return
    _strange.add(reader)
    version = getattr(sys.modules.get(_PACKAGE), "__version__", "of an unknown version")
    warnings.warn(
        f"Accelerate {version} ({reader}) makes loaders in a way that this Penstock does not "
        "know: what it makes of a penstock.DataLoader is torch's loader, without seed=, on_error=, "
        "max_skipped= and state_dict(). Have penstock run torch's loaders, by "
        "penstock.install(), or leave this one out of prepare()",
        # The line that called Accelerate is some frames up; how many is Accelerate's business.
        stacklevel=3,
    )


def _joins(module: ModuleType) -> bool:
    """Has a module build loaders of ours by ours from here on; whether it could."""
    if isinstance(getattr(module, "DataLoader", None), _Building):
        return True
    adapter = getattr(module, "DataLoaderAdapter", None)
    if getattr(module, "DataLoader", None) is not TorchDataLoader or not isinstance(adapter, type):
        return False
    begin: Callable[..., None] = vars(adapter).get("__init__", object.__init__)
    try:
        parameters = list(inspect.signature(begin).parameters)
    except (TypeError, ValueError):
        return False
    if parameters[:3] != ["self", "dataset", _STATEFUL]:
        return False

    @functools.wraps(begin)
    def adapt(
        self: Any, dataset: Any, use_stateful_dataloader: bool = False, *args: Any, **kwargs: Any
    ) -> None:
        # torchdata's loader is for loaders without a state of their own.
        ours = isinstance(kwargs.get("pin_memory_device"), Remaking)
        begin(self, dataset, use_stateful_dataloader and not ours, *args, **kwargs)
        if ours:
            # By that Accelerate knows which loaders have states to be saved.
            setattr(self, _STATEFUL, use_stateful_dataloader)

    setattr(adapter, "__init__", adapt)  # noqa: B010
    setattr(module, "DataLoader", _BuiltByOrigin)  # noqa: B010
    _correct_states(getattr(module, "DataLoaderDispatcher", None))
    return True


def _correct_states(dispatcher: Any) -> None:
    """Has the state of a dispatched loader of ours be that behind the batches of the loop.

    A dispatcher fetches a batch for each process, one such group ahead of the loop, and notes the
    state before each of them. Accelerate corrects for that by figures which only the states of
    torchdata's loader have.
    """
    fetch = vars(dispatcher).get("_fetch_batches") if isinstance(dispatcher, type) else None
    if fetch is None:
        return

    @functools.wraps(fetch)
    def fetch_group(self: Any, iterator: Any) -> Any:
        # Other processes fetch nothing.
        if self.state.process_index or not isinstance(self.pin_memory_device, Remaking):
            return fetch(self, iterator)
        before = self.base_dataloader.state_dict()
        group = fetch(self, iterator)
        self.dl_state_dict = before
        return group

    setattr(dispatcher, "_fetch_batches", fetch_group)  # noqa: B010


class _Building(type):
    """Of `_BuiltByOrigin`: to call it makes a loader of another class."""

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls is not _BuiltByOrigin:
            return super().__call__(*args, **kwargs)
        device = kwargs.get("pin_memory_device")
        if isinstance(device, Remaking):
            kwargs["pin_memory_device"] = str(device)
            made = device.make(*args, **kwargs)
            if made is not None:
                return made
            _warn_of(_PACKAGE)
        return TorchDataLoader(*args, **kwargs)

    def __instancecheck__(cls, thing: Any) -> bool:
        if cls is not _BuiltByOrigin:
            return super().__instancecheck__(thing)
        return isinstance(thing, TorchDataLoader)

    def __subclasscheck__(cls, other: type) -> bool:
        if cls is not _BuiltByOrigin:
            return super().__subclasscheck__(other)
        return issubclass(other, TorchDataLoader)


class _BuiltByOrigin(TorchDataLoader[Any], metaclass=_Building):
    """What Accelerate calls in place of torch's class: still that, for all but ours."""
