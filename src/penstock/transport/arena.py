"""The shared memory of a loader, in slots that are used again and again.

One sparse file holds all slots at fixed distances, so that a slot can grow where it is::

    0            STRIDE         2·STRIDE
    |slot 0 ....|               |slot 1 .......|          |slot 2 ..|      file offsets
     ^ pages exist only where a batch has been written

The file has no name: on Linux it is a memfd, elsewhere (or when asked for) a temporary file
that is unlinked at once. Nothing is left behind when every process is killed, and a small
/dev/shm does not matter. Workers inherit the descriptor.

The life of a slot, all in the parent, which alone owns the list of free slots::

    free ──acquire──> with a worker ──lend──> with the user ──(last view dies)──> free
                            └───────────────release──────────────────────────────^
"""

from __future__ import annotations

import mmap
import os
import tempfile
import weakref
from collections import deque
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from penstock.errors import MemoryBudgetError
from penstock.transport.memory import available_bytes

Bytes: TypeAlias = npt.NDArray[np.uint8]

# The distance between slots: an upper bound of one batch. A memfd has the whole range of
# file offsets; file systems end sooner (ext4 at 16 TiB).
MEMFD_STRIDE_BYTES = 1 << 40
FILE_STRIDE_BYTES = 1 << 34

# Slots grow in steps, so that batches a little larger than the last one find room.
GROWTH_STEP_BYTES = 1 << 20
# Below this, asking how much memory is left costs more than it can save.
CHECKED_GROWTH_BYTES = 8 << 20
# A mapping holds a descriptor, of which a process has about a thousand. In the usual case there
# are fewer slots than this, and each is mapped once.
MOST_MAPPED_SLOTS = 64
# Left to the rest of the machine when a slot grows.
RESERVE_BYTES = 64 << 20


def open_backing(*, portable: bool = False) -> tuple[int, int]:
    """Makes the nameless file.

    Args:
        portable: whether to use a temporary file where a memfd could be had.

    Returns:
        The descriptor, and the distance between slots in bytes.
    """
    if not portable and hasattr(os, "memfd_create"):
        return os.memfd_create("penstock", os.MFD_CLOEXEC), MEMFD_STRIDE_BYTES
    descriptor, path = tempfile.mkstemp(prefix="penstock-")
    os.unlink(path)
    return descriptor, FILE_STRIDE_BYTES


