"""Reads single items, and stretches of them, where `packing` has put them."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from typing import Any, Protocol

from penstock.transport.packing import ENCODING, Column, Packed
from penstock.transport.shared_file import SharedFile

# So many items are made at once where all are wanted.
STRETCH = 1 << 10


class Items(Protocol):
    """Items in a file, each made anew whenever it is asked for."""

    def item(self, at: int) -> Any:
        """That item; `at` lies within, and is not negative."""

    def stretch(self, begin: int, end: int) -> list[Any]:
        """The items from one place to before another, both within."""


def unpack(file: SharedFile, packed: Packed) -> Items:
    """What reads a list that was packed into a file."""
    columns = [_column(file.memory, column, packed.length) for column in packed.columns]
    return _Rows(columns) if packed.rows else columns[0]


def stretches(items: Items, begin: int, end: int) -> Iterator[tuple[int, list[Any]]]:
    """All items between two places, a stretch at a time, each with its own place."""
    for at in range(begin, end, STRETCH):
        yield at, items.stretch(at, min(end, at + STRETCH))


def _column(memory: memoryview, column: Column, length: int) -> Items:
    data = memory[column.at : column.at + column.size]
    if column.kind == "int":
        return _Numbers(data.cast("q"))
    if column.kind == "float":
        return _Numbers(data.cast("d"))
    size = (length + 1) * (8 if column.wide else 4)
    ends = memory[column.ends : column.ends + size].cast("Q" if column.wide else "I")
    return {"text": _Texts, "bytes": _Bytes, "pickle": _Pickles}[column.kind](data, ends)


class _Numbers:
    def __init__(self, values: Any) -> None:
        self.item = values.__getitem__
        self._values = values

    def stretch(self, begin: int, end: int) -> list[Any]:
        found: list[Any] = self._values[begin:end].tolist()
        return found


class _Bytes:
    def __init__(self, data: memoryview, ends: memoryview) -> None:
        self._data = data
        self._ends = ends

    def item(self, at: int) -> Any:
        ends = self._ends
        return bytes(self._data[ends[at] : ends[at + 1]])

    def stretch(self, begin: int, end: int) -> list[Any]:
        return [self.item(at) for at in range(begin, end)]


class _Pickles(_Bytes):
    def item(self, at: int) -> Any:
        ends = self._ends
        return pickle.loads(self._data[ends[at] : ends[at + 1]])


class _Texts(_Bytes):
    def item(self, at: int) -> Any:
        ends = self._ends
        return str(self._data[ends[at] : ends[at + 1] - 1], *ENCODING)

    def stretch(self, begin: int, end: int) -> list[Any]:
        if begin == end:
            return []
        joined = str(self._data[self._ends[begin] : self._ends[end] - 1], *ENCODING)
        texts = joined.split("\0")
        # Unless one of them holds the very character that parts them.
        return texts if len(texts) == end - begin else super().stretch(begin, end)


class _Rows:
    def __init__(self, columns: list[Items]) -> None:
        self._columns = columns

    def item(self, at: int) -> Any:
        return tuple([column.item(at) for column in self._columns])

    def stretch(self, begin: int, end: int) -> list[Any]:
        return list(zip(*(column.stretch(begin, end) for column in self._columns), strict=True))
