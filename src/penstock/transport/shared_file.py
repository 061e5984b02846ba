"""A nameless file of things that are written once, and then read by many processes.

It travels beside a pickle and not in it: whoever sends the pickle sends the descriptor along. One
of three ways is taken, each when its time is there::

    in `carrying`             a number in the pickle; the sender passes the descriptors on
    a process being started   multiprocessing passes the descriptor on
    anything else             the contents, as bytes
"""

from __future__ import annotations

import mmap
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import context, reduction
from typing import Any

from penstock.transport.backing import open_backing
from penstock.transport.closing import Closing

# Numbers of eight bytes are read from it where they lie. An empty file could not be mapped.
ALIGNMENT_BYTES = 8


class SharedFile:
    """Memory that is written once, in the process that makes it.

    Holds a descriptor, and a second one in a process that has read it. Both are closed, and the
    memory is the system's again, when the last reference is gone in every process.

    Args:
        descriptor: an open file with contents; None makes one, which is empty.

    Raises:
        OSError: there is no descriptor, or no memory, left.
    """

    def __init__(self, descriptor: int | None = None) -> None:
        self.descriptor = open_backing()[0] if descriptor is None else descriptor
        self._close = Closing(self, self.descriptor)
        self._view: memoryview | None = None
        if descriptor is None:
            self.size = 0
            self.write(bytes(ALIGNMENT_BYTES))
        else:
            self.size = os.fstat(descriptor).st_size

    def write(self, data: bytes | memoryview) -> None:
        """Adds bytes at the end; an `OSError` if there is no memory for them."""
        left = memoryview(data).cast("B") if len(data) else memoryview(b"")
        while left.nbytes:
            written = os.pwrite(self.descriptor, left, self.size)
            self.size += written
            left = left[written:]

    def align(self) -> int:
        """Where the next number may be written."""
        self.write(bytes(-self.size % ALIGNMENT_BYTES))
        return self.size

    def cut(self, size: int) -> None:
        """Takes back all that was written from there on."""
        os.ftruncate(self.descriptor, size)
        self.size = size

    @property
    def memory(self) -> memoryview:
        """Its contents, which nobody can write to; mapped when they are first read."""
        if self._view is None:
            self._view = memoryview(mmap.mmap(self.descriptor, 0, access=mmap.ACCESS_READ))
        return self._view

    def __reduce__(self) -> tuple[Any, ...]:
        carried = _here.carried
        if carried is not None:
            if self not in carried:
                carried.append(self)
            return _take, (carried.index(self),)
        if context.get_spawning_popen() is not None:
            return _arrive, (reduction.DupFd(self.descriptor),)
        return _copy, (bytes(self.memory),)


class _Here(threading.local):
    """What a pickle that this thread writes, or reads, travels with."""

    carried: list[SharedFile] | None = None
    arrived: list[SharedFile] | None = None


_here = _Here()


def is_carrying() -> bool:
    """Whether what this thread pickles now travels with its shared files beside it."""
    return _here.carried is not None


@contextmanager
def carrying() -> Iterator[list[SharedFile]]:
    """Has files that are pickled within it travel beside the pickle.

    Yields:
        Those that were met so far, by their number in the pickle.
    """
    before, files = _here.carried, list[SharedFile]()
    _here.carried = files
    try:
        yield files
    finally:
        _here.carried = before


@contextmanager
def arriving(files: list[SharedFile]) -> Iterator[None]:
    """Reads a pickle that was written within `carrying`.

    Args:
        files: those that travelled with it, in their order.
    """
    before, _here.arrived = _here.arrived, files
    try:
        yield
    finally:
        _here.arrived = before


def _take(number: int) -> SharedFile:
    if _here.arrived is None:
        raise RuntimeError("a shared file has not travelled with the pickle that names it")
    return _here.arrived[number]


def _arrive(duplicate: Any) -> SharedFile:
    return SharedFile(duplicate.detach())


def _copy(contents: bytes) -> SharedFile:
    file = SharedFile()
    file.cut(0)
    file.write(contents)
    return file
