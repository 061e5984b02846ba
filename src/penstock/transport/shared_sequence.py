"""A sequence that a program makes of a list, so that no process holds the list itself."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar, overload

from penstock.errors import SerializationError
from penstock.transport.codec import find_culprit
from penstock.transport.packing import pack, pack_anything
from penstock.transport.shared_file import SharedFile
from penstock.transport.unpacking import stretches, unpack

T_co = TypeVar("T_co", covariant=True)


class SharedSequence(Sequence[T_co]):
    """An immutable sequence in memory that all processes of a program share.

    A dataset that holds one instead of a list has it once in memory, however many workers there
    are, and nothing is copied on the way to them, whatever the start method:

        self.paths = penstock.SharedSequence(paths)

    Strings, bytes, ints of 64 bits and floats, and tuples of those, are packed; of a list that
    holds anything else each item is pickled by itself, and unpickled whenever it is asked for. So
    each access makes a new object, in the program too, and two items are never the same object.
    Slices are lists.

    The memory is the system's again when no process refers to the sequence any more. It takes a
    descriptor, and a second one where it is read. Pickled in another way than on the way to a
    process, it takes its contents along.

    Args:
        items: any picklable objects.

    Raises:
        SerializationError: an item cannot be pickled.
        OSError: there is no memory, or no descriptor, left.
    """

    def __init__(self, items: Iterable[T_co]) -> None:
        every = items if isinstance(items, (list, tuple)) else list(items)
        self._file = SharedFile()
        packed = pack(every, self._file)
        if packed is None:
            try:
                packed = pack_anything(every, self._file)
            except (OSError, MemoryError):
                raise
            except Exception as error:
                raise SerializationError(
                    f"SharedSequence pickles its items, and {find_culprit(every, 'items')} cannot "
                    f"be pickled: {error}"
                ) from error
        self._packed = packed

    def __len__(self) -> int:
        return self._packed.length

    @property
    def nbytes(self) -> int:
        """Bytes of memory that it takes, once for all processes."""
        return self._file.size

    @overload
    def __getitem__(self, key: int) -> T_co: ...

    @overload
    def __getitem__(self, key: slice) -> list[T_co]: ...

    def __getitem__(self, key: Any) -> Any:
        length = self._packed.length
        if isinstance(key, slice):
            begin, end, step = key.indices(length)
            return [self._items.item(at) for at in range(begin, end, step)]
        try:
            at = key.__index__()
        except AttributeError:
            raise TypeError(
                f"indices of a SharedSequence are ints or slices, not {type(key).__name__}"
            ) from None
        if not -length <= at < length:
            raise IndexError(f"index {at} of a SharedSequence of {length:,} items")
        return self._items.item(at % length)

    @property
    def _items(self) -> Any:
        items = self.__dict__.get("_read")
        if items is None:
            items = self.__dict__["_read"] = unpack(self._file, self._packed)
        return items

    def __iter__(self) -> Iterator[T_co]:
        for _, some in stretches(self._items, 0, self._packed.length):
            yield from some

    def __contains__(self, value: object) -> bool:
        return any(value in some for _, some in stretches(self._items, 0, self._packed.length))

    def __copy__(self) -> SharedSequence[T_co]:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> SharedSequence[T_co]:
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {"_file": self._file, "_packed": self._packed}

    def __repr__(self) -> str:
        return f"<SharedSequence of {len(self):,} items in {self.nbytes:,} bytes>"
