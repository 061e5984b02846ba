"""A table of paths that costs a few arrays, not one Python object per path.

    path i  =  folder[folder_of[i]]  +  name[i]

Folders and names are each kept as one block of bytes with an array of offsets. A worker that
receives the table, or inherits it by fork, holds five arrays however many paths there are, and no
reference count inside them is ever touched, so their pages stay shared.
"""

from __future__ import annotations

import operator
import os
from array import array
from collections.abc import Iterable, Iterator
from typing import Any, SupportsIndex

import numpy as np
import numpy.typing as npt

from penstock.errors import OptionError

_SEPARATOR = os.fsencode(os.sep)


class PackedBytes:
    """An immutable sequence of byte strings in two arrays.

    Attributes:
        data: all strings one after the other, uint8.
        ends: where each string ends in `data`, with a leading 0; one longer than the number of
            strings; uint32 where that is wide enough, else int64.
    """

    __slots__ = ("data", "ends")

    def __init__(self, data: bytes | bytearray, ends: array[int]) -> None:
        self.data: npt.NDArray[np.uint8] = np.frombuffer(bytes(data), np.uint8)
        narrow = len(data) <= np.iinfo(np.uint32).max
        self.ends: npt.NDArray[Any] = np.array(ends, np.uint32 if narrow else np.int64)

    def __len__(self) -> int:
        return len(self.ends) - 1

    def __getitem__(self, index: int) -> bytes:
        return self.data[self.ends[index] : self.ends[index + 1]].tobytes()


class PathTable:
    """Paths by number. Iterating, indexing and `len` work as on a list of `str`.

    A path comes back exactly as it was given, as `str`. On POSIX a path may hold any bytes but
    NUL; what is not valid in the file system's encoding travels as surrogate escapes
    (`os.fsdecode`), so `open` finds the file again.

    Args:
        paths: `str`, `bytes` or `os.PathLike`; read once, one by one.

    Raises:
        OptionError: an item is not a path, is empty, or holds a NUL byte.
    """

    __slots__ = ("_folder_of", "_folders", "_names")

    def __init__(
        self, paths: Iterable[str | bytes | os.PathLike[str] | os.PathLike[bytes]]
    ) -> None:
        names, name_ends = bytearray(), array("q", [0])
        folders, folder_ends = bytearray(), array("q", [0])
        folder_of = array("q")
        number_of: dict[bytes, int] = {}
        for position, item in enumerate(paths):
            path = encode_path(item, position)
            cut = path.rfind(_SEPARATOR) + 1
            folder = path[:cut]
            number = number_of.setdefault(folder, len(number_of))
            if number == len(folder_ends) - 1:
                folders += folder
                folder_ends.append(len(folders))
            folder_of.append(number)
            names += path[cut:]
            name_ends.append(len(names))
        self._names = PackedBytes(names, name_ends)
        self._folders = PackedBytes(folders, folder_ends)
        self._folder_of: npt.NDArray[np.uint32] = np.array(folder_of, dtype=np.uint32)

    def __len__(self) -> int:
        return len(self._folder_of)

    def __getitem__(self, index: SupportsIndex) -> str:
        """Return one path.

        Raises:
            IndexError: there is no such path. Negative numbers count from the end.
        """
        number = resolve_index(index, len(self))
        return os.fsdecode(self._folders[int(self._folder_of[number])] + self._names[number])

    def __iter__(self) -> Iterator[str]:
        return (self[number] for number in range(len(self)))

    def __repr__(self) -> str:
        return f"PathTable({len(self)} paths in {len(self._folders)} folders)"


def encode_path(item: object, position: int) -> bytes:
    """Return one item of a list of paths as bytes.

    Raises:
        OptionError: as `PathTable`; the message names the item and its position.
    """
    try:
        path = os.fsencode(item)  # type: ignore[arg-type]
    except (TypeError, UnicodeEncodeError) as exc:
        raise OptionError(
            f"item {position} of source is {item!r}, which is not a path; pass paths "
            "(str, bytes or os.PathLike), and labels, if you have them, as labels="
        ) from exc
    if not path or b"\0" in path:
        fault = "holds a NUL byte" if path else "is empty"
        raise OptionError(
            f"item {position} of source is {item!r}, which {fault} and so names no file; "
            "remove it from source"
        )
    return path


def resolve_index(index: SupportsIndex, length: int) -> int:
    """Return `index` as a number from 0 to `length - 1`; negative ones count from the end.

    Raises:
        IndexError: out of range.
    """
    number = operator.index(index)
    if not -length <= number < length:
        raise IndexError(
            f"index {number} is out of range for {length} images; "
            f"expected {-length} to {length - 1}"
        )
    return number % length
