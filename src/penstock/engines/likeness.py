"""Whether a stream that is run again gives the same samples: seen by what they look like.

A stream goes on, where its worker died, from the place that it had come to, and finds that place by
being run again. If it gives other samples then, none would be lost or doubled as far as anybody
could tell, and yet they would be. So the last sample before that place is compared with the one
that was there before: a shuffle without a seed is found by that, with near certainty.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from zlib import crc32

import numpy as np
import numpy.typing as npt
import torch

# What is looked at of each part: it is done for one sample of a batch, in microseconds.
_ELEMENTS = 16
_BYTES = 256
_PARTS = 8
_DEPTH = 4

UNKNOWN = 0


def likeness(sample: object) -> int:
    """A number that is the same for equal samples, and hardly ever for others.

    Returns:
        From 1 to 2**32 - 1; `UNKNOWN` where a sample cannot be looked at.
    """
    try:
        return crc32(repr(_sketch(sample, _DEPTH)).encode(errors="replace")) or 1
    except Exception:
        return UNKNOWN


def _sketch(part: Any, depth: int) -> object:
    """What of a sample is looked at: values where they are small, else kinds and beginnings."""
    if part is None or isinstance(part, (bool, int, float, complex)):
        return part
    if isinstance(part, (str, bytes, bytearray)):
        return len(part), part[:_BYTES]
    if isinstance(part, torch.Tensor):
        if part.dtype is torch.bfloat16:
            part = part.view(torch.int16)
        try:
            array = part.detach().numpy()
        except (TypeError, RuntimeError):  # A dtype, layout or device that NumPy does not know.
            return str(part.dtype), tuple(part.shape)
        return "tensor", array.dtype.str, array.shape, _beginning(array)
    if isinstance(part, (np.ndarray, np.generic)):
        array = np.asarray(part)
        return array.dtype.str, array.shape, _beginning(array)
    if depth and isinstance(part, Mapping):
        some = list(part.items())[:_PARTS]
        return len(part), [(str(key), _sketch(value, depth - 1)) for key, value in some]
    if depth and isinstance(part, Sequence):
        return len(part), [_sketch(value, depth - 1) for value in part[:_PARTS]]
    return type(part).__qualname__


def _beginning(array: npt.NDArray[Any]) -> bytes:
    """The first elements, without a copy of others."""
    if array.dtype.hasobject or not array.size:
        return b""
    # The first row: other ways to flatten an array copy all of it, where it is not contiguous.
    row = array[(0,) * (array.ndim - 1)] if array.ndim else array.reshape(1)
    return row[:_ELEMENTS].tobytes()