def grow_slot(descriptor: int, offset: int, stride: int, held: int, needed: int) -> int:
    """Gives a slot real memory, before anybody writes to it.

    Writing to a page that cannot be had ends a process with SIGBUS, and past the limit of
    the control group with SIGKILL, so the room is claimed, and an error raised, beforehand.

    Args:
        descriptor: the arena's file.
        offset: where the slot begins.
        stride: the most that it can hold.
        held: bytes it has already.
        needed: bytes it has to have.

    Returns:
        The bytes it has now.

    Raises:
        MemoryBudgetError: there is not that much.
    """
    # An eighth more than asked: batches of images differ by a few percent.
    capacity = -(-(needed + needed // 8) // GROWTH_STEP_BYTES) * GROWTH_STEP_BYTES
    if needed > stride:
        raise MemoryBudgetError(
            f"one batch needs {needed:,} bytes, and a slot holds at most {stride:,}; "
            "make the batches smaller"
        )
    capacity = min(capacity, stride)
    if capacity - held >= CHECKED_GROWTH_BYTES:
        left = available_bytes() - RESERVE_BYTES
        if capacity - held > left:
            capacity = needed
        if capacity - held > left:
            raise MemoryBudgetError(
                f"a batch needs {needed - held:,} bytes more of shared memory, and "
                f"{max(0, left):,} are left; lower batch_size, prefetch_factor or num_workers"
            )
    try:
        _allocate(descriptor, offset, capacity)
    except OSError as error:
        raise MemoryBudgetError(
            f"{capacity:,} bytes of shared memory for one batch could not be had ({error}); "
            "lower batch_size, prefetch_factor or num_workers"
        ) from error
    return capacity


def _allocate(descriptor: int, offset: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(descriptor, offset, size)
    elif os.fstat(descriptor).st_size < offset + size:  # macOS
        os.ftruncate(descriptor, offset + size)


def map_slot(descriptor: int, offset: int, size: int, *, all_at_once: bool = False) -> Bytes:
    """The first `size` bytes of a slot as an array; unmapped when its last view dies.

    Args:
        descriptor: the arena's file.
        offset: where the slot begins.
        size: bytes to map.
        all_at_once: whether to set up all pages now: it takes a third of the time
            that the faults take by which they would be set up one by one.
    """
    flags = mmap.MAP_SHARED | (getattr(mmap, "MAP_POPULATE", 0) if all_at_once else 0)
    return np.frombuffer(mmap.mmap(descriptor, size, flags=flags, offset=offset), np.uint8)


class _Slot:
    """The parent's record of one slot."""

    __slots__ = ("capacity", "guard", "memory", "seat")

    def __init__(self) -> None:
        self.capacity = 0
        self.seat = -1
        self.memory: Bytes | None = None
        self.guard: weakref.ref[Bytes] | None = None


class Arena:
    """The slots of one loader, as the parent sees them.

    Args:
        most_lent: how many slots may be in the user's hands at once.
        portable: see `open_backing`.
    """

    def __init__(self, *, most_lent: int, portable: bool = False) -> None:
        self.descriptor, self.stride = open_backing(portable=portable)
        self._most_lent = most_lent
        self._slots: list[_Slot] = []
        self._free: list[int] = []
        self._lent = 0
        self._mapped: deque[int] = deque()
        # Filled by finalizers, which may run inside the garbage collector, at any moment and in
        # any thread: appending to a deque is all that they do, and it takes no lock.
        self._came_back: deque[int] = deque()

    def acquire(self, seat: int) -> tuple[int, int]:
        """Takes a free slot for a worker, if possible one that the worker has mapped already.

        Returns:
            The slot's number and the bytes of memory it has.
        """
        self._collect()
        if not self._free:
            self._slots.append(_Slot())
            self._free.append(len(self._slots) - 1)
        number = self._free[-1]
        for candidate in self._free:
            if self._slots[candidate].seat == seat:
                number = candidate
        self._free.remove(number)
        slot = self._slots[number]
        slot.seat = seat
        return number, slot.capacity

    def release(self, number: int) -> None:
        """Takes back a slot that was not lent to the user."""
        self._free.append(number)

    def note_capacity(self, number: int, capacity: int) -> None:
        """A worker has grown the slot."""
        slot = self._slots[number]
        slot.capacity = max(slot.capacity, capacity)

    def lend(self, number: int, used: int) -> Bytes:
        """The user's view of a filled slot, which comes back by itself when its last view dies.

        While the user keeps as many slots as may be lent, a private copy is handed out in its
        place and the slot is free at once: never overwritten, never waited for.

        The slot's life hangs on the returned array, the root of all views: a finalizer on a
        tensor would fire too early, since `.detach()`, `.numpy()` or a view made under
        `inference_mode` outlive the tensor object and share only this array with it.

        Args:
            number: the slot.
            used: bytes that the batch takes.
        """
        slot = self._slots[number]
        memory = slot.memory
        if memory is None or memory.size < used:
            try:
                memory = map_slot(self.descriptor, number * self.stride, slot.capacity)
            except OSError:
                self._free.append(number)
                raise
            slot.memory = memory
            self._mapped.append(number)
            if len(self._mapped) > MOST_MAPPED_SLOTS:
                # Views keep their mapping; a slot without any is mapped again when it is used.
                self._slots[self._mapped.popleft()].memory = None
        self._collect()
        if self._lent >= self._most_lent:
            self._free.append(number)
            return memory[:used].copy()
        # A new object each time, over the mapping itself: numpy hands views the nearest base
        # that is an array, which has to be this one.
        root: Bytes = np.frombuffer(memory.base, np.uint8, count=used)  # type: ignore[arg-type]
        came_back, owner = self._came_back.append, os.getpid()

        def on_last_view_gone(_: weakref.ref[Any]) -> None:
            if os.getpid() == owner:
                came_back(number)

        slot.guard = weakref.ref(root, on_last_view_gone)
        self._lent += 1
        return root

    @property
    def lent(self) -> int:
        """Slots that are in the user's hands."""
        self._collect()
        return self._lent

    @property
    def capacity_bytes(self) -> int:
        """Shared memory that the slots have taken."""
        return sum(slot.capacity for slot in self._slots)

    def close(self) -> None:
        """Gives the memory back, save for what the user still holds."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1
        for slot in self._slots:
            slot.memory = None

    def _collect(self) -> None:
        while self._came_back:
            self._free.append(self._came_back.popleft())
            self._lent -= 1
