"""A worker's copy of a large list, in memory that it shares with the others.

`isinstance(x, list)` says yes, and all that a list has is there. It is no subclass: code in C that
takes a subclass for a list would read the memory of a list that is empty. So it meets a sequence,
or an error, and `list(x)` makes it a list.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, MutableSequence
from typing import Any, SupportsIndex

from penstock.transport.packing import Packed
from penstock.transport.shared_file import SharedFile, is_carrying
from penstock.transport.unpacking import STRETCH, Items, stretches, unpack


class SharedList(MutableSequence[Any]):
    """A list whose items lie in shared memory until it is changed.

    Each item is made when it is asked for, so `x[0] is x[0]` may be false. At the first change it
    gets a list of its own; nobody else sees the change.

    To call the class, or `type(x)`, gives an ordinary list.
    """

    __slots__ = ("_file", "_items", "_length", "_own", "_packed")

    __hash__ = None  # type: ignore[assignment]

    _file: SharedFile
    _packed: Packed
    _items: Items
    _length: int
    _own: list[Any] | None

    def __new__(cls, items: Iterable[Any] = ()) -> list[Any]:  # type: ignore[misc]
        """An ordinary list, as `type(x)(...)` is written where `x` is one."""
        return list(items)

    @classmethod
    def over(cls, file: SharedFile, packed: Packed) -> SharedList:
        """The list that was packed into a file."""
        made = object.__new__(cls)
        made._file, made._packed = file, packed
        made._items, made._length = unpack(file, packed), packed.length
        made._own = None
        return made

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return list

    # To read.

    def __len__(self) -> int:
        return self._length if self._own is None else len(self._own)

    def __getitem__(self, key: Any) -> Any:
        if self._own is not None:
            return self._own[key]
        if isinstance(key, slice):
            begin, end, step = key.indices(self._length)
            if step == 1:
                return self._stretch(begin, end)
            return list(map(self._items.item, range(begin, end, step)))
        try:
            at = key.__index__()
        except AttributeError:
            raise TypeError(
                f"list indices must be integers or slices, not {type(key).__name__}"
            ) from None
        if at < 0:
            at += self._length
        if not 0 <= at < self._length:
            raise IndexError("list index out of range")
        return self._items.item(at)

    def _stretch(self, begin: int, end: int) -> list[Any]:
        found: list[Any] = []
        for _, some in stretches(self._items, begin, end):
            found += some
        return found

    def __iter__(self) -> Iterator[Any]:
        return _Forward(self)

    def __reversed__(self) -> Iterator[Any]:
        return _Backward(self)

    def __contains__(self, value: object) -> bool:
        if self._own is not None:
            return value in self._own
        return any(value in some for _, some in stretches(self._items, 0, self._length))

    def index(
        self, value: Any, start: SupportsIndex = 0, stop: SupportsIndex = sys.maxsize, /
    ) -> int:
        """See `list.index`."""
        if self._own is not None:
            return self._own.index(value, start, stop)
        begin, end, _ = slice(start, stop).indices(self._length)
        for at, some in stretches(self._items, begin, end):
            if value in some:
                return at + some.index(value)
        raise ValueError(f"{value!r} is not in list")

    def count(self, value: Any) -> int:
        """See `list.count`."""
        if self._own is not None:
            return self._own.count(value)
        return sum(some.count(value) for _, some in stretches(self._items, 0, self._length))

    def __repr__(self) -> str:
        return repr(_listed(self))

    def copy(self) -> list[Any]:
        """See `list.copy`: an ordinary list."""
        return self[:]  # type: ignore[no-any-return]

    # To compare, add and multiply.

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, list):
            return NotImplemented
        if len(self) != len(other):
            return False
        if self._own is not None:
            return self._own == other
        return all(
            some == other[at : at + STRETCH] for at, some in stretches(self._items, 0, self._length)
        )

    def __lt__(self, other: Any) -> Any:
        return _listed(self) < _listed(other) if isinstance(other, list) else NotImplemented

    def __le__(self, other: Any) -> Any:
        return _listed(self) <= _listed(other) if isinstance(other, list) else NotImplemented

    def __gt__(self, other: Any) -> Any:
        return _listed(self) > _listed(other) if isinstance(other, list) else NotImplemented

    def __ge__(self, other: Any) -> Any:
        return _listed(self) >= _listed(other) if isinstance(other, list) else NotImplemented

    def __add__(self, other: Any) -> list[Any]:
        made: list[Any] = _listed(self) + _listed(other)
        return made

    def __radd__(self, other: Any) -> list[Any]:
        return other + _listed(self) if isinstance(other, list) else NotImplemented

    def __mul__(self, times: SupportsIndex) -> list[Any]:
        made: list[Any] = _listed(self) * times
        return made

    def __rmul__(self, times: SupportsIndex) -> list[Any]:
        made: list[Any] = _listed(self) * times
        return made

    # To change.

    def _change(self) -> list[Any]:
        """The list of its own, which it has from here on."""
        if self._own is None:
            self._own = self._stretch(0, self._length)
        return self._own

    def __setitem__(self, key: Any, value: Any) -> None:
        self._change()[key] = _listed(value)

    def __delitem__(self, key: Any) -> None:
        del self._change()[key]

    def __iadd__(self, other: Iterable[Any]) -> SharedList:  # type: ignore[misc]
        own = self._change()
        own += _listed(other)
        return self

    def __imul__(self, times: SupportsIndex) -> SharedList:
        own = self._change()
        own *= times
        return self

    def append(self, value: Any) -> None:
        """See `list.append`."""
        self._change().append(value)

    def extend(self, values: Iterable[Any]) -> None:
        """See `list.extend`."""
        self._change().extend(_listed(values))

    def insert(self, index: SupportsIndex, value: Any) -> None:
        """See `list.insert`."""
        self._change().insert(index, value)

    def pop(self, index: SupportsIndex = -1) -> Any:
        """See `list.pop`."""
        return self._change().pop(index)

    def remove(self, value: Any) -> None:
        """See `list.remove`."""
        self._change().remove(value)

    def clear(self) -> None:
        """See `list.clear`."""
        self._change().clear()

    def reverse(self) -> None:
        """See `list.reverse`."""
        self._change().reverse()

    def sort(self, *, key: Callable[[Any], Any] | None = None, reverse: bool = False) -> None:
        """See `list.sort`."""
        self._change().sort(key=key, reverse=reverse)

    # To copy, and to send.

    def __copy__(self) -> Any:
        return SharedList.over(self._file, self._packed) if self._own is None else self._own.copy()

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._own is None:
            # Its items cannot be changed, so that they need not be copied.
            return self.__copy__()
        copied = memo[id(self)] = list[Any]()
        from copy import deepcopy

        copied.extend(deepcopy(item, memo) for item in self._own)
        return copied

    def __reduce_ex__(self, protocol: SupportsIndex) -> Any:
        if self._own is None and is_carrying():
            return SharedList.over, (self._file, self._packed)
        return list, (), None, iter(self)


def _listed(value: Any) -> Any:
    """An ordinary list in place of a shared one."""
    if type(value) is not SharedList:
        return value
    return value[:] if value._own is None else value._own


class _Forward(Iterator[Any]):
    """What `iter()` of a list has: it sees what is changed meanwhile."""

    def __init__(self, items: SharedList) -> None:
        self._items: SharedList | None = items
        self._at = 0
        # Made ahead, from `_base` on, for as long as the list is as it was packed.
        self._some: list[Any] = []
        self._base = 0

    def __next__(self) -> Any:
        items = self._items
        if items is None:
            raise StopIteration
        at = self._at
        if at >= len(items):
            self._items, self._some = None, []
            raise StopIteration
        self._at = at + 1
        if items._own is not None:
            return items._own[at]
        if not self._base <= at < self._base + len(self._some):
            self._base = at
            self._some = items._items.stretch(at, min(len(items), at + STRETCH))
        return self._some[at - self._base]

    def __length_hint__(self) -> int:
        return 0 if self._items is None else max(0, len(self._items) - self._at)

    def __setstate__(self, at: int) -> None:
        """Where to go on, as iterators of lists are pickled."""
        self._at = max(0, at)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._items is None:
            return iter, ([],)
        return iter, (self._items,), self._at


class _Backward(Iterator[Any]):
    """What `reversed()` of a list has."""

    def __init__(self, items: SharedList) -> None:
        self._items: SharedList | None = items
        self._at = len(items) - 1

    def __next__(self) -> Any:
        items = self._items
        if items is None or not 0 <= self._at < len(items):
            self._items = None
            raise StopIteration
        self._at -= 1
        return items[self._at + 1]

    def __length_hint__(self) -> int:
        return 0 if self._items is None else self._at + 1

    def __setstate__(self, at: int) -> None:
        """Where to go on, as iterators of lists are pickled."""
        if self._items is not None:
            self._at = min(max(-1, at), len(self._items) - 1)

    def __reduce__(self) -> tuple[Any, ...]:
        if self._items is None:
            return iter, ([],)
        return reversed, (self._items,), self._at
