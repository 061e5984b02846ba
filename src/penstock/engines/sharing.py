"""Whether a program can reach into what its workers make samples of.

A worker has a copy of the dataset, and what the program does to its own is not seen there, but for
memory and objects that processes share: a tensor in shared memory, a `multiprocessing.Value`. A
program that sets such a thing between two epochs counts on no sample of the next being made before.
"""

from __future__ import annotations

import ctypes
import mmap
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from itertools import islice
from logging import Logger
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np
import torch

from penstock.transport.shared_file import SharedFile
from penstock.transport.shared_list import SharedList
from penstock.transport.shared_sequence import SharedSequence

_SHARED_CLASSES_OF = frozenset(
    {
        "multiprocessing.connection",
        "multiprocessing.managers",
        "multiprocessing.queues",
        "multiprocessing.shared_memory",
        "multiprocessing.sharedctypes",
        "multiprocessing.synchronize",
    }
)
# These tell nobody anything.
_LOCKS = frozenset({"Lock", "RLock"})
_CTYPES = (ctypes.Array, ctypes.Structure, ctypes.c_int.__mro__[1])
# Classes and functions of these packages name nothing of the program's.
_NOT_READ = sys.stdlib_module_names | {"numpy", "torch"}
# Shared, but not to be changed.
_FIXED = (SharedFile, SharedList, SharedSequence)
# A logger knows all others.
_PLAIN = (
    str,
    bytes,
    bytearray,
    int,
    float,
    complex,
    type(None),
    range,
    ModuleType,
    Logger,
    *_FIXED,
)
# So many entries of a collection stand for all of it, and so many objects are looked at: of what is
# larger nobody knows.
_MOST_ENTRIES = 64
_MOST_OBJECTS = 2_000


def is_reachable(*things: object) -> bool:
    """Whether something is found in these that processes share, or there is too much to look at.

    It is looked for in attributes, collections, and what functions and methods name. What samples
    are read from only when they are made, as files, is not seen.

    Args:
        things: what workers have copies of: a dataset, a collate function.
    """
    waiting: deque[object] = deque(things)
    # With the objects themselves: the number of one that is gone could become another's.
    seen: dict[int, object] = {}
    while waiting and len(seen) < _MOST_OBJECTS:
        thing = waiting.popleft()
        # By its type: a SharedList says that it is a list.
        if issubclass(type(thing), _PLAIN) or id(thing) in seen:
            continue
        seen[id(thing)] = thing
        if _is_shared(thing):
            return True
        waiting.extend(_parts(thing))
    return bool(waiting)


def _is_shared(thing: Any) -> bool:
    if isinstance(thing, torch.Tensor):
        strided = thing.layout is torch.strided
        return strided and bool(thing.is_shared())  # type: ignore[no-untyped-call]
    if isinstance(thing, np.memmap):
        return thing.mode in ("r+", "w+")
    if isinstance(thing, _CTYPES):
        # Where `RawValue` and `RawArray` keep the memory.
        return hasattr(thing, "_wrapper")
    kinds = type(thing).__mro__
    return isinstance(thing, mmap.mmap) or (
        any(str(kind.__module__) in _SHARED_CLASSES_OF for kind in kinds)
        and kinds[0].__name__ not in _LOCKS
    )


def _parts(thing: Any) -> Iterator[object]:
    """What an object holds, or names, as far as that shows."""
    if isinstance(thing, (torch.Tensor, np.memmap)):
        return
    if isinstance(thing, np.ndarray):
        base: Any = thing.base
        yield base.obj if isinstance(base, memoryview) else base
    elif isinstance(thing, Mapping):
        yield from list(islice(thing.values(), _MOST_ENTRIES))
    elif isinstance(thing, (list, tuple, set, frozenset)):
        yield from islice(thing, _MOST_ENTRIES)
    elif isinstance(thing, FunctionType):
        if _is_read(thing):
            yield from _named_by(thing)
    elif isinstance(thing, (MethodType, staticmethod, classmethod)):
        yield from (thing.__func__, getattr(thing, "__self__", None))
    elif isinstance(thing, property):
        yield thing.fget
    elif isinstance(thing, partial):
        yield from (thing.func, thing.args, thing.keywords)
    if not isinstance(thing, type) or _is_read(thing):
        yield from list(getattr(thing, "__dict__", {}).values())
    yield from filter(_is_read, type(thing).__mro__)


def _is_read(thing: Any) -> bool:
    """Whether a class or a function may name what is the program's."""
    return str(getattr(thing, "__module__", "")).partition(".")[0] not in _NOT_READ


def _named_by(function: FunctionType) -> Iterator[object]:
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:
            # Not filled yet.
            continue
    yield from function.__defaults__ or ()
    known = function.__globals__
    yield from (known[name] for name in _names_in(function.__code__) if name in known)


def _names_in(code: CodeType) -> Iterator[str]:
    yield from code.co_names
    for inner in code.co_consts:
        # Functions and comprehensions within it.
        if isinstance(inner, CodeType):
            yield from _names_in(inner)
