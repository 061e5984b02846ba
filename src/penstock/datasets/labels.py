"""Labels of images: given by sequence, by path or by function, kept in few objects."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import torch

from penstock.datasets.paths import PathTable
from penstock.errors import OptionError

LabelSource: TypeAlias = Iterable[Any] | Mapping[Any, Any] | Callable[[str], Any]


class LabelTable:
    """The label of each image, by number.

    A label comes back equal to what was given, numbers as Python's own. Numbers and truth values
    are kept in one array; strings as one array of numbers beside the list of different ones; an
    array or tensor as an array, whose rows come back as NumPy arrays. Other objects are kept as
    they are: each costs its own memory in every worker.

    Args:
        values: one label per image: an array, a tensor or a list.
    """

    __slots__ = ("_names", "_values")

    def __init__(self, values: npt.NDArray[Any] | list[Any]) -> None:
        self._names: list[str] | None = None
        self._values: npt.NDArray[Any] | list[Any] = values
        if isinstance(values, np.ndarray):
            return
        kinds = {type(value) for value in values}
        if kinds == {str}:
            number_of: dict[str, int] = {}
            numbers = [number_of.setdefault(value, len(number_of)) for value in values]
            self._names, self._values = list(number_of), np.array(numbers, np.uint32)
        elif len(kinds) == 1 and _packs(kind := kinds.pop()):
            packed = np.array(values)
            # Integers past 64 bits make an array of objects, or of floats: not the same labels.
            if packed.dtype.kind in ("iu" if kind is int else "biuf"):
                self._values = packed

    def __len__(self) -> int:
        return len(self._values)

    def __getitem__(self, number: int) -> Any:
        value = self._values[number]
        if self._names is not None:
            return self._names[int(value)]
        if isinstance(value, np.generic):
            return value.item()
        # A row is a view: a transform that writes to it would change the label for good.
        return value.copy() if isinstance(value, np.ndarray) else value

    @classmethod
    def collect(cls, labels: LabelSource, paths: PathTable) -> LabelTable:
        """Find the label of every path.

        Args:
            labels: one of three. A mapping from path to label; its paths may be `str`, `bytes` or
                `os.PathLike` and must be spelled as in `paths`; others in it are ignored. A
                function from path (`str`) to label, called once for each path, now. Or the
                labels themselves in the order of the paths; of a tensor or array of more than one
                dimension, the rows.
            paths: the images.

        Raises:
            OptionError: the labels are of no such kind, too few or too many, or a path has none.
        """
        if isinstance(labels, Mapping):
            return cls(_look_up(labels, paths))
        if isinstance(labels, (str, bytes, Set)) or not (
            callable(labels) or isinstance(labels, Iterable)
        ):
            raise OptionError(
                f"labels={labels!r} cannot label images; expected a sequence with one label per "
                "image, a dict from path to label, or a function from path to label"
            )
        values = labels if isinstance(labels, Iterable) else _call(labels, paths)
        table = cls(_as_values(values))
        if len(table) != len(paths):
            raise OptionError(
                f"labels has {len(table)} items for {len(paths)} images; it must have one per "
                "image, in the same order"
            )
        return table


def _packs(kind: type) -> bool:
    # Not subclasses: an IntEnum is to stay one.
    return kind in (bool, int, float) or issubclass(kind, np.generic)


def _as_values(values: Iterable[Any]) -> npt.NDArray[Any] | list[Any]:
    if isinstance(values, torch.Tensor):
        values = values.detach().cpu().numpy()
    if not isinstance(values, np.ndarray):
        return list(values)
    if values.ndim == 0:
        raise OptionError(
            f"labels is an array without dimensions ({values!r}); expected one label per image"
        )
    # A copy: the caller's array may change, and may be a small view that keeps a large one alive.
    return values.tolist() if values.dtype.kind in "OUS" else values.copy()


def _look_up(labels: Mapping[Any, Any], paths: PathTable) -> list[Any]:
    try:
        by_path = {os.fsencode(path): label for path, label in labels.items()}
    except TypeError as exc:
        raise OptionError(f"labels= is a mapping with a key that is not a path: {exc}") from exc
    encoded = [os.fsencode(path) for path in paths]
    missing = [os.fsdecode(path) for path in encoded if path not in by_path]
    if missing:
        raise OptionError(
            f"labels= has no label for {len(missing)} of {len(paths)} images, the first is "
            f"{missing[0]!r}; its keys must be the paths, spelled as source gives them"
        )
    return [by_path[path] for path in encoded]


def _call(label_of: Callable[[str], Any], paths: PathTable) -> list[Any]:
    values = []
    for path in paths:
        try:
            values.append(label_of(path))
        except Exception as exc:
            raise OptionError(
                f"the function given as labels= raised {type(exc).__name__}: {exc} for {path!r}; "
                "it must return a label for every path"
            ) from exc
    return values
