"""Pillow's images on their way: their pixels go past the pickle, as an array's do.

Pillow is not imported here: whoever has an image to send has done so.
"""

from __future__ import annotations

import ctypes
import pickle
import sys
from types import ModuleType
from typing import Any

import numpy as np

# Pillows before show an image as one piece of memory that is none: one that was made over memory of
# the program's own (`Image.fromarray`, `Image.frombuffer`), or whose rows are aligned. Whoever
# reads there reads something else, or crashes.
_TELLS_PIECES = (13,)

# As Pillow has images of these modes in memory, and in its "raw modes" for bytes of that layout.
_RAW_MODES = {"L": "L", "RGB": "RGBX", "RGBA": "RGBA", "CMYK": "CMYK"}


def pillow() -> ModuleType | None:
    """The module with the class of images, if the program uses it."""
    return sys.modules.get("PIL.Image")


def _version() -> tuple[int, ...]:
    """Pillow's, without what does not count."""
    text = str(getattr(sys.modules["PIL"], "__version__", ""))
    return tuple(int(part) for part in text.split(".")[:2] if part.isdecimal())


def reduce_image(image: Any) -> tuple[Any, ...]:
    """How to pickle an image that is of no class of its own."""
    raw_mode = _RAW_MODES.get(image.mode)
    if raw_mode is None or not all(image.size):
        return image.__reduce_ex__(5)  # type: ignore[no-any-return]
    try:
        pixels: Any = np.asarray(_Pixels(image))
    except (AttributeError, ValueError):
        # An older Pillow, or an image of several pieces, as those beyond 16 MB are.
        pixels = image.tobytes("raw", raw_mode)
    frombytes = sys.modules["PIL.Image"].frombytes
    buffer = pickle.PickleBuffer(pixels)
    return _image, (frombytes, image.mode, image.size, buffer, raw_mode, image.info)


def _image(
    frombytes: Any, mode: str, size: tuple[int, int], pixels: Any, raw_mode: str, info: Any
) -> Any:
    image = frombytes(mode, size, memoryview(pixels), "raw", raw_mode)
    image.info = info
    return image


class _Array(ctypes.Structure):
    """`ArrowArray` of the Arrow C data interface, as Pillow shows an image.

    https://arrow.apache.org/docs/format/CDataInterface.html#the-arrowarray-structure
    """


_Array._fields_ = [
    ("length", ctypes.c_int64),
    ("null_count", ctypes.c_int64),
    ("offset", ctypes.c_int64),
    ("n_buffers", ctypes.c_int64),
    ("n_children", ctypes.c_int64),
    ("buffers", ctypes.POINTER(ctypes.c_void_p)),
    ("children", ctypes.POINTER(ctypes.POINTER(_Array))),
    ("dictionary", ctypes.c_void_p),
    ("release", ctypes.c_void_p),
    ("private_data", ctypes.c_void_p),
]

_pointer_in = ctypes.pythonapi.PyCapsule_GetPointer
_pointer_in.restype = ctypes.c_void_p
_pointer_in.argtypes = [ctypes.py_object, ctypes.c_char_p]


class _Pixels:
    """The memory of an image, to make an array of; it is Pillow's, and not to be written to.

    Raises:
        AttributeError: this Pillow shows no memory.
        ValueError: the image has none in one piece, or this Pillow does not tell.
    """

    def __init__(self, image: Any) -> None:
        if _version() < _TELLS_PIECES:
            raise ValueError("this Pillow does not tell whether an image lies in one piece")
        # Both are kept: the memory goes with the last of them.
        self._image = image
        _, self._capsule = image.__arrow_c_array__()
        array = _Array.from_address(_pointer_in(self._capsule, b"arrow_array"))
        width, height = image.size
        size = width * height
        if array.n_children:
            # A list of fixed length for each pixel.
            array = array.children[0].contents
            size *= 4
        self.__array_interface__ = {
            "version": 3,
            "typestr": "|u1",
            "shape": (size,),
            "data": (array.buffers[1], True),
        }
