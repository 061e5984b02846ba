"""Large lists in a dataset, as one copy in shared memory that all workers read.

    program                                         worker
    dataset.paths ──packed, once──> SharedFile ──> dataset.paths, a SharedList
         └── stays the list that it is

A worker that only reads a list of Python objects writes to it, since it counts references: under
fork that copies page after page, and otherwise each worker has a copy from the start. The memory of
arrays and tensors has neither trouble, see `payload.py`. What a program has put into shared memory
itself is looked for in `sharing.py`.

Lists are looked for where replacing one means setting an attribute, an entry or an item, in objects
and plain containers; code of the dataset is not called. Under fork a worker has inherited all of
the dataset and puts the shared lists in their places. Otherwise they are put in place of the lists
while the dataset is pickled.
"""

from __future__ import annotations

import errno
import logging
import mmap
import operator
import weakref
from collections import deque
from collections.abc import Iterator
from itertools import islice
from types import MemberDescriptorType, ModuleType
from typing import Any, Protocol

import numpy as np
import torch

from penstock.engines.job import Job
from penstock.transport.budget import RESERVE_BYTES
from penstock.transport.memory import available_bytes
from penstock.transport.packing import Packed, pack, packed_bytes
from penstock.transport.shared_file import SharedFile
from penstock.transport.shared_list import SharedList

_log = logging.getLogger("penstock")

# A list that takes less, packed, costs a worker a few milliseconds.
LEAST_BYTES = 1 << 20
# Under fork nothing else has to travel to workers: packing a list is all that a batch waits for,
# 44 ms for a million paths. From some millions on the memory is worth that.
LEAST_FORKED_BYTES = 1 << 27
# Items from this size on are looked at one by one, whether they are the same.
_LARGE_ITEM_BYTES = 256
# Looking ends behind so many objects, 10 ms: what is large lies in few.
_MOST_OBJECTS = 10_000
# What holds more than that is no structure, it is data.
_MOST_ENTRIES = 1_000
_LEAVES = (str, bytes, bytearray, memoryview, int, float, complex, range, type(None))
_ARRAYS = (np.ndarray, torch.Tensor, SharedFile, SharedList)
_NOT_LOOKED_INTO = (*_LEAVES, *_ARRAYS, type, ModuleType, logging.Logger)

_originals: list[list[Any]] = []


class FoundList:
    """A list of the program's, and its copy in shared memory.

    Args:
        items: the program's list.
        file: where its copy is.
        packed: where in it.
        then: what was packed: the very objects, which keeps them from being others at the same
            address later.
    """

    def __init__(self, items: list[Any], file: SharedFile, packed: Packed, then: list[Any]) -> None:
        self.items = items
        self.file = file
        self.packed = packed
        self._then = then

    def is_unchanged(self) -> bool:
        """Whether the list holds what was packed."""
        if self.packed.rows or self.packed.columns[0].kind in ("int", "float"):
            # True is 1, and -0.0 is 0.0.
            same_length = len(self._then) == len(self.items)
            return same_length and all(map(operator.is_, self._then, self.items))
        return self.seems_unchanged()

    def seems_unchanged(self) -> bool:
        """Whether the list equals what was packed.

        Looks into items only where they are others, and so writes to none: processes that are
        forked go on sharing the memory of the items.
        """
        try:
            return self._then == self.items
        except Exception:
            return False

    def shared(self) -> SharedList:
        """What a worker has in place of the list."""
        return SharedList.over(self.file, self.packed)


# By the number of the program's list. What is packed serves all loaders that live at the same time,
# and the epochs of each.
_known: weakref.WeakValueDictionary[int, FoundList] = weakref.WeakValueDictionary()


class SharedLists:
    """The large lists in a job's dataset.

    Takes a descriptor, if there are any. It is closed with the last reference to a `FoundList`.

    Args:
        job: whose dataset is looked through, and left as it is.
        forks: whether workers are forked.

    Attributes:
        found: the lists, in no order.
    """

    def __init__(self, job: Job, *, forks: bool) -> None:
        self._job = job
        self._spots: list[tuple[_Spot, FoundList]] = []
        self._by_number: dict[int, FoundList] = {}
        refused: dict[int, list[Any]] = {}
        file: SharedFile | None = None
        for spot, items in large_lists(_Entry(job.__dict__, "dataset"), forks=forks):
            number = id(items)
            if number in refused:
                continue
            if number not in self._by_number:
                found = _known.get(number)
                if found is None or not found.is_unchanged():
                    found = None
                    try:
                        file = file or SharedFile()
                        _check_memory(items)
                        found = _packed_into(file, items)
                    except OSError as error:
                        _log.warning(
                            "a list in the dataset is not shared with workers: %s", str(error)
                        )
                if found is None:
                    refused[number] = items
                    continue
                self._by_number[number] = _known[number] = found
            self._spots.append((spot, self._by_number[number]))

    @property
    def found(self) -> list[FoundList]:
        """The lists, in no order."""
        return list(self._by_number.values())

    def find(self, thing: object) -> FoundList | None:
        """The list that an object is, if it is one of these."""
        found = self._by_number.get(id(thing))
        return found if found is not None and found.items is thing else None

    def arrive(self) -> Job:
        """Puts the shared lists in their places, in a process that was forked.

        Returns:
            The job, with them. A list that the program has changed since it was packed stays as
            it was inherited.
        """
        shared: dict[int, SharedList] = {}
        for found in self.found:
            # One that equals it is as good as what the workers beside this one have.
            if found.seems_unchanged():
                # Were it freed, each of its items would be written to.
                _originals.append(found.items)
                shared[id(found)] = found.shared()
        for spot, found in self._spots:
            if id(found) in shared and spot.get() is found.items:
                spot.put(shared[id(found)])
        return self._job


