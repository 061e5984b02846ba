"""Default collation, straight into the memory that the batch will travel in, if it will.

The rules are torch's (`torch.utils.data.default_collate` and the map of functions that programs
may extend); only the functions for tensors and for lists of plain numbers are replaced, and that
for tuples, and only as long as the program has not replaced them itself.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.utils.data._utils import collate as torch_collate

from penstock.collate.rows import SLOW_SAMPLE_S, Allocate, Rows
from penstock.errors import MemoryBudgetError

# A batch below this goes through the pipe, so it needs no place in a slot.
SMALL_BATCH_BYTES = 1 << 15


def programs_functions() -> dict[Any, Any]:
    """What the program has put into the map of torch's collate functions.

    `torch.utils.data.default_collate` uses them in this process alone, unless they are added to
    the map elsewhere as well.
    """
    return {
        kind: function
        for kind, function in torch_collate.default_collate_fn_map.items()
        if not _is_torchs(function)
    }


def add_functions(functions: dict[Any, Any]) -> None:
    """Puts the program's functions into the map of this process."""
    torch_collate.default_collate_fn_map.update(functions)


def _is_torchs(function: object) -> bool:
    return getattr(function, "__module__", None) == torch_collate.__name__


class SlotCollate:
    """`default_collate`, with tensors stacked where they will be read.

    Args:
        allocate: gives room for so many bytes, aligned for any dtype; None: the batch is read here,
            and its tensors have memory of their own.
    """

    def __init__(self, allocate: Allocate | None) -> None:
        self._allocate = allocate
        self._replaced: dict[Any, Any] = {
            torch.Tensor: (torch_collate.collate_tensor_fn, self._stack),
            int: (torch_collate.collate_int_fn, self._integers),
            float: (torch_collate.collate_float_fn, self._floats),
        }
        if allocate is not None:
            self._replaced[np.ndarray] = torch_collate.collate_numpy_array_fn, self._stack_arrays
        self._seen: dict[Any, Any] = {}
        self._functions: dict[Any, Any] = {}
        self._all_torchs = False
        self._knows_tuples = False
        self._rows: Rows | None = None

    def begin(self) -> None:
        """Begins a batch, before its first sample is made."""
        self._rows = None

    def rows(self, sample: Any, count: int, took_s: float) -> Rows | None:
        """Where to place the samples of the batch one by one; None where that does not pay.

        Args:
            sample: the first.
            count: the most that the batch may get.
            took_s: how long it took to make the first.
        """
        if self._allocate is None or (took_s < SLOW_SAMPLE_S and self._rows is None):
            return None
        if torch_collate.default_collate_fn_map != self._seen:
            self._choose()
        if not self._all_torchs:
            # A function of the program's may keep what it is given, but a row is lent.
            return None
        if self._rows is None:
            try:
                self._rows = Rows(sample, count, self._allocate)
            except MemoryBudgetError:
                # No sample's fault: it is met again, and told, where the batch is put together.
                return None
        else:
            self._rows.restart()
        return self._rows or None

    def __call__(self, samples: list[Any]) -> Any:
        """Collates samples; see `torch.utils.data.default_collate` for what becomes of what."""
        if torch_collate.default_collate_fn_map != self._seen:
            self._choose()
        if self._knows_tuples and type(samples[0]) is tuple:
            try:
                columns = list(zip(*samples, strict=True))
            except (TypeError, ValueError):
                # Not all of them are as long: torch's function says so.
                pass
            else:
                return [self._column(column) for column in columns]
        return torch_collate.collate(samples, collate_fn_map=self._functions)

    def _column(self, column: tuple[Any, ...]) -> Any:
        """What becomes of one element of each sample."""
        function = self._functions.get(type(column[0]))
        if function is not None:
            return function(column, collate_fn_map=self._functions)
        return torch_collate.collate(column, collate_fn_map=self._functions)

    def _choose(self) -> None:
        """Takes the program's functions as they are now, and ours for torch's own."""
        self._seen = dict(torch_collate.default_collate_fn_map)
        self._functions = dict(self._seen)
        self._all_torchs = all(map(_is_torchs, self._seen.values()))
        # Otherwise some function is asked before torch's rule for tuples.
        self._knows_tuples = not any(issubclass(tuple, kind) for kind in self._seen)
        for kind, (theirs, ours) in self._replaced.items():
            if self._seen.get(kind) is theirs:
                self._functions[kind] = ours

    def _stack(self, tensors: list[torch.Tensor], *, collate_fn_map: Any = None) -> torch.Tensor:
        """Stacks tensors to N×shape, in the slot where that pays."""
        if self._allocate is None:
            return _stack_as_torch(tensors, collate_fn_map)
        if self._rows is not None:
            stacked = self._rows.stacked(tensors)
            if stacked is not None:
                return stacked
        first = tensors[0]
        dtype, shape = first.dtype, first.shape
        size = len(tensors) * first.numel() * first.element_size()
        if (
            size < SMALL_BATCH_BYTES
            or first.is_nested
            or first.layout is not torch.strided
            or first.device.type != "cpu"
            or first.is_quantized
            or any(
                type(tensor) is not torch.Tensor
                or tensor.dtype != dtype
                or tensor.shape != shape
                or tensor.requires_grad
                for tensor in tensors
            )
        ):
            return _stack_as_torch(tensors, collate_fn_map)
        room = torch.from_numpy(self._allocate(size))
        out = room.view(dtype).view(len(tensors), *shape)
        return torch.stack(tensors, 0, out=out)

    def _stack_arrays(self, arrays: list[Any], *, collate_fn_map: Any = None) -> Any:
        """Stacks arrays to a tensor, N×shape; torch's function does, unless they are in rows."""
        stacked = None if self._rows is None else self._rows.stacked(arrays)
        if stacked is not None:
            return stacked
        return torch_collate.collate_numpy_array_fn(arrays, collate_fn_map=collate_fn_map)

    def _integers(self, numbers: Sequence[int], *, collate_fn_map: Any = None) -> torch.Tensor:
        """A tensor of ints; an array reads a list eight times as fast as torch does."""
        if type(numbers[0]) is int:
            try:
                return self._own(torch.frombuffer(array("q", numbers), dtype=torch.int64))
            except (TypeError, OverflowError):
                # Something else among the ints, which is torch's to judge.
                pass
        return torch.tensor(numbers)

    def _floats(self, numbers: Sequence[float], *, collate_fn_map: Any = None) -> torch.Tensor:
        """A tensor of doubles, as torch makes of Python's floats."""
        try:
            return self._own(torch.frombuffer(array("d", numbers), dtype=torch.float64))
        except TypeError:
            return torch.tensor(numbers, dtype=torch.float64)

    def _own(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same; where it is read here, in memory that torch has allocated, and may resize.

        On the device, too, that the program has chosen for new tensors.
        """
        if self._allocate is not None:
            return tensor
        return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor)


def _stack_as_torch(tensors: list[torch.Tensor], collate_fn_map: Any) -> torch.Tensor:
    first = tensors[0]
    if first.is_nested or first.layout is not torch.strided:
        whole: torch.Tensor = torch_collate.collate_tensor_fn(
            tensors, collate_fn_map=collate_fn_map
        )
        return whole
    # torch's function would take shared memory of its own in a worker.
    return torch.stack(tensors, 0)
