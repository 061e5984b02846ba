r"""Lists of values of one type ⇄ offsets and bytes, as Arrow has them.

    ["a.jpg", "bc.jpg"]   →   a.jpg\0bc.jpg\0   and   0, 6, 13
    [3, 5]                →   3, 5 in 8 bytes each

A list of tuples is one such column for each of their places. A column is packed only if each of
its values comes out as it went in, with its very type: bool is no int, a subclass of str no str.
"""

from __future__ import annotations

import operator
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import repeat
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from penstock.transport.codec import dump_by_value
from penstock.transport.shared_file import SharedFile

Kind: TypeAlias = Literal["text", "bytes", "int", "float", "pickle"]
Ends: TypeAlias = npt.NDArray[Any]

# So many values are turned into bytes at once: few enough to stay in a core's cache, which takes a
# third less time than all at once, and no memory worth mentioning.
_CHUNK = 1 << 12
_MOST_COLUMNS = 16
# Offsets below it have four bytes.
_NARROW_BYTES = 1 << 32
_KINDS: dict[type, Kind] = {str: "text", bytes: "bytes", int: "int", float: "float"}
_NUMBERS: dict[Kind, type] = {"int": np.int64, "float": np.float64}
# What a file name may hold that is no valid text has its way through UTF-8 too.
ENCODING = "utf-8", "surrogatepass"


@dataclass(frozen=True)
class Column:
    """Where the values of one type lie in a file.

    Attributes:
        kind: their type.
        at: where the first of them begins.
        size: bytes of all of them.
        ends: where their offsets are, one more than there are values; not for numbers.
        wide: whether an offset has eight bytes, and not four.
    """

    kind: Kind
    at: int
    size: int
    ends: int = 0
    wide: bool = False


@dataclass(frozen=True)
class Packed:
    """A list in a file.

    Attributes:
        length: its items.
        columns: one; or, of a list of tuples, one for each place in them.
        rows: whether it is a list of tuples.
    """

    length: int
    columns: tuple[Column, ...]
    rows: bool = False


