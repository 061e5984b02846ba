"""What can be combined, and how: checked before any worker starts."""

from __future__ import annotations

import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from fractions import Fraction
from typing import Any, Literal, TypeAlias, get_args

from torch.utils.data import DataLoader, IterableDataset

from penstock.errors import OptionError
from penstock.options import length_of

Mode: TypeAlias = Literal["ready", "round_robin", "longest", "shortest"]
Weights: TypeAlias = Mapping[Any, float] | Sequence[float]


def check_mode(mode: object) -> None:
    """Raises `OptionError` unless it is a mode."""
    if mode not in get_args(Mode):
        raise OptionError(f"mode={mode!r}: give one of {', '.join(map(repr, get_args(Mode)))}")


def named_loaders(loaders: object) -> list[tuple[Any, Any]]:
    """The loaders with their names, which are positions where they were not named."""
    if isinstance(loaders, Mapping):
        named = list(loaders.items())
    elif isinstance(loaders, Sequence) and not isinstance(loaders, (str, bytes)):
        named = list(enumerate(loaders))
    else:
        raise OptionError(
            f"loaders={type(loaders).__name__}: give several, as a dict by name or as a list"
        )
    if not named:
        raise OptionError(f"loaders={loaders!r}: there is none; give at least one loader")
    return named


def shares_of(weights: object, names: Sequence[Any]) -> list[Fraction]:
    """The weights in the order of the loaders, exactly as they are written."""
    if weights is None:
        return [Fraction(1)] * len(names)
    if isinstance(weights, Mapping):
        if set(weights) != set(names):
            raise OptionError(
                f"weights={weights!r}: give one for each of the loaders {list(names)!r}, by the "
                "same names"
            )
        values = [weights[name] for name in names]
    elif isinstance(weights, Sequence) and not isinstance(weights, (str, bytes)):
        values = list(weights)
        if len(values) != len(names):
            raise OptionError(
                f"weights={weights!r}: there are {len(values)} for {len(names)} loaders; give one "
                "for each"
            )
    else:
        raise OptionError(f"weights={weights!r}: give numbers, as a dict by name or as a list")
    return [_share(name, value) for name, value in zip(names, values, strict=True)]


def _share(name: object, weight: object) -> Fraction:
    real = isinstance(weight, numbers.Real) and not isinstance(weight, bool)
    if not real or not math.isfinite(weight) or weight <= 0:  # type: ignore[arg-type, operator]
        raise OptionError(
            f"weights[{name!r}]={weight!r}: a weight is a positive number; leave out a loader that "
            "should have no turns"
        )
    # What 0.1 means is a tenth, and not the binary fraction next to it.
    return Fraction(str(float(weight)))  # type: ignore[arg-type]


def check_loader(name: object, loader: Any, mode: Mode, others: Iterable[object]) -> None:
    """Checks one loader.

    Args:
        name: the loader's.
        loader: the loader.
        mode: how the loaders are combined.
        others: those named before it.
    """
    if not isinstance(loader, Iterable):
        raise OptionError(
            f"loaders[{name!r}]={type(loader).__name__} cannot be iterated; give a loader: for a "
            "dataset, penstock.DataLoader(dataset, …)"
        )
    persistent = isinstance(loader, DataLoader) and loader.persistent_workers
    if persistent and any(loader is other for other in others):
        raise OptionError(
            f"loaders[{name!r}]={type(loader).__name__} is there twice, and has persistent_workers="
            "True: its workers serve one iterator at a time. Make a second loader, or set "
            "persistent_workers=False"
        )
    # To ask a loader of a stream for its length would hold the stream to what it answers.
    stream = isinstance(loader, DataLoader) and isinstance(loader.dataset, IterableDataset)
    if mode == "longest" and not stream and length_of(loader) == 0:
        raise OptionError(
            f"loaders[{name!r}]={type(loader).__name__} is empty, so mode='longest' has nothing to "
            "repeat; leave it out, or choose another mode"
        )