def _packed_into(file: SharedFile, items: list[Any]) -> FoundList | None:
    # Another thread may change the list meanwhile.
    then = items.copy()
    packed = pack(then, file)
    return None if packed is None else FoundList(items, file, packed, then)


def _check_memory(items: list[Any]) -> None:
    """An `OSError` where there is no memory for the copy: writing to it would end the program."""
    needed, left = packed_bytes(items), available_bytes() - RESERVE_BYTES
    if needed > left:
        raise OSError(errno.ENOMEM, f"it takes {needed:,} bytes, and {max(0, left):,} are left")


def _is_worth_it(items: list[Any], *, forks: bool) -> bool:
    """Whether sharing a list is likely to take less memory than leaving it to each worker."""
    size = packed_bytes(items)
    if size < (LEAST_FORKED_BYTES if forks else LEAST_BYTES):
        return False
    mean = size // len(items)
    if forks and mean > mmap.PAGESIZE:
        # A worker that reads such an item writes to the page of its count, and to no other.
        return False
    # A text that is there many times has been packed as often.
    return mean < _LARGE_ITEM_BYTES or 2 * len(set(map(id, items))) > len(items)


# Looking.


class _Spot(Protocol):
    """A place where an object is held, which can hold another."""

    def get(self) -> object:
        """What is there now; None: nothing."""

    def put(self, thing: object) -> None:
        """Has it hold something else; whatever holds it is not asked."""


class _Entry:
    """A value of a dict, such as the one of an object's attributes."""

    def __init__(self, holder: dict[Any, Any], key: Any) -> None:
        self._holder = holder
        self._key = key

    def get(self) -> object:
        return dict.get(self._holder, self._key)

    def put(self, thing: object) -> None:
        dict.__setitem__(self._holder, self._key, thing)


class _Item:
    """An item of a list."""

    def __init__(self, holder: list[Any], at: int) -> None:
        self._holder = holder
        self._at = at

    def get(self) -> object:
        within = self._at < list.__len__(self._holder)
        return list.__getitem__(self._holder, self._at) if within else None

    def put(self, thing: object) -> None:
        list.__setitem__(self._holder, self._at, thing)


class _Place:
    """A place in a tuple, which becomes another tuple."""

    def __init__(self, spot: _Spot, at: int) -> None:
        self._spot = spot
        self._at = at

    def get(self) -> object:
        whole = self._spot.get()
        if not isinstance(whole, tuple) or self._at >= tuple.__len__(whole):
            return None
        return tuple.__getitem__(whole, self._at)

    def put(self, thing: object) -> None:
        whole: Any = self._spot.get()
        parts = [*tuple.__iter__(whole)]
        parts[self._at] = thing
        self._spot.put(tuple.__new__(type(whole), parts))


class _Slot:
    """An attribute of a class with `__slots__`."""

    def __init__(self, holder: object, member: MemberDescriptorType) -> None:
        self._holder = holder
        self._member = member

    def get(self) -> object:
        try:
            return self._member.__get__(self._holder)
        except AttributeError:
            return None

    def put(self, thing: object) -> None:
        self._member.__set__(self._holder, thing)


def large_lists(root: _Spot, *, forks: bool) -> Iterator[tuple[_Spot, list[Any]]]:
    """Lists that look as if they were worth sharing, each as often as something holds it."""
    waiting = deque([root])
    # With the objects themselves, whose numbers could become others'.
    seen: dict[int, object] = {}
    budget = _MOST_OBJECTS
    while waiting and budget:
        spot = waiting.popleft()
        thing = spot.get()
        # By its type: what says of itself that it is something else may do so in code.
        if issubclass(type(thing), _NOT_LOOKED_INTO) or id(thing) in seen:
            continue
        budget -= 1
        if type(thing) is list and _is_worth_it(thing, forks=forks):
            yield spot, thing
            continue
        if not issubclass(type(thing), tuple):
            # A tuple that is held twice is another in each place.
            seen[id(thing)] = thing
        waiting.extend(_spots_in(thing, spot))


def _spots_in(thing: Any, spot: _Spot) -> Iterator[_Spot]:
    kind = type(thing)
    if issubclass(kind, dict):
        yield from (_Entry(thing, key) for key in list(islice(dict.keys(thing), _MOST_ENTRIES)))
    elif issubclass(kind, list):
        count = list.__len__(thing)
        yield from (_Item(thing, at) for at in range(count if count <= _MOST_ENTRIES else 0))
    elif issubclass(kind, tuple):
        # Others could not be made again of their items alone.
        if kind is tuple or (hasattr(kind, "_fields") and not _attributes(thing)):
            yield from (_Place(spot, at) for at in range(min(len(thing), _MOST_ENTRIES)))
        return
    attributes = _attributes(thing)
    yield from (_Entry(attributes, name) for name in list(islice(attributes, _MOST_ENTRIES)))
    for base in kind.__mro__:
        if "__slots__" in base.__dict__:
            members = list(base.__dict__.values())
            yield from (_Slot(thing, m) for m in members if type(m) is MemberDescriptorType)


def _attributes(thing: Any) -> dict[str, Any]:
    """An object's own attributes, without a word from its class."""
    try:
        found = object.__getattribute__(thing, "__dict__")
    except Exception:
        return {}
    return found if type(found) is dict else {}
