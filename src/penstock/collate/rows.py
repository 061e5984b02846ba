"""Large tensors' and arrays' way into a batch: each goes to its row as soon as its sample is there.

Stacked at the end, the samples of a batch would all have to be kept until then, each in memory of
its own, and be read again after the processor's caches have forgotten them. Copied at once, a
sample is read while it is still warm, and its memory serves the next one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from operator import is_
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

Allocate = Callable[[int], npt.NDArray[np.uint8]]

# Below either, placing a sample (7 µs) costs more than a warm cache saves: a small one does not
# fill the cache, and one that was had so quickly has not been made, only looked up.
LARGE_SAMPLE_BYTES = 1 << 16
SLOW_SAMPLE_S = 0.0001


class Rows:
    """The rows of one batch, for those parts of its samples that are large tensors or arrays.

    A part is the sample itself, or what a tuple, a list or a dict holds. What does not fit (another
    shape, another type) stays in its sample, and `stacked` then says None for that part.

    What a dataset has returned it must not change any more: the rows would not show it.

    Args:
        sample: the batch's first.
        count: the most samples that the batch may get.
        allocate: gives room for so many bytes, aligned for any dtype.
    """

    def __init__(self, sample: Any, count: int, allocate: Allocate) -> None:
        self._count = count
        self._kind = type(sample)
        self._parts: dict[Any, _TensorRows | _ArrayRows] = {}
        self._filled = 0
        try:
            for key, part in self._parts_of(sample):
                rows = _ROWS.get(type(part))
                if rows is not None and rows.suits(part) and part.nbytes >= LARGE_SAMPLE_BYTES:
                    self._parts[key] = rows(part, count, allocate)
        except Exception:
            # Too little memory, most likely. Stacking will meet it again, and it is told there.
            self._parts.clear()

    def __bool__(self) -> bool:
        """Whether there is anything to place."""
        return bool(self._parts)

    def restart(self) -> None:
        """Begins at the first row again: the samples are made anew."""
        self._filled = 0

    def place(self, sample: Any) -> Any:
        """The next sample, its large parts in their rows; the one given is left as it is."""
        number = self._filled
        self._filled += 1
        if number >= self._count:
            return sample

        def in_row(rows: _TensorRows | _ArrayRows, part: Any) -> Any:
            return rows.rows[number] if rows.take(part, number) else part

        return self._with_parts(sample, in_row)

    def withdraw(self, samples: list[Any]) -> list[Any]:
        """Samples like these, which were placed, in memory of their own."""
        lent = {id(row) for rows in self._parts.values() for row in rows.rows}

        def copied(_: object, part: Any) -> Any:
            if id(part) not in lent:
                return part
            # Not `deepcopy`, which for a tensor copies all rows of the part.
            return part.clone() if isinstance(part, torch.Tensor) else part.copy()

        return [self._with_parts(sample, copied) for sample in samples]

    def stacked(self, parts: Sequence[Any]) -> torch.Tensor | None:
        """The stack of these, N×shape, if they are the first N rows of a part; else None."""
        for rows in self._parts.values():
            if rows.rows[0] is parts[0]:
                if len(parts) <= self._count and all(map(is_, parts, rows.rows)):
                    return rows.whole[: len(parts)]
                return None
        return None

    def _parts_of(self, sample: Any) -> Iterable[tuple[Any, Any]]:
        """Pairs of a key and what the sample holds there."""
        if self._kind is dict:
            return sample.items()  # type: ignore[no-any-return]
        if self._kind is tuple or self._kind is list:
            return enumerate(sample)
        return ((None, sample),)

    def _with_parts(self, sample: Any, change: Callable[[Any, Any], Any]) -> Any:
        """A copy of the sample with its parts changed, if it is of the kind of the first."""
        kind = self._kind
        if type(sample) is not kind:
            return sample
        if kind is not dict and kind is not tuple and kind is not list:
            return change(self._parts[None], sample)
        parts: Any = dict(sample) if kind is dict else list(sample)
        for key, rows in self._parts.items():
            with suppress(LookupError):
                parts[key] = change(rows, parts[key])
        return tuple(parts) if kind is tuple else parts


class _TensorRows:
    """Room for one tensor of all samples, and the views of it that are its rows."""

    def __init__(self, first: torch.Tensor, count: int, allocate: Allocate) -> None:
        room = torch.from_numpy(allocate(count * first.nbytes))
        self.whole = room.view(first.dtype).view(count, *first.shape)
        self.rows: Sequence[Any] = self.whole.unbind(0)
        self._dtype, self._shape = first.dtype, first.shape

    @staticmethod
    def suits(tensor: torch.Tensor) -> bool:
        """Whether a tensor is one that may be stacked in plain memory."""
        return (
            tensor.layout is torch.strided
            and not tensor.is_nested
            and not tensor.requires_grad
            and not tensor.is_quantized
            and tensor.device.type == "cpu"
        )

    def take(self, part: Any, number: int) -> bool:
        """Copies a sample's part to its row; False if it does not fit there."""
        if type(part) is not torch.Tensor or part.dtype is not self._dtype or part.requires_grad:
            return False
        try:
            if part.shape != self._shape:
                return False
            # In one piece, where `copy_` would go by elements: two thirds of its time.
            torch.cat((part,), 0, out=self.rows[number])
        except RuntimeError:
            # Sparse, nested, or of another device, which costs more to ask than to try.
            return False
        return True


class _ArrayRows:
    """Room for one array of all samples, and the views of it that are its rows."""

    def __init__(self, first: npt.NDArray[Any], count: int, allocate: Allocate) -> None:
        array = allocate(count * first.nbytes).view(first.dtype).reshape(count, *first.shape)
        self.whole = torch.from_numpy(array)
        self.rows: Sequence[Any] = list(array)
        self._dtype, self._shape = first.dtype, first.shape

    @staticmethod
    def suits(array: npt.NDArray[Any]) -> bool:
        """Whether torch can take an array as it is."""
        if array.dtype.kind not in "biufc" or not array.dtype.isnative or not _is_even(array):
            return False
        try:
            torch.from_numpy(np.empty(0, array.dtype))
        except TypeError:
            return False
        return True

    def take(self, part: Any, number: int) -> bool:
        """Copies a sample's part to its row; False if it does not fit there."""
        if (
            type(part) is not np.ndarray
            or part.dtype != self._dtype
            or part.shape != self._shape
            or not _is_even(part)
        ):
            return False
        np.copyto(self.rows[number], part)
        return True


def _is_even(array: npt.NDArray[Any]) -> bool:
    """Whether its elements lie as a tensor's may: forward, and whole elements apart."""
    size = array.itemsize
    return all(stride >= 0 and stride % size == 0 for stride in array.strides)


_ROWS: dict[type, Any] = {torch.Tensor: _TensorRows, np.ndarray: _ArrayRows}
