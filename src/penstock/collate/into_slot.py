"""Default collation straight into the memory that the batch will travel in.

The rules are torch's (`torch.utils.data.default_collate` and the map of functions that programs may
extend); only the functions for tensors and for lists of plain numbers are replaced, and only as long
as the program has not replaced them itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data._utils import collate as torch_collate

Allocate = Callable[[int], npt.NDArray[np.uint8]]

# A batch below this goes through the pipe, so it needs no place in a slot.
SMALL_BATCH_BYTES = 1 << 15


class SlotCollate:
    """`default_collate`, with tensors stacked where they will be read.

    Args:
        allocate: gives room for so many bytes, aligned for any dtype.
    """

    def __init__(self, allocate: Allocate) -> None:
        self._allocate = allocate
        self._replaced: dict[Any, Any] = {
            torch.Tensor: (torch_collate.collate_tensor_fn, self._stack),
            int: (torch_collate.collate_int_fn, _integers),
            float: (torch_collate.collate_float_fn, _floats),
        }

    def __call__(self, samples: list[Any]) -> Any:
        """Collates samples; see `torch.utils.data.default_collate` for what becomes of what."""
        functions = dict(torch_collate.default_collate_fn_map)
        for kind, (theirs, ours) in self._replaced.items():
            if functions.get(kind) is theirs:
                functions[kind] = ours
        return torch_collate.collate(samples, collate_fn_map=functions)

    def _stack(self, tensors: list[torch.Tensor], *, collate_fn_map: Any = None) -> torch.Tensor:
        """Stacks tensors to N×shape, in the slot where that pays."""
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


def _stack_as_torch(tensors: list[torch.Tensor], collate_fn_map: Any) -> torch.Tensor:
    first = tensors[0]
    if first.is_nested or first.layout is not torch.strided:
        return torch_collate.collate_tensor_fn(tensors, collate_fn_map=collate_fn_map)
    # torch's function would take shared memory of its own in a worker.
    return torch.stack(tensors, 0)


def _integers(numbers: list[int], *, collate_fn_map: Any = None) -> torch.Tensor:
    """A tensor of ints or bools, through NumPy, which reads a list five times as fast."""
    try:
        array = np.array(numbers)
    except (ValueError, OverflowError):
        return torch.tensor(numbers)
    # Anything else that slipped among the numbers is torch's to judge.
    if array.dtype == np.int64 or array.dtype == np.bool_:
        return torch.from_numpy(array)
    return torch.tensor(numbers)


def _floats(numbers: list[float], *, collate_fn_map: Any = None) -> torch.Tensor:
    """A tensor of doubles, as torch makes of Python's floats."""
    try:
        array = np.array(numbers)
    except (ValueError, OverflowError):
        return torch.tensor(numbers, dtype=torch.float64)
    if array.dtype == np.float64 and array.ndim == 1:
        return torch.from_numpy(array)
    return torch.tensor(numbers, dtype=torch.float64)