def packed_bytes(items: Sequence[Any], looked_at: int = 64) -> int:
    """About how many bytes a list takes when it is packed; 0: it cannot be.

    Args:
        items: any list.
        looked_at: how many of its items to go by.
    """
    some = items[:: max(1, len(items) // looked_at)]
    if not some or _kind_of(some[0]) is None:
        return 0
    return sum(map(_bytes_of, some)) * len(items) // len(some)


def _bytes_of(item: Any) -> int:
    if type(item) is tuple:
        return sum(map(_bytes_of, item))
    return len(item) + 4 if type(item) in (str, bytes) else 8


def _kind_of(item: Any) -> Kind | tuple[Kind, ...] | None:
    if type(item) is not tuple:
        return _KINDS.get(type(item))
    kinds = tuple(_KINDS[type(part)] for part in item if type(part) in _KINDS)
    return kinds if 0 < len(kinds) == len(item) <= _MOST_COLUMNS else None


def pack(items: Sequence[Any], file: SharedFile) -> Packed | None:
    """Writes a list to the end of a file.

    Args:
        items: a list that nobody changes meanwhile.
        file: where to.

    Returns:
        Where it is now; None: its items are not of one type, and the file is as it was.

    Raises:
        OSError: there is no memory for it.
    """
    kinds = _kind_of(items[0]) if len(items) else None
    if kinds is None:
        return None
    before = file.size
    try:
        if isinstance(kinds, str):
            return Packed(len(items), (_column(items, kinds, file, _itself),))
        rows = len(kinds)
        width = partial(_all, rows)
        if not all(width(items[at : at + _CHUNK]) for at in range(0, len(items), _CHUNK)):
            raise _OtherwiseError
        columns = tuple(
            _column(items, kind, file, partial(map, operator.itemgetter(number)))
            for number, kind in enumerate(kinds)
        )
        return Packed(len(items), columns, rows=True)
    except (_OtherwiseError, OSError) as error:
        file.cut(before)
        if isinstance(error, OSError):
            raise
        return None


def pack_anything(items: Sequence[Any], file: SharedFile) -> Packed:
    """Writes a list of any items to the end of a file; each is pickled by itself.

    Raises:
        Exception: an item cannot be pickled.
        OSError: there is no memory for them.
    """
    return Packed(len(items), (_column(items, "pickle", file, _itself),))


class _OtherwiseError(Exception):
    """A value is not what the first one of its column is."""


def _itself(part: Sequence[Any]) -> Sequence[Any]:
    return part


def _all(width: int, part: Sequence[Any]) -> bool:
    count = len(part)
    return (
        operator.countOf(map(type, part), tuple) == count
        and operator.countOf(map(len, part), width) == count
    )


def _column(
    items: Sequence[Any], kind: Kind, file: SharedFile, chosen: Callable[[Any], Any]
) -> Column:
    encode = _ENCODERS[kind]
    numbers = kind in _NUMBERS
    ends: Ends = np.zeros(0 if numbers else len(items) + 1, np.uint32)
    begin = file.align()
    for at in range(0, len(items), _CHUNK):
        part = list(chosen(items[at : at + _CHUNK]))
        data, lengths = encode(part)
        if lengths is not None:
            so_far = file.size - begin
            if so_far + len(data) >= _NARROW_BYTES and ends.dtype == np.uint32:
                ends = ends.astype(np.uint64)
            ends[at + 1 : at + 1 + len(part)] = lengths + so_far
        file.write(data)
    size = file.size - begin
    if numbers:
        return Column(kind, begin, size)
    place = file.align()
    file.write(ends.data)
    return Column(kind, begin, size, place, ends.dtype == np.uint64)


def _check(part: list[Any], kind: type) -> None:
    if operator.countOf(map(type, part), kind) != len(part):
        raise _OtherwiseError


def _encode_text(part: list[Any]) -> tuple[bytes, Ends]:
    _check(part, str)
    data = "\0".join([*part, ""]).encode(*ENCODING)
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 0)
    if len(ends) == len(part):
        return data, ends + 1
    # Some hold the very character that parts them.
    encoded = list(map(str.encode, part, repeat(ENCODING[0]), repeat(ENCODING[1])))
    return b"\0".join([*encoded, b""]), _ends_of(encoded) + np.arange(1, len(part) + 1)


def _encode_bytes(part: list[Any]) -> tuple[bytes, Ends]:
    _check(part, bytes)
    return b"".join(part), _ends_of(part)


def _encode_pickled(part: list[Any]) -> tuple[bytes, Ends]:
    return _encode_bytes([_pickled(item) for item in part])


def _pickled(item: Any) -> bytes:
    try:
        data = pickle.dumps(item, 5)
    except (pickle.PicklingError, AttributeError, TypeError):
        return dump_by_value(item, [])
    # Workers do not have the program's main module to find a class in.
    return dump_by_value(item, []) if b"__main__" in data else data


def _encode_numbers(part: list[Any], kind: type, carrier: type) -> tuple[memoryview, None]:
    _check(part, kind)
    try:
        return np.fromiter(part, carrier, len(part)).data, None
    except OverflowError:
        # Python's ints have no end.
        raise _OtherwiseError from None


def _ends_of(part: Sequence[bytes]) -> Ends:
    return np.fromiter(map(len, part), np.int64, len(part)).cumsum()


_ENCODERS: dict[Kind, Callable[[list[Any]], tuple[Any, Ends | None]]] = {
    "text": _encode_text,
    "bytes": _encode_bytes,
    "pickle": _encode_pickled,
    "int": partial(_encode_numbers, kind=int, carrier=np.int64),
    "float": partial(_encode_numbers, kind=float, carrier=np.float64),
}
